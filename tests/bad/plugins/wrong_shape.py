"""S23: a unit that does not keep the shape."""

from torch import Tensor, nn

import mtl
from mtl.model.trunk import Plan, StitchedTowers


class Half(nn.Module):
    """Loses every other feature."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, ::2]


@mtl.register_sharing("wrong_shape")
class WrongShape(mtl.SharingSpec):
    """Gives back half of what it gets."""

    reference = "ours"

    def sites(self) -> tuple[str, ...]:
        return ("fc1",)

    def build(self, plan: Plan) -> mtl.Trunk:
        towers = plan.stages(tuple(plan.towers))
        return StitchedTowers(towers, {"fc1": Half()}, plan.tasks_of_towers(), plan.reading_of())
