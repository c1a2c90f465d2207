"""A value that is missing in a row to predict."""

import numpy as np

from tests.support.bad_files import run_on_arrays

run_on_arrays()
np.savez("new.npz", inputs=np.array([[1, 2, 3], [1, np.nan, 3]]))
