"""Turns the input columns of a table into one matrix of numbers, and learns their scales from the training rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from mtl.data.columns.dates import date_parts
from mtl.data.columns.numbers import MISSING, numbers
from mtl.data.columns.spelling import Known
from mtl.data.columns.times import times
from mtl.data.columns.unseen import Unseen
from mtl.data.columns.values import texts, vectors
from mtl.data.files.table import Table
from mtl.data.learned import Float32
from mtl.data.types import DATE_PARTS, Layout, Rows
from mtl.errors import UserError, quoted

if TYPE_CHECKING:
    import pyarrow as pa

REMEMBERED = 1_000_000
"""Most texts of a column whose codes are remembered between two batches."""
INPUT_OF_TEXT = f"{MISSING}; a column of text belongs in inputs.categorical"
CHUNK = 1 << 20
"""Values held in float64 at once (8 MB)."""


class Coder(Protocol):
    """Turns texts into codes 0, 1, ...; null becomes -1."""

    def add(self, array: pa.StringArray) -> npt.NDArray[np.int32]:
        """(n,) the code of each text; -1 for null."""


class KnownCodes:
    """Codes of a fixed list of values; any other value gets -1, as a missing one does.

    Args:
        values: the values.
        unseen: counts the values that are not among them.
    """

    def __init__(self, values: tuple[str, ...], unseen: Unseen) -> None:
        self.known, self.unseen = Known(values), unseen
        self.codes: dict[str, int] = {}

    def add(self, array: pa.StringArray) -> npt.NDArray[np.int32]:
        """(n,) the position of each text among the values."""
        encoded = array.dictionary_encode()
        distinct = encoded.dictionary.to_pylist()
        for text in distinct:
            if text not in self.codes:
                found = self.known.find(text)
                self.codes[text] = -1 if found is None else found
        lookup = np.array([*(self.codes[text] for text in distinct), -1], dtype=np.int32)
        where = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        self.unseen.count(distinct, np.bincount(where + 1, minlength=len(lookup))[1:], lookup[:-1] < 0)
        if len(self.codes) > REMEMBERED:
            self.codes.clear()
        codes: npt.NDArray[np.int32] = lookup[where]
        return codes


def input_block(
    file: Table,
    batch: pa.RecordBatch,
    first: int,
    layout: Layout,
    coders: Mapping[str, Coder],
    out: Float32,
) -> None:
    """Fill `out`, (n, layout.width), with the rows of one batch; a missing number is NaN, a missing category 0.

    Raises:
        UserError: a value does not fit its column; the message names the row.
    """
    with np.errstate(over="ignore"):
        for i, name in enumerate(layout.numeric):
            out[:, i] = numbers(file, name, first, batch.column(name), INPUT_OF_TEXT)
    at = len(layout.numeric)
    for name, width in layout.vectors.items():
        out[:, at : at + width] = vectors(file, name, first, batch.column(name), width)
        at += width
    if np.isinf(out[:, :at]).any():
        row, i = np.argwhere(np.isinf(out[:, :at]))[0]
        raise UserError(
            file.where(layout.numeric_name(int(i)), first + int(row)),
            "the number is too large for float32",
            "scale the column down",
        )
    for name in layout.dates:
        seconds = times(file, name, first, batch.column(name), dates=True)
        out[:, at : at + len(DATE_PARTS)] = date_parts(seconds)
        at += len(DATE_PARTS)
    for i, name in enumerate(layout.categorical):
        out[:, at + i] = coders[name].add(texts(file, name, first, batch.column(name))) + 1


def fit_layout(
    inputs: Float32, layout: Layout, train: Rows, used: Rows, scale: bool, place: object
) -> tuple[Layout, Float32, Float32, Float32, tuple[int, ...]]:
    """Learn from the training rows of a raw matrix, and renumber its categories in place.

    The values of a category that occur in training rows get the codes 1, 2, ... in their stable order. Any other
    value gets 0, as an unknown value does in prediction.

    Args:
        inputs: (n, layout.width) raw rows.
        layout: the layout with the values of all rows.
        train: the training rows.
        used: the rows of all splits.
        scale: whether numbers are standardized.
        place: row number -> its name in messages.

    Returns:
        The layout with the values of the training rows; mean, std and fill of each number; and the positions of
        the numbers that have an indicator.

    Raises:
        UserError: a number is missing and `missing` is error, or no training row has a number.
    """
    n = layout.n_numeric
    if layout.missing == "error":
        _refuse_missing(inputs, layout, used, place)
    count, mean, std = _moments(inputs[:, :n], train)
    empty = np.flatnonzero(count == 0)
    if empty.size:
        name = layout.numeric_name(int(empty[0]))
        raise UserError(
            "", f"column {quoted(name)} has no number in any training row", "leave it out of the inputs"
        )
    fill = mean
    if layout.missing == "median":
        fill = np.array([np.nanmedian(inputs[train, i]) for i in range(n)])
    indicators = tuple(np.flatnonzero(count < len(train)).tolist()) if layout.indicator else ()
    values = {}
    for i, name in enumerate(layout.categorical):
        column = inputs[:, n + i]
        known = layout.values[name]
        seen = np.bincount(column[train].astype(np.int64), minlength=len(known) + 1)[1:] > 0
        renumbered = np.zeros(len(known) + 1, np.float32)
        renumbered[1:][seen] = np.arange(1, np.count_nonzero(seen) + 1)
        column[:] = renumbered[column.astype(np.int64)]
        values[name] = tuple(value for value, there in zip(known, seen.tolist(), strict=True) if there)
        if not values[name]:
            raise UserError(
                "", f"column {quoted(name)} has no value in any training row", "leave it out of the inputs"
            )
    if not scale:
        mean, std = np.zeros(n), np.ones(n)
    mean32, std32, fill32 = (part.astype(np.float32) for part in (mean, std, fill))
    std32[std32 == 0] = 1  # float32 rounds a very small deviation to 0
    return replace(layout, values=values), mean32, std32, fill32, indicators


def _refuse_missing(inputs: Float32, layout: Layout, used: Rows, place: object) -> None:
    n = layout.n_numeric
    step = max(1, CHUNK // max(1, n))
    for at in range(0, len(used), step):
        part = used[at : at + step]
        lacking = np.isnan(inputs[part, :n])
        if lacking.any():
            row, i = np.argwhere(lacking)[0]
            where = place(int(part[row])) if callable(place) else f"row {int(part[row])}"
            raise UserError(
                f"{where}, column {quoted(layout.numeric_name(int(i)))}",
                "the value is missing",
                "set inputs.missing: mean or median to fill it, or fill the file",
            )


def _moments(
    inputs: Float32, rows: Rows
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Count, mean and standard deviation of each column, without missing values; a constant gets the deviation 1."""
    width = inputs.shape[1]
    count = np.zeros(width, np.int64)
    mean, squares = np.zeros(width), np.zeros(width)
    step = max(1, CHUNK // max(1, width))
    for at in range(0, len(rows), step):
        x = inputs[rows[at : at + step]].astype(np.float64)
        there = ~np.isnan(x)
        n = there.sum(0)
        part_mean = np.where(there, x, 0.0).sum(0) / np.maximum(n, 1)
        deviation = np.where(there, x - part_mean, 0.0)
        total = np.maximum(count + n, 1)
        gap = part_mean - mean
        squares += (deviation**2).sum(0) + gap**2 * (count * n / total)
        mean += gap * (n / total)
        count += n
    std = np.sqrt(squares / np.maximum(count, 1))
    # a constant has a deviation of exactly 0, because up to 2^29 equal float32 numbers add up without rounding
    return count, mean, np.where(std == 0, 1.0, std)
