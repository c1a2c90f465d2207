"""The Spec base of each family: what a member must say and do, and the registries of all members.

Shapes: B batch, T tasks of a group, O outputs per task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

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
from mtl.recipe.task_spec import TaskSpec as TaskSpec
from mtl.recipe.task_spec import mean_metric as mean_metric
from mtl.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import nn

    from mtl.data.files.table import TableFile
    from mtl.data.types import Columns, Header, Layout, Wanted
    from mtl.model.trunk import Plan, Trunk
    from mtl.model.weighting import Weighting
    from mtl.recipe.task_spec import Decoded as Decoded
    from mtl.recipe.task_spec import GroupKey as GroupKey


class SourceSpec(Spec):
    """Where rows come from. Members: `mtl/sources/`.

    A member also says `generated: ClassVar[bool]`: True where the data are made up.
    """

    generated: ClassVar[bool] = False

    def header(self) -> Header:
        """Shapes and label columns, without reading rows."""
        raise NotImplementedError

    def columns(self, seed: int) -> Columns:
        """The data. `seed` is used by generated sources only."""
        raise NotImplementedError

    def read(self, seed: int, wanted: Wanted) -> Columns:
        """The data, by a source that must be told which columns are asked for and how each is meant."""
        return self.columns(seed)

    def generated_now(self) -> bool:
        """Whether the rows are made up, with these settings."""
        return self.generated

    def table(self, path: str | None = None) -> TableFile | None:
        """The table that is read, or another one of the same form; None for a source of arrays."""
        return None

    def image_column(self) -> tuple[str, tuple[int, int] | None, Literal["grey", "rgb"]] | None:
        """Of a table whose inputs are images: the column of paths, height and width, and the mode."""
        return None

    def input_array(self) -> str:
        """What the array of inputs is called in an .npz file of the same form."""
        return "inputs"

    def elsewhere(self, path: str, layout: Layout | None) -> SourceSpec | None:
        """The same source with its rows in another file; None if it reads no file of the user's.

        `layout` names the columns that a run on a table has read, whatever patterns would find in the file.
        """
        return None

    def row_ids(self) -> str | None:
        """A column that names rows, no id of which may be in two splits."""
        return None


class BackboneSpec(Spec):
    """The shape of one tower. Members: `mtl/backbones/`. The heads follow its norm and init."""

    norm: Norm = Norm()
    init: Literal["torch", "he", "xavier"] = Field(
        "torch", description="how weights start, those of heads too: as torch draws them, or by He or Glorot"
    )

    def stage_names(self) -> tuple[str, ...]:
        raise NotImplementedError

    def build(
        self, n_towers: int, input_shape: Shape, shared_input: bool = True
    ) -> list[tuple[str, nn.Module, Shape]]:
        """Each stage: name, module for all towers at once, output shape per tower.

        The first stage takes the input that all towers share, (B, *input_shape), or with `shared_input`
        false, as where categories are embedded for each tower, (B, K*F); every other stage takes
        (B, K*C, H, W) or (B, K*F). Raises UserError with a path relative to the backbone.
        """
        raise NotImplementedError


class SharingSpec(Spec):
    """What tasks share between the input and their heads. Members: `mtl/sharing/`."""

    def build(self, plan: Plan) -> Trunk:
        """The trunk: towers out of `plan.stages`, and whatever joins them.

        Raises UserError with a path relative to the sharing.
        """
        raise NotImplementedError

    def sites(self) -> tuple[str, ...]:
        """The stages that the recipe names in `after`, which must be stages of the backbone; none by default."""
        return ()

    def sharing_lr_scale(self) -> float:
        """Factor of the learning rate of the parameters whose role is `sharing`."""
        return 1.0

    def keeps_equal_towers_equal(self, n_towers: int) -> bool:
        """Whether towers with the same initial weights would get the same gradients for ever."""
        return False


class WeightingSpec(Spec):
    """How the losses of the tasks become one gradient. Members: `mtl/weightings/`."""

    needs: ClassVar[Literal["losses", "totals", "gradients"]] = "losses"
    """As of the module that is built; see `Weighting`."""

    def build(self, task_weights: tuple[float, ...], is_quantity: tuple[bool, ...]) -> Weighting:
        """The module; its parameters are trained with the network's, and its state is part of every checkpoint.

        Args:
            task_weights: the `weight` of each task.
            is_quantity: whether a task's labels are numbers rather than classes.
        """
        raise NotImplementedError


Beta = Annotated[float, Field(ge=0, lt=1)]
"""What stays of a running mean at each step."""


def decayed(groups: list[dict[str, Any]], factor: float) -> list[dict[str, Any]]:
    """The groups with torch's `weight_decay` set where `decay` is true.

    Groups that then agree are joined: each costs a call a step, 0.1 ms of 2.5 for 100 small tasks.
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
        """The optimizer over parameter groups; a group's `decay` says if weights in it are decayed."""
        raise NotImplementedError


class ScheduleSpec(Spec):
    """The learning rate's factor. Members: `mtl/schedules/`."""

    def factor(self, step: int, total: int) -> float:
        """Factor of the learning rate at optimizer step `step` of `total`; a pure function."""
        raise NotImplementedError

    def check(self, total: int) -> None:
        """Raise UserError (path relative to the schedule) if it cannot serve a run of `total` steps."""


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

FAMILIES: dict[str, Registry[Any]] = {
    r.family: r for r in (SOURCES, TASKS, BACKBONES, SHARING, WEIGHTINGS, OPTIMIZERS, SCHEDULES)
}

for _registry in FAMILIES.values():
    _registry.base.registry = _registry

register_source, register_task = SOURCES.register, TASKS.register
register_backbone, register_sharing, register_weighting = (
    BACKBONES.register,
    SHARING.register,
    WEIGHTINGS.register,
)
