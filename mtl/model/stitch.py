"""Cross-stitch units turn each tower's activation into a linear combination of the activations of all towers.

Shapes: B batch, K towers, C channels (or features) of one tower, D units of one tower (C*H*W or F).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

GRANULARITIES = ("scalar", "channel", "dense")


class CrossStitch(nn.Module):
    """A cross-stitch unit, y_i = sum_j alpha[i, j] * x_j.

    alpha[i, j] is the weight of the activation x_j of tower j in the new activation y_i of tower i.

    Source: Misra et al. 2016, eq. 1, arXiv:1604.03539.

    Args:
        n_towers: K.
        shape: one tower's activation, (C, H, W) or (F,).
        granularity: `scalar`: alpha is (K, K); `channel`: (C, K, K), one matrix per channel;
            `dense`: (K*D, K*D), from every unit of every tower to every other, as in the published
            code of the first experiment.
        start: the diagonal a of the initial alpha. The other entries are (1 - a) / (K - 1), so that each row sums
            to one: a = 1 gives the identity, a = 1 / K the uniform start.
    """

    def __init__(
        self, n_towers: int, shape: tuple[int, ...], *, granularity: str = "scalar", start: float = 0.9
    ) -> None:
        super().__init__()
        if granularity not in GRANULARITIES:
            raise ValueError(f"granularity is one of {', '.join(GRANULARITIES)}, got {granularity!r}")
        self.n_towers, self.granularity, self.start = n_towers, granularity, start
        self.width, self.n_units = shape[0], math.prod(shape)
        alpha = convex(n_towers, start)
        if granularity == "channel":
            alpha = alpha.repeat(self.width, 1, 1)
        elif granularity == "dense":
            alpha = torch.kron(alpha, torch.eye(self.n_units))
        self.alpha = nn.Parameter(alpha)

    def forward(self, x: Tensor) -> Tensor:
        """Activations (B, K*C, ...) -> mixed activations of the same shape."""
        if self.granularity == "dense":
            return nn.functional.linear(x.flatten(1), self.alpha).view(x.shape)
        x_BKC = x.unflatten(1, (self.n_towers, self.width))
        equation = "ij,bj...->bi..." if self.granularity == "scalar" else "cij,bjc...->bic..."
        y = torch.einsum(equation, self.alpha, x_BKC).flatten(1, 2)
        if x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
            # this layout lets the next convolution run the same kernel as without a stitch
            y = y.contiguous(memory_format=torch.channels_last)
        return y

    @torch.no_grad()
    def sharing_matrix(self) -> Tensor:
        """(K, K): alpha itself, or its mean over channels, or the mean diagonal of each dense block."""
        if self.granularity == "scalar":
            return self.alpha.clone()
        if self.granularity == "channel":
            return self.alpha.mean(0)
        blocks = self.alpha.view(self.n_towers, self.n_units, self.n_towers, self.n_units)
        return blocks.diagonal(dim1=1, dim2=3).mean(-1)

    def rows_of(self, name: str) -> int:
        """The axis of alpha along which the rows of towers lie."""
        return 1 if self.granularity == "channel" else 0

    def extra_repr(self) -> str:
        return f"n_towers={self.n_towers}, granularity={self.granularity}, start={self.start:g}"


def convex(n_towers: int, diagonal: float) -> Tensor:
    """(K, K) with `diagonal` on the diagonal and (1 - diagonal) / (K - 1) elsewhere; [[1]] for K = 1."""
    if n_towers == 1:
        return torch.ones(1, 1)
    alpha = torch.full((n_towers, n_towers), (1 - diagonal) / (n_towers - 1))
    return alpha.fill_diagonal_(diagonal)
