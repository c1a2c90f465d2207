"""The inputs have another name."""

import numpy as np

np.savez("data.npz", inputs=np.ones((8, 3)), label=np.arange(8) % 2, input=1)
