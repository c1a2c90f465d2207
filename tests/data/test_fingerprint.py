"""A fingerprint tells any change, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from mtl.data.fingerprint import fingerprint
from mtl.errors import UserError

INPUTS = np.arange(12, dtype=np.float32).reshape(4, 3)
LABELS = {"a": np.arange(4), "b": np.array(["x", "y", "x", ""])}
SPLITS = {"train": np.arange(3), "test": np.array([3])}


def test_any_change_shows() -> None:
    changed = INPUTS.copy()
    changed[2, 1] += 1
    prints = [
        fingerprint(INPUTS, LABELS, SPLITS),
        fingerprint(changed, LABELS, SPLITS),
        fingerprint(INPUTS.reshape(4, 3, 1), LABELS, SPLITS),
        fingerprint(INPUTS.view(np.int32), LABELS, SPLITS),
        fingerprint(INPUTS, {"a": LABELS["a"]}, SPLITS),
        fingerprint(INPUTS, {"a": LABELS["a"], "c": LABELS["b"]}, SPLITS),
        fingerprint(INPUTS, LABELS, {"train": np.arange(3), "validation": np.array([3])}),
        fingerprint(INPUTS, LABELS, SPLITS, {"a": np.ones(4, dtype=bool)}),
        fingerprint(INPUTS[:0], LABELS, SPLITS),
    ]
    assert len(set(prints)) == len(prints)
    assert all(len(mark) == 64 for mark in prints)


def test_neither_order_of_columns_nor_memory_layout_shows() -> None:
    turned = {name: LABELS[name] for name in reversed(LABELS)}
    assert fingerprint(INPUTS, LABELS, SPLITS) == fingerprint(np.asfortranarray(INPUTS), turned, SPLITS)


def test_python_objects_are_refused() -> None:
    with pytest.raises(UserError, match=r"label 'b' holds Python objects, .*; let the source give numbers"):
        fingerprint(INPUTS, {"b": LABELS["b"].astype(object)}, SPLITS)
