"""S23: a unit that does not keep the shape."""

from torch import Tensor, nn

import mtl


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

    def build(self, n_towers: int, shape: tuple[int, ...]) -> nn.Module:
        return Half()
