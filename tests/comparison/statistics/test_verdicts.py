"""Differences become verdicts, and none where none is due."""

from __future__ import annotations

import numpy as np
import pytest

from mtl.comparison.statistics.differences import Difference, paired_difference
from mtl.comparison.statistics.power import detectable, further_seeds
from mtl.comparison.statistics.verdicts import verdicts

BASE = [0.652, 0.661, 0.640, 0.655, 0.659]
NOISE = np.array([0.002, -0.001, 0.001, -0.003, 0.001])


def by(gain: float, noise: float = 1.0, **more: object) -> Difference:
    values = (np.array(BASE) + gain + noise * NOISE).tolist()
    return paired_difference(values, BASE, higher_is_better=True, **more)  # type: ignore[arg-type]


def test_the_four_verdicts_and_identical() -> None:
    found = verdicts(
        {"up": by(0.02), "down": by(-0.02), "same": by(0.0), "open": by(0.001, 2), "equal": by(0.0, 0.0)},
        {"same": 0.01, "open": 0.002},
    )
    wanted = ["better", "worse", "equivalent", "cannot tell", "identical"]
    assert [v.verdict for v in found.values()] == wanted
    assert found["same"].within_margin
    assert not found["up"].within_margin
    assert {v.n_tasks for v in found.values()} == {5}


def test_better_but_within_the_margin() -> None:
    (v,) = verdicts({"one": by(0.01)}, {"one": 0.05}).values()
    assert (v.verdict, v.within_margin) == ("better", True)


def test_without_a_margin_nothing_is_equivalent() -> None:
    assert verdicts({"one": by(0.0)})["one"].verdict == "cannot tell"


def test_the_correction_counts_tasks_and_arms_and_those_without_verdict() -> None:
    weak = by(0.0035)
    assert weak.p is not None
    assert 0.01 < weak.p < 0.05
    assert verdicts({"one": weak})["one"].verdict == "better"
    many = verdicts({"one": weak, **{str(i): by(0.0, 0.0) for i in range(4)}})["one"]
    assert (many.verdict, many.p_adjusted) == ("cannot tell", pytest.approx(5 * weak.p))
    arms = verdicts({"one": weak}, n_arms=4)["one"]
    assert (arms.verdict, arms.p_adjusted) == ("cannot tell", pytest.approx(4 * weak.p))


def test_equivalence_is_corrected_for_itself() -> None:
    alone = verdicts({"a": by(0.0)}, {"a": 0.0023})["a"]
    among = verdicts({"a": by(0.0), "b": by(0.0, 9), "c": by(0.0, 9)}, dict.fromkeys("abc", 0.0023))["a"]
    assert (alone.verdict, among.verdict) == ("equivalent", "cannot tell")


def test_a_pair_with_a_collapsed_run_has_no_verdict() -> None:
    (v,) = verdicts({"one": by(0.02)}, {"one": 0.1}, {"one": {"stitched": (3,)}}).values()
    assert (v.verdict, v.collapsed, v.seeds_needed) == ("cannot tell", {"stitched": (3,)}, None)


def test_one_seed_and_no_seed_are_no_verdict() -> None:
    one = paired_difference([0.9], [0.1], higher_is_better=True)
    none = paired_difference([None, None], [0.1, 0.2], higher_is_better=True)
    found = verdicts({"one": one, "none": none}, {"one": 5.0, "none": 5.0})
    assert [v.verdict for v in found.values()] == ["cannot tell", "cannot tell"]
    assert [v.seeds_needed for v in found.values()] == [None, None]
    assert found["none"].p_adjusted is None


def test_equal_differences_are_better_from_six_seeds_on() -> None:
    for k, verdict in ((2, "cannot tell"), (5, "cannot tell"), (6, "better")):
        base = np.linspace(0.6, 0.7, k)
        d = paired_difference((base + 0.02).tolist(), base.tolist(), higher_is_better=True)
        assert d.constant
        assert verdicts({"one": d})["one"].verdict == verdict
    assert verdicts({"one": d}, {"one": 0.01})["one"].within_margin is False


def test_undecided_says_how_many_seeds_would_decide() -> None:
    open_ = by(0.001)
    (v,) = verdicts({"one": open_}).values()
    assert open_.sd is not None
    assert v.target == pytest.approx(0.001)
    assert v.seeds_needed == further_seeds(v.target or 0, 5, open_.sd)
    low, high = v.seeds_needed
    assert detectable(5 + low) * open_.sd < 2 * v.target
    assert low < high


def test_a_difference_below_the_margin_is_no_target() -> None:
    (v,) = verdicts({"one": by(0.0005, 3)}, {"one": 0.002}).values()
    assert (v.verdict, v.target) == ("cannot tell", 0.002)


def test_more_tasks_need_more_seeds() -> None:
    alone = verdicts({"one": by(0.001)})["one"].seeds_needed
    among = verdicts({"one": by(0.001), **{str(i): by(0.0) for i in range(5)}})["one"].seeds_needed
    assert alone is not None
    assert among is not None
    assert alone[0] < among[0]


def test_noise_of_rows_that_seeds_cannot_average_out_asks_for_rows() -> None:
    rng = np.random.default_rng(0)
    shared = 0.02 * rng.normal(size=(1, 300)) + np.zeros((5, 1))
    d = by(0.01, replicates=shared, against_replicates=np.zeros((5, 300)), n_units=100)
    (v,) = verdicts({"one": d}).values()
    assert (v.verdict, v.seeds_needed) == ("cannot tell", None)
    assert v.rows_needed is not None
    assert v.rows_needed == pytest.approx((2.8 * 2) ** 2, rel=0.2)


def test_splits_drawn_anew_give_no_advice_on_seeds() -> None:
    (v,) = verdicts({"one": by(0.001, resampled=(80, 20))}).values()
    assert (v.verdict, v.seeds_needed, v.rows_needed) == ("cannot tell", None, None)


def test_a_margin_is_positive() -> None:
    with pytest.raises(ValueError, match="margins are positive"):
        verdicts({"one": by(0.0)}, {"one": 0.0})
