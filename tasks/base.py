"""What the kinds of tasks have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import UserError, did_you_mean, quoted
from mtl.recipe.spec import TaskSpec

if TYPE_CHECKING:
    from torch import Tensor

    from mtl.data.columns import Array, Header


def named_labels(task: TaskSpec, column: str, header: Header) -> tuple[tuple[str, ...] | None, bool]:
    """The names of a label column's classes, if known, and whether they are its own values.

    Raises:
        UserError: there is no such column.
    """
    if column not in header.labels:
        known = header.columns or tuple(header.labels)
        shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
        raise UserError(
            "",
            f"no label column {quoted(column)}{did_you_mean(column, known)}; columns: {shown}",
            path=("target",),
        )
    return header.labels[column], column in header.text


def balanced_weights(targets: Array, n_classes: int) -> tuple[float, ...]:
    """n / (C * count of the class), as in scikit-learn; 0 for a class that no row has.

    Source: King and Zeng 2001, "Logistic regression in rare events data".
    """
    counts = np.bincount(targets.astype(np.int64), minlength=n_classes)[:n_classes]
    present = np.count_nonzero(counts)
    return tuple(len(targets) / (present * c) if c else 0.0 for c in counts.tolist())


def class_columns(p_BO: Tensor, classes: Sequence[str]) -> dict[str, Array | list[Any]]:
    """The most probable class, and the probability of each."""
    names = np.array(classes, dtype=object)
    columns: dict[str, Array | list[Any]] = {"": names[p_BO.argmax(-1).cpu().numpy()]}
    p = p_BO.float().cpu().numpy()
    columns.update({f"_p_{name}": p[:, o] for o, name in enumerate(classes)})
    return columns
