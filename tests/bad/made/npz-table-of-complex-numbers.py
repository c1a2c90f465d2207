"""A label column of complex numbers."""

import numpy as np

np.savez("data.npz", x=np.arange(8.0), label=np.zeros(8, complex))
