"""docs/tasks.md tells of every kind each option, each metric with its direction, and the headline."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mtl.recipe.specs import TASKS, TaskSpec

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
KINDS = [kind for kind in TASKS.names() if re.search(rf"^## {kind}$", PAGE, flags=re.MULTILINE)]
"""Those that the page has a section on."""


def section(heading: str) -> str:
    """What stands below a heading."""
    (found,) = re.findall(rf"^## {heading}$(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)
    return found


def rows(text: str, first: str) -> list[tuple[list[str], list[str]]]:
    """The rows of the table that begins with a column `first`: names in the first cell, and the other cells."""
    (table,) = re.findall(rf"^\| {first} \|.*?(?=\n\n)", text + "\n\n", flags=re.DOTALL | re.MULTILINE)
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()[2:]]
    return [(re.findall(r"`(\w+)`", names), others) for names, *others in cells]


def test_the_kinds() -> None:
    assert set(KINDS) >= {"binary", "multiclass", "multilabel", "ordinal", "regression"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_is_there(kind: str) -> None:
    own = set(TASKS[kind].model_fields) - set(TaskSpec.model_fields)
    told = {name for names, _ in rows(section(kind), "key") for name in names}
    assert told - {"target"} == own


def test_what_all_kinds_have() -> None:
    told = {name for names, _ in rows(section("What all kinds have"), "key") for name in names}
    assert told == set(TaskSpec.model_fields) - {"kind"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_metric_is_there_with_its_direction_and_whether_it_is_measured(kind: str) -> None:
    told = [(name, others) for names, others in rows(section(kind), "metric") for name in names]
    assert sorted(name for name, _ in told) == sorted(TASKS[kind].known_metrics)
    for name, (better, remark) in told:
        if name != "bias":
            assert better == ("higher" if TASKS[kind].known_metrics[name] else "lower"), name
        assert ("the headline" in remark) == (name == TASKS[kind].default_metrics[0])
        assert remark.startswith(("default", "the headline")) == (name in TASKS[kind].default_metrics), name
        assert ("binned" in remark) == (name.removeprefix("macro_") in ("auroc", "average_precision")), name
