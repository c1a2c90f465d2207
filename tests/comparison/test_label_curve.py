"""How many labels a single network needs to be as good."""

import pytest

from mtl.comparison.label_curve import labels_needed, saved


@pytest.mark.parametrize(
    ("value", "higher", "needed"),
    [(0.6, True, 100), (0.7, True, 316), (0.8, True, 1000), (0.81, True, None), (0.5, True, 100)],
)
def test_the_curve_is_interpolated_over_the_logarithm(value: float, higher: bool, needed: int | None) -> None:
    assert labels_needed([(100, 0.6), (1000, 0.8)], value, higher) == needed


def test_a_metric_of_errors_falls() -> None:
    assert labels_needed([(10, 4.0), (1000, 2.0)], 3.0, False) == 100
    assert labels_needed([(10, 4.0), (1000, 2.0)], 1.0, False) is None


def test_what_is_said() -> None:
    curve = [
        {"task": "a", "fraction": f, "labels": n, "arm": arm, "values": [v, v]}
        for f, n, arm, v in (
            (0.1, 100, "single", 0.6), (1, 1000, "single", 0.8), (0.1, 100, "sharing", 0.7), (1, 1000, "sharing", 0.75),
        )
    ]  # fmt: skip
    outcome = {"tasks": {"a": {"metric": "accuracy", "higher_is_better": True}}, "baseline": {"a": "single"}}
    assert saved(curve, "a", outcome) == [
        "a: with 100 labels, sharing reaches 0.7000 accuracy, for which single needs about 316 labels.",
        "a: with 1,000 labels, sharing reaches 0.7500 accuracy; it saves no labels.",
    ]
    curve[2]["values"] = [0.9]
    assert saved(curve, "a", outcome)[0].endswith("which single does not reach with 1,000 labels.")
