"""What `import mtl` offers, and that it offers it without torch."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import mtl

NAMES = """
Recipe load_recipe run resume compare tune UserError StitchedMultiTower CrossStitch SeparateTowers
Trunk TaskModule Weighting __version__
register_task register_source register_backbone register_sharing register_weighting register_tracker
TrackerSpec Tracker TrackedRun TaskSpec SourceSpec BackboneSpec SharingSpec WeightingSpec GradientWeightingSpec
"""


def test_the_names() -> None:
    assert set(mtl.__all__) >= set(NAMES.split())
    assert len(mtl.__all__) == len(set(mtl.__all__))


@pytest.mark.parametrize("name", mtl.__all__)
def test_every_name_resolves(name: str) -> None:
    value = getattr(mtl, name)
    assert value is getattr(mtl, name)
    assert name in dir(mtl)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__name__ == name
        assert value.__module__.startswith("mtl.")
        assert inspect.getdoc(value)


def test_every_name_is_known_to_type_checkers() -> None:
    """`if TYPE_CHECKING` repeats the names; the two lists are the same, from the same modules."""
    tree = ast.parse(Path(mtl.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(block.body)
    found = {alias.asname or alias.name: node.module for node in imports for alias in node.names}
    assert found == mtl._HOME


def test_tasks() -> None:
    assert "tasks" in dir(mtl)
    assert mtl.tasks.Multiclass.__module__ == "mtl.tasks.multiclass"


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'mtl' has no attribute 'Recip'"):
        mtl.Recip  # noqa: B018
    assert not hasattr(mtl, "__path_of_nothing__")


@pytest.mark.parametrize(
    "statement",
    [
        "import mtl; dir(mtl)",
        "from mtl import Recipe, load_recipe, TaskSpec, register_task; load_recipe('fashion_fast')",
        "import mtl; mtl.tasks.Multiclass",
    ],
)
def test_torch_is_not_loaded(statement: str) -> None:
    code = f"import sys; {statement}; sys.exit('torch' in sys.modules or 'numpy' in sys.modules and 2)"
    if "load_recipe(" in statement or "tasks" in statement:  # the members of the families use numpy
        code = f"import sys; {statement}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(mtl.__file__).parents[1], check=False)
    assert done.returncode == 0
