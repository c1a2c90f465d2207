"""Plans for sharing schemes, as a recipe's backbone gives them: every stage keeps the shape of what it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from torch import nn

from mtl.model.layers import GroupedLinear, grouped_conv, grouped_norm, init_weights
from mtl.model.towers import SeparateTowers, Towers
from mtl.model.trunk import Plan, Shape


def plan(
    towers: Mapping[str, tuple[str, ...]],
    *,
    shape: Shape = (3,),
    stages: tuple[str, ...] = ("a", "b"),
    own_inputs: bool = False,
    separate: bool = False,
) -> Plan:
    """Linear layers for a shape (F,), convolutions for (C, H, W), each with a batch norm and a tanh.

    The order of results is that of the tasks' names, whatever their towers are. `separate` gives each tower a
    module of its own, without a norm.
    """
    return Plan(
        tasks=tuple(sorted(task for tasks in towers.values() for task in tasks)),
        towers=towers,
        stage_names=stages,
        input_shape=shape,
        own_inputs=own_inputs,
        stages=partial(_stages, shape, stages, own_inputs, separate),
        norm=_norm,
        start=lambda module, names, *key: init_weights(module, tuple(names), "torch", 0, *key),
    )


def _stages(
    shape: Shape,
    known: tuple[str, ...],
    own_inputs: bool,
    separate: bool,
    names: Sequence[str],
    first: str | None = None,
    last: str | None = None,
) -> Towers:
    begin = known.index(first) if first is not None else 0
    end = known.index(last) + 1 if last is not None else len(known)
    stages: list[tuple[str, nn.Module]] = []
    for name in known[begin:end]:
        shared_input = name == known[0] and not own_inputs
        if separate:
            stage: nn.Module = SeparateTowers([_alone(shape) for _ in names], shared_input=shared_input)
        else:
            stage = _grouped(shape, len(names), shared_input=shared_input)
        init_weights(stage, tuple(names), "torch", 0, "tower", name)
        stages.append((name, stage))
    return Towers(names, stages, dict.fromkeys(known[begin:end], shape))


def _grouped(shape: Shape, n_towers: int, *, shared_input: bool) -> nn.Module:
    width, options = shape[0], {"kernel": 3, "stride": 1, "padding": 1}
    layer: nn.Module
    if len(shape) == 1:
        layer = GroupedLinear(n_towers, width, width, shared_input=shared_input)
    else:
        layer = grouped_conv(n_towers, width, width, **options, shared_input=shared_input)
    return nn.Sequential(layer, _norm(n_towers, shape), nn.Tanh())


def _alone(shape: Shape) -> nn.Module:
    """One tower's module, with a bias, which grouped stages have not."""
    width = shape[0]
    layer = nn.Linear(width, width) if len(shape) == 1 else nn.Conv2d(width, width, 3, padding=1)
    return nn.Sequential(layer, nn.Tanh())


def _norm(n_groups: int, shape: Shape) -> nn.Module:
    norm = grouped_norm("batch", n_groups, shape[0], spatial=len(shape) == 3, eps=1e-5, momentum=0.1)
    assert norm is not None
    return norm
