"""The change of a mean loss and its standard error, by a plain loop; and what a change says of a link."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from mtl.evaluation.links.losses import Change, RowLosses, change, factor_of, verdict


def losses(values: list[float], weights: list[float] | None = None) -> RowLosses:
    return RowLosses({"a": np.array(values)}, {"a": np.array(weights or [1.0] * len(values))}, {})


def test_the_change_of_a_plain_mean_is_that_of_paired_differences() -> None:
    before, after = losses([1.0, 2.0, 3.0, 4.0]), losses([1.5, 2.0, 3.5, 5.0])
    differences = [0.5, 0.0, 0.5, 1.0]
    found = change(before, after, "a", None)
    assert found is not None
    assert found.delta == pytest.approx(0.5)
    assert found.se == pytest.approx(stats.sem(differences))
    assert found.n_units == 4


def test_weights_and_missing_labels_by_a_loop() -> None:
    weights = [2.0, 0.0, 1.0, 3.0]
    found = change(losses([1.0, math.nan, 0.0, 2.0], weights), losses([2.0, math.inf, 0.5, 2.0]), "a", None)
    assert found is not None
    delta = (2 * 1.0 + 1 * 0.5 + 3 * 0.0) / 6
    squares = sum((w * (d - delta)) ** 2 for w, d in ((2, 1.0), (1, 0.5), (3, 0.0)))
    assert found.delta == pytest.approx(delta)
    assert found.se == pytest.approx(math.sqrt(3 / 2 * squares) / 6)
    assert found.n_units == 3


def test_rows_of_a_group_count_as_one_unit() -> None:
    """Each row four times says no more than each row once."""
    values, others = [1.0, 2.0, 5.0], [1.5, 2.25, 4.0]
    once = change(losses(values), losses(others), "a", None)
    groups = np.repeat([7, 3, 9], 4)
    four = change(losses(list(np.repeat(values, 4))), losses(list(np.repeat(others, 4))), "a", groups)
    assert once is not None
    assert four is not None
    assert (four.delta, four.se, four.n_units) == (pytest.approx(once.delta), pytest.approx(once.se), 3)


def test_a_change_without_rows_or_of_one_unit_or_without_an_end() -> None:
    assert change(losses([1.0], [0.0]), losses([2.0]), "a", None) is None
    assert change(losses([1.0, 1.0]), losses([2.0, math.inf]), "a", None) is None
    assert change(losses([1.0]), losses([2.0]), "a", None) == Change(1.0, None, 1)


def test_the_mean_loss_is_that_of_the_rows_that_count() -> None:
    assert losses([1.0, math.nan, 4.0], [1.0, 0.0, 2.0]).mean("a") == pytest.approx(3.0)
    assert losses([1.0], [0.0]).mean("a") is None
    assert losses([math.inf, 1.0]).mean("a") is None


def test_the_factor_is_students_and_grows_with_the_number_of_verdicts() -> None:
    assert factor_of(1, 10**6) == pytest.approx(1.96, abs=1e-3)
    assert factor_of(1, 10) == pytest.approx(2.262, abs=1e-3)
    assert factor_of(10, 10**6) == pytest.approx(stats.norm.isf(0.0025), abs=1e-3)
    assert factor_of(0, 1) == factor_of(1, 2)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Change(0.10, 0.01, 1000), "used"),
        (Change(-0.10, 0.01, 1000), "hurts"),
        (Change(0.0, 0.0, 1000), "not used"),
        (Change(0.001, 0.002, 1000), "not used"),
        (Change(-0.001, 0.002, 1000), "not used"),
        (Change(0.01, 0.02, 1000), "cannot tell"),  # its interval reaches beyond 2% of the loss
        (Change(0.0025, 0.001, 1000), "not used"),  # beyond its own interval, not that of all verdicts
        (Change(0.0025, 0.0005, 1000), "used"),  # as small, but known
        (Change(0.10, None, 1), "cannot tell"),
        (None, "cannot tell"),
    ],
)
def test_the_verdicts(found: Change | None, said: str) -> None:
    assert verdict(found, 0.5, n_tests=20) == said


def test_noise_is_rarely_taken_for_a_change() -> None:
    """Of 400 tables of 10 links whose cut changes nothing, about 5% have any verdict: 20, by chance up to 33."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        said = []
        for _ in range(10):
            found = change(losses([0.0] * 60), losses(list(rng.standard_normal(60))), "a", None)
            said.append(verdict(found, 0.5, n_tests=10))
        wrong += any(one in ("used", "hurts") for one in said)
    assert 5 <= wrong <= 33
