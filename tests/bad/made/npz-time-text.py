"""A time that is none."""

import numpy as np

np.savez("data.npz", inputs=np.ones((8, 3)), label=np.arange(8) % 2, t=np.array(["2024-01-01", "1 May"] * 4))
