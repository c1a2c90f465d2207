"""The tables of all keys: nothing is left out, every key has words, and the page on disk is fresh."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from docs.tools import key_table as key_table_module
from docs.tools.key_table import BEGIN, END, PAGE, fresh, key_table
from mtl.recipe.json_schema import recipe_schema
from mtl.recipe.specs import FAMILIES
from mtl.registry import load_plugin
from tests.support.assertions import plugins_undone

PLUGIN = '''
from pydantic import Field

import mtl


@mtl.register_sharing("mine")
class Mine(mtl.SharingSpec):
    """A way of my own."""

    reference = "Somebody 1999"

    strength: float = Field(0.25, gt=0, lt=1, description="how *much* | how little")

    def build(self, plan):
        raise NotImplementedError
'''


def tables(text: str) -> dict[str, list[list[str]]]:
    """Heading -> rows of the table below it."""
    found: dict[str, list[list[str]]] = {}
    title = ""
    for line in text.splitlines():
        if line.startswith("#"):
            title = line.lstrip("# ")
            assert title not in found, f"{title} is there twice"
            found[title] = []
        elif line.startswith("| `"):
            found[title].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


@pytest.fixture(scope="module")
def found() -> dict[str, list[list[str]]]:
    return tables(key_table())


def row(found: dict[str, list[list[str]]], title: str, key: str) -> list[str]:
    (cells,) = [cells for cells in found[title] if cells[0] == f"`{key}`"]
    return cells[1:]


def test_the_page_is_fresh() -> None:
    """`make docs` makes it so."""
    page = PAGE.read_text(encoding="utf-8")
    assert page.count(BEGIN) == page.count(END) == 1
    assert page == fresh(page)


def test_a_page_that_is_not_fresh_is_made_so() -> None:
    stale = f"above\n{BEGIN}\nold\n{END}\nbelow\n"
    assert fresh(stale) == f"above\n{BEGIN}\n\n{key_table()}\n{END}\nbelow\n"


@pytest.mark.parametrize(
    ("title", "key", "cells"),
    [
        ("The recipe", "schema_version", ["integer", "required", ">= 1; <= 1"]),
        ("The recipe", "data", ["mapping, see `data`", "required", ""]),
        ("`train`", "batch_size", ["integer", "`128`", ">= 1; <= 1,000,000", "rows"]),
        ("`train`", "precision", ["`float32`, `bfloat16`", "`float32`", ""]),
        ("`train`", "clip_norm", ["number", "", "> 0; <= 1e9", "largest norm of the whole gradient"]),
        ("`train.batches`", "min_labelled", ["name -> integer", "`{}`", "each >= 1; each <= 1,000,000"]),
        ("`data.split`", "validation", ["number", "", "> 0; < 1"]),
        ("`seed`", "order", ["integer", "`0`", ">= 0; < 2^32", "order of rows, and dropout"]),
        ("Optimizers", "lr", ["number", "required", "> 0; <= 10", "learning rate"]),
        ("optimizer `adam`", "betas", ["list of number, number", "`[0.9, 0.999]`", "2 entries"]),
        ("sharing `cross_stitch`", "granularity", ["`scalar`, `channel`, `dense`", "`scalar`", ""]),
        ("sharing `cross_stitch`", "after", ["list of text", "required", "1 to 200 entries"]),
        ("stage `conv`", "channels", ["integer", "required", ">= 1; <= 65,536"]),
        ("task `fashion.garment`", "target", ["text", "`label`", "", "the label column"]),
        ("backbone `layers`", "stages", ["list of a stage", "required", "1 to 200 entries"]),
    ],
)
def test_a_key_is_described(
    found: dict[str, list[list[str]]], title: str, key: str, cells: list[str]
) -> None:
    assert row(found, title, key)[: len(cells)] == cells


def test_every_key_of_the_schema_is_there(found: dict[str, list[list[str]]]) -> None:
    """A key that stands anywhere in the JSON schema is in a table, or is the `kind` of a member."""
    keys: set[str] = set()

    def collect(schema: Any) -> None:
        if isinstance(schema, dict):
            keys.update(schema.get("properties", {}))
            for inner in schema.values():
                collect(inner)
        elif isinstance(schema, list):
            for inner in schema:
                collect(inner)

    collect(recipe_schema()["$defs"])
    shown = {cells[0].strip("`") for rows in found.values() for cells in rows}
    assert len(keys) >= 80
    assert keys - shown == set()
    assert shown - keys == set()


@pytest.mark.parametrize(
    ("family", "name"), [(family, name) for family, members in FAMILIES.items() for name in members.names()]
)
def test_every_member_has_its_keys(found: dict[str, list[list[str]]], family: str, name: str) -> None:
    titles = {"sharing": "Sharing schemes"}
    head = titles.get(family, f"{family}s".capitalize())
    shown = {cells[0].strip("`") for title in (f"{family} `{name}`", head) for cells in found[title]}
    assert shown == set(FAMILIES[family][name].model_fields) - {"kind"}


def test_every_key_has_words(found: dict[str, list[list[str]]]) -> None:
    rows = [(title, cells) for title, own in found.items() for cells in own]
    assert len(rows) >= 150
    assert all(len(cells) == 5 for _, cells in rows)
    assert [f"{title}: {cells[0]}" for title, cells in rows if not cells[4] or not cells[1]] == []


def test_code_is_left_as_it_is_and_text_is_escaped() -> None:
    text = key_table()
    assert "`positive_weight`" in text
    assert "by\\_time" in text
    for line in text.splitlines():
        pieces = line.split("`")
        assert len(pieces) % 2
        assert not any("\\_" in code or "\\*" in code for code in pieces[1::2])


def test_a_plugin_has_its_table_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN, encoding="utf-8")
    with plugins_undone():
        load_plugin(str(tmp_path / "mine.py"))
        text = key_table()
    own = tables(text)["sharing `mine`"]
    assert own == [["`strength`", "number", "`0.25`", "> 0; < 1", "how \\*much\\* \\| how little"]]
    assert "A way of my own. Reference: Somebody 1999." in text
    assert "sharing `mine`" not in key_table()


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    """What `make docs` calls, on a copy of the tool and a page that is not fresh."""
    (tmp_path / "docs" / "tools").mkdir(parents=True)
    shutil.copy(key_table_module.__file__, tmp_path / "docs" / "tools")
    page = tmp_path / "docs" / "recipe.md"
    page.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n", encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "docs.tools.key_table"], cwd=tmp_path, check=True,
        env={**os.environ, "PYTHONPATH": str(PAGE.parents[1])},
    )  # fmt: skip
    assert page.read_text(encoding="utf-8") == f"above\n{BEGIN}\n\n{key_table()}\n{END}\nbelow\n"
