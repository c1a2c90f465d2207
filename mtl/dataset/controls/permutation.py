"""Permutes the labels of a task among rows: a control, in which the task tells nothing about the inputs.

Shapes: n labelled rows of a split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mtl.data.rows.order import order
from mtl.data.types import Rows
from mtl.dataset.controls.fraction import SPLITS
from mtl.dataset.labels import TaskLabels
from mtl.errors import quoted
from mtl.recipe.keys.data import PermuteLabels

Codes = npt.NDArray[np.int64]


def permuted(
    control: PermuteLabels, tasks: Mapping[str, TaskLabels], splits: Mapping[str, Rows], blocks: Codes | None
) -> tuple[dict[str, TaskLabels], list[str]]:
    """The labels of all tasks, those of the control's tasks permuted within train and within validation.

    Which rows have a label, the weights of rows and all that was learned from the labels stay as they are. A row of
    several labels gives them all to one other row.

    Args:
        control: the key `data.permute_labels`.
        tasks: task -> its labels.
        splits: split -> its rows.
        blocks: (n_rows,) codes of rows whose labels move together, such as those of a group; None: each by itself.

    Returns:
        The labels, and a line about each task whose labels were permuted.
    """
    found, notices = dict(tasks), []
    for task in control.tasks:
        labels = tasks[task]
        targets, said = labels.targets.copy(), []
        for split in SPLITS:
            if split in splits:
                rows = splits[split][labels.present[splits[split]]]
                own = None if blocks is None else blocks[rows]
                targets[rows] = labels.targets[rows[donors(len(rows), own, control.seed, f"{task}/{split}")]]
                differ = (targets[rows] != labels.targets[rows]).reshape(len(rows), -1).any(axis=1)
                said.append(f"{np.count_nonzero(differ):,} of {len(rows):,} in {split}")
        found[task] = replace(labels, targets=targets)
        whole = "" if blocks is None else ", those of a group together"
        notices.append(
            f"this run is a control: the labels of task {quoted(task)} are permuted (data.permute_labels, seed "
            f"{control.seed}{whole}), so that {' and '.join(said)} differ from their own"
        )
    return found, notices


def donors(n: int, blocks: Codes | None, seed: int, stream: str) -> Rows:
    """(n,) for each row the row whose label it gets: a permutation.

    Without blocks it is any permutation. With them, a block gets the labels of one other block with as many rows, in
    a random order. Blocks whose number of rows no other block has are laid end to end in a random order, and their
    labels are dealt out in that order: most labels of a block then stay together. If there is a single such block,
    those with the nearest number of rows join it.
    """
    shuffled = order(n, seed, 0, f"permute/{stream}")
    if blocks is None or n == 0:
        return shuffled
    rank = np.empty(n, np.int64)
    rank[shuffled] = np.arange(n)
    _, block = np.unique(blocks, return_inverse=True)
    strata = _strata(np.bincount(block))[block]
    turn = np.empty(int(block.max()) + 1, np.int64)
    turn[order(len(turn), seed, 0, f"permute/{stream}/blocks")] = np.arange(len(turn))
    found = np.empty(n, np.int64)
    found[np.lexsort((block, strata))] = np.lexsort((rank, turn[block], strata))
    return found


def _strata(sizes: Codes) -> Codes:
    """The number of the set of blocks among which each block is permuted; 0 for those of a size of their own."""
    alone = np.bincount(sizes)[sizes] == 1
    strata = np.where(alone, 0, sizes)
    if np.count_nonzero(alone) == 1 and len(sizes) > 1:
        own = int(sizes[alone][0])
        others = sizes[~alone]
        strata[alone] = others[np.abs(others - own).argmin()]
    return strata
