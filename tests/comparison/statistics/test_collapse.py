"""Runs that collapsed are named; ordinary noise is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mtl.comparison.statistics.collapse import collapsed, named
from mtl.comparison.statistics.paired import Array

HEALTHY = [0.71, 0.70, 0.705, 0.695, 0.70]


def test_a_run_far_below_its_arm_is_named_with_its_seed() -> None:
    values = {"single": HEALTHY, "stitched": [0.72, 0.715, 0.71, 0.35, 0.72], "trees": [0.66]}
    assert named(values, [0, 1, 2, 30, 4], higher_is_better=True) == {"stitched": [30]}


def test_two_of_five_do_not_hide_each_other() -> None:
    values = {"single": HEALTHY, "stitched": [0.72, 0.30, 0.71, 0.35, 0.72]}
    assert named(values, range(5), higher_is_better=True) == {"stitched": [1, 3]}


def test_errors_collapse_upwards() -> None:
    values = {"single": [1.1, 1.0, 1.05, 0.98, 1.02], "stitched": [0.9, 0.95, 9.0, 0.91, 0.93]}
    assert named(values, range(5), higher_is_better=False) == {"stitched": [2]}
    assert named(values, range(5), higher_is_better=False, constant=8.0) == {"stitched": [2]}


def test_an_arm_that_is_bad_on_all_seeds_is_worse_and_did_not_collapse() -> None:
    values = {"single": HEALTHY, "bad": [0.30, 0.31, 0.305, 0.295, 0.30]}
    assert named(values, range(5), higher_is_better=True, constant=0.35) == {}


def test_one_lucky_seed_is_no_collapse_of_the_others() -> None:
    lucky = {"single": HEALTHY, "stitched": [0.70, 0.69, 0.695, 0.90, 0.70]}
    assert named(lucky, range(5), higher_is_better=True) == {}
    assert named(lucky, range(5), higher_is_better=True, constant=0.5) == {}


def test_all_but_one_seed_at_the_constant_answer_collapsed() -> None:
    values = {"single": HEALTHY, "stitched": [0.35, 0.35, 0.34, 0.70, 0.35]}
    assert named(values, range(5), higher_is_better=True) == {}
    assert named(values, range(5), higher_is_better=True, constant=0.35) == {"stitched": [0, 1, 2, 4]}


def test_a_run_that_kept_most_of_its_gain_did_not_collapse() -> None:
    values = {"single": [0.7001, 0.7, 0.7002, 0.7, 0.7001], "stitched": [0.7001, 0.7, 0.69, 0.7002, 0.7]}
    assert named(values, range(5), higher_is_better=True) == {"stitched": [2]}
    assert named(values, range(5), higher_is_better=True, constant=0.35) == {}


def test_missing_runs_and_few_runs_are_no_collapse() -> None:
    values = {"single": [0.7, None, 0.71], "stitched": [None, None, 0.2]}
    assert named(values, range(3), higher_is_better=True) == {}
    assert named({"single": [0.7, 0.2]}, range(2), higher_is_better=True) == {}
    assert named({"trees": [0.7]}, range(5), higher_is_better=True) == {}
    assert named({"one": [0.7]}, range(1), higher_is_better=True) == {}
    assert named({"single": [0.7] * 5, "stitched": [0.7] * 5}, range(5), higher_is_better=True) == {}


def test_steps_of_a_coarse_metric_are_no_collapse() -> None:
    assert not collapsed(np.array([[0.7, 0.7, 0.7, 0.7, 0.69], [0.7, 0.7, 0.7, 0.7, 0.7]])).any()


@pytest.mark.parametrize("n_arms", [2, 4])
@pytest.mark.parametrize("k", [2, 3, 5, 10])
@pytest.mark.parametrize(
    ("noise", "most"),
    [
        (lambda rng, shape: rng.normal(size=shape), 0.006),
        (lambda rng, shape: np.round(rng.normal(size=shape) * 0.6), 0.006),
        (lambda rng, shape: rng.gamma(1.0, size=shape), 0.006),
        (lambda rng, shape: rng.standard_t(5, size=shape), 0.03),
        (lambda rng, shape: -rng.gamma(4.0, size=shape), 0.03),
    ],
    ids=["normal", "tied", "tail up", "long tails", "tail down"],
)
def test_ordinary_noise_is_rarely_named(
    noise: Callable[[np.random.Generator, tuple[int, ...]], Array], most: float, k: int, n_arms: int
) -> None:
    """The share of tasks in which any run is named; arms may differ in level."""
    values = noise(np.random.default_rng(k), (4000, n_arms, k)) + 5.0 * np.arange(n_arms)[:, None]
    assert collapsed(values).any((-1, -2)).mean() <= most


@pytest.mark.parametrize(("k", "least"), [(5, 0.75), (10, 0.9)])
def test_real_collapses_are_found(k: int, least: float) -> None:
    """A fifth of the runs of one arm fall by twenty times the spread."""
    rng = np.random.default_rng(k)
    values, fell = rng.normal(size=(4000, 2, k)), rng.random((4000, k)) < 0.2
    values[:, 0] -= 20 * fell
    assert collapsed(values)[:, 0][fell].mean() >= least
