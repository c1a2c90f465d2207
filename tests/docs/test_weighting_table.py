"""The tables of weightings: every member has a row in one of them, and the page is fresh."""

from __future__ import annotations

import re

from docs.tools.weighting_table import OF_GRADIENTS, OF_LOSSES, PAGE, fresh, weighting_tables
from mtl.recipe.specs import WEIGHTINGS


def tables(text: str) -> list[list[list[str]]]:
    """The cells of each table of a page."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def test_the_page_is_fresh() -> None:
    """`make docs` makes it so."""
    page = PAGE.read_text(encoding="utf-8")
    assert page == fresh(page)


def test_every_weighting_has_a_row_in_one_of_two_tables() -> None:
    of_losses, of_gradients = tables(weighting_tables())
    assert (tuple(of_losses[0]), tuple(of_gradients[0])) == (OF_LOSSES, OF_GRADIENTS)
    for rows, is_there in ((of_losses[2:], False), (of_gradients[2:], True)):
        kinds = [kind for kind in WEIGHTINGS.names() if (WEIGHTINGS[kind].needs == "gradients") is is_there]
        assert [row[0] for row in rows] == [f"[`{kind}`](recipe.md#weighting-{kind})" for kind in kinds]
        assert all(row[1] and row[-1] for row in rows)
    assert sum(map(len, (of_losses[2:], of_gradients[2:]))) == len(WEIGHTINGS.names()) >= 27


def test_a_row_is_what_the_class_says() -> None:
    of_losses, of_gradients = tables(weighting_tables())
    (own,) = [row for row in of_losses if "`sum`" in row[0]]
    assert own[1] == "`sum_t weight_t * loss_t, with the weights that the tasks give`"
    (upgrad,) = [row for row in of_gradients if "`upgrad`" in row[0]]
    assert upgrad[2:6] == [
        f"`{WEIGHTINGS['upgrad'].equation.replace('|', chr(92) + '|')}`",
        WEIGHTINGS["upgrad"].when,
        "a preference",
        "32 tasks",
    ]
    (mgda,) = [row for row in of_gradients if "`mgda`" in row[0]]
    assert mgda[4:6] == ["a factor", "256 tasks"]


def test_costs_have_a_column_in_both_if_they_were_measured() -> None:
    costs = {
        "weighting, 2 tasks": {"sum": {"time": 1.0, "memory": 1.0}, "upgrad": {"time": 2.34, "memory": 1.2}}
    }
    of_losses, of_gradients = tables(weighting_tables(costs))
    for rows, kind, time in ((of_losses, "sum", "1.0"), (of_gradients, "upgrad", "2.3")):
        assert rows[0][-2:] == ["time of a step, 2", "memory of a step, 2"]
        (own,) = [row for row in rows if f"`{kind}`" in row[0]]
        assert own[-2] == time
