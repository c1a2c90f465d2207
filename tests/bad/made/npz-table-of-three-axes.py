"""An array of three axes is no column."""

import numpy as np

np.savez("data.npz", x=np.zeros((8, 2, 2)), label=np.arange(8) % 2)
