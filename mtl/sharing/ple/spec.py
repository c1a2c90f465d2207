"""The settings of progressive layered extraction and of customized gate control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from mtl.errors import UserError, quoted
from mtl.recipe.sites import LearnedSharing, SharingAtSites
from mtl.recipe.specs import SHARING, recipe_errors

if TYPE_CHECKING:
    from mtl.model.trunk import Plan, Trunk


class Experts(LearnedSharing):
    """Experts of each tower, experts that all towers share, and gates over both."""

    own: int = Field(1, ge=0, le=256, description="experts of each tower")
    shared: int = Field(1, ge=0, le=256, description="experts that all towers share; 0: towers apart")

    @model_validator(mode="after")
    def _some_expert(self) -> Self:
        if self.own + self.shared == 0:
            raise recipe_errors(
                self.kind, [(("own",), "a tower needs an expert: own or shared must be above 0")]
            )
        return self


@SHARING.register("cgc")
class CGC(Experts):
    """Each tower mixes its own experts and the shared ones by a gate; experts are copies of the whole backbone."""

    reference: ClassVar[str] = "Tang et al. 2020, RecSys, doi:10.1145/3383313.3412236, eq. 1 to 4"
    equation: ClassVar[str] = (
        "y_k = sum_e softmax(W_k x)_e f_e(x), e: the experts of tower k and the shared ones"
    )
    when: ClassVar[str] = "for tasks that may be in conflict: what helps one alone has a place of its own"
    example: ClassVar[Mapping[str, Any]] = {"own": 1, "shared": 2}

    def build(self, plan: Plan) -> Trunk:
        from mtl.sharing.ple.network import ExtractionNetwork

        return ExtractionNetwork(plan, plan.stage_names[-1:], self.own, self.shared)


@SHARING.register("ple")
class PLE(SharingAtSites, Experts):
    """`cgc` in levels: the gates of a level give the inputs of the experts of the next one.

    The stages up to each named one are a level, whose experts are copies of these stages. The shared experts of a
    level but the first read the mixture of a gate over all experts below.
    """

    reference: ClassVar[str] = "Tang et al. 2020, RecSys, doi:10.1145/3383313.3412236, eq. 5 to 8"
    equation: ClassVar[str] = (
        "y_k = sum_e softmax(W_k x_k)_e f_e(x_e) in each level, x_k and x_e from the one below"
    )
    when: ClassVar[str] = "as `cgc`, in a backbone with several stages"
    example: ClassVar[Mapping[str, Any]] = {"after": ("fc1", "fc2")}

    after: tuple[str, ...] = Field(
        min_length=1,
        max_length=200,
        description="the last stage of each level; the last one is the last stage",
    )

    def build(self, plan: Plan) -> Trunk:
        from mtl.sharing.ple.network import ExtractionNetwork

        sites = self.in_order(plan.stage_names)
        if sites[-1] != plan.stage_names[-1]:
            what = f"the heads read stage {quoted(plan.stage_names[-1])}, which belongs to no level"
            raise UserError("", what, f"add {quoted(plan.stage_names[-1])}", path=("after",))
        return ExtractionNetwork(plan, sites, self.own, self.shared)
