"""Paired comparisons against scipy on the same numbers, and against the truth that a simulation knows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mtl.comparison.statistics.paired import Evidence, gather, rows_spread, satterthwaite

A = np.array([0.652, 0.661, 0.640, 0.655, 0.659])
B = np.array([0.675, 0.671, 0.668, 0.680, 0.671])


def test_seeds_alone_are_the_paired_t_test() -> None:
    found, wanted = gather(B, A), stats.ttest_rel(B, A)
    assert found.p == pytest.approx(wanted.pvalue, rel=1e-10)
    low, high = wanted.confidence_interval(0.95)
    assert found.mean - found.half() == pytest.approx(low, rel=1e-9)
    assert found.mean + found.half() == pytest.approx(high, rel=1e-9)
    assert found.half() == found.half_seeds()


@pytest.mark.parametrize("margin", [0.01, 0.02, 0.05])
def test_equivalence_is_two_one_sided_t_tests(margin: float) -> None:
    d = B - A
    wanted = max(
        stats.ttest_1samp(d, -margin, alternative="greater").pvalue,
        stats.ttest_1samp(d, margin, alternative="less").pvalue,
    )
    assert gather(B, A).p_equivalent(margin) == pytest.approx(wanted, rel=1e-9)


def test_many_comparisons_are_each_computed_as_one() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 7, 6))
    rows = rng.random(7)
    many = gather(a, b, rows, 30)
    for i in range(7):
        one = gather(a[i], b[i], rows[i], 30)
        assert (many.p[i], many.half()[i], many.df[i]) == (one.p, one.half(), one.df)
        assert many.p_equivalent(0.5)[i] == one.p_equivalent(0.5)


def test_degrees_of_freedom_are_those_of_welch() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=5), 3 * rng.normal(size=40)
    wanted = stats.ttest_ind(x, y, equal_var=False)
    se_x, se_y = (np.asarray(v.std(ddof=1) / np.sqrt(len(v))) for v in (x, y))
    assert satterthwaite(se_x, np.asarray(4.0), se_y, 39.0) == pytest.approx(wanted.df, rel=1e-10)


def test_both_sources_of_noise_add_up_and_both_tests_must_pass() -> None:
    seeds, rows = gather(B, A), 0.004
    both = gather(B, A, np.asarray(rows), 200)
    assert both.se == pytest.approx(np.hypot(seeds.se, rows))
    wanted = 2 * stats.t.sf(both.mean / both.se, both.df)
    assert both.p == pytest.approx(max(wanted, seeds.p))
    more = gather(B, A, np.asarray(0.01), 200)
    assert more.p == pytest.approx(2 * stats.t.sf(more.mean / more.se, more.df), rel=1e-9)
    assert more.p > both.p == seeds.p
    little = gather(B[:3], A[:3], np.asarray(0.003), 10_000)
    alone = gather(B[:3], A[:3])
    approximate = 2 * stats.t.sf(little.mean / little.se, little.df)
    assert approximate < alone.p == little.p  # more noise must not be a smaller p-value
    assert little.half() == alone.half()


def test_interval_and_p_value_agree_at_every_level() -> None:
    rng = np.random.default_rng(2)
    d = rng.normal(0.7, 1, (500, 4))
    found = gather(d, np.zeros((500, 1)), np.full(500, 0.3), 50)
    for alpha in (0.01, 0.05, 0.2):
        assert np.array_equal(found.p <= alpha, np.abs(found.mean) >= found.half(1 - alpha))
        inside = (found.mean - found.half(1 - 2 * alpha) >= -1) & (
            found.mean + found.half(1 - 2 * alpha) <= 1
        )
        assert np.array_equal(found.p_equivalent(1.0) <= alpha, inside)


def test_a_split_drawn_anew_for_each_seed_is_nadeau_and_bengio() -> None:
    found = gather(B, A, ratio=100 / 400)
    t = (B - A).mean() / ((B - A).std(ddof=1) * np.sqrt(1 / 5 + 1 / 4))
    assert found.p == pytest.approx(2 * stats.t.sf(t, 4), rel=1e-9)


@pytest.mark.parametrize(("k", "p"), [(2, 0.5), (5, 0.0625), (6, 0.03125)])
def test_equal_differences_are_judged_by_their_signs(k: int, p: float) -> None:
    base = np.linspace(0.6, 0.7, k)
    found = gather(base + 0.02, base)
    assert (found.sd, found.p) == (0, p)
    assert found.p_equivalent(0.03) == p / 2
    assert found.p_equivalent(0.01) == 1 - p / 2
    single = (base + 0.02).astype(np.float32).astype(np.float64)
    assert gather(single, base.astype(np.float32).astype(np.float64)).sd == 0


def test_no_difference_and_one_seed_are_never_a_verdict() -> None:
    assert gather(A, A).p == 1
    assert gather(A[:1] + 1, A[:1]).p == 1
    assert gather(A[:1], A[:1]).p_equivalent(1.0) == 0.5


def test_one_value_stands_for_all_seeds() -> None:
    assert gather(B, A[:1]).p == pytest.approx(stats.ttest_1samp(B - A[0], 0).pvalue, rel=1e-9)


# -- test rows -------------------------------------------------------------------------------------------------------


def test_the_rows_part_is_the_mean_covariance_of_two_seeds() -> None:
    rng = np.random.default_rng(3)
    shared = rng.normal(size=(1, 4000))
    d = shared + 0.5 * rng.normal(size=(4, 4000))
    covariance = np.cov(d)
    wanted = covariance[~np.eye(4, dtype=bool)].mean()
    assert rows_spread(d) == pytest.approx(np.sqrt(wanted), rel=1e-12)
    assert rows_spread(d, 11) == pytest.approx(np.sqrt(wanted * 1.1), rel=1e-12)
    assert rows_spread(d[:1]) == pytest.approx(d[0].std(ddof=1), rel=1e-12)
    assert rows_spread(np.stack([d[0], -d[0]])) == 0


def crossed(
    rng: np.random.Generator, n_sims: int, k: int, n: int, rows: float, seeds: float, both: float
) -> tuple[Evidence, Evidence]:
    """Differences with an effect of 0 on n rows: of the rows, of the seeds, and of each row on each seed.

    Returns:
        The evidence with `rows_spread`, and with the plain bootstrap variance of the seed-averaged difference.
    """
    g = rows * rng.normal(size=(n_sims, 1, n))
    d = g + seeds * rng.normal(size=(n_sims, k, 1)) + both * rng.normal(size=(n_sims, k, n))
    weights = rng.multinomial(n, np.full(n, 1 / n), size=200).T / n
    replicates = d @ weights
    values, none = d.mean(-1), np.zeros((n_sims, 1))
    plain = replicates.mean(-2).std(-1, ddof=1)
    return gather(values, none, rows_spread(replicates, n), n), gather(values, none, plain, n)


@pytest.mark.parametrize("times", [0.5, 1, 2])
def test_an_interval_covers_new_rows(times: float) -> None:
    """The noise of the test set is `times` the spread of the seeds; with a part of each row on each seed."""
    k, n = 5, 100
    found, _ = crossed(
        np.random.default_rng(4), 3000, k, n, times * np.sqrt(n), np.sqrt(0.5), np.sqrt(0.5 * n)
    )
    assert 0.938 <= np.mean(np.abs(found.mean) <= found.half()) <= 0.965
    alone = np.mean(np.abs(found.mean) <= found.half_seeds())
    assert alone < 0.92  # the interval for another seed, this test set, does not cover new rows


def test_the_plain_bootstrap_counts_noise_twice_that_seeds_do_not_share() -> None:
    """All noise is of single rows on single seeds: s^2 / k is enough, and the plain bootstrap adds as much again."""
    found, plain = crossed(np.random.default_rng(5), 2000, 5, 100, 0.0, 0.0, 10.0)
    assert np.mean(plain.se**2) == pytest.approx(2 * np.mean(plain.se_seeds**2), rel=0.05)
    assert np.mean(np.abs(found.mean) <= found.half()) == pytest.approx(0.957, abs=0.015)
    assert np.mean(np.abs(plain.mean) <= plain.half()) > 0.975


@pytest.mark.parametrize("times", [0.25, 0.5, 1, 2])
@pytest.mark.parametrize("k", [2, 3, 5, 10])
def test_few_seeds_do_not_make_the_interval_too_short(k: int, times: float) -> None:
    """Satterthwaite's approximation alone covers 87.5% with two seeds and a quarter of their spread from rows."""
    rng, n_sims, n = np.random.default_rng(6), 20_000, 200
    d = times * rng.normal(size=(n_sims, 1)) + rng.normal(size=(n_sims, k))
    rows = times * np.sqrt(rng.chisquare(n - 1, n_sims) / (n - 1))
    found = gather(d, np.zeros((n_sims, 1)), rows, n)
    assert np.mean(np.abs(found.mean) <= found.half()) >= 0.938
    if (k, times) == (2, 0.25):
        approximate = stats.t.ppf(0.975, found.df) * found.se
        assert np.mean(np.abs(found.mean) <= approximate) < 0.90
