"""A label of bytes that are no UTF-8 text."""

import numpy as np

np.savez("data.npz", inputs=np.ones((8, 3)), label=np.array([b"a", b"\xff"] * 4))
