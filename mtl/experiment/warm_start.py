"""A warm start takes initial weights from other runs, by the names of towers, stages and tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mtl.build import Built
from mtl.errors import UserError, did_you_mean, quoted
from mtl.inference.load import load_trained
from mtl.model.inputs import TableInputs
from mtl.model.towers import SeparateTowers, Towers
from mtl.recipe.keys.recipe import Recipe
from mtl.training.events import Noted, Stream, Warned
from mtl.training.trainer import Trainer


@dataclass
class Matched:
    """The result of a warm start.

    Args:
        towers: tower -> its stages whose weights were taken.
        heads: the tasks whose heads were taken.
        sharing: the sharing parameters that were taken.
        left: the stages and heads that kept their drawn weights.
    """

    towers: dict[str, list[str]] = field(default_factory=dict)
    heads: list[str] = field(default_factory=list)
    sharing: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The result in lines for the person who watches."""
        said = [f"tower {quoted(tower)}: stages {', '.join(stages)}" for tower, stages in self.towers.items()]
        said += [f"heads of {', '.join(map(quoted, self.heads))}"] if self.heads else []
        said += [f"what is shared: {', '.join(self.sharing)}"] if self.sharing else []
        said += [f"as the recipe begins: {', '.join(self.left)}"] if self.left else []
        return said


def take_weights(target: Built, runs: Mapping[str, Built]) -> Matched:
    """Copy each stage, head and sharing parameter that a run has with the same name and shape.

    A head also needs the same classes. The first stage of a tower also needs the same columns of a table with the same
    values of categories in the same order, since its weights belong to them by position.

    Args:
        target: the network that is about to be trained.
        runs: `""` -> one trained network for all towers; or tower -> the trained network for this tower and the heads
            of its tasks. Such a network needs a tower of the same name, unless it has a single tower.

    Raises:
        UserError: nothing matches; the path is relative to `train.init_from`.
    """
    found, known = Matched(), list(_copies(target))
    for tower in runs:
        if tower and tower not in known:
            raise UserError("", f"no tower {quoted(tower)}{did_you_mean(tower, known)}", path=(tower,))
    for tower in known:
        source = runs.get(tower, runs.get(""))
        if source is not None:
            _take_tower(target, tower, source, tower in runs, found)
            _take_heads(target, tower, source, tower in runs, found)
    if "" in runs and list(_copies(runs[""])) == known:
        _take_sharing(target, runs[""], found)
    if not found.towers and not found.heads:
        raise UserError("", "no tower, stage or head has the same name and shape", "compare them by mtl show")
    found.left = [
        f"{tower}.{stage}"
        for tower, (towers, _) in _copies(target).items()
        for stage, module in towers.stages.items()
        if any(True for _ in module.parameters()) and stage not in found.towers.get(tower, [])
    ]
    found.left += [f"head of {t}" for g in target.groups for t in g.tasks if t not in found.heads]
    return found


def _copies(built: Built) -> dict[str, tuple[Towers, int]]:
    """Tower or expert -> the grouped towers that hold it, and its number among them."""
    grouped = [part for part in built.model.trunk.modules() if isinstance(part, Towers)]
    return {name: (towers, k) for towers in grouped for k, name in enumerate(towers.names)}


def _source_of(tower: str, source: Built, given: bool) -> tuple[Towers, int] | None:
    """The grouped towers of a run with this tower, and its number; if `given`, a single tower may have any name."""
    theirs = _copies(source)
    if tower not in theirs and given and len(theirs) == 1:
        return next(iter(theirs.values()))
    return theirs.get(tower)


def _take_tower(target: Built, tower: str, source: Built, given: bool, found: Matched) -> None:
    place = _source_of(tower, source, given)
    if place is None:
        return
    (own, k), (theirs, j) = _copies(target)[tower], place
    for i, (stage, module) in enumerate(own.stages.items()):
        if stage not in theirs.stages or (i == 0 and target.columns != source.columns):
            continue
        if _copy(module, k, len(own.names), theirs.stages[stage], j, len(theirs.names)):
            found.towers.setdefault(tower, []).append(stage)
            if i == 0:
                _take_embedding(
                    target.model.inputs, k, len(own.names), source.model.inputs, j, len(theirs.names)
                )


def _take_embedding(own: nn.Module | None, k: int, n: int, other: nn.Module | None, j: int, m: int) -> None:
    """Copy the vectors of categories of tower j of m into those of tower k of n, if categories have vectors."""
    if isinstance(own, TableInputs) and isinstance(other, TableInputs) and own.per_tower and other.per_tower:
        with torch.no_grad():
            own.weight.unflatten(0, (n, -1))[k].copy_(other.weight.unflatten(0, (m, -1))[j])


def _take_heads(target: Built, tower: str, source: Built, given: bool, found: Matched) -> None:
    """Take the heads of a tower's tasks from the run that has this tower."""
    if _source_of(tower, source, given) is None:
        return
    for group in target.groups:
        for t, task in enumerate(group.tasks):
            place = [(g, g.tasks.index(task)) for g in source.groups if task in g.tasks]
            if group.towers[t] != tower or not place:
                continue
            other, i = place[0]
            if group.outputs[t] != other.outputs[i]:  # an equal number of classes may be different classes
                continue
            own = target.model.modules_of_tasks()[group.name].head
            theirs = source.model.modules_of_tasks()[other.name].head
            if _copy(own, t, len(group.tasks), theirs, i, len(other.tasks)):
                found.heads.append(task)


def _take_sharing(target: Built, source: Built, found: Matched) -> None:
    """Take the sharing parameters with the same name and shape."""
    theirs = dict(source.model.named_parameters())
    roles = target.model.parameter_roles()
    for name, parameter in target.model.named_parameters():
        if roles[name] == "sharing" and name in theirs and theirs[name].shape == parameter.shape:
            with torch.no_grad():
                parameter.copy_(theirs[name])
            found.sharing.append(name.removeprefix("trunk."))


def _copy(own: nn.Module, k: int, n: int, other: nn.Module, j: int, m: int) -> bool:
    """Copy part j of m of `other` into part k of n of `own` if all shapes agree, and return whether they do."""
    mine, theirs = _part(own, k, n), _part(other, j, m)
    if not mine or mine.keys() != theirs.keys():
        return False
    if any(mine[name].shape != theirs[name].shape for name in mine):
        return False
    with torch.no_grad():
        for name, tensor in mine.items():
            tensor.copy_(theirs[name])
    return True


def _part(module: nn.Module, k: int, n: int) -> dict[str, Tensor]:
    """Name -> the slice of one tower or task in each weight and running statistic of a grouped module."""
    if isinstance(module, SeparateTowers):
        return dict(module.towers[k].state_dict())
    tensors = {}
    for name, tensor in module.state_dict().items():
        if tensor.ndim and tensor.shape[0] % n == 0:
            tensors[name] = tensor.unflatten(0, (n, -1))[k]
        else:  # all towers share a counter of batches
            tensors[name] = tensor
    return tensors


def warm_start(recipe: Recipe, trainer: Trainer, stream: Stream) -> None:
    """Replace the drawn weights by those of the runs in `train.init_from`."""
    given = recipe.train.init_from
    if given is None:
        return
    with recipe.at("train", "init_from"):
        paths = {"": given} if isinstance(given, str) else given
        models = {name: load_trained(path, "cpu") for name, path in paths.items()}
        for notice in filter(None, (model.notice for model in models.values())):
            stream.on(Warned(notice))
        matched = take_weights(trainer.built, {name: model.built for name, model in models.items()})
    for line in matched.lines():
        stream.on(Noted(f"init_from: {line}"))
