"""One class only."""

import numpy as np

np.savez("data.npz", inputs=np.ones((8, 3)), label=np.ones(8))
