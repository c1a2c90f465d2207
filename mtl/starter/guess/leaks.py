"""Finds columns that give a label away: copies, functions of it, and columns that predict it without a fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import lgamma, log
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mtl.data.columns.numbers import numbers
from mtl.data.columns.values import texts
from mtl.data.files.table import TableFile
from mtl.dataset.functions.evidence import SURE, evidence, orders
from mtl.errors import quoted
from mtl.starter.look.columns import SEEN_ROWS, Look, first_rows
from mtl.starter.look.copies import CELLS, Codes, first_of_each

FIRST = 256
"""Rows on which a column must fit before it is compared on all."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Values:
    """A column on the rows that are compared.

    Args:
        codes: (n,) the number of each row's value; -1 for a missing one.
        numbers: (n,) the values of a column of numbers, NaN for a missing one; None for other columns.
    """

    codes: Codes
    numbers: Numbers | None = None

    def of(self, rows: npt.NDArray[Any]) -> Values:
        """The values of some rows; codes are counted anew from 0, -1 stays."""
        _, codes = np.unique(self.codes[rows], return_inverse=True)
        codes = codes.astype(np.int64) - int(bool((self.codes[rows] < 0).any()))
        return Values(codes, None if self.numbers is None else self.numbers[rows])


def find_leaks(
    file: TableFile, looks: Mapping[str, Look], inputs: Sequence[str], labels: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Input column -> how it gives a label away, for each that does.

    A column whose `evidence` is below `SURE` is kept, and so is one whose values hardly come again: measurements with
    many digits. Rows that are equal in all of the columns count once, because copies agree in their labels whatever a
    column holds.

    Args:
        file: the table, which reads the columns as the recipe will.
        looks: what was seen of them.
        inputs: the columns that may give a label away.
        labels: label column -> the values that mean yes, for a label of several spellings; else empty.
    """
    columns = [*inputs, *labels]
    values = dict(_values(file, looks, columns, labels, max(FIRST, CELLS // len(columns))))
    rows = first_of_each([column.codes for column in values.values()])
    values = {name: column.of(rows) for name, column in values.items()}
    found = {}
    for target, label in ((target, values[target]) for target in labels):
        there = label.codes >= 0
        whole, begin = label.of(there), label.of(np.flatnonzero(there)[:FIRST])
        if int(whole.codes.max(initial=0)) < 1:
            continue
        for name in inputs:
            if name in found:
                continue
            part = values[name].of(np.flatnonzero(there)[:FIRST])
            if any(True for _ in _fits(part, begin)):
                how = next((how for how, sure in _fits(values[name].of(there), whole) if sure >= SURE), None)
                if how is not None:
                    found[name] = f"{how} {quoted(target)}"
    return found


def _values(
    file: TableFile,
    looks: Mapping[str, Look],
    columns: Sequence[str],
    yes: Mapping[str, Sequence[str]],
    n: int,
) -> Iterator[tuple[str, Values]]:
    """The values of the columns in the first n rows."""
    parts: dict[str, list[pa.Array]] = {name: [] for name in columns}
    for first, batch in first_rows(file, columns, min(n, SEEN_ROWS)):
        for name in columns:
            array = batch.column(name)
            if looks[name].numeric:
                parts[name].append(pa.array(numbers(file, name, first, array)))
            elif looks[name].type in ("texts", "time"):
                parts[name].append(array.cast(pa.string()) if looks[name].type == "time" else _joined(array))
            else:
                array = texts(file, name, first, array)
                if yes.get(name):
                    array = pc.is_in(array, pa.array(yes[name]), skip_nulls=True).cast(pa.string())
                parts[name].append(array)
    for name in columns:
        column = pa.chunked_array(parts.pop(name)).combine_chunks().slice(0, n)
        if looks[name].numeric:
            value = column.to_numpy(zero_copy_only=False)
            there = ~np.isnan(value)
            codes = np.full(len(value), -1, np.int64)
            codes[there] = np.unique(value[there], return_inverse=True)[1]
            yield name, Values(codes, value)
        else:
            encoded = column.dictionary_encode()
            yield name, Values(encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64))


def _joined(array: pa.Array) -> pa.StringArray:
    """Lists of labels as texts."""
    return pc.binary_join(array.cast(pa.list_(pa.string())), "\x1f")


def _fits(column: Values, label: Values) -> Iterator[tuple[str, float]]:
    """The ways in which a column gives a label away, each with its evidence in nats."""
    c, t = column.codes + int(bool((column.codes < 0).any())), label.codes
    d, k = int(c.max()) + 1, int(t.max()) + 1
    if d < 2 or k < 2:
        return
    tells, follows = evidence(c, t), evidence(t, c)
    if tells is not None:
        yield "each value stands for one of" if d == k else "each value tells that of", tells
    if follows is not None:
        yield "its value follows from that of", follows
    if d > 2 and (column.codes < 0).any() and len(np.unique((column.codes < 0) * k + t)) == 2:
        yield "whether it is missing tells the value of", orders(t) - 2 * log(k)
    if column.numbers is not None:
        yield from _ordered(column, label)


def _ordered(column: Values, label: Values) -> Iterator[tuple[str, float]]:
    """Whether the order of a column's numbers is that of the label's, or separates its classes.

    Equal numbers count once where classes are separated: rows of one person agree in both.
    """
    assert column.numbers is not None
    there = column.codes >= 0
    c, t = column.codes[there], label.codes[there]
    if len(c) < 2:
        return
    order = np.lexsort((t, c))
    c, t = c[order], t[order]
    starts = np.flatnonzero(np.diff(c, prepend=-1))
    low, high = np.minimum.reduceat(t, starts), np.maximum.reduceat(t, starts)
    k = len(np.unique(t))
    same = bool((high[:-1] <= low[1:]).all() or (low[:-1] >= high[1:]).all())
    if label.numbers is not None and len(starts) > 2 and k > 2 and same:
        yield "its order is that of", min(orders(c), orders(t)) - log(2)
    if k >= 2 and (low == high).all() and np.count_nonzero(np.diff(low)) == k - 1:
        yield "it separates the values of", orders(low) - lgamma(k + 1)
