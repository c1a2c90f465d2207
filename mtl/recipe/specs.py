"""The Spec base of each family says what a member must give; each family's registry holds its members.

Shapes: B batch, T tasks of a group, O outputs per task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from mtl.console import counted
from mtl.recipe.backbone_spec import BackboneSpec as BackboneSpec
from mtl.recipe.base import DataPath as DataPath
from mtl.recipe.base import FilePath as FilePath
from mtl.recipe.base import Kind as Kind
from mtl.recipe.base import Model as Model
from mtl.recipe.base import Name as Name
from mtl.recipe.base import Norm as Norm
from mtl.recipe.base import Shape as Shape
from mtl.recipe.base import Spec as Spec
from mtl.recipe.base import Text as Text
from mtl.recipe.base import fault as fault
from mtl.recipe.base import recipe_errors as recipe_errors
from mtl.recipe.source_spec import SourceSpec as SourceSpec
from mtl.recipe.task_spec import TaskSpec as TaskSpec
from mtl.recipe.task_spec import mean_metric as mean_metric
from mtl.recipe.tracker_spec import TrackedRun as TrackedRun
from mtl.recipe.tracker_spec import Tracker as Tracker
from mtl.recipe.tracker_spec import TrackerSpec as TrackerSpec
from mtl.registry import Registry

if TYPE_CHECKING:
    import torch

    from mtl.model.trunk import Plan, Trunk
    from mtl.model.weighting import Weighting
    from mtl.recipe.task_spec import Decoded as Decoded
    from mtl.recipe.task_spec import GroupKey as GroupKey


class SharingSpec(Spec):
    """What tasks share between the input and their heads. Members: `mtl/sharing/`."""

    def build(self, plan: Plan) -> Trunk:
        """The trunk: towers made by `plan.stages`, and the modules that join them.

        Raises:
            UserError: the settings do not fit the plan; its path is relative to the sharing.
        """
        raise NotImplementedError

    def sites(self) -> tuple[str, ...]:
        """The stages that the recipe names in `after`; each must be a stage of the backbone. The default is none."""
        return ()

    def sharing_lr_scale(self) -> float:
        """The factor of the learning rate of parameters whose role is `sharing`."""
        return 1.0

    def keeps_equal_towers_equal(self, n_towers: int) -> bool:
        """Whether towers with equal initial weights would get equal gradients in every step, and so stay equal."""
        return False


class WeightingSpec(Spec):
    """How the losses of the tasks become one gradient. Members: `mtl/weightings/`."""

    needs: ClassVar[Literal["losses", "totals", "gradients"]] = "losses"
    """What the built module needs in each step; see `Weighting`."""
    stateful: ClassVar[bool] = False
    """Whether it remembers all tasks together from step to step, so that none may be absent."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Packages that it needs beyond those of mtl."""
    install: ClassVar[str] = ""
    """The command that installs them."""

    def remark(self, n_tasks: int) -> str:
        """What a user should know before a run on so many tasks; empty if there is nothing to say."""
        return ""

    def build(self, task_weights: tuple[float, ...], is_quantity: tuple[bool, ...]) -> Weighting:
        """The weighting's module. The optimizer trains its parameters, and every checkpoint holds its state.

        Args:
            task_weights: the `weight` of each task.
            is_quantity: whether the labels of each task are numbers rather than classes.
        """
        raise NotImplementedError


class GradientWeightingSpec(WeightingSpec):
    """A weighting that combines the gradients of the tasks."""

    preference: ClassVar[bool] = False
    """Whether the tasks' weights are its preference vector; else they multiply the tasks' gradients."""

    needs: ClassVar[Literal["losses", "totals", "gradients"]] = "gradients"

    grads_on: Literal["shared", "features"] = Field(
        "shared",
        description="which gradients are combined: those by the shared parameters, or by the last activation that "
        "several tasks read, which costs less for many tasks",
    )

    most_tasks: ClassVar[int] = 1024
    """With so many tasks, a step combines their gradients in about 50 ms on one core; bench/methods.py measures it."""

    def remark(self, n_tasks: int) -> str:
        if n_tasks <= self.most_tasks:
            return ""
        what = (
            f"{self.kind} takes 50 ms a step to combine the gradients of {counted(self.most_tasks, 'task')}"
        )
        return f"{what}, and longer for {n_tasks}; a weighting of losses, such as uncertainty, takes no time"

    def why_not_on_features(self) -> str:
        """Why it cannot work on features, as the end of a sentence about it; empty if it can."""
        return ""


Beta = Annotated[float, Field(ge=0, lt=1)]
"""The part of a running mean that each step keeps."""


def decayed(groups: list[dict[str, Any]], factor: float) -> list[dict[str, Any]]:
    """The groups with torch's `weight_decay`: `factor` where `decay` is true, else 0.

    Groups with equal settings are joined, because each group costs a call per step: 0.1 ms of 2.5 ms for 100
    small tasks.
    """
    joined: dict[tuple[float, float], dict[str, Any]] = {}
    for group in groups:
        weight_decay = factor if group["decay"] else 0.0
        key = (weight_decay, group.get("lr_scale", 1.0))
        same = joined.setdefault(key, {**group, "weight_decay": weight_decay, "params": [], "names": []})
        same["params"] += group["params"]
        same["names"] += group.get("names", ())
    return list(joined.values())


class OptimizerSpec(Spec):
    """A torch.optim optimizer. Members: `mtl/optimizers/`."""

    lr: float = Field(gt=0, le=10, description="learning rate")

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimizer over parameter groups; it decays the weights of a group whose `decay` is true."""
        raise NotImplementedError


class ScheduleSpec(Spec):
    """The learning rate's factor. Members: `mtl/schedules/`."""

    def factor(self, step: int, total: int) -> float:
        """The factor of the learning rate at optimizer step `step` of `total`; a pure function."""
        raise NotImplementedError

    def check(self, total: int) -> None:
        """Check that the schedule fits a run of `total` steps.

        Raises:
            UserError: it does not fit; the path is relative to the schedule.
        """


SOURCES: Registry[SourceSpec] = Registry("source", SourceSpec, "mtl.sources", ("header", "columns"))
TASKS: Registry[TaskSpec] = Registry(
    "task",
    TaskSpec,
    "mtl.tasks",
    ("known_metrics", "default_metrics", "outputs", "encode", "group", "build", "decode"),
)
BACKBONES: Registry[BackboneSpec] = Registry(
    "backbone", BackboneSpec, "mtl.backbones", ("stage_names", "build")
)
SHARING: Registry[SharingSpec] = Registry("sharing", SharingSpec, "mtl.sharing", ("build",))
WEIGHTINGS: Registry[WeightingSpec] = Registry("weighting", WeightingSpec, "mtl.weightings", ("build",))
OPTIMIZERS: Registry[OptimizerSpec] = Registry("optimizer", OptimizerSpec, "mtl.optimizers", ("build",))
SCHEDULES: Registry[ScheduleSpec] = Registry("schedule", ScheduleSpec, "mtl.schedules", ("factor",))
TRACKERS: Registry[TrackerSpec] = Registry("tracker", TrackerSpec, "mtl.trackers", ("open",))

FAMILIES: dict[str, Registry[Any]] = {
    r.family: r for r in (SOURCES, TASKS, BACKBONES, SHARING, WEIGHTINGS, OPTIMIZERS, SCHEDULES, TRACKERS)
}

for _registry in FAMILIES.values():
    _registry.base.registry = _registry

register_source, register_task = SOURCES.register, TASKS.register
register_backbone, register_sharing, register_weighting = (
    BACKBONES.register,
    SHARING.register,
    WEIGHTINGS.register,
)
register_tracker = TRACKERS.register
