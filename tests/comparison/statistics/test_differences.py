"""Two arms on one task: the numbers of a record, and the pairs that are not there."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mtl.comparison.statistics.differences import paired_difference
from mtl.comparison.statistics.paired import rows_spread

A = [0.652, 0.661, 0.640, 0.655, 0.659]
B = [0.675, 0.671, 0.668, 0.680, 0.671]


def replicates(seed: int, k: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 0.66 + 0.01 * rng.normal(size=(1, 300)) + 0.002 * rng.normal(size=(k, 300))


def test_a_score() -> None:
    d = paired_difference(B, A, higher_is_better=True)
    wanted = stats.ttest_rel(B, A)
    assert (d.n_seeds, d.single, d.missing, d.se_rows, d.resampled) == (5, None, (), None, False)
    assert d.difference == pytest.approx(np.mean(B) - np.mean(A))
    assert (d.mean, d.mean_against) == pytest.approx((np.mean(B), np.mean(A)))
    assert d.sd == pytest.approx(np.std(np.subtract(B, A), ddof=1))
    assert d.p == pytest.approx(wanted.pvalue)
    assert d.correlation == pytest.approx(stats.pearsonr(A, B).statistic)
    assert d.interval == d.interval_seeds == pytest.approx(tuple(wanted.confidence_interval(0.95)))


def test_an_error_is_better_when_it_is_smaller() -> None:
    score, error = (paired_difference(B, A, higher_is_better=up) for up in (True, False))
    assert score.difference is not None
    assert error.difference == -score.difference
    assert (error.mean, error.mean_against) == (score.mean, score.mean_against)
    assert error.interval is not None
    assert score.interval == pytest.approx((-error.interval[1], -error.interval[0]))
    assert (error.p, error.correlation) == pytest.approx((score.p, score.correlation))


def test_rows_widen_the_interval_for_new_rows_only() -> None:
    a, b = replicates(0), replicates(1)
    d = paired_difference(B, A, higher_is_better=True, replicates=b, against_replicates=a, n_units=200)
    assert d.se_rows == pytest.approx(float(rows_spread(b - a, 200)))
    assert d.interval is not None
    assert d.interval_seeds is not None
    assert d.interval[0] < d.interval_seeds[0] < d.interval_seeds[1] < d.interval[1]
    down = paired_difference(B, A, higher_is_better=False, replicates=b, against_replicates=a, n_units=200)
    assert down.se_rows == pytest.approx(d.se_rows)


def test_missing_values_leave_their_pair_out_and_are_named() -> None:
    gaps = [None, *B[1:4], None]
    a, b = replicates(0), replicates(1)
    b[0] = b[4] = np.nan
    d = paired_difference(
        gaps, A, higher_is_better=True, seeds=[7, 8, 9, 10, 11], replicates=b, against_replicates=a
    )
    assert (d.n_seeds, d.missing) == (3, (7, 11))
    assert d.p == pytest.approx(
        paired_difference(
            B[1:4], A[1:4], higher_is_better=True, replicates=b[1:4], against_replicates=a[1:4]
        ).p
    )
    none = paired_difference([None, None], [1.0, 2.0], higher_is_better=True)
    assert (none.n_seeds, none.difference, none.p, none.interval, none.missing) == (
        0,
        None,
        None,
        None,
        (0, 1),
    )


def test_one_value_is_compared_with_each_seed() -> None:
    d = paired_difference(
        B, [0.66], higher_is_better=True, replicates=replicates(1), against_replicates=replicates(0, 1)
    )
    assert (d.n_seeds, d.single, d.correlation) == (5, "against", None)
    assert d.sd == pytest.approx(np.std(B, ddof=1))
    assert d.se_rows is not None
    assert d.se_rows > 0.005
    assert paired_difference([0.66], B, higher_is_better=True).single == "arm"


def test_one_seed_has_a_difference_and_nothing_else() -> None:
    d = paired_difference(
        [0.7], [0.6], higher_is_better=True, replicates=replicates(0, 1), against_replicates=replicates(1, 1)
    )
    assert d.difference == pytest.approx(0.1)
    assert (d.sd, d.interval, d.interval_seeds, d.p, d.correlation) == (None, None, None, 1, None)


def test_equal_differences_have_no_interval_and_no_warning() -> None:
    d = paired_difference([0.7, 0.8], [0.6, 0.7], higher_is_better=True)
    assert d.constant
    assert (d.sd, d.interval, d.correlation) == (0, None, None)
    told = paired_difference(
        [0.7, 0.8], [0.6, 0.7], higher_is_better=True,
        replicates=replicates(0, 2), against_replicates=replicates(1, 2),
    )  # fmt: skip
    assert told.se_rows is not None
    assert (told.interval, told.p) == (None, 0.5)  # the rows alone would give an interval without 0
    flat = paired_difference([0.7] * 4, [0.7] * 4, higher_is_better=True)
    assert (flat.difference, flat.p, flat.correlation) == (0, 1, None)


def test_resamples_that_define_no_metric_are_left_out() -> None:
    a, b = replicates(0), replicates(1)
    holes = b.copy()
    holes[2, :100] = np.nan
    some = paired_difference(B, A, higher_is_better=True, replicates=holes, against_replicates=a)
    assert some.se_rows == pytest.approx(float(rows_spread(b[:, 100:] - a[:, 100:])))
    holes[2, :200] = np.nan
    assert (
        paired_difference(B, A, higher_is_better=True, replicates=holes, against_replicates=a).se_rows is None
    )


def test_splits_drawn_anew_use_no_replicates() -> None:
    d = paired_difference(
        B,
        A,
        higher_is_better=True,
        replicates=replicates(0),
        against_replicates=replicates(1),
        resampled=(400, 100),
    )
    plain = paired_difference(B, A, higher_is_better=True)
    assert (d.se_rows, d.interval_seeds, d.resampled) == (None, None, True)
    assert d.interval is not None
    assert plain.interval is not None
    width, narrow = (np.ptp(x.interval) for x in (d, plain) if x.interval)
    assert width / narrow == pytest.approx(np.sqrt((1 / 5 + 1 / 4) * 5))


def test_what_cannot_be_paired_is_refused() -> None:
    with pytest.raises(ValueError, match="paired by seed, but there are 3 and 2"):
        paired_difference([1.0, 2.0, 3.0], [1.0, 2.0], higher_is_better=True)
    with pytest.raises(ValueError, match="the same resamples"):
        paired_difference(
            B, A, higher_is_better=True, replicates=replicates(0), against_replicates=replicates(1)[:, :9]
        )
