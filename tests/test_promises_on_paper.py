"""What docs/reliability.md and SECURITY.md promise names tests and files that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_each_promise_names_tests_that_exist() -> None:
    text = (
        (ROOT / "docs/reliability.md").read_text(encoding="utf-8").split("## Promises")[1].split("\n## ")[0]
    )
    rows = re.findall(r"^\| (P[0-9]) \| .+ \| (.+) \|$", text, re.M)
    assert [name for name, _ in rows] == [f"P{i}" for i in range(1, 8)]
    for promise, tests in rows:
        named = re.findall(r"`(tests/[a-z_/]+\.py)::(test_[a-z0-9_]+)`", tests)
        assert named, promise
        for file, test in named:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (
                f"{file}::{test}"
            )


def test_the_files_that_the_pages_name_exist() -> None:
    found = 0
    for page in ("SECURITY.md", "docs/reliability.md"):
        for name in re.findall(
            r"`((?:tests|docs|bench)/[A-Za-z_./]+)`", (ROOT / page).read_text(encoding="utf-8")
        ):
            assert (ROOT / name).exists(), f"{page}: {name}"
            found += 1
    assert found >= 4
