"""A list of columns to keep, of which one is not there."""

import numpy as np

from tests.support.bad_files import run_on_arrays

run_on_arrays()
np.savez("new.npz", inputs=np.ones((4, 3)), id=np.arange(4))
