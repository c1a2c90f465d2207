"""Codes in names and comments of tests are explained in docs/reliability.md, where each row names what holds it.

A case of tests/bad/ is called after its row: `D12-minus-one.csv` is of row D12.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BAD = ROOT / "tests" / "bad"
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
TITLE = "## What the codes in tests mean"
CODE = r"[RSDKCFQLP][0-9]{1,2}"
ROWS: list[tuple[str, str, str]] = re.findall(
    rf"^\| ({CODE}) \| (.+) \| (.+) \|$", PAGE.split(TITLE)[1].split("\n## ")[0], re.M
)
"""(code, what must hold, where)"""
NOT_HERE = {"K7", "D47"}
"""Rows that do not apply; the page says why."""


def cases() -> dict[str, list[Path]]:
    """Row -> its cases, and "" -> those that no table names."""
    found: dict[str, list[Path]] = {}
    for path in sorted(BAD.glob("*/*.txt")):
        match = re.match(rf"({CODE})-", path.name)
        found.setdefault(match[1] if match else "", []).append(path)
    return found


def codes_in(text: str) -> set[str]:
    """The codes in a test file; a text of its own such as "F32" is the type of a tensor."""
    return set(re.findall(rf"\b{CODE}\b", re.sub(rf'"{CODE}"', "", text)))


def test_a_code_has_one_row() -> None:
    counts = Counter(code for code, _, _ in ROWS)
    assert [code for code, count in counts.items() if count > 1] == []
    letters = Counter(code[0] for code in counts)
    assert letters == {"R": 29, "S": 23, "D": 41, "K": 15, "C": 10, "F": 23, "Q": 12, "L": 11}


def test_every_code_in_a_test_has_its_row() -> None:
    known = {code for code, _, _ in ROWS}
    used = {
        code: path.relative_to(ROOT)
        for path in (ROOT / "tests").rglob("*")
        if path.suffix in (".py", ".txt")
        for code in codes_in(path.read_text(encoding="utf-8")) | codes_in(path.stem.split("-")[0])
    }
    assert len(used) > 120
    assert {code: path for code, path in used.items() if code not in known} == {}


@pytest.mark.parametrize(("code", "meaning", "where"), ROWS)
def test_a_row_says_what_must_hold_and_names_what_is_there(code: str, meaning: str, where: str) -> None:
    assert re.fullmatch(r"\S.{20,110}\.", meaning), "one short sentence"
    if code in NOT_HERE:
        assert re.fullmatch(r"does not apply: .{20,}", where)
        return
    named = [place.strip("`") for place in where.split(", ")]
    assert (f"/{code}-*" in where) == (code in cases())
    for place in named:
        file, _, test = place.partition("::")
        if "*" in place:
            assert re.fullmatch(rf"tests/bad/(\w+|\*)/{code}-\*", place)
            assert {path.relative_to(ROOT) for path in cases()[code]} <= {
                path.relative_to(ROOT) for path in ROOT.glob(place)
            }
        else:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(
    ("text", "codes"), [("x  # D12, K2-K5", {"D12", "K2", "K5"}), ('b"F32", "F32"', set())]
)
def test_codes_are_found(text: str, codes: set[str]) -> None:
    assert codes_in(text) == codes


def numbers_on_the_page() -> dict[str, int]:
    section = PAGE.split("## Bad inputs")[1].split("\n## ")[0]
    return {name: int(number) for name, number in re.findall(r"^\| ([^|]+) \| ([0-9]+) \|", section, re.M)}


def test_the_page_counts_the_cases() -> None:
    counted = Counter((row[0] if row else "none of them") for row, paths in cases().items() for _ in paths)
    shown = numbers_on_the_page()
    assert {name.split(":")[0]: number for name, number in shown.items()} == dict(counted)
    assert sum(shown.values()) == len(list(BAD.glob("*/*.txt"))) >= 440
