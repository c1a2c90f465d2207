"""A small finished run, for inputs that need one."""

import contextlib

import numpy as np

import mtl
from tests.support.recipes import around, recipe


def run_on_arrays() -> None:
    """Write data.npz (8 rows of 3 inputs, and two classes) and train on it; the run is `run`. Prints nothing."""
    np.savez("data.npz", inputs=np.ones((8, 3)), label=np.arange(8) % 2)
    with contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
        mtl.run(recipe(**around({"kind": "npz", "path": "data.npz"}), train__batch_size=4), out="run")
