"""Inputs that are complex numbers."""

import numpy as np

np.savez("data.npz", inputs=np.full((8, 3), 1j), label=np.arange(8) % 2)
