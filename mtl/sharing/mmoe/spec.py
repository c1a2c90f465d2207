"""The settings of the multi-gate mixture of experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mtl.recipe.sites import LearnedSharing
from mtl.recipe.specs import SHARING

if TYPE_CHECKING:
    from mtl.model.trunk import Plan, Trunk


@SHARING.register("mmoe")
class MMoE(LearnedSharing):
    """All towers mix the same experts, which are copies of the backbone, each tower by a gate of its own.

    The gate decides row by row. With one expert this is hard sharing.
    """

    reference: ClassVar[str] = "Ma et al. 2018, KDD, doi:10.1145/3219819.3220007"
    equation: ClassVar[str] = "y_k = sum_e softmax(W_k x)_e f_e(x)"
    when: ClassVar[str] = "for tasks that are related to an unknown degree, which may differ from row to row"
    example: ClassVar[Mapping[str, Any]] = {"experts": 3}

    experts: int = Field(4, ge=1, le=256, description="copies of the backbone, E")
    hidden: int = Field(
        0, ge=0, le=65536, description="features of a hidden layer in each gate; 0: a linear gate"
    )
    gate_dropout: float = Field(
        0.0, ge=0, lt=1, description="probability that a row's mixture leaves an expert out in training"
    )

    def build(self, plan: Plan) -> Trunk:
        from mtl.sharing.mmoe.network import MixtureOfExperts

        return MixtureOfExperts(plan, self.experts, self.hidden, self.gate_dropout)
