"""The weights of a trunk of mtl in the layout of code by hand, and the layers that read them.

Shapes: B batch, E copies of a stage, F features that a map reads, C features of one copy.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STAGES = ("fc1", "fc2", "fc3")

Layout = Callable[[Tensor], Tensor]


class Weights:
    """Leaves with the values of a trunk's parameters, in the layout that the code by hand wants.

    Args:
        trunk: the network of mtl that has the same equation.
    """

    def __init__(self, trunk: nn.Module) -> None:
        self.of_trunk = dict(trunk.named_parameters())
        self.taken: dict[str, tuple[Tensor, Layout]] = {}

    def leaf(self, name: str, layout: Layout = lambda values: values) -> Tensor:
        """A parameter of the trunk as a leaf of its own."""
        assert name not in self.taken
        values = layout(self.of_trunk[name].detach()).clone(memory_format=torch.contiguous_format)
        self.taken[name] = values.requires_grad_(), layout
        return values

    def maps(self, name: str, n: int) -> Tensor:
        """n linear maps, (n*C, F) in the trunk, as (n, F, C)."""
        return self.leaf(name, lambda values: values.unflatten(0, (n, -1)).transpose(1, 2))

    def norm(self, name: str) -> Layout:
        """Batch norm in training."""
        scale, shift = self.leaf(f"{name}.weight"), self.leaf(f"{name}.bias")
        mean, var = torch.zeros_like(scale), torch.ones_like(scale)
        return lambda x: F.batch_norm(x, mean, var, scale, shift, training=True, momentum=0.1, eps=1e-5)

    def alone(self, name: str) -> Layout:
        """A stage without copies, or the copies of one that read one input: (B, F) -> (B, E*C)."""
        weight, norm = self.leaf(f"{name}.map.weight"), self.norm(f"{name}.norm")
        return lambda x: norm(F.linear(x, weight)).relu_()

    def grouped(self, name: str, n: int) -> Layout:
        """n copies of a stage, each with an input of its own: (B, n*F) -> (B, n*C)."""
        weight, norm = self.maps(f"{name}.map.weight", n), self.norm(f"{name}.norm")
        return lambda x: norm(each(x, weight)).relu_()

    def copies(self, name: str, n: int) -> list[Layout]:
        """The three stages of n copies of the backbone; those of the first read the input."""
        first, *others = STAGES
        return [self.alone(f"{name}.{first}"), *(self.grouped(f"{name}.{other}", n) for other in others)]


def each(x: Tensor, weight_EFC: Tensor) -> Tensor:
    """E linear maps, each of its own slice: (B, E*F) -> (B, E*C)."""
    x_EBF = x.unflatten(1, (len(weight_EFC), -1)).transpose(0, 1)
    return torch.bmm(x_EBF, weight_EFC).transpose(0, 1).flatten(1)
