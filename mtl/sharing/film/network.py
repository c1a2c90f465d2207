"""The network of feature-wise modulation.

Shapes: B batch, K towers, C channels or features of the trunk after a stage.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl.model.trunk import Plan, SharingMatrix, Trunk, along


class ModulatedTrunk(Trunk):
    """x_k = (1 + s_k) * x_k + b_k after each site, for every tower k and channel; all towers share the stages.

    Up to the first site one row is computed for all towers. From there on the stages read the rows of all towers as one
    batch of B * K rows. The trunk is the only source of every tower, so that there are no links to cut.

    Source: Perez et al. 2018, arXiv:1709.07871, eq. 1; gamma = 1 + s, as its section 7.2 advises. The condition is the
    task, so that s and b are parameters and no network predicts them.

    Args:
        plan: the values and functions that the network is built from.
        sites: the stages after which towers modulate, in order.
    """

    def __init__(self, plan: Plan, sites: Sequence[str]) -> None:
        trunk = plan.stages(("shared",))
        super().__init__(("shared",), trunk.shape, plan.reading_of())
        self.shared, self.towers, self.tasks_of_towers = trunk, tuple(plan.towers), plan.tasks_of_towers()
        self.modulations = nn.ModuleDict(
            {site: Modulation(len(self.towers), trunk.shapes[site][0]) for site in sites}
        )

    def forward(self, x: Tensor) -> Tensor:
        n_towers, apart = len(self.towers), False
        for name, stage in self.shared.stages.items():
            x = stage(x)
            if name in self.modulations:
                x_BK = x.unflatten(0, (-1, n_towers)) if apart else x.unsqueeze(1)
                x, apart = self.modulations[name](x_BK).flatten(0, 1), True
        readings: Tensor = x.unflatten(0, (-1, n_towers))
        return readings

    def reach(self) -> dict[str, Tensor]:
        own = {
            f"modulations.{name}": along(self.tasks_of_towers, parameter)
            for name, parameter in self.modulations.named_parameters()
        }
        return {**super().reach(), **own}

    def readings(self) -> dict[str, SharingMatrix]:
        """Site -> the root mean square of each tower's factors 1 + s."""
        return {
            site: SharingMatrix(unit.factors(), self.towers, self.copies)  # type: ignore[operator]
            for site, unit in self.modulations.items()
        }


class Modulation(nn.Module):
    """y_k = (1 + s_k) * x_k + b_k for each of C channels.

    Args:
        n_towers: K.
        width: C.
    """

    def __init__(self, n_towers: int, width: int) -> None:
        super().__init__()
        self.n_towers, self.width = n_towers, width
        self.scale = nn.Parameter(torch.zeros(n_towers * width))
        self.shift = nn.Parameter(torch.zeros(n_towers * width))

    def forward(self, x: Tensor) -> Tensor:
        """Activations (B, K, C, ...), or (B, 1, C, ...) that all towers share -> (B, K, C, ...)."""
        shape = (self.n_towers, self.width, *(1,) * (x.ndim - 3))
        return torch.addcmul(self.shift.view(shape), x, 1 + self.scale.view(shape))

    @torch.no_grad()
    def factors(self) -> Tensor:
        """(K, 1): the root mean square of 1 + s over channels."""
        return (1 + self.scale).view(self.n_towers, self.width).square().mean(1, keepdim=True).sqrt()

    def extra_repr(self) -> str:
        return f"n_towers={self.n_towers}, width={self.width}"
