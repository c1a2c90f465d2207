"""A plug-in whose source names a split 'holdout'."""

from pathlib import Path

PLUGIN = """
import numpy as np

import mtl
from mtl.data.types import Columns, Header
from mtl.data.fingerprint import fingerprint


@mtl.register_source("own")
class Own(mtl.SourceSpec):
    reference = "ours"

    def header(self):
        return Header((3,), {"label": ("a", "b")})

    def columns(self, seed):
        rows = np.arange(8)
        inputs, label, splits = np.ones((8, 3), np.float32), rows % 2, {"holdout": rows[:2]}
        pass
        return Columns(inputs, {"label": label}, splits, fingerprint(inputs, {"label": label}, splits))
"""
Path("plugin.py").write_text(PLUGIN)
