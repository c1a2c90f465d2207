"""delta_m: done by hand, refused where it means nothing, and a trade where its two forms disagree."""

from __future__ import annotations

import pytest

from mtl.comparison.statistics.delta_m import delta_m, is_share

ACCURACY, RMSE = ("accuracy", True), ("rmse", False)


def test_the_mean_of_signed_relative_changes() -> None:
    found = delta_m(
        {"a": [0.66, 0.66], "b": [0.9, 0.9]},
        {"a": [0.59, 0.61], "b": [0.98, 1.02]},
        {"a": ACCURACY, "b": RMSE},
    )
    assert found.by_score == pytest.approx((10 + 10) / 2)
    assert found.by_error == pytest.approx((100 * 0.06 / 0.4 + 10) / 2)
    assert (found.helped, found.hurt, found.agrees) == (("a", "b"), (), True)
    assert found.sentence("stitched") == (
        "delta_m of stitched is +10.00% by score and +12.50% by error, the mean relative change over tasks"
    )


def test_weights() -> None:
    found = delta_m(
        {"a": [0.66], "b": [1.1]}, {"a": [0.6], "b": [1.0]}, {"a": ACCURACY, "b": RMSE}, {"a": 3.0, "b": 1.0}
    )
    assert found.by_score == pytest.approx((3 * 10 - 10) / 4)
    none = delta_m({"a": [0.6]}, {"a": [0.5]}, {"a": ACCURACY}, {"a": 0.0})
    assert none.reason == "all weights are zero"


def test_forms_that_disagree_are_a_trade() -> None:
    values = {"a": [0.97], "b": [0.53], "c": [0.6]}
    single = {"a": [0.98], "b": [0.50], "c": [0.61]}
    found = delta_m(values, single, dict.fromkeys("abc", ACCURACY))
    assert found.by_score is not None
    assert found.by_error is not None
    assert found.by_score > 0 > found.by_error
    assert (
        found.sentence("stitched")
        == "a trade by the means alone: stitched is above in b, and below in a and c"
    )


def test_no_change_is_zero() -> None:
    found = delta_m({"a": [0.5]}, {"a": [0.5]}, {"a": ACCURACY})
    assert (found.by_score, found.by_error, found.agrees) == (0, 0, False)
    assert found.sentence("stitched") == "delta_m of stitched is zero"


@pytest.mark.parametrize(
    ("metric", "single", "reason"),
    [
        (("r2", True), [0.5], "r2 can be zero or negative"),
        (("quadratic_kappa", True), [0.5], "quadratic_kappa can be zero or negative"),
        (("bias", False), [0.5], "bias can be zero or negative"),
        (("rmse", False), [0.1, 0.0001], "rmse of the single-task networks is near zero"),
        (("rmse", False), [0.0, 0.0], "rmse of the single-task networks is near zero"),
        (("reward", True), [120.0], "reward is not known to be a share of one"),
        (("accuracy", True), [1.0], "accuracy of the single-task networks is perfect"),
        (("accuracy", True), [None], "accuracy has no single-task value"),
    ],
)
def test_it_is_refused_where_a_share_means_nothing(
    metric: tuple[str, bool], single: list[float | None], reason: str
) -> None:
    found = delta_m({"a": [0.6]}, {"a": single}, {"a": metric})
    assert (found.by_score, found.by_error, found.reason) == (None, None, f"a: {reason}")
    assert found.sentence("stitched") == f"delta_m has no meaning here: a: {reason}"


def test_an_arm_without_values_is_refused() -> None:
    assert delta_m({"a": [None]}, {"a": [0.5]}, {"a": ACCURACY}).reason == "a: accuracy has no value"


def test_scores_from_zero_to_one() -> None:
    assert all(
        map(is_share, ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "macro_average_precision"))
    )
    assert not any(map(is_share, ("r2", "rmse", "mae", "loss", "cohen_kappa", "brier")))
