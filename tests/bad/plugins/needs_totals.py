"""S28: a weighting that needs the losses of a whole step."""

from typing import ClassVar, Literal

from torch import Tensor

import mtl


class Geometric(mtl.Weighting):
    """The geometric mean of the losses."""

    needs = "totals"

    def forward(self, losses_N: Tensor, seen_N: Tensor) -> Tensor:
        return losses_N[seen_N].log().mean().exp()


@mtl.register_weighting("geometric")
class GeometricSpec(mtl.WeightingSpec):
    """loss = (product of the losses)^(1/N)."""

    reference = "Chennupati et al. 2019, arXiv:1904.08492"
    needs: ClassVar[Literal["losses", "totals", "gradients"]] = "totals"

    def build(self, task_weights: tuple[float, ...], is_quantity: tuple[bool, ...]) -> mtl.Weighting:
        return Geometric(task_weights)
