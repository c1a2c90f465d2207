"""A different number in each of 100,001 rows."""

import numpy as np

np.savez("data.npz", inputs=np.ones((100_001, 1), np.int8), label=np.arange(100_001))
