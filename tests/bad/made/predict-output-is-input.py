"""The input as output."""

import contextlib

import numpy as np

import mtl

RECIPE = {
    "schema_version": 1,
    "name": "bad",
    "data": {"source": {"kind": "npz", "path": "data.npz"}, "split": {"test": 0.25}},
    "tasks": {"it": {"kind": "multiclass", "target": "label"}},
    "model": {"backbone": {"kind": "layers", "stages": [{"name": "fc1", "kind": "linear", "features": 4}]}},
    "optimizer": {"kind": "sgd", "lr": 0.1},
    "train": {"epochs": 1, "batch_size": 4, "device": "cpu"},
}
np.savez("data.npz", inputs=np.ones((8, 3)), label=np.arange(8) % 2)
with contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
    mtl.run(mtl.load_recipe(RECIPE), out="run")
np.savez("new.npz", inputs=np.ones((4, 3)))
