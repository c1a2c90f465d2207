"""The network for N tasks: K towers, cross-stitch units between their stages, N heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtl.model.heads import Heads
from mtl.model.towers import Towers


class Standardize(nn.Module):
    """z-score of the raw input, (x - mean) / std, with the training split's mean and std.

    Args:
        mean: broadcastable to one row's input.
        std: likewise; nowhere 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(self.mean.dtype) - self.mean) / self.std

    def extra_repr(self) -> str:
        return f"shape={tuple(self.mean.shape)}"


class StitchedMultiTower(nn.Module):
    """Towers that exchange activations at stitch sites, and heads that read them.

    With x_k the activation of tower k, every stage computes x_k = stage_k(x_k); after a stage that is a
    site, (x_1, ..., x_K) = stitch(x_1, ..., x_K). Task t's head reads the last x of its tower.

    Args:
        towers: the K towers.
        stitches: stage name -> the unit that mixes the towers after it, (B, K*C, ...) to the same.
        heads: the heads of all N tasks.
        tasks: the N tasks, in the order in which results are shown.
        standardize: applied to the raw input first, `Standardize` or `TableInputs`; none if left out.

    Raises:
        ValueError: a site is not a stage of the towers.
    """

    def __init__(
        self,
        towers: Towers,
        stitches: Mapping[str, nn.Module],
        heads: Heads,
        tasks: Sequence[str],
        standardize: nn.Module | None = None,
    ) -> None:
        super().__init__()
        unknown = set(stitches) - set(towers.stage_names)
        if unknown:
            raise ValueError(f"stitches after unknown stages {sorted(unknown)}; stages: {towers.stage_names}")
        self.tasks = tuple(tasks)
        self.standardize = standardize if standardize is not None else nn.Identity()
        self.towers = towers
        self.stitches = nn.ModuleDict(stitches)
        self.heads = heads

    def forward_groups(self, x: Tensor) -> dict[str, Tensor]:
        """Input (B, ...) -> task group -> logits (B, T, O)."""
        h: Tensor = self.standardize(x)
        for name, stage in self.towers.stages.items():
            h = stage(h)
            if name in self.stitches:
                h = self.stitches[name](h)
        logits: dict[str, Tensor] = self.heads(h)
        return logits

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Input (B, ...) -> task -> logits (B, O)."""
        logits = self.forward_groups(x)
        places = {task: self.heads.place(task) for task in self.tasks}
        return {task: logits[group][:, t] for task, (group, t) in places.items()}

    @torch.no_grad()
    def alphas(self) -> dict[str, Tensor]:
        """Site -> alpha as (K, K); for finer granularities, the mean over channels or units."""
        return {site: stitch.alpha_KK() for site, stitch in self.stitches.items()}  # type: ignore[operator]

    def parameter_roles(self) -> dict[str, str]:
        """Parameter name -> `alpha` (in a stitch), `weight` (two dimensions or more) or `scale`."""
        return {
            name: "alpha" if name.startswith("stitches.") else "weight" if parameter.ndim > 1 else "scale"
            for name, parameter in self.named_parameters()
        }
