"""Recipe -> StitchedMultiTower: shapes from stage to stage, task groups, and the checks that need them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from mtl.data.columns import Header, no_column
from mtl.data.join import joined_header
from mtl.data.learned import Constants, Learned
from mtl.errors import KeyPath, UserError, gathered, quoted, raise_all
from mtl.model.heads import GroupedHead, Heads
from mtl.model.inputs import TableInputs
from mtl.model.layers import drawn_from, grouped_norm, init_weights
from mtl.model.stitched import Standardize, StitchedMultiTower
from mtl.model.towers import Towers
from mtl.promises import (
    check_activation,
    check_alphas,
    check_header,
    check_options,
    check_outputs,
    check_sites,
    check_slices,
    check_stages,
    check_unit,
)
from mtl.recipe.schema import Recipe
from mtl.recipe.spec import Shape, TaskSpec

PROVISIONAL = ("?", "?")
"""What stands for the classes of a task that are known only once its labels are read."""

TRIED_IN_MEMORY = 1 << 23
"""Parameters up to which a network is tried on the CPU: the meta device's own start takes 1.4 s and 84 MB."""


@dataclass(frozen=True)
class TaskGroup:
    """Tasks that are computed together: one grouped head, one loss, one metric update.

    Args:
        name: what the model calls their head.
        tasks: the T tasks.
        spec: the settings of one of them; all agree in what head, loss and metrics need.
        outputs: for each task, the names of what is predicted.
        towers: for each task, the number of its tower.
        constants: numbers that losses, metrics and predictions need, (T,) or (T, ...).
    """

    name: str
    tasks: tuple[str, ...]
    spec: TaskSpec
    outputs: tuple[tuple[str, ...], ...]
    towers: tuple[int, ...]
    constants: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def n_outputs(self) -> int:
        """O."""
        return self.spec.n_outputs(self.outputs[0])

    def constants_of(self, t: int) -> dict[str, Tensor]:
        """The numbers of task t alone."""
        return {name: values[t] for name, values in self.constants.items()}


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


def known_outputs(recipe: Recipe, header: Header) -> dict[str, tuple[str, ...] | None]:
    """Task -> names of what is predicted, as far as the header tells.

    Raises:
        UserError: a task does not fit the data's header; all such faults at once.
    """
    found: dict[str, tuple[str, ...] | None] = {}
    faults: list[UserError] = []
    inputs = header.layout
    read = {*inputs.numeric, *inputs.vectors, *inputs.categorical} if inputs is not None else set()
    for task, spec in recipe.tasks.items():
        with gathered(faults), recipe.at("tasks", task):
            found[task] = check_outputs(spec, spec.outputs(header.of(spec.source)))
            leak = [column for column in spec.target_columns() if column in read]
            if leak:
                what = f"column {quoted(leak[0])} is an input too: its label would be read off it"
                raise UserError("", what, path=("target",))
    raise_all(faults)
    return found


def task_groups(recipe: Recipe, learned: Learned) -> tuple[TaskGroup, ...]:
    """The tasks of a recipe, gathered into groups in the order of their first tasks."""
    tower_of = {task: k for k, tasks in enumerate(recipe.towers.values()) for task in tasks}
    gathered: dict[tuple[object, ...], list[str]] = {}
    for task, spec in recipe.tasks.items():
        key = spec.group(spec.n_outputs(learned.outputs[task]))
        computed_by = (type(spec).losses, type(spec).meter)  # a subclass may have its own
        gathered.setdefault((*key, *computed_by, spec.head), []).append(task)
    groups: list[TaskGroup] = []
    for group_key, tasks in gathered.items():
        spec = recipe.tasks[tasks[0]]
        stem = f"{group_key[0]}_{spec.n_outputs(learned.outputs[tasks[0]])}".replace(".", "_")
        same = sum(group.name.startswith(stem) for group in groups)
        constants = [learned.constants.get(task, {}) for task in tasks]
        groups.append(
            TaskGroup(
                name=f"{stem}_{same + 1}" if same else stem,
                tasks=tuple(tasks),
                spec=spec,
                outputs=tuple(learned.outputs[task] for task in tasks),
                towers=tuple(tower_of[task] for task in tasks),
                constants={
                    name: _stacked(name, constants) for name in dict.fromkeys(n for c in constants for n in c)
                },
            )
        )
    return tuple(groups)


def _stacked(name: str, constants: Sequence[Constants]) -> Tensor:
    """(T,) or (T, ...) one number or row per task; a task without this one has ones, as a temperature would."""
    width = max(len(c[name]) for c in constants if name in c)
    rows = [c.get(name, (1.0,) * width) for c in constants]
    stacked = torch.tensor(rows, dtype=torch.float32)
    return stacked[:, 0] if width == 1 else stacked


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


def header_of(recipe: Recipe) -> Header:
    """What all sources together say of themselves.

    Raises:
        UserError: a source cannot be found, or sources do not give the same inputs.
    """
    headers = {}
    for name, source in recipe.data.by_name.items():
        with recipe.at("data", *recipe.data.path_of(name)):
            headers[name] = check_header(source, source.header())
    with recipe.at():
        return joined_header(headers)


def build_on_meta(recipe: Recipe) -> tuple[Built, Header]:
    """Build without memory or data, and try one forward and backward pass: small networks on the CPU, others on meta.

    Raises:
        UserError: shapes do not chain, heads do not fit, or no task reaches a parameter.
    """
    header = header_of(recipe)
    _check_early_stopping(recipe, header)
    _check_columns(recipe, header)
    with torch.device("meta"):
        built = build(recipe, header)
    n_parameters = sum(parameter.numel() for parameter in built.model.parameters())
    device = "cpu" if n_parameters <= TRIED_IN_MEMORY else "meta"
    with torch.device(device):
        tried = build(recipe, header) if device == "cpu" else built
        x = torch.zeros(2, *header.input_shape)
    tried.model.train()
    with recipe.at("model"):
        logits = _forward_checked(recipe, tried, x)
        torch.stack([output.sum() for output in logits.values()]).sum().backward()
        for name, parameter in tried.model.named_parameters():
            if parameter.grad is None:
                raise UserError("", f"{name} gets no gradient from any task", path=("backbone",))
    with recipe.at("model", "sharing"):
        for unit in tried.model.stitches.values():
            check_alphas(recipe.model.sharing, unit, len(recipe.towers))
    return built, header


def _forward_checked(recipe: Recipe, built: Built, x: Tensor) -> dict[str, Tensor]:
    """The forward pass on the meta device; each stage and unit must give the shape that was announced."""
    model, n_towers = built.model, len(recipe.towers)
    path, what = "backbone", "the input"
    try:
        h = model.standardize(x)
        for name, stage in model.towers.stages.items():
            wanted = (len(x), n_towers * built.shapes[name][0], *built.shapes[name][1:])
            path, what = "backbone", f"stage {quoted(name)}"
            h = stage(h)
            check_activation(recipe.model.backbone, what, h, wanted, path)
            if name in model.stitches:
                path, what = "sharing", f"the unit after {quoted(name)}"
                h = model.stitches[name](h)
                check_activation(recipe.model.sharing, what, h, wanted, path)
        path, what = "backbone", "the heads"
        logits: dict[str, Tensor] = model.heads(h)
        return logits
    except (RuntimeError, ValueError) as error:
        first_line = str(error).splitlines()[0]
        raise UserError("", f"shapes do not chain: {what}: {first_line}", path=(path,)) from error


def _check_early_stopping(recipe: Recipe, header: Header) -> None:
    split = recipe.data.split
    given = (split.validation, split.validation_from, split.column)
    has_validation = any(value is not None for value in given) or "validation" in header.row_counts
    for task, spec in recipe.tasks.items():
        for key in ("temperature", "fit_threshold"):
            if getattr(spec, key, None) and not has_validation:
                with recipe.at("tasks", task, key):
                    raise UserError(
                        "", "there is no validation split to fit it on", "write data.split: {validation: 0.1}"
                    )
    if recipe.train.early_stopping is not None and not has_validation:
        with recipe.at("train", "early_stopping"):
            raise UserError(
                "", "there is no validation split to stop by", "write data.split: {validation: 0.1}"
            )


def _check_columns(recipe: Recipe, header: Header) -> None:
    """The columns that are neither labels nor inputs."""
    faults: list[UserError] = []
    for path, column, source in _further_columns(recipe):
        known = header.of(source).known
        if column not in known:
            with gathered(faults), recipe.at(*path):
                raise UserError("", no_column(column, known))
    raise_all(faults)


def _further_columns(recipe: Recipe) -> Iterator[tuple[KeyPath, str, str | None]]:
    """Where a column of splits, weights or ids is named, its name, and the source that must have it, if it is one."""
    for key in ("column", "group", "by_time"):
        column = getattr(recipe.data.split, key)
        if column is not None:
            yield ("data", "split", key), column, None
    for task, spec in recipe.tasks.items():
        if spec.sample_weight is not None:
            yield ("tasks", task, "sample_weight"), spec.sample_weight, spec.source
    for name, source in recipe.data.by_name.items():
        ids = source.row_ids()
        if ids is not None:
            yield ("data", *recipe.data.path_of(name)), ids, name


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
