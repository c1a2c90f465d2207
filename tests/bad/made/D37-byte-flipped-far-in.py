"""A flipped byte far behind the header of an array."""

from pathlib import Path

import numpy as np

inputs = np.zeros((8, 10_000))
inputs[4, 5000] = 7
np.savez("data.npz", inputs=inputs, label=np.arange(8) % 2)
data = bytearray(Path("data.npz").read_bytes())
data[data.index(np.float64(7).tobytes()) + 3] ^= 1
Path("data.npz").write_bytes(data)
