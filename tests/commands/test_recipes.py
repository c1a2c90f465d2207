"""The commands about recipes: lists of them and of members, copies, checks, summaries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mtl.errors import ENVIRONMENT
from mtl.recipe.load import built_in_names, load_recipe
from mtl.recipe.specs import FAMILIES
from tests.support.assertions import Capture, called, refused
from tests.support.command_line import ROOT, good
from tests.support.command_line import folder as folder


def test_ls(capsys: Capture) -> None:
    out = good(called(capsys, "ls"))
    names = [line.split()[0] for line in out.splitlines()[2:]]
    assert names == list(built_in_names())
    assert all(len(line.split()) > 3 for line in out.splitlines()[2:])
    assert good(called(capsys, "ls", "recipes")) == good(called(capsys, "ls", "recipe")) == out


@pytest.mark.parametrize("family", FAMILIES)
def test_ls_family(family: str, capsys: Capture) -> None:
    out = good(called(capsys, "ls", family))
    names = [line.split()[0] for line in out.splitlines()[2:]]
    assert names == list(FAMILIES[family].names())
    plurals = {"sharing": "sharing"}
    assert good(called(capsys, "ls", plurals.get(family, family + "s"))) == out


def test_schema(capsys: Capture) -> None:
    out = good(called(capsys, "schema"))
    assert out == (ROOT / "recipes" / "recipe.schema.json").read_text(encoding="utf-8")
    json.loads(out)


@pytest.mark.parametrize("name", ["fashion_three_tasks", "synthetic_stitch", "t.yaml"])
def test_show_is_the_same_recipe(name: str, capsys: Capture) -> None:
    out = good(called(capsys, "show", name, "train.batch_size=7"))
    Path("shown.yaml").write_text(out, encoding="utf-8")
    assert "base:" not in out
    shown, given = load_recipe("shown.yaml"), load_recipe(name, ["train.batch_size=7"])
    assert shown.plain() == given.plain()
    assert shown.sha256() == given.sha256()
    assert shown.train.batch_size == 7


@pytest.mark.parametrize("name", built_in_names())
def test_a_copy_validates_beside_its_schema(name: str, capsys: Capture, folder: Path) -> None:
    out = good(called(capsys, "cp", name))
    assert out == f"{name}.yaml (schema: recipe.schema.json)\n"
    assert (folder / f"{name}.yaml").read_bytes() == (ROOT / "recipes" / f"{name}.yaml").read_bytes()
    assert (folder / "recipe.schema.json").read_bytes() == (ROOT / "recipes/recipe.schema.json").read_bytes()
    assert good(called(capsys, "validate", f"{name}.yaml")).startswith(f"ok {name}.yaml: ")


def test_cp_overwrites_nothing_unasked(capsys: Capture, folder: Path) -> None:
    (folder / "mine.yaml").write_text("mine", encoding="utf-8")
    expected = ["mine.yaml: is there already; give another name, or --force"]
    refused(lambda: called(capsys, "cp", "fashion_fast", "mine.yaml"), folder, expected)
    good(called(capsys, "cp", "fashion_fast", "mine.yaml", "--force"))
    assert load_recipe("mine.yaml").name == "fashion_fast"
    (folder / "sub").mkdir()
    good(called(capsys, "cp", "fashion_fast", "sub"))
    assert {path.name for path in (folder / "sub").iterdir()} == {"fashion_fast.yaml", "recipe.schema.json"}


@pytest.mark.parametrize("target", ["no/such/folder/x.yaml", "t.yaml/x.yaml", "a" * 300])
def test_cp_to_where_it_cannot_write(target: str, capsys: Capture, folder: Path) -> None:
    refused(lambda: called(capsys, "cp", "fashion_fast", target), folder, [": "], code=ENVIRONMENT)


def test_cp_of_nothing(capsys: Capture, folder: Path) -> None:
    refused(lambda: called(capsys, "cp", "t.yam"), folder, ["no such file"])
    refused(lambda: called(capsys, "cp", "u.yaml"), folder, ["u.yaml: no such file"])


def test_validate(capsys: Capture) -> None:
    out = good(called(capsys, "validate", "t.yaml", "fashion_stitch", "train.epochs=1"))
    assert out.splitlines() == [
        "ok t.yaml: 2 tasks, 2 towers, 168 parameters",
        "ok fashion_stitch: 2 tasks, 2 towers, 6,477,798 parameters",
    ]


def test_summary(capsys: Capture) -> None:
    assert "it holds 12 parameters" in good(called(capsys, "summary", "fashion_stitch"))
    dense = good(called(capsys, "summary", "fashion_stitch", "model.sharing.granularity=dense"))
    assert "it holds 200,884,224 parameters" in dense
