"""Cross-stitch units turn each tower's activation into a linear combination of the activations of all towers.

Shapes: B batch, K towers, C channels (or features) of one tower, D units of one tower (C*H*W or F).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

GRANULARITIES = ("scalar", "channel", "dense")
FEW = {"scalar": 3, "channel": 8}
"""So many towers are mixed by a sum of K terms, each a pass over all activations; more of them by a matrix product."""


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
        channels_last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        few = self.n_towers <= FEW[self.granularity]
        if channels_last and few and not torch.compiler.is_compiling():
            alpha_KKC = (
                self.alpha.unsqueeze(2) if self.granularity == "scalar" else self.alpha.permute(1, 2, 0)
            )
            mixed: Tensor = _ChannelsLast.apply(alpha_KKC, x)  # type: ignore[no-untyped-call]
            return mixed
        x_BKC = x.reshape(-1, self.n_towers, self.width, *x.shape[2:])
        if self.granularity == "scalar":
            x_KBC = x_BKC.transpose(0, 1)
            y: Tensor = (self.alpha @ x_KBC.flatten(1)).view(x_KBC.shape).transpose(0, 1).flatten(1, 2)
        elif few and x.ndim == 2:
            y = _summed(self.alpha, x_BKC).flatten(1)
        else:
            y = torch.einsum("cij,bjc...->bic...", self.alpha, x_BKC).flatten(1, 2)
        # this layout lets the next convolution run the same kernel as without a stitch
        return y.contiguous(memory_format=torch.channels_last) if channels_last else y

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


def _summed(alpha_CKK: Tensor, x_BKC: Tensor) -> Tensor:
    """(B, K, C) y_ic = sum_j alpha[c, i, j] x_jc; as a matrix product for each c it would copy each c on its own."""
    alpha_KKC = alpha_CKK.permute(2, 1, 0).contiguous()  # the source comes first
    y = x_BKC[:, :1] * alpha_KKC[0]
    for j in range(1, len(alpha_KKC)):
        y = torch.addcmul(y, x_BKC[:, j : j + 1], alpha_KKC[j])
    return y


class _ChannelsLast(torch.autograd.Function):
    """y_i = sum_j alpha[i, j] * x_j for images in channels last, without a copy into another layout.

    `torch.einsum` moves the towers to the front and back again, in both passes, which takes longer than the sums.
    """

    @staticmethod
    def forward(ctx: Any, alpha_KKC: Tensor, x: Tensor) -> Tensor:
        """(K, K, C) or (K, K, 1), and (B, K*C, H, W) in channels last -> the same shape and layout."""
        ctx.save_for_backward(alpha_KKC, x)
        return _mixed(alpha_KKC, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of alpha and of x."""
        alpha_KKC, x = ctx.saved_tensors
        grad, n = grad.contiguous(memory_format=torch.channels_last), len(alpha_KKC)
        of_alpha = of_x = None
        if ctx.needs_input_grad[0]:
            g_MKC, x_MKC = _positions(grad, n), _positions(x, n)
            pairs = [[(g_MKC[:, i] * x_MKC[:, j]).sum(0) for j in range(n)] for i in range(n)]
            of_alpha = torch.stack([torch.stack(row) for row in pairs]).to(alpha_KKC.dtype)
            if alpha_KKC.shape[2] == 1:
                of_alpha = of_alpha.sum(2, keepdim=True)
        if ctx.needs_input_grad[1]:
            of_x = _mixed(alpha_KKC.transpose(0, 1), grad)
        return of_alpha, of_x


def _positions(x: Tensor, n_towers: int) -> Tensor:
    """(B, K*C, H, W) in channels last -> (B*H*W, K, C), a view."""
    return x.permute(0, 2, 3, 1).reshape(-1, n_towers, x.shape[1] // n_towers)


def _mixed(alpha_KKC: Tensor, x: Tensor) -> Tensor:
    n = len(alpha_KKC)
    alpha_KKC, x_MKC, y = alpha_KKC.to(x.dtype).contiguous(), _positions(x, n), torch.empty_like(x)
    y_MKC = _positions(y, n)
    for i in range(n):
        torch.mul(x_MKC[:, 0], alpha_KKC[i, 0], out=y_MKC[:, i])
        for j in range(1, n):
            y_MKC[:, i].addcmul_(x_MKC[:, j], alpha_KKC[i, j])
    return y


def convex(n_towers: int, diagonal: float) -> Tensor:
    """(K, K) with `diagonal` on the diagonal and (1 - diagonal) / (K - 1) elsewhere; [[1]] for K = 1."""
    if n_towers == 1:
        return torch.ones(1, 1)
    alpha = torch.full((n_towers, n_towers), (1 - diagonal) / (n_towers - 1))
    return alpha.fill_diagonal_(diagonal)
