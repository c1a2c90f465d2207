"""The network of sluice sharing.

Shapes: B batch, K towers, S subspaces of one tower, L layers that a head reads, C channels or features of one tower.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl.model.stitch import CrossStitch
from mtl.model.towers import SeparateTowers, Towers
from mtl.model.trunk import Plan, StitchedTowers, along


class SubspaceStitch(CrossStitch):
    """A cross-stitch unit between the K * S subspaces of K towers, whose channels lie side by side."""

    def __init__(self, n_towers: int, n_subspaces: int, shape: tuple[int, ...], start: float) -> None:
        own = (shape[0] // n_subspaces, *shape[1:])
        super().__init__(n_towers * n_subspaces, own, granularity="scalar", start=start)
        self.n_subspaces = n_subspaces

    @torch.no_grad()
    def sharing_matrix(self) -> Tensor:
        """(K, K): what a tower takes from another, summed over its subspaces and averaged over its own."""
        taken: Tensor = self.alpha.unflatten(1, (-1, self.n_subspaces)).sum(2)
        matrix: Tensor = taken.unflatten(0, (-1, self.n_subspaces)).mean(1)
        return matrix


class SluiceTowers(StitchedTowers):
    """Towers whose subspaces mix at sites; tower k gives sum_l beta_kl h_kl over L layers of one shape.

        [x_11, x_12, x_21, ...] = alpha [x_11, x_12, x_21, ...]    at each site, x_ks: subspace s of tower k
        penalty = orthogonality * sum over sites, towers and pairs s < s' of ||G_s G_s'^T||_F^2

    G_s holds the rows of the stage's weights that make subspace s. beta starts even. In the paper all layers have one
    shape; here the heads read those sites that have the shape of the last stage.

    Source: Ruder et al. 2019, arXiv:1705.08142, eq. 2 (alpha), 3 (beta) and 4 (penalty).

    Args:
        plan: the values and functions that the network is built from.
        towers: the K towers.
        sites: the stages after which subspaces mix, in order.
        n_subspaces: S.
        start: the diagonal of each alpha at first.
        orthogonality: the factor of the penalty.
    """

    def __init__(
        self,
        plan: Plan,
        towers: Towers,
        sites: Sequence[str],
        n_subspaces: int,
        start: float,
        orthogonality: float,
    ) -> None:
        n_towers = len(towers.names)
        units = {site: SubspaceStitch(n_towers, n_subspaces, towers.shapes[site], start) for site in sites}
        super().__init__(towers, units, plan.tasks_of_towers(), plan.reading_of())
        self.n_subspaces, self.orthogonality = n_subspaces, orthogonality
        last = towers.stage_names[-1]
        self.read = [site for site in sites if towers.shapes[site] == towers.shapes[last] and site != last]
        self.read.append(last)
        self.beta = nn.Parameter(torch.full((n_towers, len(self.read)), 1 / len(self.read)))

    def forward(self, x: Tensor) -> Tensor:
        h, layers = x, []
        for name, stage in self.towers.stages.items():
            h = stage(h)
            if name in self.stitches:
                h = self.stitches[name](h)
            if name in self.read:
                layers.append(h.unflatten(1, (len(self.copies), self.shape[0])))
        if len(layers) == 1:
            readings: Tensor = layers[0] * self.beta.view(-1, *(1,) * len(self.shape))
            return readings
        return torch.einsum("kl,lbk...->bk...", self.beta, torch.stack(layers))

    def roles(self) -> dict[str, str]:
        return {**super().roles(), "beta": "sharing"}

    def reach(self) -> dict[str, Tensor]:
        return {**super().reach(), "beta": along(self.tasks_of_towers, self.beta)}

    def penalty(self) -> Tensor | None:
        if self.orthogonality == 0 or self.n_subspaces == 1:
            return None
        terms = [self._overlap(weight) for site in self.stitches for weight in self._weights(site)]
        return self.orthogonality * torch.stack(terms).sum() if terms else None

    def _weights(self, site: str) -> list[Tensor]:
        """Each weight of the stage before a site as (K, S, rows of a subspace, entries of a row)."""
        module, n = self.towers.stages[site], len(self.copies)
        if isinstance(module, SeparateTowers):
            each = zip(*(tower.parameters() for tower in module.towers), strict=True)
            whole = [torch.cat(list(of_towers)) for of_towers in each if of_towers[0].ndim > 1]
        else:
            whole = [p for p in module.parameters() if p.ndim > 1]
        return [weight.flatten(1).unflatten(0, (n, self.n_subspaces, -1)) for weight in whole]

    def _overlap(self, weight_KSRD: Tensor) -> Tensor:
        """sum over towers and pairs s < s' of ||G_s G_s'^T||_F^2."""
        products = torch.einsum("ksrd,ktqd->kstrq", weight_KSRD, weight_KSRD)
        squares = products.square().sum((0, 3, 4))
        return squares.triu(diagonal=1).sum()
