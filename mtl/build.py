"""Recipe -> StitchedMultiTower: computes the shapes from stage to stage, and draws the initial weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from mtl.contracts import check_options, check_slices, check_stages, check_task_module, check_trunk
from mtl.data.learned import Learned
from mtl.data.types import Header, Layout
from mtl.errors import UserError, raise_all
from mtl.model.inputs import TableInputs
from mtl.model.layers import drawn_from, grouped_norm, init_weights
from mtl.model.stitched import Standardize, StitchedMultiTower
from mtl.model.tasks.heads import GroupedHead
from mtl.model.tasks.module import TaskModule
from mtl.model.tasks.norm import head_norm
from mtl.model.towers import Towers
from mtl.model.trunk import Plan, Trunk
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.specs import Shape
from mtl.task_groups import TaskGroup, known_outputs, task_groups

PROVISIONAL = ("?", "?")
"""Provisional classes of a task whose classes are known only after its labels are read."""


@dataclass(frozen=True)
class Built:
    """A model, with the facts that training and reports need about it.

    Args:
        model: the network.
        groups: its task groups.
        columns: the columns of the table that it reads, with the values of categories, and the positions of numbers
            with an indicator; None for other inputs.
        kept_per_row: bytes that a forward pass keeps of each row for the backward pass; 0 if the network was not tried.
    """

    model: StitchedMultiTower
    groups: tuple[TaskGroup, ...]
    columns: tuple[Layout, tuple[int, ...]] | None = None
    kept_per_row: int = 0

    def to(self, device: torch.device) -> Built:
        """The same model on another device; the model itself is moved, not copied."""
        self.model.to(device=device)
        return self


def build(recipe: Recipe, header: Header, learned: Learned | None = None, *, trained: bool = False) -> Built:
    """The network of a recipe with its initial weights, on the current default device.

    The initial weights of each tower's stage, and of each task, are drawn from (seed.init, name). Another task or
    another sharing scheme therefore leaves the other initial weights unchanged.

    Args:
        recipe: the checked recipe.
        header: the facts known about the data.
        learned: what was learned from the training rows. Without it, a task whose classes the header does not
            give gets two, and inputs are not scaled.
        trained: whether a backbone that starts from trained weights loads them. A network that gets the weights of a
            checkpoint, or is only looked at, does without.

    Raises:
        UserError: shapes do not chain, or a task does not fit the data.
    """
    if learned is None:
        known = known_outputs(recipe, header)
        learned = Learned({task: names or PROVISIONAL for task, names in known.items()}, layout=header.layout)
    width, own_inputs = _width_of_inputs(learned)
    sharing = recipe.model.sharing
    plan = Plan(
        tasks=tuple(recipe.tasks),
        towers=recipe.towers,
        stage_names=recipe.model.backbone.stage_names(),
        input_shape=header.input_shape if width is None else (width,),
        own_inputs=own_inputs,
        stages=partial(
            _stages, recipe, header.input_shape if width is None else (width,), own_inputs, trained
        ),
        norm=partial(_norm, recipe),
        start=partial(_start, recipe),
    )
    try:
        with recipe.at("model", "sharing"), drawn_from(recipe.seeds.init, "sharing"):
            trunk = check_trunk(sharing, sharing.build(plan), plan)
    except _FaultOfBackbone as fault:
        with recipe.at("model", "backbone"):
            raise_all(fault.errors)
        raise
    inputs = inputs_of(learned, len(trunk.copies))
    if isinstance(inputs, TableInputs):
        _start(recipe, inputs, trunk.copies, "inputs")
    groups = task_groups(recipe, learned)
    reading_of = dict(zip(plan.tasks, trunk.reading_of, strict=True))
    modules = {group.name: _task_module(recipe, group, trunk, reading_of) for group in groups}
    columns = None if learned.layout is None else (learned.layout, learned.indicators)
    return Built(StitchedMultiTower(trunk, modules, inputs, recipe.model.head.dropout), groups, columns)


def is_provisional(recipe: Recipe, header: Header) -> bool:
    """Whether rows decide the size of the network: the classes of a task, or the categories of an input column."""
    layout = header.layout
    if layout is not None and (layout.indicator or any(not layout.values.get(c) for c in layout.categorical)):
        return True
    return None in known_outputs(recipe, header).values()


def _stages(
    recipe: Recipe,
    input_shape: Shape,
    own_inputs: bool,
    trained: bool,
    names: Sequence[str],
    first: str | None = None,
    last: str | None = None,
) -> Towers:
    """`Plan.stages`: copies of the backbone, from stage `first` to stage `last`, with their initial weights."""
    backbone = recipe.model.backbone
    try:
        with drawn_from(recipe.seeds.init, "backbone"):
            towers = _checked_towers(recipe, input_shape, own_inputs, names, first, last)
            states = backbone.trained(len(names), input_shape, not own_inputs) if trained else None
    except UserError as error:
        raise _FaultOfBackbone(error.errors) from None
    for name, stage in towers.stages.items():
        if states is None:
            _start(recipe, stage, names, "tower", name)
        else:
            stage.load_state_dict(states[name])
    return towers


class _FaultOfBackbone(Exception):
    """Carries user errors below `model.backbone` through a sharing scheme that asked for stages."""

    def __init__(self, errors: Sequence[UserError]) -> None:
        super().__init__()
        self.errors = errors


def _checked_towers(
    recipe: Recipe,
    input_shape: Shape,
    own_inputs: bool,
    names: Sequence[str],
    first: str | None,
    last: str | None,
) -> Towers:
    backbone = recipe.model.backbone
    options = {"shared_input": False} if own_inputs else {}
    check_options(backbone, "build", options, "categories are embedded for each tower")
    stages = backbone.build(len(names), input_shape, **options)
    check_stages(backbone, stages)
    known = [name for name, _, _ in stages]
    begin = known.index(first) if first is not None else 0
    end = known.index(last) + 1 if last is not None else len(known)
    for name, module, _ in stages[begin:end]:
        check_slices(backbone, name, module, len(names))
    try:
        return Towers(
            names,
            [(name, module) for name, module, _ in stages[begin:end]],
            {name: shape for name, _, shape in stages[begin:end]},
            frozen=backbone.frozen(),
        )
    except ValueError as error:
        raise UserError("", str(error), path=("stages",)) from None


def _norm(recipe: Recipe, n_groups: int, shape: Shape) -> nn.Module | None:
    """`Plan.norm`: the backbone's norm, for groups of one shape."""
    own = recipe.model.backbone.norm
    return grouped_norm(
        own.kind,
        n_groups,
        shape[0],
        spatial=len(shape) == 3,
        eps=own.eps,
        momentum=own.momentum,
        debias=own.debias,
        sync=own.sync,
    )


def _head_norm(recipe: Recipe, n_tasks: int, width: int) -> nn.Module | None:
    """The backbone's norm, for the features or outputs of a head."""
    own = recipe.model.backbone.norm
    return head_norm(
        own.kind, n_tasks, width, eps=own.eps, momentum=own.momentum, debias=own.debias, sync=own.sync
    )


def _start(recipe: Recipe, module: nn.Module, names: Sequence[str], *key: str) -> None:
    """`Plan.start`: draws the initial weights, slice by slice, from seed.init, the key and the names of the slices."""
    same = recipe.model.tower_init == "same" and key[0] in ("tower", "inputs")
    names = ("",) * len(names) if same else tuple(names)
    init_weights(module, names, recipe.model.backbone.init, recipe.seeds.init, *key)


def _width_of_inputs(learned: Learned) -> tuple[int | None, bool]:
    """Width of the table row that one copy of the backbone reads (None for arrays); whether each reads its own row."""
    inputs = inputs_of(learned, 1)
    return (inputs.width, inputs.per_tower) if isinstance(inputs, TableInputs) else (None, False)


def inputs_of(learned: Learned, n_towers: int, *, one_hot: bool = False) -> nn.Module | None:
    """The module that raw rows pass first, or None; with `one_hot`, no category becomes a learned vector."""
    layout = learned.layout
    if layout is None:
        if learned.mean is None or learned.std is None:
            return None
        return Standardize(torch.from_numpy(learned.mean), torch.from_numpy(learned.std))
    zeros, ones = torch.zeros(layout.n_numeric), torch.ones(layout.n_numeric)
    return TableInputs(
        torch.from_numpy(learned.mean) if learned.mean is not None else zeros,
        torch.from_numpy(learned.std) if learned.std is not None else ones,
        torch.from_numpy(learned.fill) if learned.fill is not None else zeros,
        learned.indicators,
        [len(layout.values.get(name, PROVISIONAL)) for name in layout.categorical],
        None if one_hot else layout.embedding,
        n_towers,
    )


def _task_module(recipe: Recipe, group: TaskGroup, trunk: Trunk, reading_of: Mapping[str, int]) -> TaskModule:
    """The head, loss and prediction of one task group."""
    own, n_tasks = group.spec.head, len(group.tasks)
    head = GroupedHead(
        group.tasks,
        [reading_of[task] for task in group.tasks],
        trunk.n_readings,
        math.prod(trunk.shape),
        group.n_outputs,
        _head_norm(recipe, n_tasks, group.n_outputs) if recipe.model.head.norm else None,
        hidden=[(features, _head_norm(recipe, n_tasks, features)) for features in own.hidden],
        dropout=own.dropout,
    )
    _start(recipe, head.linear, group.tasks, "head")
    _start(recipe, head.hidden, group.tasks, "hidden")
    with recipe.at("tasks", group.tasks[0]):
        return check_task_module(group.spec, group.spec.build(head, group.constants))


def parameter_groups(
    recipe: Recipe, model: StitchedMultiTower, weighting: nn.Module
) -> list[dict[str, object]]:
    """Parameters by role, for the optimizer: weights decay; scales, shifts and sharing parameters do not.

    Frozen parameters are in no group. Each group has `params`, `names`, `decay`, and `lr_scale`, which is the factor of
    its learning rate.
    """
    roles = model.parameter_roles()
    scale = recipe.model.sharing.sharing_lr_scale()
    named = [(name, p, roles[name]) for name, p in model.named_parameters() if p.requires_grad]
    named += [(f"weighting.{name}", parameter, "scale") for name, parameter in weighting.named_parameters()]
    groups: list[dict[str, object]] = []
    for role, decay, lr_scale in (("weight", True, 1.0), ("scale", False, 1.0), ("sharing", False, scale)):
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
