"""A label beyond 2^63."""

import numpy as np

np.savez("data.npz", inputs=np.ones((8, 3)), label=np.arange(8, dtype=np.uint64) + np.uint64(2**63))
