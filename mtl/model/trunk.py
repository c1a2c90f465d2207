"""The trunk lies between the input and the heads: it holds the towers and the parts that they share.

Shapes: B batch, K towers (copies of the backbone), R readings, C channels or features of one tower, N tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mtl.model.links import Links, UnitLinks
from mtl.model.towers import SeparateTowers, Towers

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """The plain values and functions from which a sharing scheme builds its trunk.

    Args:
        tasks: the N tasks, in the order of results.
        towers: tower -> its tasks.
        stage_names: the backbone's stages, in order.
        input_shape: the shape of one row that a copy of the backbone reads.
        own_inputs: whether each copy reads an input of its own, (B, K*F), because each has its own embeddings.
        stages: names of copies -> the grouped stages, with initial weights that depend on the names alone. `first` and
            `last` name the first and the last stage of the result; without them it has all stages.
        norm: (number of groups, shape of one group) -> the backbone's norm for them, or None.
        start: (grouped module, names of its groups, *key): fills the weights of each group from its name and the key.
    """

    tasks: tuple[str, ...]
    towers: Mapping[str, tuple[str, ...]]
    stage_names: tuple[str, ...]
    input_shape: Shape
    own_inputs: bool
    stages: Callable[..., Towers]
    norm: Callable[[int, Shape], nn.Module | None]
    start: Callable[..., None]

    def reading_of(self) -> tuple[int, ...]:
        """For each task the number of its tower, which is the reading of its head if every tower gives one reading."""
        tower_of = {task: k for k, tasks in enumerate(self.towers.values()) for task in tasks}
        return tuple(tower_of[task] for task in self.tasks)

    def tasks_of_towers(self) -> Tensor:
        """(K, N) bool, whether task n reads tower k."""
        rows = [[task in own for task in self.tasks] for own in self.towers.values()]
        return torch.tensor(
            rows, device="cpu"
        )  # the values are needed even if the network is on the meta device


@dataclass(frozen=True)
class SharingMatrix:
    """How much each target takes from each source, at one place of the network.

    Args:
        values: (targets, sources): the share that each target takes from each source.
        targets: the names of towers or tasks.
        sources: the names of towers, experts or the trunk.
    """

    values: Tensor
    targets: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Features:
    """The last activation that tasks of several readings read.

    Args:
        module: the module of the trunk whose last argument is this activation, (B, K*C, ...) or (B, K, ...).
        reach: (K, N) bool, whether task n reads slice k of the K equal slices of axis 1.
    """

    module: nn.Module
    reach: Tensor


class Trunk(nn.Module):
    """A network from the input to the R readings, which the heads read.

    Args:
        copies: the copies of the backbone that read the input, in the order of their channel groups.
        shape: the shape of one reading, (F,) or (C, H, W).
        reading_of: for each task, in the plan's order, the number of its reading.
    """

    def __init__(self, copies: Sequence[str], shape: Shape, reading_of: Sequence[int]) -> None:
        super().__init__()
        self.copies, self.shape, self.reading_of = tuple(copies), tuple(shape), tuple(reading_of)

    @property
    def n_readings(self) -> int:
        """R, the number of readings."""
        return max(self.reading_of) + 1

    def forward(self, x: Tensor) -> Tensor:
        """Input (B, ...), or (B, K*F) if copies read inputs of their own -> readings (B, R, *shape)."""
        raise NotImplementedError

    def roles(self) -> dict[str, str]:
        """Parameter -> its role, which sets its weight decay and its learning rate.

        `weight` decays. `scale` does not decay. `sharing` does not decay and has a learning rate of its own.
        """
        return {name: "weight" if p.ndim > 1 else "scale" for name, p in self.named_parameters()}

    def reach(self) -> dict[str, Tensor]:
        """Parameter -> the tasks that its parts serve, as a bool tensor that broadcasts to (*shape, N).

        The structure of the trunk decides this. By default every task reaches every part. A part that only one task
        reaches takes the gradient of that task's loss; a weighting combines the gradients of the shared parts alone.
        """
        every = torch.ones(len(self.reading_of), dtype=torch.bool, device="cpu")
        return {name: every.expand(*(1,) * p.ndim, -1) for name, p in self.named_parameters()}

    def reach_of_copies(self) -> Tensor:
        """(K, N) bool, whether task n reaches the input of copy k; by default all tasks reach all copies."""
        return torch.ones(len(self.copies), len(self.reading_of), dtype=torch.bool, device="cpu")

    def readings(self) -> dict[str, SharingMatrix]:
        """Place in the network -> its current sharing matrix; empty if nothing is shared."""
        return {}

    def links(self) -> dict[str, Links]:
        """Place in the network -> what its targets take from its sources, in the order of the forward pass.

        `mtl sharing` observes and cuts these links. The default is empty: the scheme mixes nowhere, or does not say.
        """
        return {}

    def shared_features(self) -> Features | None:
        """The last activation that tasks of several readings read; None if they share none but the readings.

        A weighting that combines gradients works on it if the recipe says `grads_on: features`.
        """
        return None

    def penalty(self) -> Tensor | None:
        """A term that each step adds to the loss once, such as the distance between towers; None adds nothing."""
        return None


class StitchedTowers(Trunk):
    """K towers that mix their activations at sites; each tower gives one reading.

    x_k = stage_k(x_k) at every stage; after a stage that is a site, (x_1, ..., x_K) = unit(x_1, ..., x_K).

    Args:
        towers: the K towers.
        units: stage -> the unit that mixes the towers after this stage; it keeps the shape (B, K*C, ...). A unit has
            `sharing_matrix()`, its summary as (K, K). It may have `rows_of(name)`, which gives an axis of the parameter
            `name`: K slices lie along it, and slice k makes the activation of tower k alone.
        tasks_of_towers: (K, N) bool, whether task n reads tower k.
        reading_of: for each task the number of its tower.

    Raises:
        ValueError: a site is not a stage of the towers.
    """

    def __init__(
        self,
        towers: Towers,
        units: Mapping[str, nn.Module],
        tasks_of_towers: Tensor,
        reading_of: Sequence[int],
    ) -> None:
        super().__init__(towers.names, towers.shapes[towers.stage_names[-1]], reading_of)
        unknown = set(units) - set(towers.stage_names)
        if unknown:
            raise ValueError(f"stitches after unknown stages {sorted(unknown)}; stages: {towers.stage_names}")
        towers.pool_before_activation(apart=units)
        self.towers = towers
        self.stitches = nn.ModuleDict(units)
        self.tasks_of_towers: Tensor = tasks_of_towers

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for name, stage in self.towers.stages.items():
            h = stage(h)
            if name in self.stitches:
                h = self.stitches[name](h)
        return h.reshape(-1, len(self.copies), *self.shape)

    def roles(self) -> dict[str, str]:
        return {
            name: "sharing" if name.startswith("stitches.") else role
            for name, role in super().roles().items()
        }

    def reach(self) -> dict[str, Tensor]:
        reach, sites = super().reach(), [name for name in self.towers.stage_names if name in self.stitches]
        last = self.towers.stage_names.index(sites[-1]) if sites else -1
        for stage in self.towers.stage_names[last + 1 :]:
            own = reach_of_slices(self.towers.stages[stage], self.tasks_of_towers)
            reach.update({f"towers.stages.{stage}.{name}": served for name, served in own.items()})
        unit: Any = self.stitches[sites[-1]] if sites else None
        if hasattr(unit, "rows_of"):
            for name, parameter in unit.named_parameters():
                served = along(self.tasks_of_towers, parameter, unit.rows_of(name))
                reach[f"stitches.{sites[-1]}.{name}"] = served
        return reach

    def reach_of_copies(self) -> Tensor:
        if len(self.stitches):
            return super().reach_of_copies()
        return self.tasks_of_towers

    def readings(self) -> dict[str, SharingMatrix]:
        return {
            site: SharingMatrix(unit.sharing_matrix(), self.copies, self.copies)  # type: ignore[operator]
            for site, unit in self.stitches.items()
        }

    def links(self) -> dict[str, Links]:
        sites = [name for name in self.towers.stage_names if name in self.stitches]
        return {site: UnitLinks(self.stitches[site], self.copies, apart=site == sites[-1]) for site in sites}

    def shared_features(self) -> Features | None:
        sites = [name for name in self.towers.stage_names if name in self.stitches]
        return Features(self.stitches[sites[-1]], self.reach_of_copies()) if sites else None


def along(reach_KN: Tensor, parameter: Tensor, axis: int = 0) -> Tensor:
    """The reach of K equal slices of a parameter along an axis, as a bool tensor that broadcasts to (*shape, N).

    All tasks reach a parameter without K slices, such as one slope for all towers.
    """
    if parameter.ndim == 0 or parameter.shape[axis] % len(reach_KN):
        return reach_KN.any(0).view(*(1,) * parameter.ndim, -1)
    size = parameter.shape[axis]
    rows = reach_KN.repeat_interleave(size // len(reach_KN), dim=0)
    shape = [1] * parameter.ndim
    shape[axis] = size
    return rows.view(*shape, reach_KN.shape[1])


def reach_of_slices(module: nn.Module, reach_KN: Tensor, prefix: str = "") -> dict[str, Tensor]:
    """Parameter of a grouped module -> its reach; copy k serves the tasks of row k of `reach_KN`."""
    if isinstance(module, SeparateTowers):
        return {
            f"{prefix}towers.{k}.{name}": reach_KN[k].view(*(1,) * parameter.ndim, -1)
            for k, tower in enumerate(module.towers)
            for name, parameter in tower.named_parameters()
        }
    own = {f"{prefix}{name}": along(reach_KN, p) for name, p in module.named_parameters(recurse=False)}
    for name, child in module.named_children():
        own.update(reach_of_slices(child, reach_KN, f"{prefix}{name}."))
    return own
