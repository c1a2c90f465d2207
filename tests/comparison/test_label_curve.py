"""How many labels a single network needs to be as good."""

import pytest

from mtl.comparison.label_curve import Part, labels_needed, saved


@pytest.mark.parametrize(
    ("value", "higher", "needed"),
    [(0.6, True, 100), (0.7, True, 316), (0.8, True, 1000), (0.81, True, None), (0.5, True, 100)],
)
def test_the_curve_is_interpolated_over_the_logarithm(value: float, higher: bool, needed: int | None) -> None:
    assert labels_needed([(100, 0.6), (1000, 0.8)], value, higher) == needed


def test_a_metric_of_errors_falls() -> None:
    assert labels_needed([(10, 4.0), (1000, 2.0)], 3.0, False) == 100
    assert labels_needed([(10, 4.0), (1000, 2.0)], 1.0, False) is None


def part(labels: int, single: list[float], sharing: list[float], verdict: str, least: int = 1000) -> Part:
    own = {"single": single, "sharing": sharing}
    arms = {arm: {"results": {"a": {"values": values}}} for arm, values in own.items()}
    words = f"a: sharing is {verdict} by 1 point"
    entry = {"arm": "sharing", "against": "single", "task": "a", "verdict": verdict, "words": words}
    outcome = {
        "tasks": {"a": {"higher_is_better": True}}, "baseline": {"a": "single"}, "arms": arms, "seeds": [0, 1],
        "comparisons": [entry],
    }  # fmt: skip
    return Part(labels / least, labels, outcome)


def test_labels_are_saved_only_where_the_arm_is_shown_to_be_better() -> None:
    whole = part(1000, [0.8, 0.8], [0.75, 0.9], "cannot tell")
    few = part(100, [0.6, 0.6], [0.7, 0.7], "better")
    assert saved("a", [few, whole]) == [
        "a: with 100 labels, sharing is better by 1 point; single needs 316 labels to reach as much.",
        "a: with 1,000 labels, sharing is not shown to save labels: sharing is cannot tell by 1 point.",
    ]
    assert "not shown to save labels" in saved("a", [part(100, [0.6, 0.6], [0.9, 0.9], "worse"), whole])[0]


@pytest.mark.parametrize(
    ("sharing", "needed"),
    [
        ([0.7, 0.65], "178 to 316 labels, depending on the seed,"),
        ([0.7, 0.9], "316 to more than 1,000 labels, depending on the seed,"),
        ([0.9, 0.9], "more than 1,000 labels on every seed"),
    ],
)
def test_how_many_labels_are_saved_is_told_by_seed(sharing: list[float], needed: str) -> None:
    whole = part(1000, [0.8, 0.8], [0.75, 0.75], "cannot tell")
    line = saved("a", [part(100, [0.6, 0.6], sharing, "ahead"), whole])[0]
    assert line.endswith(f"; single needs {needed} to reach as much.")
