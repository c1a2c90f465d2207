"""The settings of feature-wise modulation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from mtl.recipe.sites import SharingAtSites
from mtl.recipe.specs import SHARING

if TYPE_CHECKING:
    from mtl.model.trunk import Plan, Trunk


@SHARING.register("film")
class FiLM(SharingAtSites):
    """One trunk for all towers; after each named stage, each tower scales and shifts its channels.

    The weights of the stages are shared, so that a further task adds two numbers for each channel of a site. All s_k
    and b_k start at 0, which is hard sharing.
    """

    reference: ClassVar[str] = "Perez et al. 2018, AAAI, arXiv:1709.07871, eq. 1, conditioned on the task"
    equation: ClassVar[str] = "y_k = (1 + s_k) * x_k + b_k"
    when: ClassVar[str] = "for many tasks, hundreds too"
    example: ClassVar[Mapping[str, Any]] = {"after": ("fc1",)}

    def build(self, plan: Plan) -> Trunk:
        from mtl.sharing.film.network import ModulatedTrunk

        return ModulatedTrunk(plan, self.in_order(plan.stage_names))
