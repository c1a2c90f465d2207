"""Rows to predict without the run's array of inputs."""

import numpy as np

from tests.support.bad_files import run_on_arrays

run_on_arrays()
np.savez("new.npz", input=np.ones((4, 3)))
