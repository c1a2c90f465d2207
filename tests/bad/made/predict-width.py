"""Rows to predict of another width."""

import numpy as np

from tests.support.bad_files import run_on_arrays

run_on_arrays()
np.savez("new.npz", inputs=np.ones((4, 2)))
