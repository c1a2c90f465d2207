"""p-values of many tasks, corrected for their number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtl.comparison.statistics.paired import Array

MOST_FOR_HOLM = 10
"""Up to this number of tasks no false claim is tolerated; beyond it a share of false claims is bounded."""


def holm(p: Array) -> Array:
    """p-values of m tests that bound the chance of any false claim: (..., m) -> (..., m).

    In ascending order, p~_(i) = max over j <= i of min(1, (m - j + 1) p_(j))   (Holm 1979).
    """
    m = p.shape[-1]
    order = np.argsort(p, axis=-1)
    steps = np.minimum(1.0, np.take_along_axis(p, order, -1) * np.arange(m, 0, -1))
    return _back(np.maximum.accumulate(steps, axis=-1), order)


def benjamini_hochberg(p: Array) -> Array:
    """p-values of m tests that bound the expected share of false claims among the claims: (..., m) -> (..., m).

    In ascending order, p~_(i) = min over j >= i of min(1, m p_(j) / j)   (Benjamini and Hochberg 1995).
    """
    m = p.shape[-1]
    order = np.argsort(p, axis=-1)
    steps = np.minimum(1.0, np.take_along_axis(p, order, -1) * m / np.arange(1, m + 1))
    return _back(np.minimum.accumulate(steps[..., ::-1], axis=-1)[..., ::-1], order)


def corrected(p: Sequence[float], n_arms: int = 1) -> list[float]:
    """p-values of one arm over all tasks: Holm up to ten tasks, Benjamini-Hochberg beyond.

    Args:
        p: one p-value per task; 1 for a task that allows no verdict, which still counts.
        n_arms: candidate arms that were compared with the same baseline; each p-value is multiplied by it (Bonferroni),
            because any of the arms may turn out to be the best.
    """
    each = np.minimum(1.0, np.asarray(p, dtype=np.float64) * n_arms)
    if each.size == 0:
        return []
    return [float(q) for q in (holm if each.size <= MOST_FOR_HOLM else benjamini_hochberg)(each)]


def name_of_correction(n_tasks: int) -> str:
    """The method that `corrected` uses."""
    return "Holm" if n_tasks <= MOST_FOR_HOLM else "Benjamini-Hochberg"


def _back(sorted_values: Array, order: np.ndarray[tuple[int, ...], np.dtype[np.intp]]) -> Array:
    """Sorted values in the order in which the tests came."""
    found = np.empty_like(sorted_values)
    np.put_along_axis(found, order, sorted_values, -1)
    return found
