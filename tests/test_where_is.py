"""CONTRIBUTING.md says where things are: each row of its table names a file that is there and names defined in it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECTION = (
    (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Where is ...?")[1].split("\n## ")[0]
)
ROWS: list[tuple[str, str, str]] = re.findall(r"^\| (.+) \| `([^`]+\.py)` \| (`.+`) \|$", SECTION, re.M)
"""(what, file, names)"""


def defined_in(text: str) -> set[str]:
    """Functions, classes, methods (`Class.method`) and assignments of a module, at its top level."""
    names: set[str] = set()
    for node in ast.parse(text).body:
        match node:
            case ast.FunctionDef():
                names.add(node.name)
            case ast.ClassDef():
                names.add(node.name)
                names |= {f"{node.name}.{own.name}" for own in node.body if isinstance(own, ast.FunctionDef)}
            case ast.Assign():
                names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return names


def test_every_row_of_the_table_is_read() -> None:
    lines = [line for line in SECTION.splitlines() if line.startswith("|")]
    assert len(ROWS) == len(lines) - 2 >= 70  # the head and the rule beneath it
    assert len({what for what, _, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("what", "file", "names"), ROWS, ids=[what for what, _, _ in ROWS])
def test_what_is_looked_for_is_there(what: str, file: str, names: str) -> None:
    assert (ROOT / file).is_file()
    asked = re.findall(r"`([\w.]+)`", names)
    assert len(asked) == len(names.split(", "))
    assert set(asked) <= defined_in((ROOT / file).read_text(encoding="utf-8"))


def test_what_a_module_defines() -> None:
    text = "A = 1\nB: int = 2\ndef f():\n    x = 1\nclass C:\n    y = 1\n    def g(self): ...\nf.z = 3\n"
    assert defined_in(text) == {"A", "B", "f", "C", "C.g"}
