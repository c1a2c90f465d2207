"""A backbone of plain modules: one nn.Module per tower, each as it would stand alone.

`mtl.SeparateTowers` puts K of them behind the interface that stitches, heads and checkpoints use.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

import mtl


class Reader(nn.Module):
    """(B, ...) -> (B, hidden), the last state over all numbers of a row."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(1, hidden, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        last: Tensor = self.gru(x.flatten(1).unsqueeze(-1))[0][:, -1]
        return last


@mtl.register_backbone("own_towers")
class OwnTowers(mtl.BackboneSpec):
    """A recurrent layer that reads a row number by number, then a linear layer."""

    reference: ClassVar[str] = "Cho et al. 2014, arXiv:1406.1078"

    hidden: int = Field(16, ge=1, le=4096, description="features of the recurrent layer")

    def stage_names(self) -> tuple[str, ...]:
        return ("gru", "fc")

    def build(
        self, n_towers: int, input_shape: tuple[int, ...], shared_input: bool = True
    ) -> list[tuple[str, nn.Module, tuple[int, ...]]]:
        readers = [Reader(self.hidden) for _ in range(n_towers)]
        layers = [nn.Sequential(nn.Linear(self.hidden, self.hidden), nn.Tanh()) for _ in range(n_towers)]
        return [
            ("gru", mtl.SeparateTowers(readers, shared_input=shared_input), (self.hidden,)),
            ("fc", mtl.SeparateTowers(layers, shared_input=False), (self.hidden,)),
        ]
