"""What a backbone must give. Its members stand in `mtl/backbones/`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mtl.recipe.base import Norm, Shape, Spec

if TYPE_CHECKING:
    from torch import Tensor, nn


class BackboneSpec(Spec):
    """The shape of one tower. Members: `mtl/backbones/`. The heads follow its norm and init."""

    packages: ClassVar[tuple[str, ...]] = ()
    """Packages that it needs beyond those of mtl."""
    install: ClassVar[str] = ""
    """The command that installs them."""

    norm: Norm = Norm()
    init: Literal["torch", "he", "xavier"] = Field(
        "torch", description="how weights start, those of heads too: as torch draws them, or by He or Glorot"
    )

    def stage_names(self) -> tuple[str, ...]:
        """The names of the stages that `build` gives, in their order."""
        raise NotImplementedError

    def widths(self) -> dict[str, int]:
        """Key below the backbone, such as `stages.0.channels`, -> its value, for each number of channels or features.

        A comparison multiplies them to widen a tower. The default says that the backbone cannot be widened.
        """
        return {}

    def build(
        self, n_towers: int, input_shape: Shape, shared_input: bool = True
    ) -> list[tuple[str, nn.Module, Shape]]:
        """Each stage: its name, one module for all K towers, and its output shape per tower.

        With `shared_input` the first stage takes (B, *input_shape), one input that all towers read. Without it the
        first stage takes (B, K*F), an input for each tower, such as embedded categories. Every other stage takes
        (B, K*C, H, W) or (B, K*F).

        Raises:
            UserError: the stages do not fit the input; its path is relative to the backbone.
        """
        raise NotImplementedError

    def trained(
        self, n_towers: int, input_shape: Shape, shared_input: bool = True
    ) -> Mapping[str, Mapping[str, Tensor]] | None:
        """Stage -> the state of the module that `build` gives for it, where towers start from trained weights.

        It is asked once, before the first step. The default is None: initial weights are drawn.

        Raises:
            UserError: the weights cannot be had; its path is relative to the backbone.
        """
        return None

    def starts_equal(self) -> bool:
        """Whether all towers start from the same weights, whatever `tower_init` says."""
        return False

    def frozen(self) -> tuple[str, ...]:
        """The stages that are not trained: their weights and the statistics of their norms stay as they are."""
        return ()

    def remark(self, standardize: str) -> str:
        """What a user should know before a run whose inputs are scaled in this way; empty if there is nothing."""
        return ""
