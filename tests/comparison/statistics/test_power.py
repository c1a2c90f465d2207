"""What k seeds can show: against scipy's noncentral t, and against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mtl.comparison.statistics.paired import gather
from mtl.comparison.statistics.power import (
    MOST_SEEDS,
    detectable,
    equivalence_power,
    further_seeds,
    plan_lines,
    power_of,
    rows_factor,
)


@pytest.mark.parametrize(("k", "d"), [(5, 1.68), (10, 1.00)])
def test_what_five_and_ten_seeds_find(k: int, d: float) -> None:
    assert detectable(k) == pytest.approx(d, abs=0.005)


@pytest.mark.parametrize("k", [2, 3, 5, 20])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_the_effect_has_its_power_by_the_noncentral_t(k: int, power: float) -> None:
    limit = stats.t.ppf(1 - 0.025 / 6, k - 1)
    d = detectable(k, power, n_tasks=3, n_arms=2)
    assert stats.nct.sf(limit, k - 1, d * np.sqrt(k)) == pytest.approx(power, abs=1e-5)


def test_one_seed_finds_nothing() -> None:
    with pytest.raises(ValueError, match="one seed shows no difference"):
        detectable(1)


@pytest.mark.parametrize("k", [3, 5, 10])
def test_a_planted_effect_of_that_size_is_found(k: int) -> None:
    rng = np.random.default_rng(0)
    found = gather(rng.normal(detectable(k), 1, (20_000, k)), np.zeros((20_000, 1)))
    assert np.mean((found.p <= 0.05) & (found.mean > 0)) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    ("k", "margin", "shift"), [(5, 2.0, 0.0), (5, 2.5, 1.0), (10, 1.0, 0.0), (3, 2.0, 0.0)]
)
def test_the_power_of_equivalence_is_that_of_a_simulation(k: int, margin: float, shift: float) -> None:
    rng = np.random.default_rng(1)
    found = gather(rng.normal(shift, 1, (40_000, k)), np.zeros((40_000, 1)))
    wanted = np.mean(found.p_equivalent(margin) <= 0.05)
    assert equivalence_power(k, margin, shift) == pytest.approx(wanted, abs=0.01)


def test_equal_arms_are_rarely_equivalent_at_a_narrow_margin() -> None:
    assert equivalence_power(5, 0.1) < 0.01
    assert equivalence_power(5, 10.0) > 0.999
    assert equivalence_power(5, 2.0, 2.0) == pytest.approx(0.05, abs=1e-3)


@pytest.mark.parametrize(("rows", "k"), [(0.0, 6), (0.3, 8), (0.5, 12)])
def test_the_power_with_noise_of_rows_is_that_of_a_simulation(rows: float, k: int) -> None:
    rng, n_sims = np.random.default_rng(2), 20_000
    d = 1.5 + rows * rng.normal(size=(n_sims, 1)) + rng.normal(size=(n_sims, k))
    u = rows * np.sqrt(rng.chisquare(99, n_sims) / 99)
    found = gather(d, np.zeros((n_sims, 1)), u if rows else None, 100)
    wanted = np.mean((found.p <= 0.05) & (found.mean > 0))
    assert power_of(1.5, np.array([float(k)]), 1.0, rows, 100)[0] == pytest.approx(wanted, abs=0.02)


def test_further_seeds_are_a_range_around_what_the_true_spread_needs() -> None:
    low, high = further_seeds(1.0, 5, 1.0)
    needed = next(k for k in range(2, 60) if detectable(k) <= 1.0) - 5
    assert low < needed < high
    by_chi2 = [np.sqrt(4 / stats.chi2.ppf(q, 4)) for q in (0.9, 0.1)]
    wanted = [next(k for k in range(2, 60) if detectable(k) * sd <= 1.0) - 5 for sd in by_chi2]
    assert [low, high] == wanted == [2, 27]


def test_the_range_holds_the_need_of_the_true_spread_in_four_of_five_comparisons() -> None:
    rng = np.random.default_rng(3)
    spreads = np.sqrt(rng.chisquare(4, 400) / 4)
    ranges = [further_seeds(1.0, 5, float(s)) for s in spreads]
    needed = next(k for k in range(2, 60) if detectable(k) <= 1.0) - 5
    assert np.mean([low <= needed <= high for low, high in ranges]) == pytest.approx(0.8, abs=0.07)


def test_more_seeds_than_anybody_trains_are_not_counted_out() -> None:
    assert further_seeds(0.01, 5, 1.0) == (MOST_SEEDS + 1, MOST_SEEDS + 1)
    assert further_seeds(10.0, 5, 1.0) == (1, 1)


def test_noise_of_rows_that_no_number_of_seeds_averages_out() -> None:
    assert rows_factor(1.0, 0.2, 1000) is None
    assert rows_factor(1.0, 0.0) is None
    factor = rows_factor(1.0, 0.5, 1000)
    assert factor == pytest.approx((2.8016 * 0.5) ** 2, rel=1e-3)
    assert power_of(1.0, np.array([1e6]), 1.0, 0.5 / np.sqrt(factor), 10**6)[0] == pytest.approx(
        0.8, abs=1e-3
    )
    assert power_of(1.0, np.array([1e6]), 1.0, 0.5, 1000)[0] < 0.8


def test_the_plan_says_what_the_seeds_can_show() -> None:
    lines = plan_lines(5, {"scarce": 0.01, "rich": None}, {"scarce": 0.004, "rich": 0.002})
    assert lines[0] == (
        "5 seeds find a difference in 80% of comparisons if it is 2.1 times as large as it varies from seed to seed, "
        f"corrected for 2 tasks; with 10 seeds, {detectable(10, n_tasks=2):.1f} times is enough."
    )
    assert lines[1] == "scarce: with the spread of earlier runs, 0.004, that is 0.0082."
    chance = equivalence_power(5, 2.5, 0, 0.025)
    assert lines[2] == f"scarce: equal arms are shown to be within 0.01 in {chance:.0%} of comparisons."
    assert lines[3].startswith("rich: with the spread of earlier runs, 0.002")
    assert lines[-1] == "Noise of the test rows comes on top; it does not fall with more seeds."


def test_the_plan_without_earlier_runs_says_which_spread_a_margin_allows() -> None:
    (line,) = plan_lines(5, {"one": 0.01})[1:-1]
    spread = float(line.removesuffix(".").split()[-1])
    assert line.startswith(
        "one: equal arms are shown to be within 0.01 in 80% of comparisons if the spread is at most"
    )
    assert equivalence_power(5, 0.01 / spread) == pytest.approx(0.8, abs=0.03)
    assert plan_lines(10, {"one": None})[0] == (
        "10 seeds find a difference in 80% of comparisons if it is 1.0 times as large as it varies from seed to seed."
    )
    assert plan_lines(1, {"one": 0.1}) == [
        "One seed shows the difference and no verdict: a spread needs two seeds or more."
    ]
