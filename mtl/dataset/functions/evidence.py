"""How sure it is that the values of one column are a function of those of another, and not so by chance.

Shapes: n rows.
"""

from __future__ import annotations

from math import lgamma, log

import numpy as np
import numpy.typing as npt

SURE = 15.0
"""Least evidence, in nats: labels in random order would fit a column so well once in 3 million columns."""
REPEATED = 0.9
"""Least share of rows whose value comes again, in a column whose values tell those of a label."""
COUNTED = 2**22
"""Most joint codes that are counted in an array (34 MB); more are sorted."""

SEEN = 16
"""Rows with the most frequent label, and rows with another one, in which a function is looked for first."""

Codes = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


def evidence(of: Codes, values: Codes) -> float | None:
    """The evidence in nats that `values` are a function of `of`; None if they are not, or `of` hardly repeats.

    The values would be one by chance with a probability of at most exp(-e). If n_k of n rows have the value k of K, and
    `of` has d values, then e = log(n! / prod_k n_k!) - d log K: the orders of the values, against the functions from
    the d values to K.

    Args:
        of: (n,) codes from 0, each of which a row has.
        values: (n,) likewise.
    """
    d, k = int(of.max()) + 1, int(values.max()) + 1
    if n_pairs(of, values) != d or repeated(of) < REPEATED:
        return None
    return orders(values) - d * log(k)


def refuted(columns: Values, label: Values) -> npt.NDArray[np.bool_]:
    """(C,) whether two of a few rows have the same value of a column and different labels; NaN is no value.

    Half of these rows have the most frequent label, if there are as many others, so that rare labels are among them.

    Args:
        columns: (C, n) values of each column.
        label: (n,) the label's values.
    """
    there = np.flatnonzero(~np.isnan(label))
    if not len(there):
        return np.zeros(len(columns), np.bool_)
    known, codes = np.unique(label[there], return_inverse=True)
    is_most = codes == np.bincount(codes, minlength=len(known)).argmax()
    rows = there[np.concatenate([np.flatnonzero(is_most)[:SEEN], np.flatnonzero(~is_most)[:SEEN]])]
    i, j = np.nonzero(np.triu(label[rows, None] != label[rows]))
    few = columns[:, rows]
    refutes: npt.NDArray[np.bool_] = (few[:, i] == few[:, j]).any(1)
    return refutes


def n_pairs(one: Codes, other: Codes) -> int:
    """The number of different pairs of codes that rows have."""
    d, k = int(one.max()) + 1, int(other.max()) + 1
    joint = one * k + other
    if d * k <= min(COUNTED, 64 * len(one) + 1024):
        return int(np.count_nonzero(np.bincount(joint, minlength=d * k)))
    return len(np.unique(joint))


def repeated(codes: Codes) -> float:
    """The share of rows whose value is that of another row too; a value of one row tells nothing of others."""
    counts = np.unique(codes, return_counts=True)[1]
    return float(counts[counts > 1].sum() / len(codes))


def orders(codes: Codes) -> float:
    """log(n! / prod n_k!), the log of the number of different orders of the codes."""
    counts = np.unique(codes, return_counts=True)[1]
    return lgamma(len(codes) + 1) - sum(lgamma(int(n) + 1) for n in counts)
