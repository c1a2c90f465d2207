"""The unit of neural discriminative dimensionality reduction.

Shapes: B batch, K towers, C channels or features of one tower.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl.model.stitch import convex
from mtl.model.trunk import Plan


class Reduction(nn.Module):
    """y_i = norm(sum_j W_ij x_j): a 1 x 1 convolution from the channels of all towers to those of each tower.

    One convolution (on vectors one linear map) computes all towers.

    Source: Gao et al. 2019, arXiv:1801.08297, section 3.2, with the batch norm that the paper puts behind it; the norm
    here is the backbone's.

    Args:
        plan: the values and functions that the network is built from.
        n_towers: K.
        shape: one tower's activation, (C, H, W) or (C,).
        start: W_ii starts as `start` times the identity; the other W_ij share 1 - `start` evenly.
    """

    def __init__(self, plan: Plan, n_towers: int, shape: tuple[int, ...], start: float) -> None:
        super().__init__()
        self.n_towers, self.width, self.start = n_towers, shape[0], start
        self.weight = nn.Parameter(torch.kron(convex(n_towers, start), torch.eye(shape[0])))
        self.norm = plan.norm(n_towers, shape) or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Activations (B, K*C, ...) -> mixed activations of the same shape."""
        y = F.linear(x, self.weight) if x.ndim == 2 else F.conv2d(x, self.weight[:, :, None, None])
        normalized: Tensor = self.norm(y)
        return normalized

    @torch.no_grad()
    def sharing_matrix(self) -> Tensor:
        """(K, K): the root mean square over the rows of each W_ij, which is alpha for alpha times the identity."""
        blocks = self.weight.view(self.n_towers, self.width, self.n_towers, self.width)
        return blocks.square().sum((1, 3)).div(self.width).sqrt()

    def rows_of(self, name: str) -> int:
        """The axis along which the parts of towers lie."""
        return 0

    def extra_repr(self) -> str:
        return f"n_towers={self.n_towers}, width={self.width}, start={self.start:g}"
