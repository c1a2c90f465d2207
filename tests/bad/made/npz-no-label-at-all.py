"""Labels that are all missing."""

import numpy as np

np.savez("data.npz", inputs=np.ones((8, 3)), label=np.full(8, np.nan))
