"""A flipped byte in the values of an array."""

from pathlib import Path

import numpy as np

np.savez("data.npz", inputs=np.full((8, 3), 7.0), label=np.arange(8) % 2)
data = bytearray(Path("data.npz").read_bytes())
data[data.index(np.float64(7).tobytes()) + 3] ^= 1
Path("data.npz").write_bytes(data)
