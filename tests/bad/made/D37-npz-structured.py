"""A structured array."""

import numpy as np

np.savez("data.npz", inputs=np.ones((8, 3)), label=np.zeros(8, dtype=[("a", int), ("b", int)]))
