"""The settings of the ways to combine gradients that TorchJD computes: one class each, and the table of what they need.

All of them work on the Jacobian of the slices that at least two tasks share; heads and own slices take weight_t times
the gradient of their own loss. A step costs a backward pass for each task, and memory for a gradient of each task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mtl.recipe.specs import WEIGHTINGS, GradientWeightingSpec

if TYPE_CHECKING:
    from mtl.model.weighting import Weighting

SOLVERS = "pip install 'mtl-recipes[aggregators]'"


class Aggregator(GradientWeightingSpec):
    """A weighting or an aggregator of TorchJD; its options are passed on by their names."""

    torchjd: ClassVar[str]
    """The name in `torchjd.aggregation`."""
    takes: ClassVar[Literal["gramian", "jacobian"]] = "gramian"
    gives: ClassVar[Literal["weights", "gradient"]] = "weights"
    sums_to_one: ClassVar[bool] = False
    """Whether its weights are those of a mean; they are multiplied by the number of tasks that a step sees then."""

    batches: ClassVar[int] = 1
    """How many independent batches it compares; a step's rows are parted into so many."""

    def options(self, n_tasks: int) -> dict[str, Any]:
        """What TorchJD's class is given, for `n_tasks` tasks."""
        return {
            name: getattr(self, name) for name in type(self).model_fields if name not in ("kind", "grads_on")
        }

    def build(self, task_weights: tuple[float, ...], is_quantity: tuple[bool, ...]) -> Weighting:
        from mtl.weightings.aggregators.module import Aggregated, Use

        use = Use(
            self.torchjd,
            self.options,
            self.takes,
            self.gives,
            self.preference,
            self.sums_to_one,
            self.batches,
        )
        return Aggregated(task_weights, use)


@WEIGHTINGS.register("mgda")
class MGDA(Aggregator):
    """The shortest vector in the convex hull of the tasks' gradients, times the number of tasks."""

    reference: ClassVar[str] = "Désidéri 2012; Sener and Koltun 2018, arXiv:1810.04650, algorithm 2"
    equation: ClassVar[str] = "n argmin ||v||, v in the convex hull of g_1, ..., g_n"
    when: ClassVar[str] = "for a step that helps every task; short gradients weigh most"
    torchjd: ClassVar[str] = "MGDAWeighting"
    most_tasks: ClassVar[int] = 256
    sums_to_one: ClassVar[bool] = True

    epsilon: float = Field(1e-3, ge=0, le=1, description="the search ends when it gains less than this")
    max_iters: int = Field(100, ge=1, le=100_000, description="rounds of the search at most")


@WEIGHTINGS.register("pcgrad")
class PCGrad(Aggregator):
    """The sum of the gradients, each without its parts along gradients that it conflicts with, in a random order."""

    reference: ClassVar[str] = "Yu et al. 2020, arXiv:2001.06782, algorithm 1"
    equation: ClassVar[str] = "sum_t g_t', for u in a random order g_t' -= min(g_t' . g_u, 0) / ||g_u||^2 g_u"
    when: ClassVar[str] = "for a few tasks whose gradients sometimes conflict"
    torchjd: ClassVar[str] = "PCGradWeighting"
    most_tasks: ClassVar[int] = 32


@WEIGHTINGS.register("gradvac")
class GradVac(Aggregator):
    """The sum of the gradients, each turned towards the usual angle to every other one, in a random order."""

    reference: ClassVar[str] = "Wang et al. 2021, arXiv:2010.05874"
    equation: ClassVar[str] = (
        "as pcgrad, but g_t' is turned until cos(g_t', g_u) is at least its running mean"
    )
    when: ClassVar[str] = "as `pcgrad`, for tasks that usually agree"
    torchjd: ClassVar[str] = "GradVacWeighting"
    most_tasks: ClassVar[int] = 16
    stateful: ClassVar[bool] = True

    beta: float = Field(0.5, ge=0, le=1, description="the part of the usual angle that a step replaces")
    eps: float = Field(1e-8, gt=0, le=1, description="keeps divisions finite")


@WEIGHTINGS.register("cagrad")
class CAGrad(Aggregator):
    """The direction near the mean gradient that helps the worst task most, times the number of tasks."""

    reference: ClassVar[str] = "Liu et al. 2021, arXiv:2110.14048, algorithm 1"
    equation: ClassVar[str] = "n argmax_d min_t g_t . d, ||d - mean_t g_t|| <= c ||mean_t g_t||"
    when: ClassVar[str] = "for the mean of the losses, with care for the worst task"
    torchjd: ClassVar[str] = "CAGradWeighting"
    most_tasks: ClassVar[int] = 128
    sums_to_one: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("cvxpy", "clarabel")
    install: ClassVar[str] = SOLVERS

    c: float = Field(
        0.5, ge=0, le=100, description="how far from the mean, as a share of its norm; 0: the mean"
    )
    norm_eps: float = Field(1e-4, ge=0, le=1, description="a squared norm below this counts as 0")


@WEIGHTINGS.register("graddrop")
class GradDrop(Aggregator):
    """Of each parameter's gradients, those of one sign are summed; the sign is drawn by their share."""

    reference: ClassVar[str] = "Chen et al. 2020, arXiv:2010.06808, algorithm 1"
    equation: ClassVar[str] = (
        "per parameter: sum of the g_t of one sign, + with probability (1 + sum_t g_t / sum_t |g_t|) / 2"
    )
    when: ClassVar[str] = "against conflicts in single parameters, at little cost"
    torchjd: ClassVar[str] = "GradDrop"
    most_tasks: ClassVar[int] = 256
    takes: ClassVar[Literal["gramian", "jacobian"]] = "jacobian"
    gives: ClassVar[Literal["weights", "gradient"]] = "gradient"


@WEIGHTINGS.register("imtl_g")
class IMTLG(Aggregator):
    """The direction whose projections onto the tasks' unit gradients are equal, times the number of tasks."""

    reference: ClassVar[str] = "Liu et al. 2021, ICLR, Towards Impartial Multi-task Learning, IMTL-G"
    equation: ClassVar[str] = "n v, v = sum_t a_t g_t with v . g_t / ||g_t|| equal for all t"
    when: ClassVar[str] = "where all tasks should gain alike, however long their gradients are"
    torchjd: ClassVar[str] = "IMTLGWeighting"
    most_tasks: ClassVar[int] = 128
    sums_to_one: ClassVar[bool] = True


@WEIGHTINGS.register("nash_mtl")
class NashMTL(Aggregator):
    """The Nash bargaining solution among the tasks: weights a with G a = 1 / a, for the Gramian G."""

    reference: ClassVar[str] = "Navon et al. 2022, arXiv:2202.01017, algorithm 1"
    equation: ClassVar[str] = "sum_t a_t g_t, G a = 1 / a"
    when: ClassVar[str] = "where the sizes of the losses should not matter, for a few tasks"
    torchjd: ClassVar[str] = "NashMTL"
    most_tasks: ClassVar[int] = 2
    takes: ClassVar[Literal["gramian", "jacobian"]] = "jacobian"
    stateful: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("cvxpy", "ecos")
    install: ClassVar[str] = SOLVERS

    max_norm: float = Field(1.0, ge=0, le=1e9, description="the longest gradient; 0: any")
    optim_niter: int = Field(20, ge=1, le=10_000, description="rounds of the solver at most")

    def options(self, n_tasks: int) -> dict[str, Any]:
        return {"n_tasks": n_tasks, "update_weights_every": 1, **super().options(n_tasks)}


@WEIGHTINGS.register("aligned_mtl")
class AlignedMTL(Aggregator):
    """The sum of the gradients after the nearest change that makes them orthogonal and equally long."""

    reference: ClassVar[str] = "Senushkin et al. 2023, CVPR, arXiv:2305.19000, algorithm 1"
    equation: ClassVar[str] = "sum_t w_t g_t', J' nearest to J among those with J' J'^T = s I"
    when: ClassVar[str] = "for gradients of very different lengths, or nearly opposite ones"
    torchjd: ClassVar[str] = "AlignedMTLWeighting"
    most_tasks: ClassVar[int] = 256
    preference: ClassVar[bool] = True

    scale_mode: Literal["min", "median", "rmse"] = Field(
        "min", description="the common length: the smallest, the median or the mean singular value"
    )


@WEIGHTINGS.register("fairgrad")
class FairGrad(Aggregator):
    """The weights a with G a = a^(-1 / alpha), for the Gramian G: alpha-fair progress of the tasks."""

    reference: ClassVar[str] = "Ban and Ji 2024, arXiv:2402.15638, equation 4"
    equation: ClassVar[str] = "sum_t a_t g_t, G a = a^(-1 / alpha)"
    when: ClassVar[str] = "for a degree of fairness that alpha sets"
    torchjd: ClassVar[str] = "FairGradWeighting"
    most_tasks: ClassVar[int] = 64

    alpha: float = Field(2.0, ge=0, le=100, description="the kind of fairness; 0: the mean of the gradients")


@WEIGHTINGS.register("config")
class ConFIG(Aggregator):
    """The direction with equal angles to all gradients, as long as the sum of their projections onto it."""

    reference: ClassVar[str] = "Liu, Chu and Thuerey 2024, arXiv:2408.11104, equation 2"
    equation: ClassVar[str] = "v with v . g_t / ||g_t|| equal for all t, ||v|| = sum_t g_t . v / ||v||"
    when: ClassVar[str] = "for gradients of very different lengths; made for physical constraints"
    torchjd: ClassVar[str] = "ConFIG"
    most_tasks: ClassVar[int] = 64
    takes: ClassVar[Literal["gramian", "jacobian"]] = "jacobian"
    gives: ClassVar[Literal["weights", "gradient"]] = "gradient"
    preference: ClassVar[bool] = True


@WEIGHTINGS.register("dualproj")
class DualProj(Aggregator):
    """The sum of the gradients, projected to where it hurts no task."""

    reference: ClassVar[str] = "Lopez-Paz and Ranzato 2017, arXiv:1706.08840, equation 11"
    equation: ClassVar[str] = "argmin_v ||v - sum_t w_t g_t||, v . g_t >= 0 for all t"
    when: ClassVar[str] = "where no task may be hurt"
    torchjd: ClassVar[str] = "DualProjWeighting"
    most_tasks: ClassVar[int] = 128
    preference: ClassVar[bool] = True


@WEIGHTINGS.register("pcd")
class PCD(Aggregator):
    """The gradient of the first task, changed as little as gives every other task a part of its own progress."""

    reference: ClassVar[str] = "Priority-Constrained Descent 2026, TMLR, arXiv:2606.29521"
    when: ClassVar[str] = "where the first task is the one that counts"
    torchjd: ClassVar[str] = "PCDWeighting"
    most_tasks: ClassVar[int] = 64
    stateful: ClassVar[bool] = True

    tau: float = Field(
        0.02, ge=0, le=1, description="the part of its normalized progress that each other task gets"
    )
    beta: float = Field(0.999, ge=0, lt=1, description="the part of the mean squared norms that a step keeps")
    eps: float = Field(1e-8, ge=0, le=1, description="keeps divisions finite")


@WEIGHTINGS.register("excess_mtl")
class ExcessMTL(Aggregator):
    """Weights that grow with each task's estimated excess risk, times the number of tasks."""

    reference: ClassVar[str] = "He et al. 2024, ICML, arXiv:2402.02009"
    when: ClassVar[str] = "for tasks with noisy labels, whose loss stays high whatever is done"
    torchjd: ClassVar[str] = "ExcessMTLWeighting"
    most_tasks: ClassVar[int] = 512
    takes: ClassVar[Literal["gramian", "jacobian"]] = "jacobian"
    sums_to_one: ClassVar[bool] = True
    stateful: ClassVar[bool] = True

    robust_step_size: float = Field(1.0, gt=0, le=1e6, description="the rate of the weights")
    n_warmup_steps: int = Field(0, ge=0, le=100_000_000, description="steps with equal weights before")

    def why_not_on_features(self) -> str:
        return "keeps a number for each shared parameter"
