"""Plug-ins and folders of members; what every family promises is in test_families.py."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtl.errors import UserError
from mtl.recipe.load import load_recipe
from mtl.recipe.spec import FAMILIES, SHARING, TASKS
from mtl.registry import PLUGIN_GROUP, load_plugin
from tests.test_errors import plugins_undone

FOOTWEAR = '''
import mtl


@mtl.register_task("fashion.footwear")
class Footwear(mtl.tasks.Multiclass):
    """Is it worn on the foot?"""

    reference = "ours"
    target: str = "label"
    groups: dict[str, tuple[int, ...]] | None = {"Footwear": (5, 7, 9), "Other": (0, 1, 2, 3, 4, 6, 8)}
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    with plugins_undone():
        yield tmp_path


def test_a_plugin_file_adds_a_member(folder: Path) -> None:
    (folder / "footwear.py").write_text(FOOTWEAR, encoding="utf-8")
    assert "fashion.footwear" not in TASKS
    assert load_plugin("footwear.py") == str(folder / "footwear.py")
    recipe = load_recipe("fashion_stitch", ["tasks.footwear={kind: fashion.footwear}"])
    task = recipe.tasks["footwear"]
    assert (task.kind, task.target) == ("fashion.footwear", "label")
    assert list(recipe.towers) == ["garment", "audience", "footwear"]
    assert (TASKS["fashion.footwear"].__doc__ or "").startswith("Is it worn")


def test_a_plugin_is_loaded_once(folder: Path) -> None:
    (folder / "footwear.py").write_text(FOOTWEAR, encoding="utf-8")
    (folder / "link.py").symlink_to("footwear.py")
    load_plugin("footwear.py")
    first = TASKS["fashion.footwear"]
    assert load_plugin(str(folder / "footwear.py")) == load_plugin("link.py") == str(folder / "footwear.py")
    assert TASKS["fashion.footwear"] is first


def test_a_plugin_that_failed_is_run_again(folder: Path) -> None:
    (folder / "footwear.py").write_text("raise ValueError('not yet')\n", encoding="utf-8")
    with pytest.raises(UserError, match="raised ValueError: 'not yet' while it was loaded"):
        load_plugin("footwear.py")
    (folder / "footwear.py").write_text(FOOTWEAR + "\n# longer than before\n", encoding="utf-8")
    load_plugin("footwear.py")
    assert "fashion.footwear" in TASKS


def test_two_plugins_with_one_name_are_refused(folder: Path) -> None:
    for name in ("one.py", "two.py"):
        (folder / name).write_text(FOOTWEAR, encoding="utf-8")
    load_plugin("one.py")
    with pytest.raises(UserError) as caught:
        load_plugin("two.py")
    message = str(caught.value)
    assert "task 'fashion.footwear' is already registered by" in message
    assert str(folder / "one.py") in message
    assert str(folder / "two.py") in message


def test_a_plugin_sees_no_other_name_than_its_own(folder: Path) -> None:
    """It cannot take the place of a module, whatever its file is called."""
    (folder / "json.py").write_text("here = True\n", encoding="utf-8")
    load_plugin("json.py")
    assert not hasattr(sys.modules["json"], "here")


@pytest.mark.parametrize("name", ["folder.py", "nosuch.py"])
def test_a_plugin_that_is_no_file(folder: Path, name: str) -> None:
    (folder / "folder.py").mkdir()
    with pytest.raises(UserError) as caught:
        load_plugin(name)
    assert str(caught.value) == f"--plugin: cannot import plugin '{name}': no such file"


def test_an_installed_plugin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "shoes.py").write_text(FOOTWEAR, encoding="utf-8")
    info = folder / "shoes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shoes\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[{PLUGIN_GROUP}]\nshoes = shoes\n", encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "shoes", raising=False)
    assert [point.name for point in importlib.metadata.entry_points(group=PLUGIN_GROUP)] == ["shoes"]
    assert "fashion.footwear" not in TASKS  # loaded only if named
    assert load_plugin("shoes") == "shoes"
    assert "fashion.footwear" in TASKS
    with pytest.raises(UserError) as caught:
        load_plugin("shoe")
    assert str(caught.value).endswith("(did you mean 'shoes'?); installed: shoes")
    del sys.modules["shoes"]


def test_plugins_are_undone(folder: Path) -> None:
    (folder / "footwear.py").write_text(FOOTWEAR, encoding="utf-8")
    with plugins_undone():
        load_plugin("footwear.py")
        assert "fashion.footwear" in TASKS
    assert "fashion.footwear" not in TASKS
    assert not [name for name in sys.modules if name.startswith("mtl_plugin_")]


def test_every_file_of_a_familys_folder_is_loaded() -> None:
    package = Path(sys.modules[SHARING["none"].__module__].__file__ or "").parent
    files = {path.stem for path in package.glob("*.py")} - {"__init__"}
    assert {SHARING[name].__module__.split(".")[-1] for name in SHARING.names()} == files


def test_the_families() -> None:
    assert list(FAMILIES) == ["source", "task", "backbone", "sharing", "weighting", "optimizer", "schedule"]
