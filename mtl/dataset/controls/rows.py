"""Leaves out the rows of train and validation that have no label of any task."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mtl.console import counted
from mtl.data.types import Rows
from mtl.dataset.controls.fraction import SPLITS
from mtl.dataset.labels import TaskLabels
from mtl.errors import UserError


def labelled_only(
    splits: Mapping[str, Rows], tasks: Mapping[str, TaskLabels]
) -> tuple[dict[str, Rows], list[str]]:
    """The splits with those rows of train and validation that have a label, and a line about the others.

    Raises:
        UserError: no row of validation has one.
    """
    there = np.logical_or.reduce([labels.present for labels in tasks.values()])
    found, said = dict(splits), []
    for split in SPLITS:
        if split in splits:
            rows = splits[split]
            found[split] = rows[there[rows]]
            if not len(found[split]):
                what = f"no row of {split} has a label of any task, so that none would be left"
                raise UserError("", what, "remove this key")
            n = len(rows) - len(found[split])
            if n:
                said.append(f"{n:,} of {counted(len(rows), 'row')} of {split}")
    if not said:
        return found, []
    return found, [f"data.drop_unlabelled leaves out {' and '.join(said)}: they have no label of any task"]
