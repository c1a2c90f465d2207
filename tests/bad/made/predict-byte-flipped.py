"""A flipped byte in the rows to predict."""

from pathlib import Path

import numpy as np

from tests.support.bad_files import run_on_arrays

run_on_arrays()
np.savez("new.npz", inputs=np.full((9000, 3), 7.0))
data = bytearray(Path("new.npz").read_bytes())
data[100_000] ^= 1
Path("new.npz").write_bytes(data)
