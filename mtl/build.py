"""Recipe -> StitchedMultiTower: shapes from stage to stage, task groups, and the checks that need them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtl.data.columns import Header
from mtl.errors import UserError
from mtl.model.heads import GroupedHead, Heads
from mtl.model.layers import grouped_norm, init_weights
from mtl.model.stitched import Standardize, StitchedMultiTower
from mtl.model.towers import Towers
from mtl.recipe.schema import Recipe
from mtl.recipe.spec import Shape, TaskSpec


@dataclass(frozen=True)
class TaskGroup:
    """Tasks that are computed together: one grouped head, one loss, one metric update.

    Args:
        name: what the model calls their head.
        tasks: the T tasks.
        spec: the settings of one of them; all agree in what head, loss and metrics need.
        outputs: for each task, the names of its O outputs.
        towers: for each task, the number of its tower.
    """

    name: str
    tasks: tuple[str, ...]
    spec: TaskSpec
    outputs: tuple[tuple[str, ...], ...]
    towers: tuple[int, ...]

    @property
    def n_outputs(self) -> int:
        """O."""
        return len(self.outputs[0])


@dataclass(frozen=True)
class Built:
    """A model with what training and reports need to know about it.

    Args:
        model: the network.
        groups: its task groups.
        shapes: stage name -> output shape of one tower.
    """

    model: StitchedMultiTower
    groups: tuple[TaskGroup, ...]
    shapes: dict[str, Shape]


def task_groups(recipe: Recipe, header: Header) -> tuple[TaskGroup, ...]:
    """The tasks of a recipe, gathered into groups in the order of their first tasks.

    Raises:
        UserError: a task does not fit the data's header; all such faults at once.
    """
    tower_of = {task: k for k, tasks in enumerate(recipe.towers.values()) for task in tasks}
    gathered: dict[tuple[object, ...], list[tuple[str, tuple[str, ...]]]] = {}
    faults: list[UserError] = []
    for task, spec in recipe.tasks.items():
        try:
            with recipe.at("tasks", task):
                outputs = spec.outputs(header)
            gathered.setdefault(spec.group(len(outputs)), []).append((task, outputs))
        except UserError as error:
            faults.extend(error.errors)
    if faults:
        from mtl.errors import raise_all

        raise_all(faults)
    groups: list[TaskGroup] = []
    for key, members in gathered.items():
        stem = f"{key[0]}_{len(members[0][1])}".replace(".", "_")
        same = sum(group.name.startswith(stem) for group in groups)
        tasks = tuple(task for task, _ in members)
        groups.append(
            TaskGroup(
                name=f"{stem}_{same + 1}" if same else stem,
                tasks=tasks,
                spec=recipe.tasks[tasks[0]],
                outputs=tuple(outputs for _, outputs in members),
                towers=tuple(tower_of[task] for task in tasks),
            )
        )
    return tuple(groups)


def build(recipe: Recipe, header: Header, standardize: tuple[Tensor, Tensor] | None = None) -> Built:
    """The network of a recipe with its initial weights, on the current default device.

    Initial weights are drawn per tower and stage, and per task, from (seed.init, name): another task or
    another sharing leaves the others' start as it is.

    Args:
        recipe: the checked recipe.
        header: what is known of the data.
        standardize: mean and std of the training split's inputs; without them, inputs are taken as they are.

    Raises:
        UserError: shapes do not chain, or a task does not fit the data.
    """
    groups = task_groups(recipe, header)
    names, backbone = tuple(recipe.towers), recipe.model.backbone
    with recipe.at("model", "backbone"):
        stages = backbone.build(len(names), header.input_shape)
        try:
            towers = Towers(names, [(name, module) for name, module, _ in stages])
        except ValueError as error:
            raise UserError("", str(error), path=("stages",)) from None
    shapes = {name: shape for name, _, shape in stages}
    sharing = recipe.model.sharing
    with recipe.at("model", "sharing"):
        stitches = {site: sharing.build(len(names), shapes[site]) for site in sharing.sites()}
    heads = Heads(
        {group.name: _head(recipe, group, math.prod(stages[-1][2])) for group in groups},
        len(names),
        recipe.model.head.dropout,
    )
    _initialize(recipe, towers, heads)
    model = StitchedMultiTower(
        towers, stitches, heads, tuple(recipe.tasks), Standardize(*standardize) if standardize else None
    )
    return Built(model, groups, shapes)


def _head(recipe: Recipe, group: TaskGroup, width: int) -> GroupedHead:
    norm: nn.Module | None = None
    if recipe.model.head.norm:
        kind = recipe.model.backbone.norm
        norm = grouped_norm(
            kind.kind,
            len(group.tasks),
            group.n_outputs,
            spatial=False,
            eps=kind.eps,
            momentum=kind.momentum,
            debias=kind.debias,
        )
    return GroupedHead(group.tasks, group.towers, len(recipe.towers), width, group.n_outputs, norm)


def _initialize(recipe: Recipe, towers: Towers, heads: Heads) -> None:
    init, seed = recipe.model.backbone.init, recipe.seeds.init
    same = recipe.model.tower_init == "same"
    keys = ("",) * len(towers.names) if same else towers.names
    for stage_name, stage in towers.stages.items():
        init_weights(stage, keys, init, seed, "tower", stage_name)
    for head in heads.groups.values():
        assert isinstance(head, GroupedHead)
        init_weights(head.linear, head.tasks, init, seed, "head")


def build_on_meta(recipe: Recipe) -> tuple[Built, Header]:
    """Build without memory or data, and run one forward and backward pass of shapes.

    Raises:
        UserError: shapes do not chain, heads do not fit, or no task reaches a parameter.
    """
    with recipe.at("data", "source"):
        header = recipe.data.source.header()
    _check_early_stopping(recipe, header)
    with torch.device("meta"):
        built = build(recipe, header)
        x = torch.empty(2, *header.input_shape)
    built.model.train()
    with recipe.at("model"):
        try:
            logits = built.model.forward_groups(x)
        except (RuntimeError, ValueError) as error:
            first_line = str(error).splitlines()[0]
            raise UserError("", f"shapes do not chain: {first_line}", path=("backbone",)) from error
        torch.stack([output.sum() for output in logits.values()]).sum().backward()
        for name, parameter in built.model.named_parameters():
            if parameter.grad is None:
                raise UserError("", f"{name} gets no gradient from any task", path=("backbone",))
    return built, header


def _check_early_stopping(recipe: Recipe, header: Header) -> None:
    has_validation = recipe.data.split.validation is not None or "validation" in header.row_counts
    if recipe.train.early_stopping is not None and not has_validation:
        with recipe.at("train", "early_stopping"):
            raise UserError(
                "", "there is no validation split to stop by", "write data.split: {validation: 0.1}"
            )


def parameter_groups(
    recipe: Recipe, model: StitchedMultiTower, weighting: nn.Module
) -> list[dict[str, object]]:
    """Parameters by role, for the optimizer: weights decay; scales, shifts and alphas do not.

    Each group has `params`, `names`, `decay` and `lr_scale`, the factor of its learning rate.
    """
    roles = model.parameter_roles()
    scale = recipe.model.sharing.alpha_lr_scale()
    named = [(name, parameter, roles[name]) for name, parameter in model.named_parameters()]
    named += [(f"weighting.{name}", parameter, "scale") for name, parameter in weighting.named_parameters()]
    groups: list[dict[str, object]] = []
    for role, decay, lr_scale in (("weight", True, 1.0), ("scale", False, 1.0), ("alpha", False, scale)):
        members = [(name, parameter) for name, parameter, its in named if its == role]
        if members:
            groups.append(
                {
                    "params": [parameter for _, parameter in members],
                    "names": [name for name, _ in members],
                    "decay": decay,
                    "lr_scale": lr_scale,
                    "lr": recipe.optimizer.lr * lr_scale,
                }
            )
    return groups
