"""mtl: one network for N tasks from one recipe, and an answer to which of them should share.

The public names are imported at their first use: `import mtl` does not load torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Recipe": "mtl.recipe.schema",
    "load_recipe": "mtl.recipe.load",
    "run": "mtl.experiment",
    "resume": "mtl.resuming",
    "load": "mtl.evaluation.predict",
    "register_task": "mtl.recipe.spec",
    "register_source": "mtl.recipe.spec",
    "register_backbone": "mtl.recipe.spec",
    "register_sharing": "mtl.recipe.spec",
    "register_weighting": "mtl.recipe.spec",
    "TaskSpec": "mtl.recipe.spec",
    "SourceSpec": "mtl.recipe.spec",
    "BackboneSpec": "mtl.recipe.spec",
    "SharingSpec": "mtl.recipe.spec",
    "WeightingSpec": "mtl.recipe.spec",
    "StitchedMultiTower": "mtl.model.stitched",
    "CrossStitch": "mtl.model.stitch",
    "SeparateTowers": "mtl.model.towers",
    "UserError": "mtl.errors",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from mtl.errors import UserError as UserError
    from mtl.evaluation.predict import load as load
    from mtl.experiment import run as run
    from mtl.model.stitch import CrossStitch as CrossStitch
    from mtl.model.stitched import StitchedMultiTower as StitchedMultiTower
    from mtl.model.towers import SeparateTowers as SeparateTowers
    from mtl.recipe.load import load_recipe as load_recipe
    from mtl.recipe.schema import Recipe as Recipe
    from mtl.recipe.spec import BackboneSpec as BackboneSpec
    from mtl.recipe.spec import SharingSpec as SharingSpec
    from mtl.recipe.spec import SourceSpec as SourceSpec
    from mtl.recipe.spec import TaskSpec as TaskSpec
    from mtl.recipe.spec import WeightingSpec as WeightingSpec
    from mtl.recipe.spec import register_backbone as register_backbone
    from mtl.recipe.spec import register_sharing as register_sharing
    from mtl.recipe.spec import register_source as register_source
    from mtl.recipe.spec import register_task as register_task
    from mtl.recipe.spec import register_weighting as register_weighting
    from mtl.resuming import resume as resume


def __getattr__(name: str) -> Any:
    from mtl.registry import imported

    if name == "tasks":
        return imported("mtl.tasks")
    if name not in _HOME:
        raise AttributeError(f"module 'mtl' has no attribute {name!r}")
    return getattr(imported(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "tasks"])
