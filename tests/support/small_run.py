"""A run of two tasks that was interrupted after two of its four epochs, as this release makes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import mtl
from mtl.training.events import EpochEnded
from tests.support.listening import Watching

RECIPE: dict[str, Any] = {
    "schema_version": 1,
    "name": "small",
    "seed": 5,
    "data": {
        "source": {
            "kind": "synthetic",
            "tasks": 2,
            "rows": 40,
            "test_rows": 10,
            "features": 8,
            "latent": 4,
            "classes": 2,
        }
    },
    "tasks": {name: {"kind": "multiclass", "target": target} for name, target in (("a", "task0"), ("b", "task1"))},
    "model": {
        "backbone": {"kind": "layers", "stages": [{"name": "fc1", "kind": "linear", "features": 4}]},
        "sharing": {"kind": "cross_stitch", "after": ["fc1"]},
        "head": {"dropout": 0.1},
    },
    "optimizer": {"kind": "adam", "lr": 0.01},
    "train": {"epochs": 4, "batch_size": 10, "threads": 1, "device": "cpu"},
}  # fmt: skip
STEPS = (4, 8)
"""Where it has checkpoints; to its end it would take 16 steps."""


class _Interrupt(Watching):
    def epoch_ended(self, event: EpochEnded) -> None:
        if self.trainer.progress.epoch == 2:
            raise KeyboardInterrupt


def make_small_run(path: Path) -> Path:
    """Train it in a new folder."""
    with pytest.raises(KeyboardInterrupt):
        mtl.run(RECIPE, out=path, listeners=(_Interrupt(),))
    return path
