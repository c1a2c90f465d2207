"""Keeps a part of the labels of a task in train and validation: a stratified part, nested in every larger one.

Shapes: n labelled rows of a split, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from mtl.console import counted
from mtl.data.rows.order import order
from mtl.data.types import Array, Mask, Rows
from mtl.errors import quoted

SPLITS = ("train", "validation")
"""The splits whose labels a comparison may change; those of test are never touched."""


def thinned(
    task: str,
    targets: Array,
    has_classes: bool,
    there: Mask,
    splits: Mapping[str, Rows],
    fraction: float,
    seed: int,
) -> tuple[Mask, str]:
    """Which labels of a task are left, and a line about their numbers.

    Args:
        task: the task, on whose name the choice depends; other tasks have no influence.
        targets: its encoded labels, (n_rows,) or (n_rows, O).
        has_classes: whether a target is a class or several labels; numbers have no strata.
        there: (n_rows,) whether a row has a label.
        splits: split -> its rows.
        fraction: the part that stays.
        seed: seed of the choice.
    """
    left, said = there.copy(), []
    for split in SPLITS:
        if split in splits:
            rows = splits[split][there[splits[split]]]
            stays = kept(targets[rows], has_classes, fraction, seed, f"fraction/{task}/{split}")
            left[rows] = stays
            least = " (one of each class stays)" if has_classes else " (one stays)"
            raised = least if _is_raised(targets[rows], has_classes, fraction) else ""
            said.append(f"{np.count_nonzero(stays):,} of {counted(len(rows), 'label')} of {split}{raised}")
    return left, f"task {quoted(task)}: data.label_fraction keeps {' and '.join(said)}"


def kept(targets: Array, has_classes: bool, fraction: float, seed: int, stream: str) -> Mask:
    """(n,) the labels that stay: of each class c with n_c rows the first max(1, floor(f n_c + 1/2)) of a random order.

    The order depends on neither the fraction nor the class, so that the labels of a smaller fraction are among those of
    a larger one. Numbers are one class. A row of several labels counts as the rarest label that it has; moreover each
    label keeps its first row.
    """
    n = len(targets)
    if n == 0:
        return np.zeros(0, bool)
    rank = np.empty(n, np.int64)
    rank[order(n, seed, 0, stream)] = np.arange(n)
    strata = _strata(targets) if has_classes else np.zeros(n, np.int64)
    sizes = np.bincount(strata)
    by_stratum = np.lexsort((rank, strata))
    place = np.empty(n, np.int64)
    place[by_stratum] = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    stays: Mask = place < np.maximum(1, np.floor(fraction * sizes + 0.5))[strata]
    if has_classes and targets.ndim == 2:
        in_order = np.argsort(rank)
        has = targets[in_order] == 1
        stays[in_order[has.argmax(axis=0)[has.any(axis=0)]]] = True
    return stays


def _is_raised(targets: Array, has_classes: bool, fraction: float) -> bool:
    """Whether a class would have no label by the fraction alone."""
    sizes = np.bincount(_strata(targets)) if has_classes else np.array([len(targets)])
    return bool((np.floor(fraction * sizes[sizes > 0] + 0.5) < 1).any())


def _strata(targets: Array) -> npt.NDArray[np.int64]:
    """(n,) the class of each row; of several labels the rarest that it has, or none."""
    if targets.ndim == 1:
        return np.unique(targets, return_inverse=True)[1].astype(np.int64)
    has = targets == 1
    has = has[:, np.argsort(np.count_nonzero(has, axis=0), kind="stable")]
    strata: npt.NDArray[np.int64] = np.where(has.any(axis=1), has.argmax(axis=1), has.shape[1])
    return strata
