"""Counts the categories at prediction that were not among the training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtl.errors import quoted


@dataclass
class Unseen:
    """The values of one categorical column that were not seen in training.

    Args:
        column: the column.
        known: a value that was seen in training.
        n_values: values so far, without missing ones.
        n_unseen: those that were not seen in training.
        example: the first of them.
    """

    column: str
    known: str
    n_values: int = 0
    n_unseen: int = 0
    example: str = ""

    def count(
        self, distinct: Sequence[str], rows: npt.NDArray[np.int64], unseen: npt.NDArray[np.bool_]
    ) -> None:
        """Count one batch: its distinct values, the rows of each, and whether each is unseen."""
        self.n_values += int(rows.sum())
        self.n_unseen += int(rows[unseen].sum())
        if not self.example and unseen.any():
            self.example = distinct[int(np.argmax(unseen))]

    @property
    def notice(self) -> str:
        """A warning if more than half of the values were not seen in training, else ""."""
        if 2 * self.n_unseen <= self.n_values:
            return ""
        return (
            f"column {quoted(self.column)}: {self.n_unseen} of {self.n_values} values, such as "
            f"{quoted(self.example)}, were not seen in training, which had {quoted(self.known)}; "
            "they count as unknown"
        )


def notices(unseen: Mapping[str, Unseen]) -> list[str]:
    """The warnings of all columns."""
    return [count.notice for count in unseen.values() if count.notice]


def trackers(values: Mapping[str, Sequence[str]]) -> dict[str, Unseen]:
    """Column -> its count, for the known values of each categorical column."""
    return {column: Unseen(column, known[0]) for column, known in values.items()}
