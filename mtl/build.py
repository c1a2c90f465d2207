"""Recipe -> StitchedMultiTower: shapes from stage to stage, and the initial weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import nn

from mtl.contracts import (
    check_options,
    check_sites,
    check_slices,
    check_stages,
    check_unit,
)
from mtl.data.learned import Learned
from mtl.data.types import Header
from mtl.errors import UserError
from mtl.model.heads import GroupedHead, Heads
from mtl.model.inputs import TableInputs
from mtl.model.layers import drawn_from, grouped_norm, init_weights
from mtl.model.stitched import Standardize, StitchedMultiTower
from mtl.model.towers import Towers
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.specs import Shape
from mtl.task_groups import TaskGroup, known_outputs, task_groups

PROVISIONAL = ("?", "?")
"""What stands for the classes of a task that are known only once its labels are read."""


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

    def to(self, device: torch.device) -> Built:
        """The same on another device; the model itself is moved."""
        self.model.to(device=device)
        groups = tuple(
            replace(group, constants={name: v.to(device) for name, v in group.constants.items()})
            for group in self.groups
        )
        return Built(self.model, groups, self.shapes)


def build(recipe: Recipe, header: Header, learned: Learned | None = None) -> Built:
    """The network of a recipe with its initial weights, on the current default device.

    Initial weights are drawn per tower and stage, and per task, from (seed.init, name): another task or
    another sharing leaves the others' start as it is.

    Args:
        recipe: the checked recipe.
        header: what is known of the data.
        learned: what was learned from the training rows; without it, classes that the header does not tell
            are taken to be two, and inputs are taken as they are.

    Raises:
        UserError: shapes do not chain, or a task does not fit the data.
    """
    if learned is None:
        known = known_outputs(recipe, header)
        learned = Learned({task: names or PROVISIONAL for task, names in known.items()}, layout=header.layout)
    groups = task_groups(recipe, learned)
    names, backbone = tuple(recipe.towers), recipe.model.backbone
    inputs = _inputs(learned, len(names))
    shape = header.input_shape
    shared = not (isinstance(inputs, TableInputs) and inputs.per_tower)
    if isinstance(inputs, TableInputs):
        shape = (inputs.width,)
    with recipe.at("model", "backbone"), drawn_from(recipe.seeds.init, "backbone"):
        options = {} if shared else {"shared_input": False}
        check_options(backbone, "build", options, "categories are embedded for each tower")
        stages = backbone.build(len(names), shape, **options)
        check_stages(backbone, stages)
        try:
            towers = Towers(names, [(name, module) for name, module, _ in stages])
        except ValueError as error:
            raise UserError("", str(error), path=("stages",)) from None
    shapes = {name: shape for name, _, shape in stages}
    sharing = recipe.model.sharing
    with recipe.at("model", "sharing"), drawn_from(recipe.seeds.init, "sharing"):
        check_sites(sharing)
        stitches = {site: sharing.build(len(names), shapes[site]) for site in sharing.sites()}
        for unit in stitches.values():
            check_unit(sharing, unit)
    heads = Heads(
        {group.name: _head(recipe, group, math.prod(stages[-1][2])) for group in groups},
        len(names),
        recipe.model.head.dropout,
    )
    _initialize(recipe, inputs, towers, heads)
    return Built(StitchedMultiTower(towers, stitches, heads, tuple(recipe.tasks), inputs), groups, shapes)


def _inputs(learned: Learned, n_towers: int) -> nn.Module | None:
    """What raw rows go through first."""
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
        layout.embedding,
        n_towers,
    )


def _head(recipe: Recipe, group: TaskGroup, width: int) -> GroupedHead:
    kind, own = recipe.model.backbone.norm, group.spec.head

    def norm(features: int) -> nn.Module | None:
        return grouped_norm(
            kind.kind,
            len(group.tasks),
            features,
            spatial=False,
            eps=kind.eps,
            momentum=kind.momentum,
            debias=kind.debias,
        )

    return GroupedHead(
        group.tasks,
        group.towers,
        len(recipe.towers),
        width,
        group.n_outputs,
        norm(group.n_outputs) if recipe.model.head.norm else None,
        hidden=[(features, norm(features)) for features in own.hidden],
        dropout=own.dropout,
    )


def _initialize(recipe: Recipe, inputs: nn.Module | None, towers: Towers, heads: Heads) -> None:
    init, seed = recipe.model.backbone.init, recipe.seeds.init
    same = recipe.model.tower_init == "same"
    keys = ("",) * len(towers.names) if same else towers.names
    if isinstance(inputs, TableInputs):
        init_weights(inputs, keys, init, seed, "inputs")
    with recipe.at("model", "backbone"):
        for stage_name, stage in towers.stages.items():
            check_slices(recipe.model.backbone, stage_name, stage, len(keys))
            init_weights(stage, keys, init, seed, "tower", stage_name)
    for head in heads.groups.values():
        assert isinstance(head, GroupedHead)
        init_weights(head.linear, head.tasks, init, seed, "head")
        init_weights(head.hidden, head.tasks, init, seed, "hidden")


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
