"""Checks the values that members of families return, because a plug-in may return anything.

Each check raises a UserError for a wrong value. The error names the class and the method, so that the plug-in's author
knows where to look.
Shapes: B batch, K towers, C channels or features of one tower, T tasks of a group.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mtl.console import counted
from mtl.errors import KeyPath, UserError, quoted
from mtl.recipe.base import Shape, Spec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mtl.data.types import Array, Columns, Header
    from mtl.model.tasks.module import TaskModule
    from mtl.model.trunk import Plan, Trunk
    from mtl.recipe.specs import BackboneSpec, SharingSpec, SourceSpec, TaskSpec


def broken(spec: Spec, method: str, what: str, path: KeyPath = ()) -> UserError:
    """The error for a method of a Spec that returned a wrong value."""
    return UserError("", f"{type(spec).__name__}.{method} {what}", path=path)


def called(value: object) -> str:
    """What an error says of a value of the wrong type."""
    return f"an object of type {type(value).__name__}"


def check_header(source: SourceSpec, header: Any) -> Header:
    """The header that a source returned."""
    from mtl.data.types import Header

    if not isinstance(header, Header):
        raise broken(source, "header", f"gives {called(header)}, not a Header")
    shape = header.input_shape
    if not (isinstance(shape, tuple) and shape and all(isinstance(n, int) and n > 0 for n in shape)):
        raise broken(source, "header", f"gives input_shape {quoted(shape)}: one row's is (F,) or (C, H, W)")
    return header


def check_columns(source: SourceSpec, columns: Any, labels: Sequence[str]) -> Columns:
    """The rows that a source returned; all arrays must be equally long, and the wanted label columns must be there."""
    from mtl.data.types import Columns

    if not isinstance(columns, Columns):
        raise broken(source, "columns", f"gives {called(columns)}, not Columns")
    n, shape = len(columns.inputs), columns.inputs.shape[1:]
    if columns.header is None and shape != (announced := source.header().input_shape):
        raise broken(source, "columns", f"gives inputs of shape {shape} per row, its header says {announced}")
    for name in labels:
        if name not in columns.labels:
            raise broken(source, "columns", f"gives no label column {quoted(name)}, which its header names")
        if len(columns.labels[name]) != n:
            given, found = counted(n, "row"), counted(len(columns.labels[name]), "label")
            raise broken(source, "columns", f"gives {given} of inputs but {found} {quoted(name)}")
    for split, rows in columns.splits.items():
        if len(rows) and not (rows.min() >= 0 and rows.max() < n):
            there = counted(n, "row")
            raise broken(source, "columns", f"gives split {quoted(split)} a row beyond its {there}")
    return columns


def check_outputs(task: TaskSpec, outputs: Any) -> tuple[str, ...] | None:
    """The names of a task's outputs, or None if they are known later."""
    if outputs is None or (isinstance(outputs, tuple) and all(isinstance(name, str) for name in outputs)):
        return outputs
    raise broken(task, "outputs", f"gives {quoted(outputs)}, not a tuple of names or None")


def check_targets(task: TaskSpec, targets: Any, n: int) -> Array:
    """The targets of a task: an array with a row for every row of labels."""
    shape = getattr(targets, "shape", None)
    if shape is None or not shape or shape[0] != n:
        what = called(targets) if shape is None else f"an array of shape {tuple(shape)}"
        raise broken(task, "encode", f"gives {what} for {counted(n, 'row')}")
    found: Array = targets
    return found


def check_stages(backbone: BackboneSpec, stages: Any) -> None:
    """Check that stages are (name, module, shape) triples with the names that `stage_names` gave."""
    from torch import nn

    if not isinstance(stages, list | tuple) or not all(isinstance(s, tuple) and len(s) == 3 for s in stages):
        got = "a list of other things" if isinstance(stages, list) else called(stages)
        raise broken(backbone, "build", f"gives {got}, not a list of (name, module, shape)")
    for name, module, shape in stages:
        if not isinstance(module, nn.Module):
            raise broken(backbone, "build", f"gives {called(module)} as stage {quoted(name)}, not a module")
        if not (isinstance(shape, tuple) and len(shape) in (1, 3) and all(isinstance(n, int) for n in shape)):
            raise broken(
                backbone,
                "build",
                f"gives stage {quoted(name)} the shape {quoted(shape)}: one tower's is (F,) or (C, H, W)",
            )
    names, announced = tuple(name for name, _, _ in stages), tuple(backbone.stage_names())
    if names != announced or not names:
        raise broken(backbone, "build", f"gives stages {quoted(names)}, stage_names {quoted(announced)}")


def check_options(spec: Spec, method: str, options: Mapping[str, object], why: str) -> None:
    """Check that a method accepts the options of this call; most plug-ins never need them."""
    known = inspect.signature(getattr(spec, method)).parameters
    for name in options:
        if name not in known and not any(p.kind is p.VAR_KEYWORD for p in known.values()):
            raise broken(spec, method, f"has no parameter {quoted(name)}, which is needed as {why}")


def check_slices(backbone: BackboneSpec, name: str, stage: nn.Module, n_towers: int) -> None:
    """Check that the weights of a stage are K equal slices, so that each tower gets its own initial weights."""
    from mtl.model.towers import SeparateTowers

    if isinstance(stage, SeparateTowers):
        if len(stage.towers) != n_towers:
            raise broken(
                backbone,
                "build",
                f"gives stage {quoted(name)} {counted(len(stage.towers), 'module')} for {counted(n_towers, 'tower')}",
            )
        return
    for parameter_name, parameter in stage.named_parameters(recurse=False):
        if parameter.ndim > 1 and len(parameter) % n_towers:
            raise broken(
                backbone,
                "build",
                f"gives stage {quoted(name)} a weight {quoted(parameter_name)} of shape {tuple(parameter.shape)}, "
                f"which is not {n_towers} equal slices, one per tower: put a module for each tower in SeparateTowers",
            )
    for child in stage.children():
        check_slices(backbone, name, child, n_towers)


def check_trunk(sharing: SharingSpec, trunk: Any, plan: Plan) -> Trunk:
    """The trunk of a sharing scheme. It says which reading each task takes, in the order of the towers."""
    from mtl.model.trunk import Trunk

    if not isinstance(trunk, Trunk):
        raise broken(sharing, "build", f"gives {called(trunk)}, not a Trunk")
    n_tasks, taken = len(plan.tasks), trunk.reading_of
    if len(taken) != n_tasks:
        raise broken(
            sharing,
            "build",
            f"gives a trunk with readings for {counted(len(taken), 'task')}, not for {n_tasks}",
        )
    reading_of = dict(zip(plan.tasks, taken, strict=True))
    in_order = [reading_of[task] for tasks in plan.towers.values() for task in tasks]
    if sorted(in_order) != in_order or set(in_order) != set(range(max(in_order) + 1)):
        raise broken(
            sharing, "build", f"gives a trunk with readings {taken}, which are not numbered tower by tower"
        )
    return trunk


def check_task_module(task: TaskSpec, module: Any) -> TaskModule:
    """The module that a kind of task built."""
    from mtl.model.tasks.module import TaskModule

    if not isinstance(module, TaskModule):
        raise broken(task, "build", f"gives {called(module)}, not a TaskModule")
    return module


def check_sharing(sharing: SharingSpec, trunk: Trunk) -> None:
    """Check what a trunk says of its parameters (roles, reach, penalty), and that its readings are named matrices."""
    from mtl.model.trunk import SharingMatrix, StitchedTowers

    for unit in trunk.stitches.values() if isinstance(trunk, StitchedTowers) else ():
        if not callable(getattr(unit, "sharing_matrix", None)):
            maker = f"{type(unit).__name__}, which {type(sharing).__name__}.build gives,"
            raise UserError("", f"{maker} has no method sharing_matrix")
    maker = f"{type(trunk).__name__}, which {type(sharing).__name__}.build gives,"
    shapes = {name: tuple(parameter.shape) for name, parameter in trunk.named_parameters()}
    roles, reach = trunk.roles(), trunk.reach()
    for method, names in (("roles", roles.keys()), ("reach", reach.keys())):
        wrong = sorted(names ^ shapes.keys())
        if wrong:
            what = "lacks" if wrong[0] in shapes else "names the unknown parameter"
            raise UserError("", f"{maker} has a method {method} that {what} {quoted(wrong[0])}")
    for name, role in roles.items():
        if role not in ("weight", "scale", "sharing"):
            raise UserError(
                "", f"{maker} gives {quoted(name)} the role {quoted(role)}: weight, scale or sharing"
            )
    for name, served in reach.items():
        wanted = (*shapes[name], len(trunk.reading_of))
        fits = len(served.shape) == len(wanted) and all(
            n in (1, w) for n, w in zip(served.shape, wanted, strict=True)
        )
        if not fits:
            what = f"gives {quoted(name)} a reach of shape {tuple(served.shape)}, which does not broadcast to {wanted}"
            raise UserError("", f"{maker} {what}")
    penalty = trunk.penalty()
    if penalty is not None and getattr(penalty, "shape", None) != ():
        raise UserError("", f"{maker} gives a penalty that is not one number")
    for place, found in trunk.readings().items():
        if not isinstance(found, SharingMatrix):
            raise UserError("", f"{maker} gives {called(found)} at {quoted(place)}, not a SharingMatrix")
        shape, wanted = tuple(found.values.shape), (len(found.targets), len(found.sources))
        if shape != wanted:
            raise UserError("", f"{maker} gives values of shape {shape} at {quoted(place)}, not {wanted}")


def check_activation(maker: Spec, what: str, h: Any, wanted: Shape, key: str) -> None:
    """Check that an activation has the announced shape (B, K*C, ...)."""
    shape = getattr(h, "shape", None)
    if shape is None or tuple(shape) != wanted:
        got = called(h) if shape is None else _shown(tuple(shape), wanted[0])
        raise UserError(
            "",
            f"shapes do not chain: {what} of {type(maker).__name__} gives {got}, not {_shown(wanted, wanted[0])}",
            path=(key,),
        )


def _shown(shape: Shape, n_rows: int) -> str:
    """The shape (2, 8) of two rows as text: (B, 8)."""
    numbers = [str(n) for n in shape]
    if shape[:1] == (n_rows,):
        numbers[0] = "B"
    return f"({', '.join(numbers)}{',' if len(numbers) == 1 else ''})"


def check_row_loss(module: TaskModule, found: Any, wanted: Shape) -> None:
    """Check that row losses are one number per row and task; torch would broadcast other shapes without a word."""
    shape = getattr(found, "shape", None)
    if shape is None or tuple(shape) != wanted:
        got = called(found) if shape is None else f"shape {_shown(tuple(shape), wanted[0])}"
        what = f"gives {got}, not (B, T) = {_shown(wanted, wanted[0])}: one loss per row and task"
        raise of_module(module, "row_loss", what)


def check_losses(module: TaskModule, found: Any, n_tasks: int, logits: Tensor) -> None:
    """Check that a loss is a sum and a sum of weights per task, and depends on the logits."""
    if not isinstance(found, tuple) or len(found) != 2:
        raise of_module(module, "loss", f"gives {called(found)}, not (sums, weights)")
    for name, values in zip(("sums", "weights"), found, strict=True):
        shape = getattr(values, "shape", None)
        if shape is None or tuple(shape) != (n_tasks,):
            what = called(values) if shape is None else f"shape {tuple(shape)}"
            raise of_module(module, "loss", f"gives {name} of {what}, not (T,) = ({n_tasks},): one per task")
    if logits.requires_grad and not found[0].requires_grad:
        raise of_module(
            module, "loss", "gives losses without a gradient: compute them from the logits by torch"
        )


def of_module(module: nn.Module, method: str, what: str) -> UserError:
    """The error for a method of a module that returned a wrong value."""
    return UserError("", f"{type(module).__name__}.{method} {what}")


def check_metrics(module: TaskModule, values: Any, names: Sequence[str], n_tasks: int) -> None:
    """Check that metrics are one number per task under each name."""
    if not isinstance(values, Mapping):
        raise of_module(module, "metric", f"computes {called(values)}, not a mapping of metric -> (T,)")
    for name in names:
        if name not in values:
            raise of_module(module, "metric", f"computes no {quoted(name)}, which known_metrics names")
        n = getattr(values[name], "numel", lambda: -1)()
        if n != n_tasks:
            counts = f"{counted(n, 'value')} for {counted(n_tasks, 'task')}"
            raise of_module(module, "metric", f"computes {quoted(name)} with {counts}")


def check_predicted(module: TaskModule, found: Any, n_tasks: int, n_rows: int) -> dict[str, Tensor]:
    """The predictions of a module: tensors (B, T) or (B, T, ...)."""
    if not isinstance(found, dict) or not found:
        what = "an empty dict" if isinstance(found, dict) else called(found)
        raise of_module(module, "predict", f"gives {what}, not a dict of tensors")
    for name, values in found.items():
        shape = tuple(getattr(values, "shape", ()))
        if shape[:2] != (n_rows, n_tasks):
            what = f"gives {quoted(name)} of shape {_shown(shape, n_rows)}, not (B, T, ...) = (B, {n_tasks}, ...)"
            raise of_module(module, "predict", what)
    return found


def check_decoded(task: TaskSpec, columns: Any, n_rows: int) -> None:
    """Check that decoded predictions are columns with a value for every row, the column "" among them."""
    if not isinstance(columns, Mapping) or "" not in columns:
        raise broken(task, "decode", 'gives no column "": the class or value itself')
    for suffix, values in columns.items():
        if not hasattr(values, "__len__") or len(values) != n_rows:
            rows = counted(n_rows, "row")
            raise broken(task, "decode", f"gives column {quoted(suffix)} not one value for each of {rows}")
