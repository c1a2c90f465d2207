"""K towers of one shape, computed stage by stage for all towers at once."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn


class Towers(nn.Module):
    """An ordered chain of named stages, each of which maps (B, K*C, ...) to (B, K*C', ...).

    The first stage reads the input (B, C, ...) that all towers share.

    Args:
        names: the K towers, in the order of their channel groups.
        stages: name and module of each stage, in order.
        shapes: stage -> the shape of one tower's output, (F,) or (C, H, W).
        frozen: stages that are not trained: no gradient reaches their weights, and their norms and dropouts work as in
            evaluation.

    Raises:
        ValueError: a stage has a name that nn.ModuleDict reserves, such as `train`.
    """

    def __init__(
        self,
        names: Sequence[str],
        stages: Sequence[tuple[str, nn.Module]],
        shapes: Mapping[str, tuple[int, ...]],
        frozen: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.names, self.shapes = tuple(names), dict(shapes)
        self.stage_names = tuple(name for name, _ in stages)
        keeper = nn.ModuleDict()  # an object, not the class: `training` is set on objects only
        reserved = [name for name in self.stage_names if hasattr(keeper, name)]
        if reserved:
            raise ValueError(f"a stage cannot be called {reserved[0]!r}: choose another name")
        self.stages = nn.ModuleDict(dict(stages))
        self.frozen = tuple(name for name in self.stage_names if name in frozen)
        for name in self.frozen:
            self.stages[name].requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all stages but the frozen ones, which stay in that of evaluation."""
        super().train(mode)
        for name in self.frozen:
            self.stages[name].eval()
        return self

    def pool_before_activation(self, apart: Collection[str] = ()) -> None:
        """Let a max pool come before the ReLU of the stage in front of it, so that the ReLU has fewer numbers to do.

        max(relu(a), relu(b)) = relu(max(a, b)), and both have the same gradients to the bit, since ReLU never falls and
        has no gradient at or below 0. The ReLU moves to the end of the pool's stage.

        Args:
            apart: stages whose outputs are read by others than the next stage, and stay as they are.
        """
        stages = list(self.stages.items())
        for (name, stage), (pool_name, pool) in itertools.pairwise(stages):
            if name in apart or type(pool) is not nn.MaxPool2d or not isinstance(stage, nn.Sequential):
                continue
            *parts, last = stage.named_children()
            if parts and type(last[1]) is nn.ReLU:
                self.stages[name] = nn.Sequential(OrderedDict(parts))
                self.stages[pool_name] = nn.Sequential(OrderedDict(pool=pool, activation=last[1]))

    def forward(self, x: Tensor) -> Tensor:
        """Input (B, C, ...) -> output of the last stage (B, K*C', ...)."""
        for stage in self.stages.values():
            x = stage(x)
        return x

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one tower's output."""
        return self.shapes[self.stage_names[-1]]

    def extra_repr(self) -> str:
        frozen = f", frozen={list(self.frozen)}" if self.frozen else ""
        return f"towers={list(self.names)}, stages={list(self.stage_names)}{frozen}"


class SeparateTowers(nn.Module):
    """K modules, one for each tower, behind the interface of a stage; they serve backbones without grouped layers.

    Such a stage is slower than a grouped one, since each module launches its own kernels.

    Args:
        towers: one module per tower, from (B, C, ...) to (B, C', ...).
        shared_input: whether all modules read the same input.
        pretrained: whether the modules keep the weights that they were given with.
    """

    def __init__(self, towers: Sequence[nn.Module], *, shared_input: bool, pretrained: bool = False) -> None:
        super().__init__()
        self.towers = nn.ModuleList(towers)
        self.shared_input, self.pretrained = shared_input, pretrained

    def reset(self, seeds: Sequence[int]) -> None:
        """Draw the initial weights of tower k from seed k, by the `reset_parameters` of its modules."""
        if self.pretrained:
            return
        for tower, seed in zip(self.towers, seeds, strict=True):
            with torch.random.fork_rng(devices=[]):  # parameters are made on the CPU
                torch.manual_seed(seed)
                for part in tower.modules():
                    if callable(reset := getattr(part, "reset_parameters", None)):
                        reset()

    def forward(self, x: Tensor) -> Tensor:
        """(B, K*C, ...), or (B, C, ...) for a shared input -> (B, K*C', ...)."""
        n = len(self.towers)
        parts = [x] * n if self.shared_input else x.chunk(n, dim=1)
        return torch.cat([tower(part) for tower, part in zip(self.towers, parts, strict=True)], dim=1)
