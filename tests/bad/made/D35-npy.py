"""A single array of Python objects."""

from pathlib import Path

import numpy as np

np.save("data.npy", np.array([{1}], dtype=object), allow_pickle=True)
Path("data.npy").rename("data.npz")
