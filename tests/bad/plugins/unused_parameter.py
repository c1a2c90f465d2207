"""S24: a unit with a parameter that no task reaches."""

import torch
from torch import nn

import mtl


class Unused(nn.Module):
    """Gives its input back."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@mtl.register_sharing("unused_parameter")
class UnusedParameter(mtl.SharingSpec):
    """Shares nothing."""

    reference = "ours"

    def sites(self) -> tuple[str, ...]:
        return ("fc1",)

    def build(self, n_towers: int, shape: tuple[int, ...]) -> nn.Module:
        return Unused()
