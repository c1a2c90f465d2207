"""mtl trains one network for N tasks from one recipe, and tells which of the tasks should share.

The public names are imported when they are first used, so that `import mtl` does not load torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Recipe": "mtl.recipe.keys.recipe",
    "load_recipe": "mtl.recipe.load",
    "run": "mtl.phases",
    "resume": "mtl.experiment.resume",
    "compare": "mtl.comparison.compare",
    "tune": "mtl.tuning.tune",
    "load": "mtl.inference.predict",
    "register_task": "mtl.recipe.specs",
    "register_source": "mtl.recipe.specs",
    "register_backbone": "mtl.recipe.specs",
    "register_sharing": "mtl.recipe.specs",
    "register_weighting": "mtl.recipe.specs",
    "register_tracker": "mtl.recipe.specs",
    "TaskSpec": "mtl.recipe.specs",
    "SourceSpec": "mtl.recipe.specs",
    "BackboneSpec": "mtl.recipe.specs",
    "SharingSpec": "mtl.recipe.specs",
    "WeightingSpec": "mtl.recipe.specs",
    "GradientWeightingSpec": "mtl.recipe.specs",
    "TrackerSpec": "mtl.recipe.specs",
    "Tracker": "mtl.recipe.specs",
    "TrackedRun": "mtl.recipe.specs",
    "StitchedMultiTower": "mtl.model.stitched",
    "CrossStitch": "mtl.model.stitch",
    "SeparateTowers": "mtl.model.towers",
    "Trunk": "mtl.model.trunk",
    "TaskModule": "mtl.model.tasks.module",
    "Weighting": "mtl.model.weighting",
    "UserError": "mtl.errors",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from mtl.comparison.compare import compare as compare
    from mtl.errors import UserError as UserError
    from mtl.experiment.resume import resume as resume
    from mtl.inference.predict import load as load
    from mtl.model.stitch import CrossStitch as CrossStitch
    from mtl.model.stitched import StitchedMultiTower as StitchedMultiTower
    from mtl.model.tasks.module import TaskModule as TaskModule
    from mtl.model.towers import SeparateTowers as SeparateTowers
    from mtl.model.trunk import Trunk as Trunk
    from mtl.model.weighting import Weighting as Weighting
    from mtl.phases import run as run
    from mtl.recipe.keys.recipe import Recipe as Recipe
    from mtl.recipe.load import load_recipe as load_recipe
    from mtl.recipe.specs import BackboneSpec as BackboneSpec
    from mtl.recipe.specs import GradientWeightingSpec as GradientWeightingSpec
    from mtl.recipe.specs import SharingSpec as SharingSpec
    from mtl.recipe.specs import SourceSpec as SourceSpec
    from mtl.recipe.specs import TaskSpec as TaskSpec
    from mtl.recipe.specs import TrackedRun as TrackedRun
    from mtl.recipe.specs import Tracker as Tracker
    from mtl.recipe.specs import TrackerSpec as TrackerSpec
    from mtl.recipe.specs import WeightingSpec as WeightingSpec
    from mtl.recipe.specs import register_backbone as register_backbone
    from mtl.recipe.specs import register_sharing as register_sharing
    from mtl.recipe.specs import register_source as register_source
    from mtl.recipe.specs import register_task as register_task
    from mtl.recipe.specs import register_tracker as register_tracker
    from mtl.recipe.specs import register_weighting as register_weighting
    from mtl.tuning.tune import tune as tune


def __getattr__(name: str) -> Any:
    from mtl.registry import imported

    if name == "tasks":
        return imported("mtl.tasks")
    if name not in _HOME:
        raise AttributeError(f"module 'mtl' has no attribute {name!r}")
    return getattr(imported(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "tasks"])
