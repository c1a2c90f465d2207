"""Every verdict as a sentence that an outsider reads once."""

from __future__ import annotations

import numpy as np
import pytest

from mtl.comparison.statistics.differences import Difference, paired_difference
from mtl.comparison.statistics.verdicts import Verdict, verdicts
from mtl.comparison.statistics.words import Measure, sentence

ACCURACY, MAE = Measure("accuracy"), Measure("mae", False, "mm")
BASE = [0.652, 0.661, 0.640, 0.655, 0.659]
NOISE = np.array([0.002, -0.001, 0.001, -0.003, 0.001])


def shared(sd: float, k: int = 5) -> dict[str, object]:
    """Replicates whose difference has this spread in all seeds alike."""
    z = np.random.default_rng(0).normal(size=(1, 500))
    z = (z - z.mean()) / z.std(ddof=1)
    return {
        "replicates": 0.7 + sd * z + np.zeros((k, 1)),
        "against_replicates": np.full((k, 500), 0.7),
        "n_units": 10**6,
    }


def by(gain: float, noise: float = 1.0, up: bool = True, **more: object) -> Difference:
    values = (np.array(BASE) + gain + noise * NOISE).tolist()
    return paired_difference(values, BASE, higher_is_better=up, **more)  # type: ignore[arg-type]


def said(d: Difference, measure: Measure = ACCURACY, margin: float | None = None, **more: object) -> str:
    words, details = sentence("scarce", "stitched", "single", measure, judged(d, margin, **more))
    return " | ".join([words, *details])


def judged(d: Difference, margin: float | None = None, **more: object) -> Verdict:
    return verdicts({"scarce": d}, {"scarce": margin}, **more)["scarce"]  # type: ignore[arg-type]


def test_better() -> None:
    assert said(by(0.023, **shared(0.004))) == (
        "scarce: stitched is better than single by 2.30 points of accuracy (0.6534 -> 0.6764), "
        "95% interval 1.50 to 3.10 for new rows | for another seed, this test set: 2.05 to 2.55"
    )


def test_an_interval_that_looks_the_same_is_told_once() -> None:
    text = said(by(0.023, **shared(0.0001)))
    assert text.endswith("95% interval 2.05 to 2.55 for new rows"), text


def test_ahead_is_better_before_fresh_seeds() -> None:
    assert said(by(0.023), n_arms=2, chosen=True).startswith(
        "scarce: stitched is ahead of single by 2.30 points of accuracy (0.6534 -> 0.6764), 95% interval 2.05 to 2.55"
    )
    assert "worse than" in said(by(-0.023), n_arms=2, chosen=True)
    assert judged(by(0.001), chosen=True).verdict == "cannot tell"


def test_without_replicates_the_interval_is_about_seeds() -> None:
    assert said(by(0.023)) == (
        "scarce: stitched is better than single by 2.30 points of accuracy (0.6534 -> 0.6764), "
        "95% interval 2.05 to 2.55 for another seed, this test set"
    )


def test_worse_and_within_the_margin() -> None:
    assert said(by(-0.023)).startswith(
        "scarce: stitched is worse than single by 2.30 points of accuracy (0.6534 -> 0.6304), 95% interval 2.05 to 2.55"
    )
    assert said(by(0.023), margin=0.04).startswith(
        "scarce: stitched is better than single, but within the margin, by 2.30 points of accuracy"
    )


def test_an_error_in_its_unit() -> None:
    assert said(by(-0.023, up=False), MAE).startswith(
        "scarce: stitched is better than single by 0.0230 mm of mae (0.6534 -> 0.6304), 95% interval 0.0205 to 0.0255"
    )


def test_equivalent_and_identical() -> None:
    assert said(by(0.001), margin=0.01) == (
        "scarce: stitched and single are equivalent within 1.0 points: the difference is +0.10 points of accuracy "
        "(0.6534 -> 0.6544), 95% interval -0.15 to 0.35 for another seed, this test set"
    )
    assert said(by(0.0, 0.0)) == (
        "scarce: stitched and single have the same accuracy on every seed (0.653 on average)"
    )


def test_cannot_tell_and_what_would() -> None:
    assert said(by(0.001)) == (
        "scarce: cannot tell stitched from single: the difference is +0.10 points of "
        "accuracy (0.6534 -> 0.6544), 95% interval -0.15 to 0.35 for another seed, this test set"
        " | a true difference of 0.10 points of accuracy needs 14 to more than 50 "
        "further seeds to be found with 80% power"
    )
    assert said(by(0.00001)).endswith("needs more than 50 further seeds to be found with 80% power")
    assert said(by(-0.004, 2)).count("-0.40 points") == 1


def test_more_seeds_cannot_tell() -> None:
    assert said(by(0.01, **shared(0.02))).endswith(
        " | more seeds cannot tell a difference of 1.0 points of accuracy, about 30 times as many test rows can"
    )


def test_a_collapsed_run_is_the_reason() -> None:
    broken = {"scarce": {"stitched": (3,), "single": (1, 4)}}
    text = said(by(0.023), collapsed=broken)
    assert text.startswith("scarce: cannot tell stitched from single: the difference is +2.30")
    assert " | stitched collapsed on seed 3 and single collapsed on seeds 1, 4" in text


def test_a_correction_that_takes_a_verdict_away_is_named() -> None:
    assert " | chance alone gives as much among 4 arms (Bonferroni) | " in said(by(0.0035), n_arms=4)
    many = verdicts({"scarce": by(0.0035), **{str(i): by(0.0) for i in range(4)}})["scarce"]
    _, details = sentence("scarce", "stitched", "single", ACCURACY, many)
    assert details[0] == "chance alone gives as much among 5 tasks (Holm)"


def test_few_missing_and_equal_pairs_are_named() -> None:
    one = paired_difference([0.7], [0.6], higher_is_better=True)
    assert said(one) == (
        "scarce: cannot tell stitched from single: the difference is +10.0 points of "
        "accuracy (0.600 -> 0.700) | one seed shows no spread"
    )
    gap = paired_difference(
        [None, *BASE[1:]], [*BASE[:4], None], higher_is_better=True, seeds=[5, 6, 7, 8, 9]
    )
    assert "no value on seeds 5, 9" in said(gap)
    trees = paired_difference(BASE, [0.6], higher_is_better=True)
    assert "single has one value for all seeds" in said(trees)
    steady = paired_difference([0.7, 0.8], [0.6, 0.7], higher_is_better=True)
    assert "the same difference on all 2 seeds" in said(steady)
    none = paired_difference([None, None], [0.6, 0.7], higher_is_better=True)
    assert said(none) == ("scarce: cannot tell stitched from single: no seed has a value for both")


def test_fresh_seeds_and_new_splits() -> None:
    _, details = sentence("scarce", "stitched", "single", ACCURACY, judged(by(0.023)), fresh=True)
    assert details == ["5 fresh seeds"]
    assert " for another split of rows like these" in said(by(0.023, resampled=(400, 100)))


@pytest.mark.parametrize("value", [0.0, -0.00001])
def test_zero_has_no_sign(value: float) -> None:
    assert ACCURACY.plain(value, 1) == "0.0"
    assert ACCURACY.decimals(0.0) == 1
    assert MAE.decimals(0.0) == 3
    assert MAE.amount(1234.0, MAE.decimals(50.0)) == "1234 mm of mae"
