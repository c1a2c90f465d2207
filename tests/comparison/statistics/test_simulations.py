"""Comparisons whose truth is known: how often the verdicts are wrong, and how often they are found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mtl.comparison.statistics.collapse import collapsed
from mtl.comparison.statistics.correction import benjamini_hochberg, corrected, holm
from mtl.comparison.statistics.paired import Array, Evidence, gather
from mtl.comparison.statistics.power import detectable
from mtl.comparison.statistics.verdicts import decided

N_SIMS = 4000
MOST_FALSE = 0.062
"""Of 4,000 comparisons at a level of 5%, the share of false verdicts is above this once in 3,000 times."""

Arms = tuple[Array, Array]


def normal(rng: np.random.Generator, k: int) -> Arms:
    """Seeds that both arms share make the pairs correlated."""
    shared = rng.normal(size=(N_SIMS, k))
    return shared + rng.normal(size=(N_SIMS, k)), shared + rng.normal(size=(N_SIMS, k))


def skewed(rng: np.random.Generator, k: int) -> Arms:
    """Accuracies below a ceiling, with a long tail down."""
    return -rng.gamma(1.0, size=(N_SIMS, k)), -rng.gamma(1.0, size=(N_SIMS, k))


def skewed_once(rng: np.random.Generator, k: int) -> Arms:
    """One arm has twice the noise of the other and a tail; the difference is skewed (0.7) and its mean is 0."""
    return 2 - rng.gamma(4.0, size=(N_SIMS, k)) / 2, rng.normal(size=(N_SIMS, k)) / 2


def tied(rng: np.random.Generator, k: int) -> Arms:
    """Few test rows: the metric moves in steps as large as its spread."""
    steps = np.round(rng.normal(size=(2, N_SIMS, k)) * 0.6)
    return steps[0] / 50 + 0.7, steps[1] / 50 + 0.7


def nearly_all_tied(rng: np.random.Generator, k: int) -> Arms:
    """Most seeds give the same number."""
    steps = np.round(rng.normal(size=(2, N_SIMS, k)) * 0.35)
    return steps[0] / 50 + 0.7, steps[1] / 50 + 0.7


@pytest.mark.parametrize("k", [2, 3, 5, 10])
@pytest.mark.parametrize("kind", [normal, skewed, skewed_once, tied, nearly_all_tied])
def test_equal_arms_are_rarely_called_better_or_worse(kind: Callable[..., Arms], k: int) -> None:
    found = gather(*kind(np.random.default_rng(k), k))
    verdicts = decided(found.mean, found.p, np.ones(N_SIMS))
    assert set(verdicts.tolist()) <= {"better", "worse", "cannot tell"}
    assert np.mean(verdicts != "cannot tell") <= MOST_FALSE


@pytest.mark.parametrize("constant", [None, 0.35])
@pytest.mark.parametrize("depth", [0.3, 0.1])
@pytest.mark.parametrize("k", [3, 5, 10])
def test_an_arm_that_collapses_on_a_fifth_of_the_seeds_is_no_false_verdict(
    k: int, depth: float, constant: float | None
) -> None:
    """Healthy runs have 0.7 +- 0.01; collapsed ones lose `depth`, to or towards the constant answer."""
    rng = np.random.default_rng(k)
    values = 0.7 + 0.01 * rng.normal(size=(N_SIMS, 2, k))
    fell = rng.random((N_SIMS, k)) < 0.2
    values[:, 0] -= fell * (depth if constant is None else 0.35)
    flags = collapsed(values, constant)
    found = gather(values[:, 0], values[:, 1])
    verdict_given = ~flags[:, 0].any(-1) & (found.p <= 0.05) & ~fell.all(-1)
    assert np.mean(verdict_given) <= MOST_FALSE
    assert flags[:, 1].sum() + flags[:, 0][~fell].sum() <= 0.001 * values.size


@pytest.mark.parametrize("k", [3, 5, 10])
def test_effects_of_the_size_that_the_plan_prints_are_found(k: int) -> None:
    """Three tasks, two candidate arms: the plan's effect on each task, found after both corrections."""
    rng, n_tasks, n_arms = np.random.default_rng(7), 3, 2
    effect = detectable(k, n_tasks=n_tasks, n_arms=n_arms)
    d = effect + rng.normal(size=(N_SIMS, n_tasks, k))
    found = gather(d, np.zeros((N_SIMS, n_tasks, 1)))
    adjusted = np.minimum(1, holm(np.minimum(1, found.p * n_arms)))
    assert np.mean((adjusted <= 0.05) & (found.mean > 0)) >= 0.79
    one = gather(detectable(k) + rng.normal(size=(N_SIMS, k)), np.zeros((N_SIMS, 1)))
    assert np.mean((one.p <= 0.05) & (one.mean > 0)) >= 0.785


@pytest.mark.parametrize("rows", [0.0, 0.5])
@pytest.mark.parametrize("k", [3, 5, 10])
def test_arms_that_differ_by_the_margin_are_rarely_called_equivalent(k: int, rows: float) -> None:
    rng, margin = np.random.default_rng(8), 2.5
    d = margin + rows * rng.normal(size=(N_SIMS, 1)) + rng.normal(size=(N_SIMS, k))
    found = gather(d, np.zeros((N_SIMS, 1)), np.full(N_SIMS, rows) if rows else None)
    assert np.mean(found.p_equivalent(margin) <= 0.05) <= MOST_FALSE
    near = Evidence(found.mean - margin, found.sd, k, found.rows)
    assert np.mean(near.p_equivalent(margin) <= 0.05) > np.mean(found.p_equivalent(margin) <= 0.05)


def test_one_false_verdict_among_ten_tasks_is_rare() -> None:
    rng = np.random.default_rng(9)
    found = gather(rng.normal(size=(N_SIMS, 10, 5)), np.zeros((N_SIMS, 10, 1)))
    assert np.mean((found.p <= 0.05).any(-1)) > 0.3
    assert np.mean((holm(found.p) <= 0.05).any(-1)) <= MOST_FALSE


def test_false_verdicts_are_a_small_share_of_those_among_forty_tasks() -> None:
    """Ten of forty tasks have a true effect."""
    rng = np.random.default_rng(10)
    effect = np.where(np.arange(40) < 10, 4.0, 0.0)
    found = gather(effect[:, None] + rng.normal(size=(1000, 40, 5)), np.zeros((1000, 40, 1)))
    claims = benjamini_hochberg(found.p) <= 0.05
    false = claims[:, 10:].sum(-1) / np.maximum(claims.sum(-1), 1)
    assert false.mean() <= 0.05
    assert claims[:, :10].mean() > 0.8


def test_the_best_of_five_equal_arms_is_rarely_called_better_after_the_correction_for_arms() -> None:
    rng = np.random.default_rng(11)
    arms = rng.normal(size=(N_SIMS, 5, 5))
    found = gather(arms, rng.normal(size=(N_SIMS, 1, 5)))
    best = found.mean.argmax(-1)[:, None]
    p = np.take_along_axis(found.p, best, -1)[:, 0]
    up = np.take_along_axis(found.mean, best, -1)[:, 0] > 0
    assert np.mean((p <= 0.05) & up) > 0.07
    assert np.mean([corrected([float(q)], 5)[0] <= 0.05 for q in p] & up) <= 0.03
