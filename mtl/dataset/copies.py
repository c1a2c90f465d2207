"""Counts test rows that training rows repeat: exact copies over all inputs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl.data.types import Array, Rows

BLOCK = 1 << 20
"""Numbers that are hashed at once (8 MB as 64-bit integers)."""


def n_copied(inputs: Array, train: Rows, test: Rows) -> int:
    """The number of test rows whose inputs are those of a training row, missing values included.

    Rows are compared by a hash of 64 bits, of which two different rows share one with probability below 2^-32.

    Args:
        inputs: (n, ...) the raw inputs of all rows.
        train, test: row numbers.
    """
    return n_among(hashes(inputs, train), hashes(inputs, test))


def n_among(known: npt.NDArray[np.uint64], own: npt.NDArray[np.uint64]) -> int:
    """The number of hashes in `own` that `known`, which is not empty, has too."""
    known = np.unique(known)
    at = np.minimum(np.searchsorted(known, own), len(known) - 1)
    return int(np.count_nonzero(known[at] == own))


def hashes(inputs: Array, rows: Rows) -> npt.NDArray[np.uint64]:
    """(len(rows),) the multilinear hash sum_i m_i w_i mod 2^64 of the 32-bit words w of each row, with fixed random m.

    Source: Lemire and Kaser, Strongly universal string hashing is fast, 2014. Each word is mixed first, because the
    words of round floats end in zeros. -0 counts as 0, and every NaN as the same.
    """
    width = int(np.prod(inputs.shape[1:]))
    found = np.empty(len(rows), np.uint64)
    n = max(1, BLOCK // max(width, 1))
    factors: npt.NDArray[np.uint64] | None = None
    for start in range(0, len(rows), n):
        words = _words(inputs[rows[start : start + n]].reshape(-1, width))
        if factors is None:
            factors = np.random.default_rng(0).integers(0, 2**64, words.shape[1], np.uint64) | np.uint64(1)
        found[start : start + n] = words @ factors
    return found


def _words(values: Array) -> npt.NDArray[np.uint64]:
    """(n, W) the bytes of each row as words of 32 bits, or of 8 bits if a row has no whole number of them."""
    if values.dtype.kind == "f":
        values = np.add(values, 0, dtype=values.dtype)  # -0 becomes 0
        values[np.isnan(values)] = np.nan
    wide = values.shape[1] * values.dtype.itemsize % 4 == 0
    words = np.ascontiguousarray(values).view(np.uint32 if wide else np.uint8).astype(np.uint64)
    words ^= words >> np.uint64(16)
    return words
