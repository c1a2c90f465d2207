"""Finds rows that are exact copies of others."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, prod

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.special import gammainc

from mtl.data.files.table import TableFile
from mtl.starter.look.columns import SEEN_ROWS, first_rows

CELLS = 10_000_000
"""Most cells that are compared; a table with more columns is compared on fewer rows."""
CHANCE = 3.0
"""Most pairs of equal rows, against those of independent columns, that are taken for chance."""
RARE = 0.01
"""Largest probability of so many pairs of equal rows that are not taken for chance."""
Codes = npt.NDArray[np.int64]


def copies(file: TableFile) -> int:
    """The number of rows, among those that are compared, that equal an earlier row in each column."""
    names = file.column_names
    most = min(SEEN_ROWS, max(1, CELLS // len(names)))
    parts: dict[str, list[pa.Array]] = {name: [] for name in names}
    for _, batch in first_rows(file, names, most):
        for name in names:
            parts[name].append(batch.column(name))
    n = min(most, file.n_rows)
    rows = first_of_each([_codes(pa.chunked_array(parts.pop(name)).slice(0, n)) for name in names])
    return n - len(rows)


def _codes(column: pa.ChunkedArray) -> Codes:
    """(n,) the number of each row's value; -1 for a missing one."""
    array = column.combine_chunks()
    if pa.types.is_nested(array.type):
        array = pa.array([None if value is None else repr(value) for value in array.to_pylist()], pa.string())
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    codes: Codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def first_of_each(columns: Sequence[Codes]) -> npt.NDArray[np.int64]:
    """The first of each set of equal rows, in order; every row if rows may well be equal by chance.

    They may if the columns have no more combinations of values than rows. Else independent columns would have m pairs
    of equal rows in the mean: n (n - 1) / 2 times the product of each column's share of equal pairs. Equal rows are
    copies if there are more than 3 m pairs, and so many with a probability below 1% according to Poisson.

    Args:
        columns: (n,) the codes of each column's values, from -1.
    """
    n = len(columns[0])
    rows, first = np.zeros(n, np.int64), np.arange(n)
    for codes in columns:
        joined = rows * (int(codes.max()) + 2) + codes + 1
        _, first, rows = np.unique(joined, return_index=True, return_inverse=True)
        if len(first) == n:
            return np.arange(n)
    if sum(log(len(np.unique(codes))) for codes in columns) <= log(n):
        return np.arange(n)
    by_chance = _pairs(np.zeros(n, np.int64)) * prod(_pairs(codes) / (n * (n - 1) / 2) for codes in columns)
    pairs = _pairs(rows)
    copied = pairs > CHANCE * by_chance and gammainc(pairs, by_chance) < RARE
    return np.sort(first) if copied else np.arange(n)


def _pairs(codes: Codes) -> float:
    """The number of pairs of rows with the same value."""
    counts = np.unique(codes, return_counts=True)[1]
    return float((counts * (counts - 1) / 2).sum())
