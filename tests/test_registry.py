"""Plug-ins and folders of members; what every family promises is in test_families.py."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mtl.errors import UserError, quoted
from mtl.recipe.load import load_recipe
from mtl.recipe.specs import FAMILIES, SHARING, TASKS
from mtl.registry import PLUGIN_GROUP, Registry, fault_of_plugin, load_plugin
from tests.support.assertions import plugins_undone

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
    folders = {path.parent.name for path in package.glob("*/spec.py")}
    modules = {SHARING[name].__module__ for name in SHARING.names()}
    assert {
        module.removeprefix("mtl.sharing.").removesuffix(".spec")
        for module in modules
        if module.startswith("mtl.")  # other tests register members of their own
    } == files | folders
    assert len(folders) >= 2


def test_the_families() -> None:
    assert list(FAMILIES) == [
        "source",
        "task",
        "backbone",
        "sharing",
        "weighting",
        "optimizer",
        "schedule",
        "tracker",
    ]


# -- what a member needs ---------------------------------------------------------------------------------------


class Part:
    """A base with a method that a member must give, and one that it may."""

    def make(self, n: int, shape: tuple[int, ...], last: bool = False) -> None:
        raise NotImplementedError

    def more(self) -> None: ...


@pytest.mark.parametrize(
    ("methods", "fault"),
    [
        ({"make": lambda self, n, shape: None}, None),
        ({"make": lambda self, n, shape, last=True: None}, None),
        ({"make": lambda self, *sizes: None}, None),
        ({}, "Mine has no method `make`"),
        ({"more": lambda self: None}, "Mine has no method `make`"),
        ({"make": lambda self, n: None}, r"Mine.make\(self, n\) cannot be called as make\(self, n, shape\)"),
        (
            {"make": lambda self, n, shape, width: None},
            r"Mine.make\(self, n, shape, width\) cannot be called as make\(self, n, shape\)",
        ),
    ],
)
def test_what_a_member_needs(methods: dict[str, object], fault: str | None) -> None:
    registry = Registry("part", Part, "mtl.weightings", ("make",))
    member = type("Mine", (Part,), methods)
    if fault is None:
        assert registry.register("mine")(member) is registry["mine"]
        return
    with pytest.raises(UserError, match=rf": part 'mine': {fault}$"):
        registry.register("mine")(member)
    assert "mine" not in registry


@pytest.mark.parametrize("name", ["", "two words", "a\nb", "x" * 65, "-it", "größe"])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(UserError) as caught:
        TASKS.register(name)
    assert str(caught.value).endswith(
        f"{quoted(name)} is no name for a task; "
        'write @mtl.register_task("name"): letters, digits, "_", "-" and "."'
    )


def test_a_decorator_without_parentheses(folder: Path) -> None:
    text = "import mtl\n\n@mtl.register_task\nclass Mine(mtl.tasks.Binary):\n    target: str = 'a'\n"
    (folder / "mine.py").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_plugin("mine.py")
    assert str(caught.value).startswith(
        f"plugin 'mine.py': {folder / 'mine.py'}: 'Mine' is no name for a task; write @mtl.register_task(\"name\")"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_base_of_a_family_is_no_member_itself(family: str) -> None:
    """Each family names something that its base does not do."""
    registry = FAMILIES[family]
    with pytest.raises(UserError, match=r"has no (method|class variable) `|has no `reference`"):
        registry.register("base")(type("Base", (registry.base,), {"__module__": "somewhere"}))
    assert "base" not in registry.names()
    assert registry.needs


# -- whose fault it is -----------------------------------------------------------------------------------------

TROUBLE = """
class Outer:
    class Inner:
        def work(self, callback):
            return callback({}["key"] if callback is None else 1)


def helper(callback):
    return Outer.Inner().work(callback)
"""


def raised(call: Callable[[], object]) -> Exception:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError


def test_an_exception_is_the_plugins_if_its_code_is_on_the_way(folder: Path) -> None:
    (folder / "trouble.py").write_text(TROUBLE, encoding="utf-8")
    load_plugin("trouble.py")
    module = next(m for name, m in sys.modules.items() if name.startswith("mtl_plugin_"))
    own = fault_of_plugin(raised(lambda: module.helper(None)))
    assert str(own) == (
        "plugin 'trouble.py': Outer.Inner.work raised KeyError: \"'key'\" at line 5; --debug shows the traceback"
    )
    below = fault_of_plugin(raised(lambda: module.helper(lambda n: n.nothing)))
    assert below is not None
    assert "Outer.Inner.work raised AttributeError" in str(below)
    assert fault_of_plugin(raised(lambda: {}["key"])) is None


def test_an_installed_plugin_is_blamed_by_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "trouble_package").mkdir()
    (folder / "trouble_package" / "__init__.py").write_text("from . import inner\n", encoding="utf-8")
    (folder / "trouble_package" / "inner.py").write_text(TROUBLE, encoding="utf-8")
    info = folder / "trouble-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trouble\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(
        f"[{PLUGIN_GROUP}]\nof = trouble_package.inner\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(folder)
    load_plugin("of")
    module = sys.modules["trouble_package.inner"]
    assert str(fault_of_plugin(raised(lambda: module.helper(None)))).startswith(
        "plugin 'of': Outer.Inner.work "
    )
    for name in ("trouble_package", "trouble_package.inner"):
        monkeypatch.delitem(sys.modules, name)
