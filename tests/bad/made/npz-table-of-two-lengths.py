"""Two columns of a table of arrays have other lengths."""

import numpy as np

np.savez("data.npz", x=np.arange(8.0), label=np.arange(7) % 2)
