"""Results as tables, and the places for them in bench/README.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.speed import render
from bench.speed.main import RESULTS

STORED = sorted(RESULTS.glob("*.json"))
MACHINE = {"processor": "a", "cores": 2, "instructions": "b", "torch": "c", "python": "d"}
START = {"python -c 'import torch'": {"wall": {"median": 2, "least": 1}, "cpu": {"median": 4, "least": 3}}}


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_stored_results_can_be_shown(path: Path) -> None:
    results = json.loads(path.read_text(encoding="utf-8"))
    text = render.rendered(results)
    assert results["machine"]["processor"] in text
    assert text.count("## ") == len(results) - 1 >= 1


def test_there_are_stored_results() -> None:
    assert STORED


def test_the_page_has_a_place_for_each_section() -> None:
    page = render.README.read_text(encoding="utf-8")
    for name in ("machine", *render.SECTIONS):
        assert page.count(f"<!-- {name} -->\n") == page.count(f"<!-- end of {name} -->\n") == 1


def test_the_page_takes_the_tables_and_keeps_the_rest(tmp_path: Path) -> None:
    results: dict[str, Any] = {"machine": MACHINE, "start": START}
    stored, page = tmp_path / "here.json", tmp_path / "page.md"
    stored.write_text(json.dumps(results), encoding="utf-8")
    before = render.README.read_text(encoding="utf-8")
    page.write_text(before, encoding="utf-8")
    shown = render.render(stored, page)
    once = page.read_text(encoding="utf-8")
    assert "| `python -c 'import torch'` | 2.00 (1.00) | 1.00 | 4.00 (3.00) | 1.00 |" in shown
    assert render.table_of("start", results) in once
    assert "2 cores of a (b), torch c, Python d." in once
    assert render.table_of("busy", results) == render.UNKNOWN
    outside = [
        text.partition("<!-- start -->")[2].partition("<!-- end of start -->") for text in (before, once)
    ]
    assert outside[0][2] == outside[1][2]  # what comes behind stays
    render.render(stored, page)
    assert page.read_text(encoding="utf-8") == once


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for machine"):
        render.filled("a page", {"machine": MACHINE})
