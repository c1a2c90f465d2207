"""A new kind of task: counts, with a Poisson loss.

Shapes: B batch, T tasks of a group, O = 1 output per task, z = log(rate / mean).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, Metric
from torchmetrics.regression import TweedieDevianceScore

import mtl
from mtl.errors import UserError, quoted

if TYPE_CHECKING:
    from mtl.data.types import Array, Header, Labels
    from mtl.model.tasks.heads import GroupedHead


class Poisson(mtl.TaskModule):
    """Head, loss and prediction of T counts. Constants: mean (T,)."""

    mean: Tensor

    def row_loss(self, logits_BTO: Tensor, target: Tensor) -> Tensor:
        log_rate_BT = logits_BTO.squeeze(-1) + self.mean.log()
        return log_rate_BT.exp() - target.to(log_rate_BT.dtype) * log_rate_BT

    def metric(self, names: frozenset[str]) -> Metric:
        return CountMetric(self.mean)

    def predict(self, logits_BTO: Tensor) -> dict[str, Tensor]:
        """`rate` (B, T), the expected count, and `p_none` (B, T), the probability that it is 0."""
        rate_BT = self.mean * logits_BTO.squeeze(-1).exp()
        return {"rate": rate_BT, "p_none": (-rate_BT).exp()}


class CountMetric(Metric):
    """Two metrics of torchmetrics, one of each per task, over the rows that have a label."""

    full_state_update = False

    def __init__(self, mean_T: Tensor) -> None:
        super().__init__()
        self.mean_T = mean_T
        self.deviance = nn.ModuleList(TweedieDevianceScore(power=1.0) for _ in mean_T)
        self.mae = nn.ModuleList(MeanAbsoluteError() for _ in mean_T)

    def update(self, logits_BTO: Tensor, target_BT: Tensor, present_BT: Tensor) -> None:
        rate_BT = self.mean_T * logits_BTO.squeeze(-1).exp()
        for t, there_B in enumerate(present_BT.T):
            if there_B.any():
                pair = (rate_BT[there_B, t], target_BT[there_B, t].float())
                self.deviance[t].update(*pair)
                self.mae[t].update(*pair)

    def compute(self) -> dict[str, Tensor]:
        nan = torch.tensor(torch.nan)
        return {
            name: torch.stack([metric.compute().cpu() if metric.update_called else nan for metric in own])
            for name, own in (("deviance", self.deviance), ("mae", self.mae))
        }


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
        return {"mean": (max(float(targets.mean()), 1e-6),)}

    def group(self, n_outputs: int) -> tuple[str, ...]:
        return ("count",)

    def build(self, head: GroupedHead, constants: Mapping[str, Tensor]) -> Poisson:
        return Poisson(head, constants)

    def decode(self, predicted: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array | list[Any]]:
        return {"": predicted["rate"], "_p_0": predicted["p_none"]}
