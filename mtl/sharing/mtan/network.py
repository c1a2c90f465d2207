"""The network of the multi-task attention network.

Shapes: B batch, K towers, C channels or features of the trunk after a block, N tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl.model.layers import GroupedLinear, grouped_conv
from mtl.model.links import Links, Masking, MaskLinks
from mtl.model.trunk import Plan, SharingMatrix, Trunk, reach_of_slices


class AttentionNetwork(Trunk):
    """a_k^j = m_k^j * p_j: tower k masks the features p_j that block j of one shared trunk gives.

    m_k^j = sigmoid(norm(W_h relu(norm(W_g [p_j ; f_j(a_k^{j-1})])))); the masks of the first block read p_1 alone. Each
    tower has its own W_g and W_h, which are 1 x 1 convolutions or linear maps. One f_j serves all towers, as in the
    paper, where f^(j) has no index of a task ("a shared feature extractor"). Tower k gives the reading a_k^J.

    Source: Liu, Johns and Davison 2019, arXiv:1803.10704, eq. 1 and 2. Three things differ. In the paper f_j is one
    3 x 3 convolution with the pooling of the block, and here it has the layers of block j. The paper's masks read an
    earlier layer of the block, and here its output p_j. Here f_j reads the rows of all towers as one batch, so that
    its batch norm has one mean and variance for all of them.

    Args:
        plan: the values and functions that the network is built from.
        sites: the last stage of each block, in order.
    """

    def __init__(self, plan: Plan, sites: Sequence[str]) -> None:
        stages = list(plan.stage_names)
        ends = [stages.index(site) for site in sites]
        firsts = [stages[end] for end in [0, *(end + 1 for end in ends[:-1])]]
        trunk = plan.stages(("shared",))
        super().__init__(("shared",), trunk.shape, plan.reading_of())
        self.towers, self.tasks_of_towers, self.sites = (
            tuple(plan.towers),
            plan.tasks_of_towers(),
            tuple(sites),
        )
        self.shared = trunk
        self.extractors = nn.ModuleDict(
            {
                site: plan.stages(("attention",), first=first, last=site)
                for first, site in list(zip(firsts, sites, strict=True))[1:]
            }
        )
        self.attention = nn.ModuleDict(
            {
                site: Attention(plan, self.towers, site, trunk.shapes[site], first=number == 0)
                for number, site in enumerate(sites)
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor | None = None
        for name, stage in self.shared.stages.items():
            x = stage(x)
            if name in self.attention:
                if attended is not None:
                    attended = self._extracted(name, attended)
                attended = self.attention[name](x, attended)
        assert attended is not None
        readings: Tensor = attended.unflatten(1, (len(self.towers), self.shape[0]))
        return readings

    def _extracted(self, site: str, attended: Tensor) -> Tensor:
        """f_j of the features of all towers, (B, K*C, ...) -> (B, K*C', ...), in one pass over B*K rows."""
        n_towers = len(self.towers)
        rows = attended.unflatten(1, (n_towers, -1)).flatten(0, 1)
        found: Tensor = self.extractors[site](rows)
        joined: Tensor = found.unflatten(0, (-1, n_towers)).flatten(1, 2)
        return joined

    def reach(self) -> dict[str, Tensor]:
        last = self.sites[-1]
        own = reach_of_slices(self.attention[last], self.tasks_of_towers)
        return {**super().reach(), **{f"attention.{last}.{name}": served for name, served in own.items()}}

    def readings(self) -> dict[str, SharingMatrix]:
        """Site -> the mean mask of each tower over the last training batch."""
        return {
            site: SharingMatrix(unit.get_buffer("mean_mask").clone(), self.towers, self.copies)
            for site, unit in self.attention.items()
        }

    def links(self) -> dict[str, Links]:
        masks = {site: unit.get_submodule("masking") for site, unit in self.attention.items()}
        return {site: MaskLinks(own, self.towers, self.copies, apart=True) for site, own in masks.items()}


class Attention(nn.Module):
    """The masks of K towers on the features of one block.

    Args:
        plan: the values and functions that the network is built from.
        towers: the names of the towers.
        site: the last stage of the block.
        shape: the shape of the features, (C, H, W) or (C,).
        first: whether this is the first block, where towers have no features of their own yet.
    """

    mean_mask: Tensor

    def __init__(
        self, plan: Plan, towers: Sequence[str], site: str, shape: tuple[int, ...], *, first: bool
    ) -> None:
        super().__init__()
        n_towers = len(towers)
        # W_g [p ; f] = W_p p + W_f f: one pass reads the features p, which all towers share
        self.of_trunk = _map(n_towers, shape, shared_input=True)
        self.of_tower = None if first else _map(n_towers, shape, shared_input=False)
        self.norm_inner = plan.norm(n_towers, shape) or nn.Identity()
        self.mask = _map(n_towers, shape, shared_input=False)
        self.norm_outer = plan.norm(n_towers, shape) or nn.Identity()
        plan.start(self, towers, "attention", site)
        self.n_towers, self.masking = n_towers, Masking()
        self.register_buffer("mean_mask", torch.full((n_towers, 1), 0.5))

    def forward(self, shared: Tensor, own: Tensor | None) -> Tensor:
        """Features of the trunk (B, C, ...), of the towers (B, K*C, ...) or None -> masked features (B, K*C, ...)."""
        inner = self.of_trunk(shared)
        if self.of_tower is not None:
            inner = inner + self.of_tower(own)
        masks = self.norm_outer(self.mask(self.norm_inner(inner).relu())).sigmoid()
        masks_BKC = masks.unflatten(1, (self.n_towers, -1))
        if self.training and not masks.is_meta:
            self.mean_mask.copy_(masks_BKC.detach().transpose(0, 1).flatten(1).mean(1, keepdim=True))
        masked: Tensor = self.masking(masks_BKC, shared)
        return masked


def _map(n_towers: int, shape: tuple[int, ...], *, shared_input: bool) -> nn.Module:
    """A 1 x 1 convolution, or a linear map, of each tower."""
    if len(shape) == 3:
        return grouped_conv(
            n_towers, shape[0], shape[0], kernel=1, stride=1, padding=0, shared_input=shared_input
        )
    return GroupedLinear(n_towers, shape[0], shape[0], shared_input=shared_input)
