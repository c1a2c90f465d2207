"""A quantity that is text."""

import numpy as np

np.savez("data.npz", inputs=np.ones((8, 3)), label=np.array(list("abababab")))
