"""What the class of one task says of that of another, as `derived_from` gives it or as the training rows show it.

Shapes: C classes of the other task, O classes of the task itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtl.console import counted
from mtl.data.columns.spelling import Known
from mtl.data.types import Rows
from mtl.dataset.labels import TaskLabels
from mtl.errors import UserError, did_you_mean, gathered, quoted, raise_all
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.task_spec import Derived

SHOWN = 5


@dataclass(frozen=True)
class Derivation:
    """How the probabilities of one task's classes follow from those of another task.

    Args:
        of: the other task.
        shares: (C, O) the probability of each class of this task, given the class of the other one.
    """

    of: str
    shares: npt.NDArray[np.float64]


def derivations(
    recipe: Recipe, tasks: Mapping[str, TaskLabels], train: Rows
) -> tuple[dict[str, Derivation], list[str]]:
    """The derivation of each task that has a `derived_from`, and a line about each mapping that the rows contradict.

    Raises:
        UserError: a mapping names no class, leaves one out, or is not given although the training rows do not tell it.
    """
    found, notices = {}, []
    faults: list[UserError] = []
    for task, spec in recipe.tasks.items():
        if spec.derives_from is None:
            continue
        with gathered(faults), recipe.at("tasks", task, "derived_from"):
            own, other = tasks[task], tasks[spec.derives_from]
            counts = _counts(own, other, train)
            mapping = spec.derived_from.mapping if isinstance(spec.derived_from, Derived) else None
            if mapping is None:
                shares = _learned(spec.derives_from, own, other, counts, train)
            else:
                shares = _given(spec.derives_from, mapping, own.outputs, other.outputs)
                off = int(counts[shares == 0].sum())
                if off:
                    n = counted(int(counts.sum()), "training row")
                    said = f"derived_from.mapping is wrong in {off:,} of {n} with both labels"
                    notices.append(f"task {quoted(task)}: {said}")
            found[task] = Derivation(spec.derives_from, shares)
    raise_all(faults)
    return found, notices


def _counts(own: TaskLabels, other: TaskLabels, train: Rows) -> npt.NDArray[np.int64]:
    """(C, O) the training rows of each pair of classes."""
    rows = train[own.present[train] & other.present[train]]
    n_own, n_other = len(own.outputs), len(other.outputs)
    joint = other.targets[rows].astype(np.int64) * n_own + own.targets[rows].astype(np.int64)
    return np.bincount(joint, minlength=n_other * n_own).reshape(n_other, n_own)


def _learned(
    of: str, own: TaskLabels, other: TaskLabels, counts: npt.NDArray[np.int64], train: Rows
) -> npt.NDArray[np.float64]:
    """The shares that the training rows show; a class without a row that has both labels says nothing.

    Such a class stands for each class of the task with the share that this one has in train.
    """
    several = np.flatnonzero(np.count_nonzero(counts, axis=1) > 1)
    if several.size:
        c = int(several[0])
        both = [own.outputs[i] for i in np.argsort(-counts[c], kind="stable")[:2].tolist()]
        raise UserError(
            "",
            f"class {quoted(other.outputs[c])} of task {quoted(of)} goes with {quoted(both[0])} and with "
            f"{quoted(both[1])} in train",
            "say by `mapping` which one it stands for, or remove this key",
        )
    rows = train[own.present[train]]
    prior = np.bincount(own.targets[rows].astype(np.int64), minlength=len(own.outputs)) / len(rows)
    n_C = counts.sum(axis=1, keepdims=True)
    shares: npt.NDArray[np.float64] = np.where(n_C > 0, counts / np.maximum(n_C, 1), prior)
    return shares


def _given(
    of: str, mapping: Mapping[str, str], outputs: Sequence[str], others: Sequence[str]
) -> npt.NDArray[np.float64]:
    """The shares that a mapping of all classes gives, each 0 or 1."""
    shares = np.zeros((len(others), len(outputs)))
    for name, stands_for in mapping.items():
        c = _place(name, others, f"of task {quoted(of)}", name)
        shares[c, _place(stands_for, outputs, "of this task", name)] = 1
    left = [quoted(name) for name, row in zip(others, shares, strict=True) if not row.any()]
    if left:
        more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        what = f"{', '.join(left[:SHOWN])}{more} of task {quoted(of)} {'is' if len(left) == 1 else 'are'} left out"
        raise UserError("", what, "give each class, or remove `mapping` to learn it", path=("mapping",))
    twice = np.flatnonzero(shares.sum(axis=1) > 1)
    if twice.size:
        what = f"class {quoted(others[int(twice[0])])} of task {quoted(of)} is given in two spellings"
        raise UserError("", what, path=("mapping",))
    return shares


def _place(name: str, classes: Sequence[str], whose: str, key: str) -> int:
    found = Known(classes).find(name)
    if found is None:
        shown = ", ".join(map(quoted, classes[:SHOWN])) + (", ..." if len(classes) > SHOWN else "")
        what = f"no class {quoted(name)} {whose}{did_you_mean(name, classes)}; classes: {shown}"
        raise UserError("", what, path=("mapping", key))
    return found
