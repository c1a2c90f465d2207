"""Inputs that are neither vectors nor images."""

import numpy as np

np.savez("data.npz", inputs=np.ones((8, 3, 3)), label=np.arange(8) % 2)
