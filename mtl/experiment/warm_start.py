"""Initial weights taken from other runs, by the names of towers, stages and tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mtl.build import Built
from mtl.errors import UserError, did_you_mean, quoted
from mtl.model.towers import SeparateTowers


@dataclass
class Matched:
    """What was taken over: tower -> its stages, tasks whose heads were, sites whose alphas were; and what was not."""

    towers: dict[str, list[str]] = field(default_factory=dict)
    heads: list[str] = field(default_factory=list)
    sites: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For the person who watches."""
        said = [f"tower {quoted(tower)}: stages {', '.join(stages)}" for tower, stages in self.towers.items()]
        said += [f"heads of {', '.join(map(quoted, self.heads))}"] if self.heads else []
        said += [f"alphas after {', '.join(self.sites)}"] if self.sites else []
        said += [f"as the recipe begins: {', '.join(self.left)}"] if self.left else []
        return said


def take_weights(target: Built, runs: Mapping[str, Built]) -> Matched:
    """Copy each tower, head and alpha that a run has under the same name and in the same shape; heads also need the
    same classes.

    Args:
        target: the network that is about to be trained.
        runs: `""` -> one trained network for all towers, or tower -> the network that its tower of this name, and the
            heads of its tasks, are taken from. If that has a single tower, it is taken whatever it is called.

    Raises:
        UserError: nothing matches; the path is relative to `train.init_from`.
    """
    found = Matched()
    names = target.model.towers.names
    for tower in runs:
        if tower and tower not in names:
            raise UserError("", f"no tower {quoted(tower)}{did_you_mean(tower, names)}", path=(tower,))
    for k, tower in enumerate(names):
        source = runs.get(tower, runs.get(""))
        if source is not None:
            _take_tower(target, k, source, tower in runs, found)
    if "" in runs and runs[""].model.towers.names == names:
        for site, unit in target.model.stitches.items():
            if site in runs[""].model.stitches and _copy(unit, 0, 1, runs[""].model.stitches[site], 0, 1):
                found.sites.append(site)
    if not found.towers and not found.heads:
        raise UserError("", "no tower, stage or head has the same name and shape", "compare them by mtl show")
    stages = target.model.towers.stage_names
    found.left = [
        f"{tower}.{stage}"
        for tower in names
        for stage in stages
        if any(True for _ in target.model.towers.stages[stage].parameters())
        and stage not in found.towers.get(tower, [])
    ]
    found.left += [f"head of {t}" for g in target.groups for t in g.tasks if t not in found.heads]
    return found


def _take_tower(target: Built, k: int, source: Built, given: bool, found: Matched) -> None:
    """Tower k of the target, with the heads that read it, from the tower of that name."""
    tower, theirs = target.model.towers.names[k], source.model.towers
    if tower in theirs.names:
        j = theirs.names.index(tower)
    elif given and len(theirs.names) == 1:
        j = 0
    else:
        return
    n, m = len(target.model.towers.names), len(theirs.names)
    for stage, module in target.model.towers.stages.items():
        if stage in theirs.stages and _copy(module, k, n, theirs.stages[stage], j, m):
            found.towers.setdefault(tower, []).append(stage)
    for group in target.groups:
        for t, task in enumerate(group.tasks):
            place = [(g, g.tasks.index(task)) for g in source.groups if task in g.tasks]
            if group.towers[t] != k or not place:
                continue
            other, i = place[0]
            if group.outputs[t] != other.outputs[i]:  # as many classes may be other ones
                continue
            heads, those = target.model.heads.groups[group.name], source.model.heads.groups[other.name]
            if _copy(heads, t, len(group.tasks), those, i, len(other.tasks)):
                found.heads.append(task)


def _copy(own: nn.Module, k: int, n: int, other: nn.Module, j: int, m: int) -> bool:
    """Copy part j of m of one module into part k of n of another, if all of it fits; False if nothing was copied."""
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
        else:  # a counter of batches, which all have in common
            tensors[name] = tensor
    return tensors
