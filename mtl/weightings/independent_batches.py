"""Gradients are combined by the products of those of independent batches, each a part of a step's rows."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from mtl.recipe.specs import WEIGHTINGS
from mtl.weightings.aggregators.spec import Aggregator


class OfTwoBatches(Aggregator):
    """A weighting by the products of the gradients of two independent batches, each a part of the step's rows."""

    sums_to_one: ClassVar[bool] = True
    stateful: ClassVar[bool] = True
    batches: ClassVar[int] = 2

    def why_not_on_features(self) -> str:
        return "compares batches, whose features differ"


@WEIGHTINGS.register("modo")
class MoDo(OfTwoBatches):
    """Weights that follow the shortest mean gradient by one step of descent, times the number of tasks.

    Each step's rows are parted into two batches, as one batch alone would bias the products of gradients.
    """

    reference: ClassVar[str] = "Chen et al. 2023, arXiv:2305.20057, equation 2.9"
    equation: ClassVar[str] = "n sum_t a_t g_t, a = project(a - gamma (J_1 J_2^T a + rho a)) onto the simplex"
    when: ClassVar[str] = "as `mgda`, without the bias of one batch"
    torchjd: ClassVar[str] = "MoDoWeighting"
    most_tasks: ClassVar[int] = 256

    gamma: float = Field(0.1, gt=0, le=1e6, description="the rate of the weights")
    rho: float = Field(0.1, ge=0, le=1e6, description="pulls the weights towards equal ones")


@WEIGHTINGS.register("sdmgrad")
class SDMGrad(OfTwoBatches):
    """As mgda near the mean gradient, without the bias of one batch; times the number of tasks.

    Each step's rows are parted into three batches: two for the weights, and one for the gradient.
    """

    reference: ClassVar[str] = "Xiao, Ban and Ji 2023, arXiv:2305.18409, algorithm 1"
    equation: ClassVar[str] = (
        "n sum_t (a_t + lambda / n) / (1 + lambda) g_t, a from argmin ||sum_t (a_t + lambda / n) g_t||"
    )
    when: ClassVar[str] = "as `cagrad`, without the bias of one batch"
    torchjd: ClassVar[str] = "SDMGradWeighting"
    most_tasks: ClassVar[int] = 256
    batches: ClassVar[int] = 3

    lr: float = Field(10.0, gt=0, le=1e6, description="the rate of the weights")
    momentum: float = Field(0.5, ge=0, lt=1, description="of the weights' descent")
    n_iter: int = Field(20, ge=1, le=10_000, description="rounds of the descent in each step")
    lambda_: float = Field(0.3, ge=0, le=1e6, description="how much the mean gradient counts")
