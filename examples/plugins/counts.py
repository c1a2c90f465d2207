"""A new kind of task: counts, with a Poisson loss.

Shapes: B batch, T tasks of a group, O = 1 output per task, the logarithm of the rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

import mtl
from mtl.errors import UserError, quoted

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics import Metric

    from mtl.data.types import Array, Header, Labels


@mtl.register_task("count")
class Count(mtl.TaskSpec):
    """How often something happens in a row: y ~ Poisson(rate), rate = mean * exp(z).

    loss = mean_i [ exp(z_i) mean - y_i (z_i + log mean) ], the negative log likelihood without log y_i!;
    mean is that of the training labels, so that z = 0 is a fair start whatever the unit.
    """

    reference: ClassVar[str] = "Nelder and Wedderburn 1972, Journal of the Royal Statistical Society A 135"
    reads: ClassVar[Literal["classes", "numbers", "lists"]] = "numbers"
    known_metrics: ClassVar[Mapping[str, bool]] = {"deviance": False, "mae": False}
    default_metrics: ClassVar[tuple[str, ...]] = ("deviance", "mae")

    def outputs(self, header: Header) -> tuple[str, ...]:
        return ("count",)

    def encode(self, labels: Labels, outputs: Sequence[str]) -> Array:
        values = np.where(labels.present, labels.values, 0).astype(np.float64)
        wrong = np.flatnonzero((values < 0) | (values != np.floor(values)))
        if wrong.size:
            row = int(wrong[0])
            what = f"{quoted(values[row].item())} is no count: counts are 0, 1, 2, ..."
            raise UserError(labels.place(row), what, path=("target",))
        return values

    def constants(self, targets: Array, outputs: Sequence[str]) -> dict[str, tuple[float, ...]]:
        return {"mean": (max(float(np.mean(targets)), 1e-6),)}

    def group(self, n_outputs: int) -> tuple[str | int | float | None, ...]:
        return ("count",)

    def losses(
        self, logits_BTO: Tensor, target_BT: Tensor, weight_BT: Tensor, constants: Mapping[str, Tensor]
    ) -> Tensor:
        from mtl.model.losses import masked_mean

        log_rate_BT = logits_BTO.squeeze(-1) + constants["mean"].log()
        return masked_mean(log_rate_BT.exp() - target_BT.to(log_rate_BT.dtype) * log_rate_BT, weight_BT)

    def meter(
        self, n_tasks: int, n_outputs: int, names: frozenset[str], constants: Mapping[str, Tensor]
    ) -> Metric:
        import torch
        from torch import nn
        from torchmetrics import MeanAbsoluteError, Metric
        from torchmetrics.regression import TweedieDevianceScore

        class PerTask(Metric):
            """The metrics of torchmetrics, one of each per task, over the rows that have a label."""

            full_state_update = False

            def __init__(self) -> None:
                super().__init__()
                self.mean = constants["mean"]
                self.deviance = nn.ModuleList(TweedieDevianceScore(power=1.0) for _ in range(n_tasks))
                self.mae = nn.ModuleList(MeanAbsoluteError() for _ in range(n_tasks))

            def update(self, logits_BTO: Tensor, target_BT: Tensor, present_BT: Tensor) -> None:
                rate_BT = self.mean * logits_BTO.squeeze(-1).exp()
                for t in range(n_tasks):
                    there_B = present_BT[:, t]
                    if there_B.any():
                        pair = (rate_BT[there_B, t], target_BT[there_B, t].float())
                        self.deviance[t].update(*pair)
                        self.mae[t].update(*pair)

            def compute(self) -> dict[str, Tensor]:
                seen = [bool(metric.update_called) for metric in self.mae]
                nan = torch.tensor(torch.nan)
                return {
                    name: torch.stack(
                        [
                            metric.compute().cpu() if any_ else nan
                            for metric, any_ in zip(own, seen, strict=True)
                        ]
                    )
                    for name, own in (("deviance", self.deviance), ("mae", self.mae))
                }

        return PerTask()

    def decode(
        self, logits_BO: Tensor, outputs: Sequence[str], constants: Mapping[str, Tensor]
    ) -> dict[str, Array | list[Any]]:
        rate_B = constants["mean"] * logits_BO[:, 0].exp()
        p_none_B = (-rate_B).exp()
        return {"": rate_B.cpu().numpy(), "_p_0": p_none_B.cpu().numpy()}
