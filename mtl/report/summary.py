"""The summary of a recipe: shapes, parameters, FLOPs, and what is shared with what."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mtl.build import Built
from mtl.console import counted, file_size, number, table
from mtl.data.types import Header
from mtl.model.towers import SeparateTowers, Towers
from mtl.recipe.keys.recipe import Recipe
from mtl.training.gradients import SharedFeatures
from mtl.training.trainer import shared_numbers

MANY_TASKS = 20
"""Most tasks that have a line each; with more tasks, equal ones have one line together."""
ROWS = 2
"""Rows of the counted forward pass; batch norm in training needs more than one."""


def summarize(recipe: Recipe, built: Built, header: Header) -> str:
    """The summary as text; the network is built without memory, so that its size has no limit.

    FLOPs are those of matrix products and convolutions in one forward pass of one row; a multiplication
    and an addition count as two.
    """
    flops = count_flops(built, header)
    model, towers = built.model, recipe.towers
    sizes = _sizes(built)
    lines = [
        f"{recipe.name}: {counted(len(recipe.tasks), 'task')}, {counted(len(towers), 'tower')}, "
        f"{counted(parameter_count(model), 'parameter')}",
        f"input {_shape(header.input_shape)} per row{_encoded(built, header)}",
        "",
        _stage_table(built, flops),
        "",
        _task_table(recipe, built),
        "",
        table(
            ["part", "parameters", "MFLOPs forward"],
            [[name, f"{size:,}", _millions(flops[name])] for name, size in sizes.items()]
            + [["all", f"{parameter_count(model):,}", _millions(sum(flops[name] for name in sizes))]],
        ),
        "",
        *_stages(recipe, built),
        *_sharing(recipe, built),
        *_gradients(recipe, built, header),
    ]
    if header.note:
        lines.append(header.note)
    return "\n".join(lines)


def _encoded(built: Built, header: Header) -> str:
    """How many numbers the first layer reads of a row, where categories and gaps make them more."""
    width = getattr(built.model.inputs, "width", None)
    if width is None or (width,) == tuple(header.input_shape):
        return ""
    return f", which the first layer reads as {width} numbers (categories and missing values encoded)"


def parameter_count(module: nn.Module) -> int:
    """The number of weights in a module, frozen ones among them."""
    return sum(parameter.numel() for parameter in module.parameters())


def _sizes(built: Built) -> dict[str, int]:
    """Parameters of the towers, of the modules that join them, of the heads, and of embeddings if there are any."""
    model = built.model
    towers = sum(parameter_count(part) for part in model.trunk.modules() if isinstance(part, Towers))
    sizes = {
        "towers": towers,
        "sharing": parameter_count(model.trunk) - towers,
        "heads": parameter_count(model.task_modules),
    }
    embeddings = parameter_count(model.inputs)
    return {"embeddings": embeddings, **sizes} if embeddings else sizes


def _millions(flops: float) -> str:
    return "unknown" if math.isnan(flops) else number(flops / 1e6)


def count_flops(built: Built, header: Header) -> Mapping[str, float]:
    """FLOPs of one row's forward pass, by part as in `_sizes`, and by stage (`towers.conv1`).

    All are NaN if a plug-in's part asks for the value of a number, which a network without memory does not have.
    """
    counter = FlopCounterMode(display=False)
    try:
        with counter, torch.device("meta"), torch.no_grad():
            built.model(torch.empty(ROWS, *header.input_shape))
    except (RuntimeError, NotImplementedError) as error:
        if "meta" not in str(error):
            raise
        return defaultdict(lambda: math.nan)
    counts = {name: sum(ops.values()) // ROWS for name, ops in counter.get_flop_counts().items()}
    root = type(built.model).__name__
    flops: dict[str, float] = {"embeddings": counts.get(f"{root}.inputs", 0)}
    for place, towers in built.model.trunk.named_modules():
        if isinstance(towers, Towers):
            for stage in towers.stage_names:
                spent = counts.get(f"{root}.trunk.{place}.stages.{stage}", 0)
                flops[f"{place}.{stage}"] = spent
                flops["towers"] = flops.get("towers", 0) + spent
    flops["heads"] = counts.get(f"{root}.task_modules", 0) or sum(
        counts.get(f"{root}.task_modules.{name}", 0) for name in built.model.task_modules
    )
    flops["sharing"] = counts.get(f"{root}.trunk", 0) - flops.get("towers", 0)
    return flops


def _stage_table(built: Built, flops: Mapping[str, float]) -> str:
    rows = []
    for place, towers in built.model.trunk.named_modules():
        if not isinstance(towers, Towers):
            continue
        stitches = dict(getattr(built.model.trunk, "stitches", nn.ModuleDict()).items())
        for name, stage in towers.stages.items():
            stitch = stitches.get(name)
            rows.append(
                [
                    name if place == "towers" else f"{place}.{name}",
                    _shape(towers.shapes[name]),
                    f"{parameter_count(stage) // len(towers.names):,}",
                    _millions(flops[f"{place}.{name}"] / len(towers.names)),
                    f"{parameter_count(stitch):,}" if stitch is not None else "",
                ]
            )
    return table(
        ["stage", "shape per tower", "parameters per tower", "MFLOPs per tower", "stitch parameters"], rows
    )


def _task_table(recipe: Recipe, built: Built) -> str:
    tower_of = {task: tower for tower, tasks in recipe.towers.items() for task in tasks}
    size_of, group_of = {}, {}
    for group in built.groups:
        head = built.model.modules_of_tasks()[group.name].head
        for task in group.tasks:
            size_of[task] = parameter_count(head) // len(group.tasks)
            group_of[task] = group.n_outputs
    facts = {
        task: (spec.kind, str(group_of[task]), f"{size_of[task]:,}", f"{spec.weight:g}")
        for task, spec in recipe.tasks.items()
    }
    alike: dict[tuple[object, ...], list[str]] = {}
    for task, own in facts.items():  # many equal tasks have one line together
        alike.setdefault(own if len(facts) > MANY_TASKS else (task,), []).append(task)
    rows = []
    for tasks in alike.values():
        kind, outputs, size, weight = facts[tasks[0]]
        towers = list(dict.fromkeys(tower_of[task] for task in tasks))
        tower = towers[0] if len(towers) == 1 else f"{len(towers)} towers"
        name = tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks, {tasks[0]} to {tasks[-1]}"
        rows.append([name, kind, tower, outputs, size, weight])
    return table(["task", "kind", "tower", "outputs", "head parameters", "weight"], rows, left=3)


def _stages(recipe: Recipe, built: Built) -> list[str]:
    """How stages hold the towers, which stages are not trained, and what weights they start from."""
    lines, backbone = [], recipe.model.backbone
    for towers in (part for part in built.model.trunk.modules() if isinstance(part, Towers)):
        separate = [name for name, stage in towers.stages.items() if isinstance(stage, SeparateTowers)]
        grouped = [name for name in towers.stage_names if name not in separate]
        if len(towers.names) > 1 and (separate or backbone.packages):
            said = [f"grouped, one call for all towers: {', '.join(grouped)}"] if grouped else []
            said += [f"separate, a module for each tower: {', '.join(separate)}"] if separate else []
            lines.append("; ".join(said))
        if towers.frozen:
            held = sum(parameter_count(towers.stages[name]) for name in towers.frozen)
            names = ", ".join(towers.frozen)
            lines.append(
                f"frozen: {names}; their {counted(held, 'parameter')} and their norms' statistics stay as they are"
            )
    if backbone.starts_equal():
        lines.append("every tower starts from the same trained weights")
    return list(dict.fromkeys(lines))


def _sharing(recipe: Recipe, built: Built) -> list[str]:
    towers = recipe.towers
    lines = [
        f"tower {tower!r} is shared by {', '.join(tasks)}"
        for tower, tasks in towers.items()
        if len(tasks) > 1
    ]
    places, holds = ", ".join(built.model.sharing()), _sizes(built)["sharing"]
    reach = built.model.reach(tuple(recipe.tasks)).values()
    joined = len(towers) == 1 or any(bool((served.sum(-1) > 1).any()) for served in reach)
    if joined and (places or holds):
        names = ", ".join(list(towers)[:8]) + (f" and {len(towers) - 8} more" if len(towers) > 8 else "")
        lines.append(
            f"{recipe.model.sharing.kind} joins tower{'s' if len(towers) != 1 else ''} {names}"
            f"{f' at {places}' if places else ''}; it holds {counted(holds, 'parameter')}"
        )
    elif len(towers) > 1 and len(built.model.trunk.copies) > 1:
        lines.append("towers share nothing with each other")
    return lines


def _gradients(recipe: Recipe, built: Built, header: Header) -> list[str]:
    """What the weighting keeps in each step, if it combines the gradients of the tasks."""
    if recipe.weighting.needs != "gradients":
        return []
    shared = shared_numbers(recipe, built.model)
    with shared.passing(), torch.device("meta"), torch.no_grad():
        built.model(torch.empty(ROWS, *header.input_shape))
    width, n_tasks = shared.width(recipe.train.batch_size), len(recipe.tasks)
    what = "features of a batch" if isinstance(shared, SharedFeatures) else "numbers in shared parameters"
    size = file_size(4 * width * n_tasks)
    return [
        f"{recipe.weighting.kind} combines the gradients of {n_tasks} tasks by {width:,} {what}: {size} in each step"
    ]


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
