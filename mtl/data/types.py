"""What a source hands over: the inputs, the raw labels by column, and the splits it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from mtl.errors import did_you_mean, quoted

Array = npt.NDArray[np.generic]
Names = tuple[str, ...] | None
"""What the codes of a label column are called, where they have names."""
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

DIGITS = 1000
"""Most digits of a whole number that orders values: Python refuses to read those of more than 4300."""

SHOWN = 20
"""Names of columns that a message shows."""

How = Literal["classes", "numbers", "lists", "codes", "times"]
"""How the values of a column are taken: as classes, numbers, several labels a row, groups, or seconds."""


@dataclass(frozen=True)
class Wanted:
    """What a recipe asks of a source that can give many columns.

    Args:
        labels: label column -> how its values are taken.
        extra: further column (sample weights, groups, times, ids, the split) -> likewise.
    """

    labels: Mapping[str, How] = field(default_factory=dict)
    extra: Mapping[str, How] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """The raw input row of a table: numeric columns first, then the codes of categorical ones.

    Args:
        numeric: names of the numeric columns.
        vectors: columns that hold a list of numbers each, with its length; after the numeric ones.
        categorical: names of the categorical columns.
        values: categorical column -> its values in the order of their codes 1, 2, ...; empty before
            rows were read. Code 0 is any other value, a missing one included.
        missing: what stands in for a missing number: nothing (an error), or the training rows' mean or median.
        indicator: whether a numeric column with missing values gets a 0/1 column that says so.
        embedding: dimensions of the learned vector of a category; None for one-hot.
    """

    numeric: tuple[str, ...]
    vectors: Mapping[str, int] = field(default_factory=dict)
    categorical: tuple[str, ...] = ()
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: Literal["error", "mean", "median"] = "error"
    indicator: bool = False
    embedding: int | None = None

    @property
    def n_numeric(self) -> int:
        """Numbers in a raw row before the codes, those of vectors included."""
        return len(self.numeric) + sum(self.vectors.values())

    @property
    def width(self) -> int:
        """Numbers in a raw row."""
        return self.n_numeric + len(self.categorical)

    def numeric_name(self, position: int) -> str:
        """The column that a number of the raw row comes from."""
        names = [*self.numeric, *(f"{v}[{i}]" for v, n in self.vectors.items() for i in range(n))]
        return names[position]


@dataclass(frozen=True)
class Header:
    """What is known of the data before a row is read; enough to build and check a model.

    Args:
        input_shape: shape of one row's input, `(C, H, W)` or `(F,)`.
        labels: the label columns; each with the names of its classes, where class c is the raw
            value c, or None where the source does not know them.
        row_counts: rows per given split (`train`, `validation`, `test`), where known.
        note: one line the user must see, such as that the data are generated.
        text: those label columns whose values are text, so that a class is named by its value.
        layout: how the inputs of a table are laid out; None for inputs that are taken as they are.
        columns: every column that a task or a split may name; default: the label columns.
        by_source: of several sources, what is known of each.
    """

    input_shape: tuple[int, ...]
    labels: Mapping[str, tuple[str, ...] | None]
    row_counts: Mapping[str, int] = field(default_factory=dict)
    note: str = ""
    text: frozenset[str] = frozenset()
    layout: Layout | None = None
    columns: tuple[str, ...] = ()
    by_source: Mapping[str, Header] = field(default_factory=dict)

    @property
    def known(self) -> tuple[str, ...]:
        """Every column that a task or a split may name."""
        return self.columns or tuple(self.labels)

    def of(self, source: str | None) -> Header:
        """What a task sees that learns from one of several sources, or (None) from all of them."""
        return self if source is None else self.by_source.get(source, self)


def shown_columns(names: Sequence[str]) -> str:
    """Names of columns as a message shows them, the first 20 of them."""
    shown = [name if name.isprintable() and len(name) <= 40 else quoted(name) for name in names[:SHOWN]]
    return ", ".join([*shown, *(["..."] if len(names) > SHOWN else [])])


def no_column(column: str, known: Sequence[str], called: str = "column") -> str:
    """The message on a column that is not there, with the nearest name and those that are."""
    return f"no {called} {quoted(column)}{did_you_mean(column, known)}; columns: {shown_columns(known)}"


def stable_order(texts: Iterable[str]) -> tuple[str, ...]:
    """Texts in the order of their codes: as numbers where all are whole numbers, else by code points."""
    found = set(texts)
    if all(v.removeprefix("-").isdecimal() and v.isascii() and len(v) <= DIGITS for v in found):
        return tuple(sorted(found, key=lambda v: (int(v), v)))
    return tuple(sorted(found))


def row_number(row: int) -> str:
    """How a row is called where the source has no better name for it."""
    return f"row {row}"


@dataclass(frozen=True)
class Labels:
    """One label column as read, or several side by side.

    Args:
        values: (n,) or (n, L) raw values; codes where `names` is given.
        present: bool of the same shape.
        names: what the raw values 0, 1, ... are called, if the source knows.
        text: whether the names are the column's own values.
        place: row number -> what it is called in messages.
    """

    values: Array
    present: Mask
    names: tuple[str, ...] | None = None
    text: bool = False
    place: Callable[[int], str] = row_number

    def any_present(self) -> Mask:
        """(n,) whether a row has a label at all."""
        if self.present.ndim == 1:
            return self.present
        return np.asarray(self.present.any(axis=1), dtype=bool)


@dataclass(frozen=True)
class Columns:
    """The data, resident in memory, n rows.

    Args:
        inputs: (n, *input_shape), any real dtype; kept as the source stores it (uint8 for images).
        labels: column -> (n,) raw values, or (n, L) for a column of several labels.
        present: column -> (n,) bool, for those columns only in which a label may be missing.
        splits: `train`, `validation`, `test` -> row numbers, where the source gives them;
            a source without any leaves this empty.
        fingerprint: sha256 over everything above, in hex.
        ceiling: label column -> the best accuracy that any predictor can reach on the test split;
            known for generated data only.
        header: what is known now that rows were read; None: no more than before.
        extra: further columns that were asked for -> (n,) numbers or codes (-1: missing).
        extra_names: extra column read as codes -> what its codes are called.
        units: (n,) codes; rows of one code always stay on one side of a split.
        place: row number -> what it is called in messages.
        notices: what the user should know about the data, one line each.
    """

    inputs: Array
    labels: Mapping[str, Array]
    splits: Mapping[str, Rows]
    fingerprint: str
    present: Mapping[str, Mask] = field(default_factory=dict)
    ceiling: Mapping[str, float] = field(default_factory=dict)
    header: Header | None = None
    extra: Mapping[str, Array] = field(default_factory=dict)
    extra_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    units: Rows | None = None
    place: Callable[[int], str] = row_number
    notices: tuple[str, ...] = ()
