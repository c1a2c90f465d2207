"""An array of Python objects, which numpy pickles."""

import numpy as np

np.savez("data.npz", inputs=np.ones((8, 3)), label=np.array([{1}] * 8, dtype=object))
