"""Each sentence says what a number says, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from mtl.evaluation.links.words import sharing_words, with_error


def links(*found: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The content of links.json for two towers at one place."""
    task = {"loss": 0.51, "metric": "accuracy", "value": 0.8, "higher_is_better": True}
    made = {
        "sharing": "cross_stitch",
        "towers": {"first": ["first"], "scarce": ["scarce"]},
        "split": "validation",
        "rows": 1200,
        "rows_of_split": 1200,
        "units": "rows",
        "n_units": 1200,
        "shared": "links",
        "tasks": {"first": task, "scarce": task},
        "sites": [],
        "links": list(found),
        "transfer": None,
        "proposal": {"towers": None, "reason": "why"},
    }
    return {**made, **changes}


def link(verdict: str, delta: float = 0.05, **changes: Any) -> dict[str, Any]:
    change = {"loss": 0.51 + delta, "delta": delta, "se": 0.01, "verdict": verdict}
    made = {"site": "fc1", "target": "scarce", "source": "first", "share": 0.34, "spread": None}
    return {**made, "changes": {"scarce": change}, **changes}


def test_a_link_that_is_used_and_one_that_hurts() -> None:
    words = sharing_words(links(link("used"), link("hurts", -0.03, source="third")))
    assert words[1:] == [
        "At fc1, scarce takes 34% of its features from first; cutting this link raises its loss from 0.5100 to 0.5600 "
        "(+0.050 ± 0.010).",
        "At fc1, scarce takes 34% of its features from third; cutting this link lowers its loss from 0.5100 to 0.4800 "
        "(-0.030 ± 0.010).",
    ]


def test_a_gate_and_a_task_of_another_name() -> None:
    own = link("used", target="risk", source="expert_2", spread=0.08)
    words = sharing_words(links(own, towers={"risk": ["scarce"]}))
    assert words[1].startswith(
        "At fc1, the gate of risk gives 34% to expert_2 (± 8.0% over rows); cutting this link raises the loss of scarce"
    )


def test_links_that_are_not_used_whatever_their_alpha() -> None:
    one = sharing_words(links(link("not used", 0.0001)))[1]
    assert one == (
        "scarce from first at fc1 is not used by the result, whatever its alpha: cutting it moves the loss by less "
        "than 2%, noise included."
    )
    two = sharing_words(links(link("not used"), link("not used", spread=0.1)))[1]
    assert (
        "scarce from first at fc1 and scarce from first at fc1 are not used by the result, whatever their "
        in two
    )
    assert "alpha or gates: cutting one at a time" in two


def test_links_of_which_nothing_is_known() -> None:
    words = sharing_words(links(*[link("cannot tell")] * 5, link("used", changes=None)))
    assert words[1:] == [
        "These rows cannot tell whether the result uses 5 links.",
        "1 weaker link was not cut.",
    ]


def test_the_largest_changes_have_a_sentence_each() -> None:
    words = sharing_words(links(*(link("used", 0.01 * k) for k in range(1, 21))))
    assert "(+0.200 ± 0.010)" in words[1]
    assert words[6] == "And 15 more changes beyond noise are in the table."
    assert len(words) == 7


def test_one_group_of_all_tasks_is_one_tower() -> None:
    proposal = {"towers": {"group_1": ["first", "second", "scarce"]}, "reason": "within {...}"}
    tasks = {name: links()["tasks"]["first"] for name in ("first", "second", "scarce")}
    assert sharing_words(links(tasks=tasks, proposal=proposal))[-1] == (
        "All towers use each other beyond the noise of these rows: one tower for all tasks, towers: one, may do as "
        "well. It is the arm hard of mtl compare, which tells whether it does."
    )


def test_rows_of_training_are_said_first() -> None:
    assert sharing_words(links(split="train"))[0].startswith("There is no validation split: ")


def test_a_task_whose_tower_uses_it_although_another_does_not() -> None:
    """A link is not used only if no task that reads its target uses it."""
    both = link("not used")
    both["changes"]["second"] = {**both["changes"]["scarce"], "verdict": "cannot tell"}
    words = sharing_words(links(both, towers={"scarce": ["scarce", "second"]}))
    assert words[1:] == ["These rows cannot tell whether the result uses scarce from first at fc1."]


def test_indirect_paths_are_named() -> None:
    words = sharing_words(links(transfer={"indirect": True}))
    assert words[-1].endswith("what a tower gets from another one through a third stays.")


@pytest.mark.parametrize(
    ("delta", "se", "text"),
    [
        (0.05, 0.0112, "+0.050 ± 0.011"),
        (-0.0004, 0.00026, "-0.00040 ± 0.00026"),
        (12.3, 4.0, "+12.3 ± 4.0"),
        (1234.0, 250.0, "+1234 ± 250"),
        (0.0, 0.0, "0"),
        (0.25, None, "+0.2500"),
        (-0.25, 0.0, "-0.2500"),
        (None, None, "-"),
    ],
)
def test_a_change_has_its_sign_and_two_digits_of_its_error(
    delta: float | None, se: float | None, text: str
) -> None:
    assert with_error(delta, se) == text
