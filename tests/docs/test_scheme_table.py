"""The table of sharing schemes: every member has a row, costs have a column if measured, and the page is fresh."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs.tools import scheme_table as tool
from docs.tools.scheme_table import COLUMNS, MARKS, PAGE, fresh, measured, scheme_table
from mtl.recipe.specs import SHARING
from mtl.registry import load_plugin
from tests.support.assertions import plugins_undone

PLUGIN = """
import mtl


@mtl.register_sharing("mine")
class Mine(mtl.SharingSpec):
    reference = "Somebody 1999"

    def build(self, plan):
        raise NotImplementedError
"""


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.splitlines()]


def test_the_page_is_fresh() -> None:
    """`make docs` makes it so."""
    page = PAGE.read_text(encoding="utf-8")
    assert page == fresh(page)
    begin, end = MARKS
    stale = f"above\n{begin}\nold\n{end}\nbelow\n"
    assert fresh(stale) == f"above\n{begin}\n\n{scheme_table(measured())}\n{end}\nbelow\n"


def test_every_scheme_has_a_row() -> None:
    head, line, *found = rows(scheme_table())
    assert tuple(head) == COLUMNS
    assert line == ["---"] * len(COLUMNS)
    assert [row[0] for row in found] == [f"[`{kind}`](recipe.md#sharing-{kind})" for kind in SHARING.names()]
    assert all(len(row) == len(COLUMNS) and row[1] and row[4] for row in found)
    assert sum(bool(row[2] and row[3]) for row in found) >= 13


def test_a_row_is_what_the_class_says() -> None:
    (stitch,) = [row for row in rows(scheme_table()) if "cross_stitch`]" in row[0]]
    member = SHARING["cross_stitch"]
    assert stitch[1:] == [
        "after each named stage, each tower goes on with a learned mixture of all towers",
        f"`{member.equation}`",
        member.when,
        member.reference,
    ]


def test_a_plugin_that_says_little_has_a_row(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN, encoding="utf-8")
    with plugins_undone():
        load_plugin(str(tmp_path / "mine.py"))
        (own,) = [row for row in rows(scheme_table()) if "`mine`" in row[0]]
    assert own[2:] == ["", "", "Somebody 1999"]


def test_costs_have_a_column_if_they_were_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ratios to a step of hard sharing, by number of tasks and for images; a scheme that was not timed has a dash."""
    costs = {
        "sharing, images": {"hard": {"time": 1.0, "memory": 1.0}, "mmoe": {"time": 4.0, "memory": 3.0}},
        "sharing, 32 tasks": {"hard": {"time": 1.0, "memory": 1.0}, "mmoe": {"time": 12.34, "memory": 20.04}},
        "weighting, 2 tasks": {"sum": {"time": 1.0, "memory": 1.0}},
        "sharing, 2 tasks": {
            "hard": {"time": 1.0, "memory": 1.0},
            "mmoe": {"time": 1.26, "memory": 2.0},
            "none": {"time": 1.5, "memory": 1.9},
        },
    }
    (tmp_path / "costs.json").write_text(json.dumps(costs), encoding="utf-8")
    monkeypatch.setattr(tool, "COSTS", tmp_path / "costs.json")
    head, _, *found = rows(scheme_table(measured()))
    assert head == [*COLUMNS, "time of a step, 2 / 32 / images", "memory of a step, 2 / 32 / images"]
    cost_of = {row[0].split("`")[1]: row[-2:] for row in found}
    assert cost_of["mmoe"] == ["1.3 / 12.3 / 4.0", "2.0 / 20.0 / 3.0"]
    assert cost_of["none"] == ["1.5 / - / -", "1.9 / - / -"]
    assert cost_of["film"] == ["- / - / -", "- / - / -"]
    monkeypatch.setattr(tool, "COSTS", tmp_path / "none.json")
    assert measured() is None
    assert scheme_table(measured()) == scheme_table()


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    """What `make docs` calls, on a copy of the tool and a page that is not fresh."""
    (tmp_path / "docs" / "tools").mkdir(parents=True)
    shutil.copy(tool.__file__, tmp_path / "docs" / "tools")
    page, (begin, end) = tmp_path / "docs" / "sharing.md", MARKS
    page.write_text(f"above\n{begin}\nold\n{end}\nbelow\n", encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "docs.tools.scheme_table"], cwd=tmp_path, check=True,
        env={**os.environ, "PYTHONPATH": str(PAGE.parents[1])},
    )  # fmt: skip
    assert page.read_text(encoding="utf-8") == f"above\n{begin}\n\n{scheme_table()}\n{end}\nbelow\n"
