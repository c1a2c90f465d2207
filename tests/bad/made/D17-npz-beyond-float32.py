"""Values that float32 cannot hold."""

import numpy as np

np.savez("data.npz", inputs=np.full((8, 3), 1e300), label=np.arange(8) % 2)
