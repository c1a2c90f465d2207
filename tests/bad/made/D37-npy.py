"""A single array instead of an archive of arrays."""

from pathlib import Path

import numpy as np

np.save("data.npy", np.ones((8, 3)))
Path("data.npy").rename("data.npz")
