"""The data that a source gives: inputs, raw labels by column, and splits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from mtl.errors import did_you_mean, quoted

Array = npt.NDArray[np.generic]
Names = tuple[str, ...] | None
"""The names of the codes of a label column, or None if they have no names."""
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

DIGITS = 1000
"""Texts with more digits are not ordered as whole numbers; Python refuses to read more than 4300 digits."""

DATE_PARTS = ("year", "month", "weekday", "days")
"""The numbers that a date becomes: month 1 to 12, weekday 0 (Monday) to 6, days since 1970-01-01 in fractions."""

SHOWN = 20
"""Most names of columns that a message shows."""

How = Literal["classes", "numbers", "lists", "codes", "times"]
"""How the values of a column are read: as classes, numbers, several labels per row, groups (codes), or seconds."""


Empty = Literal["none", "missing"]
"""What an empty list of labels means: none of them applies, or nobody knows which do."""


@dataclass(frozen=True)
class Wanted:
    """The columns that a recipe asks of a source, which may have many more.

    Args:
        labels: label column -> how its values are read.
        extra: further column (sample weights, groups, times, ids, the split) -> how its values are read.
        empty: column of lists -> what an empty text in it means; where it is needed but not given, it is refused.
    """

    labels: Mapping[str, How] = field(default_factory=dict)
    extra: Mapping[str, How] = field(default_factory=dict)
    empty: Mapping[str, Empty] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """The raw input row of a table: numeric columns first, then the codes of categorical ones.

    Args:
        numeric: names of the numeric columns.
        vectors: columns whose values are lists of numbers, each with its length; they follow the numeric columns.
        categorical: names of the categorical columns.
        values: categorical column -> its values in the order of their codes 1, 2, ...; empty before
            rows were read. Code 0 is any other value, or a missing one.
        missing: the rule for a missing number: an error, or the mean or median of the training rows in its place.
        indicator: whether a numeric column with missing values gets a 0/1 column that says which are missing.
        embedding: dimensions of the learned vector of a category; None for one-hot.
        dates: columns of dates; each becomes the numbers of `DATE_PARTS`, which follow the vectors.
    """

    numeric: tuple[str, ...]
    vectors: Mapping[str, int] = field(default_factory=dict)
    categorical: tuple[str, ...] = ()
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: Literal["error", "mean", "median"] = "error"
    indicator: bool = False
    embedding: int | None = None
    dates: tuple[str, ...] = ()

    @property
    def n_numeric(self) -> int:
        """Numbers in a raw row before the codes; those of vectors and dates count too."""
        return len(self.numeric) + sum(self.vectors.values()) + len(DATE_PARTS) * len(self.dates)

    @property
    def width(self) -> int:
        """Numbers in a raw row, codes included."""
        return self.n_numeric + len(self.categorical)

    def numeric_name(self, position: int) -> str:
        """The column from which a number of the raw row comes."""
        names = [*self.numeric, *(f"{v}[{i}]" for v, n in self.vectors.items() for i in range(n))]
        names += [name for name in self.dates for _ in DATE_PARTS]
        return names[position]

    @property
    def columns(self) -> list[str]:
        """The columns that a raw row is made of."""
        return [*self.numeric, *self.vectors, *self.dates, *self.categorical]


@dataclass(frozen=True)
class Header:
    """Facts about the data that are known before a row is read; they suffice to build and check a model.

    Args:
        input_shape: shape of one row's input, `(C, H, W)` or `(F,)`.
        labels: label column -> the names of its classes, where class c is the raw
            value c; None if the source does not know them.
        row_counts: rows per given split (`train`, `validation`, `test`), if known.
        note: one line that the user must see, such as that the data are generated.
        text: the label columns whose values are text; their classes are named by the values.
        layout: the layout of a table's inputs; None for inputs that are used unchanged.
        columns: every column that a task or a split may name; by default the label columns.
        by_source: for several sources, the header of each.
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
        """The header for a task that learns from one of several sources; None means from all of them."""
        return self if source is None else self.by_source.get(source, self)


def shown_columns(names: Sequence[str]) -> str:
    """Names of columns as a message shows them: the first 20."""
    shown = [name if name.isprintable() and len(name) <= 40 else quoted(name) for name in names[:SHOWN]]
    return ", ".join([*shown, *(["..."] if len(names) > SHOWN else [])])


def no_column(column: str, known: Sequence[str], called: str = "column", used: Collection[str] = ()) -> str:
    """The message on a missing column, with all known names and the nearest one that is not `used` already."""
    free = [name for name in known if name not in used]
    return f"no {called} {quoted(column)}{did_you_mean(column, free)}; columns: {shown_columns(known)}"


def stable_order(texts: Iterable[str]) -> tuple[str, ...]:
    """Texts in the order of their codes: as numbers if all are whole numbers, else by code points."""
    found = set(texts)
    if all(v.removeprefix("-").isdecimal() and v.isascii() and len(v) <= DIGITS for v in found):
        return tuple(sorted(found, key=lambda v: (int(v), v)))
    return tuple(sorted(found))


def row_number(row: int) -> str:
    """The name of a row in messages, for a source that has no better one."""
    return f"row {row}"


@dataclass(frozen=True)
class Labels:
    """One label column as it was read, or several side by side.

    Args:
        values: (n,) or (n, L) raw values; codes if `names` is given.
        present: bool of the same shape: whether there is a label.
        names: the names of the raw values 0, 1, ..., if the source knows them.
        text: whether the names are the column's own values.
        place: row number -> its name in messages.
    """

    values: Array
    present: Mask
    names: tuple[str, ...] | None = None
    text: bool = False
    place: Callable[[int], str] = row_number

    def any_present(self) -> Mask:
        """(n,) whether a row has any label."""
        if self.present.ndim == 1:
            return self.present
        return np.asarray(self.present.any(axis=1), dtype=bool)


@dataclass(frozen=True)
class Columns:
    """The data of n rows in memory.

    Args:
        inputs: (n, *input_shape), any real dtype; the dtype is that of the source (uint8 for images).
        labels: column -> (n,) raw values, or (n, L) for a column of several labels.
        present: column -> (n,) bool, only for columns in which a label may be missing.
        splits: `train`, `validation`, `test` -> row numbers, for the splits that the source gives;
            empty if it gives none.
        fingerprint: sha256 over everything above, in hex.
        ceiling: label column -> the best accuracy that any predictor can reach on the test split;
            known for generated data only.
        header: the header as it is known after rows were read; None if reading told nothing new.
        extra: further wanted column -> (n,) numbers or codes (-1: missing).
        extra_names: further column read as codes -> the names of its codes.
        units: (n,) codes; rows of one code always stay in one split.
        place: row number -> its name in messages.
        notices: facts about the data that the user should know, one line each.
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
