"""A weight that is no number."""

import numpy as np

np.savez("data.npz", inputs=np.ones((8, 3)), label=np.arange(8) % 2, w=np.array(["1", "2", "three", "4"] * 2))
