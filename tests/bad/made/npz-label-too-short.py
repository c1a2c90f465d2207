"""A label less than rows."""

import numpy as np

np.savez("data.npz", inputs=np.ones((8, 3)), label=np.arange(7) % 2)
