"""The best of several arms, and transfer: who must be beaten, and by how much."""

from __future__ import annotations

import numpy as np
import pytest

from mtl.comparison.statistics.differences import paired_difference
from mtl.comparison.statistics.leading import Transfer, leading_arm, transfers
from mtl.comparison.statistics.verdicts import Verdict, verdicts
from mtl.comparison.statistics.words import Measure

NOISE = np.array([0.002, -0.001, 0.001, -0.003, 0.001])
MEASURE = {"scarce": Measure("accuracy")}


def judged(gain: float, n_arms: int = 1) -> dict[str, Verdict]:
    base = 0.6 + 0.01 * np.arange(5)
    d = paired_difference((base + gain + NOISE).tolist(), base.tolist(), higher_is_better=True)
    return verdicts({"scarce": d}, n_arms=n_arms)


def transfer(
    single: float, sterile: float, noise: float, n_arms: int = 1, confirmed: bool = True
) -> Transfer:
    found = transfers(
        "stitched",
        "sterile",
        judged(single, n_arms),
        judged(sterile, n_arms),
        judged(noise),
        MEASURE,
        confirmed,
    )
    return found["scarce"]


def test_transfer_is_the_smaller_of_two_gains() -> None:
    found = transfer(0.05, 0.03, 0.02)
    assert (found.claimed, found.size) == (True, pytest.approx(0.03))
    assert found.sentence == (
        "scarce: the other tasks' labels help stitched by 3.0 points of accuracy, the smaller of its gains over the "
        "single and the sterile arm"
    )
    assert transfer(0.02, 0.03, -0.0001).size == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("single", "sterile", "missing"),
    [
        (0.05, 0.0, "the sterile arm"),
        (0.0, 0.05, "the single arm"),
        (-0.05, -0.05, "the single arm and the sterile arm"),
    ],
)
def test_transfer_needs_both_arms_beaten(single: float, sterile: float, missing: str) -> None:
    found = transfer(single, sterile, 0.0)
    assert (found.claimed, found.size) == (False, None)
    assert found.sentence == (
        f"scarce: no transfer is claimed: stitched is not shown to be better than {missing}"
    )


def test_a_sterile_arm_below_the_single_arm() -> None:
    assert transfer(0.05, 0.07, -0.02).sentence.endswith(
        "; noise labels hurt: sterile is below the single arm by 2.0 points of accuracy"
    )
    assert transfer(0.0, 0.001, -0.001).sentence.endswith(
        "; noise labels hurt, or it is chance: sterile is below the single arm by 0.10 points of accuracy"
    )


def test_no_transfer_without_a_sterile_arm_or_a_confirmation() -> None:
    (found,) = transfers("stitched", None, judged(0.05), {}, {}, MEASURE).values()
    assert not found.claimed
    assert found.sentence.endswith("without a sterile arm (the other tasks' labels permuted)")
    waiting = transfer(0.05, 0.05, 0.0, n_arms=2, confirmed=False)
    assert not waiting.claimed
    assert waiting.sentence == "scarce: stitched is ahead of both arms; fresh seeds have to confirm it"


def test_beating_both_is_one_claim_corrected_over_tasks() -> None:
    """Two tasks: one passes against the single arm only just, the other against the sterile arm only just."""
    names, p = ("a", "b"), {"weak": 0.0028, "strong": 0.05}
    base = 0.6 + 0.01 * np.arange(5)

    def of(gains: list[float]) -> dict[str, Verdict]:
        return verdicts(
            {
                name: paired_difference((base + gain + NOISE).tolist(), base.tolist(), higher_is_better=True)
                for name, gain in zip(names, gains, strict=True)
            }
        )

    single, sterile = of([p["weak"], p["strong"]]), of([p["strong"], p["weak"]])
    assert {v.verdict for v in (*single.values(), *sterile.values())} == {"better"}
    found = transfers("stitched", "sterile", single, sterile, {}, dict.fromkeys(names, MEASURE["scarce"]))
    assert [t.claimed for t in found.values()] == [False, False]
    assert found["a"].sentence == (
        "a: no transfer is claimed: stitched beats each of both arms, but not both at once after the correction for "
        "tasks"
    )


def test_the_leading_arm_has_the_largest_gain_in_spreads() -> None:
    gains = {"x": {"a": 0.02, "b": 1.0}, "y": {"a": 0.01, "b": 3.0}, "z": {"a": 0.05, "b": None}}
    assert leading_arm(gains, {"a": 0.01, "b": 1.0}, {"a": 1.0, "b": 1.0}) == "z"
    assert leading_arm(gains, {"a": 0.02, "b": 1.0}, {"a": 1.0, "b": 1.0}) == "y"
    assert leading_arm(gains, {"a": 0.01, "b": 1.0}, {"a": 0.0, "b": 1.0}) == "y"
    assert leading_arm(gains, {"a": 0.0, "b": 0.0}, {"a": 1.0, "b": 1.0}) == "x"
    assert leading_arm({}, {}, {}) is None
