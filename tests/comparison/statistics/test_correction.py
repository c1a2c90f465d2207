"""The corrections for many tasks against scipy, and against the definition written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mtl.comparison.statistics.correction import benjamini_hochberg, corrected, holm, name_of_correction


def holm_by_steps(p: list[float], alpha: float) -> set[int]:
    """Holm's procedure as he states it: reject in ascending order until one p exceeds alpha / (those left)."""
    rejected: set[int] = set()
    for i, task in enumerate(np.argsort(p)):
        if p[task] > alpha / (len(p) - i):
            break
        rejected.add(int(task))
    return rejected


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_the_step_down_procedure(seed: int) -> None:
    p = np.random.default_rng(seed).random(8) ** 4
    for alpha in (0.001, 0.01, 0.05, 0.2):
        assert set(np.flatnonzero(holm(p) <= alpha).tolist()) == holm_by_steps(p.tolist(), alpha)


def test_holm_on_numbers_done_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.7])) == pytest.approx([1, 1])


@pytest.mark.parametrize("seed", range(5))
def test_benjamini_hochberg_is_that_of_scipy(seed: int) -> None:
    p = np.random.default_rng(seed).random((3, 15)) ** 3
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p, axis=-1, method="bh"))


def test_holm_up_to_ten_tasks_and_benjamini_hochberg_beyond() -> None:
    p = [0.001 * (i + 1) for i in range(10)]
    assert corrected(p) == pytest.approx(holm(np.array(p)))
    assert corrected([*p, 0.5]) == pytest.approx(stats.false_discovery_control([*p, 0.5]))
    assert (name_of_correction(10), name_of_correction(11)) == ("Holm", "Benjamini-Hochberg")
    assert corrected([]) == []


def test_every_candidate_arm_counts() -> None:
    assert corrected([0.01, 0.02], n_arms=3) == pytest.approx([0.06, 0.06])
    assert corrected([0.5], n_arms=3) == [1.0]
