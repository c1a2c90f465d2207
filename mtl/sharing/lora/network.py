"""The network of low-rank adaptation.

Shapes: B batch, K towers, C channels or features of one tower, R rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl.errors import UserError, quoted
from mtl.model.layers import GroupedLinear, grouped_conv
from mtl.model.trunk import Plan, SharingMatrix, Trunk, reach_of_slices

Map = GroupedLinear | nn.Conv2d


class AdaptedTrunk(Trunk):
    """y_k = W x_k + scale / R * B_k A_k x_k in each adapted stage, for every tower k; all towers share W and the norms.

    Up to the first adapted stage one row is computed for all towers. From there on the stages read the rows of all
    towers as one batch of B * K rows. For a convolution, A_k has its kernel and R channels, and B_k is 1 x 1. A linear
    map of many rows is computed as one weight W + scale / R * B_k A_k for each tower. The trunk is the only source of
    every tower, so that there are no links to cut.

    Source: Hu et al. 2021, arXiv:2106.09685, eq. 3 and section 4.1 (start: A random, B zero); Agiza et al. 2024,
    arXiv:2403.20320, where each task has matrices of its own. Here the shared weights are trained too.

    Args:
        plan: the values and functions that the network is built from.
        rank: R; 0 gives hard sharing.
        scale: the factor of the low-rank part, before its division by R.
        stages: the adapted stages; none: all that have a linear map or a convolution.

    Raises:
        UserError: a stage to be adapted has no linear map or convolution.
    """

    def __init__(self, plan: Plan, rank: int, scale: float, stages: Sequence[str]) -> None:
        trunk = plan.stages(("shared",))
        super().__init__(("shared",), trunk.shape, plan.reading_of())
        self.shared, self.towers, self.tasks_of_towers = trunk, tuple(plan.towers), plan.tasks_of_towers()
        self.rank, self.factor = rank, scale / rank if rank else 0.0
        self.adapters = nn.ModuleDict()
        chosen = [name for name in trunk.stage_names if name in stages or not stages] if rank else []
        for name in chosen:
            own = _map_of(trunk.stages[name])
            if own is not None:
                first = not len(self.adapters)
                self.adapters[name] = Adapter(plan, self.towers, name, own, rank, shared_input=first)
            elif stages:
                what = f"{quoted(name)} has no conv or linear map that could be adapted"
                raise UserError("", what, path=("stages", list(stages).index(name)))

    def forward(self, x: Tensor) -> Tensor:
        n_towers, apart = len(self.towers), False
        for name, stage in self.shared.stages.items():
            if name not in self.adapters:
                x = stage(x)
                continue
            for part in stage.children():
                x = self._adapted(name, part, x, apart) if isinstance(part, Map) else part(x)
            apart = True
        rows: Tensor = x.unflatten(0, (-1, n_towers)) if apart else x.unsqueeze(1)
        readings: Tensor = rows.expand(-1, n_towers, *self.shape)
        return readings

    def _adapted(self, name: str, shared: nn.Module, x: Tensor, apart: bool) -> Tensor:
        """The shared map of rows, and each tower's own part: (B*K, C, ...), or (B, C, ...) -> (B*K, C', ...)."""
        adapter = self.adapters[name]
        assert isinstance(adapter, Adapter)
        n_towers = len(self.towers)
        if apart and isinstance(shared, GroupedLinear) and merging_pays(shared, x.shape[0] // n_towers):
            weight_KFC = adapter.merged(shared.weight, self.factor)
            x_KBF = x.unflatten(0, (-1, n_towers)).transpose(0, 1)
            return torch.bmm(x_KBF, weight_KFC).transpose(0, 1).flatten(0, 1)
        of_towers = x.unflatten(0, (-1, n_towers)).flatten(1, 2) if apart else x
        y: Tensor = shared(x)
        y_BK = y.unflatten(0, (-1, n_towers)) if apart else y.unsqueeze(1)
        own: Tensor = adapter(of_towers)
        added = torch.add(y_BK, own.unflatten(1, (len(self.towers), -1)), alpha=self.factor)
        return added.flatten(0, 1)

    def reach(self) -> dict[str, Tensor]:
        own = {
            f"adapters.{name}.{key}": served
            for name, adapter in self.adapters.items()
            for key, served in reach_of_slices(adapter, self.tasks_of_towers).items()
        }
        return {**super().reach(), **own}

    @torch.no_grad()
    def readings(self) -> dict[str, SharingMatrix]:
        """Stage -> the norm of each tower's own weights over that of the shared ones."""
        found = {}
        for name, adapter in self.adapters.items():
            shared = _map_of(self.shared.stages[name])
            assert shared is not None
            assert isinstance(adapter, Adapter)
            own_K1 = self.factor * adapter.norms()[:, None] / shared.weight.norm()
            found[name] = SharingMatrix(own_K1, self.towers, ("own weights over shared ones",))
        return found


class Adapter(nn.Module):
    """B_k A_k x_k for K towers at once.

    Args:
        plan: the values and functions that the network is built from.
        towers: the names of the K towers.
        stage: the adapted stage.
        shared: its map.
        rank: R.
        shared_input: whether all towers read one input.
    """

    def __init__(
        self, plan: Plan, towers: Sequence[str], stage: str, shared: Map, rank: int, *, shared_input: bool
    ) -> None:
        super().__init__()
        n = len(towers)
        down: nn.Module
        up: nn.Module
        if isinstance(shared, GroupedLinear):
            down = GroupedLinear(n, shared.in_features, rank, shared_input=shared_input)
            up = GroupedLinear(n, rank, shared.out_features)
        else:
            size, stride, padding = shared.kernel_size[0], shared.stride[0], int(shared.padding[0])
            down = grouped_conv(
                n,
                shared.in_channels,
                rank,
                kernel=size,
                stride=stride,
                padding=padding,
                shared_input=shared_input,
            )
            up = grouped_conv(n, rank, shared.out_channels, kernel=1, stride=1, padding=0, shared_input=False)
        self.n_towers, self.rank, self.down, self.up = n, rank, down, up
        plan.start(self, towers, "lora", stage)
        nn.init.zeros_(up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, K*C, ...), or (B, C, ...) for a shared input -> (B, K*C', ...)."""
        y: Tensor = self.up(self.down(x))
        return y

    def merged(self, shared: Tensor, factor: float) -> Tensor:
        """(K, F, C) the transposed W + factor * B_k A_k of each tower, for the W (C, F) of a linear map."""
        down_KFR = self.down.weight.unflatten(0, (self.n_towers, self.rank)).mT
        up_KRC = self.up.weight.unflatten(0, (self.n_towers, -1)).mT
        return torch.baddbmm(shared.t().expand(self.n_towers, -1, -1), down_KFR, up_KRC, alpha=factor)

    def norms(self) -> Tensor:
        """(K,) the Frobenius norm of each B_k A_k."""
        down_KRD = self.down.weight.unflatten(0, (self.n_towers, self.rank)).flatten(2)
        up_KCR = self.up.weight.unflatten(0, (self.n_towers, -1)).flatten(2)
        # ||B A||_F^2 = trace((B^T B) (A A^T)), without the product itself
        squares = (up_KCR.mT @ up_KCR) * (down_KRD @ down_KRD.mT)
        found: Tensor = squares.sum((1, 2)).clamp(min=0).sqrt()
        return found


def merging_pays(shared: GroupedLinear, n_rows: int) -> bool:
    """Whether one weight W + B_k A_k takes fewer products than two maps, F C R <= B (F + C) R.

    Its K F C numbers are then no more than those of the map's input and output together. A step of a batch of 128 rows
    through maps of 32 x 32 takes 0.6 of the time. A program that is exported has one form for batches of any size.
    """
    if torch.compiler.is_exporting():
        return False
    return shared.in_features * shared.out_features <= n_rows * (shared.in_features + shared.out_features)


def _map_of(stage: nn.Module) -> Map | None:
    """The linear map or the convolution of a stage."""
    return next((part for part in stage.children() if isinstance(part, Map)), None)
