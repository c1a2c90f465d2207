"""The modules of the shipped kinds of tasks.

Shapes: B batch, T tasks of a group, O outputs per task, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from mtl.model.tasks import inverses, losses
from mtl.model.tasks.heads import GroupedHead
from mtl.model.tasks.module import TaskModule

if TYPE_CHECKING:
    from torchmetrics import Metric


class WeightedClasses(TaskModule):
    """One of several classes. The constant `class_weight` (T, C), if given, weighs each class in the loss."""

    answer = "class"

    def __init__(
        self, head: GroupedHead, constants: Mapping[str, Tensor], *, label_smoothing: float = 0.0
    ) -> None:
        super().__init__(head, constants)
        self.label_smoothing = label_smoothing
        self.weighs_classes = "class_weight" in constants

    def row_weight(self, target: Tensor, weight_BT: Tensor) -> Tensor:
        if not self.weighs_classes:
            return weight_BT
        return weight_BT * self.get_buffer("class_weight").T.gather(0, target.long())


class Classes(WeightedClasses):
    """One of C = O classes: softmax and cross entropy. Constants: temperature (T,)."""

    temperature: Tensor

    def row_loss(self, logits_BTO: Tensor, target: Tensor) -> Tensor:
        return losses.cross_entropy(logits_BTO, target, self.label_smoothing)

    def metric(self, names: frozenset[str]) -> Metric:
        from mtl.model.tasks.metrics import GroupedClasses

        return GroupedClasses(
            len(self.tasks),
            self.head.n_outputs,
            curves=bool(names & {"auroc", "average_precision"}),
            calibration="calibration_error" in names,
            temperature_T=self.temperature,
        )

    def predict(self, logits_BTO: Tensor) -> dict[str, Tensor]:
        """`class` (B, T) is the most probable class; `p` (B, T, C) holds the probability of each class."""
        p_BTC = self.class_probabilities(logits_BTO)
        return {"class": p_BTC.argmax(-1), "p": p_BTC}

    def class_probabilities(self, logits_BTO: Tensor) -> Tensor:
        return (logits_BTO / self.temperature[:, None]).softmax(-1)

    def logits_of(self, predicted: Mapping[str, Tensor]) -> Tensor:
        log_p_BTC = inverses.log_p_of(p_or_class(predicted, self.head.n_outputs))
        return (log_p_BTC * self.temperature.double()[:, None]).float()

    def negative_log_likelihood(
        self, logits_BO: Tensor, target: Tensor, weight_B: Tensor | None = None
    ) -> Tensor:
        return losses.mean_of(F.cross_entropy(logits_BO, target, reduction="none"), weight_B)


def p_or_class(predicted: Mapping[str, Tensor], n_classes: int) -> Tensor:
    """(B, T, C) the given probabilities, or those of the given classes."""
    if "p" in predicted:
        return predicted["p"]
    return inverses.p_of_classes(predicted["class"], n_classes)


class OrderedClasses(WeightedClasses):
    """One of C = O + 1 ordered classes by cumulative logits."""

    def row_loss(self, logits_BTO: Tensor, target: Tensor) -> Tensor:
        return losses.cumulative_loss(logits_BTO, target, self.label_smoothing)

    def metric(self, names: frozenset[str]) -> Metric:
        from mtl.model.tasks.metrics import GroupedClasses

        return GroupedClasses(
            len(self.tasks),
            self.head.n_outputs + 1,
            log_p=losses.cumulative_log_p,
            ordered=True,
            calibration="calibration_error" in names,
        )

    def predict(self, logits_BTO: Tensor) -> dict[str, Tensor]:
        """`class` (B, T) is the most probable class; `p` (B, T, C) holds the probability of each class."""
        p_BTC = self.class_probabilities(logits_BTO)
        return {"class": p_BTC.argmax(-1), "p": p_BTC}

    def class_probabilities(self, logits_BTO: Tensor) -> Tensor:
        return losses.cumulative_log_p(logits_BTO).exp()

    def logits_of(self, predicted: Mapping[str, Tensor]) -> Tensor:
        return inverses.cumulative_of(p_or_class(predicted, self.head.n_outputs + 1)).float()


class _YesOrNo(TaskModule):
    """Each output is yes or no."""

    temperature: Tensor
    threshold: Tensor

    def __init__(
        self, head: GroupedHead, constants: Mapping[str, Tensor], *, label_smoothing: float = 0.0
    ) -> None:
        super().__init__(head, constants)
        self.label_smoothing = label_smoothing
        self.weighs_positives = "positive_weight" in constants

    def weight_of_yes(self) -> Tensor | None:
        return self.get_buffer("positive_weight") if self.weighs_positives else None

    def _log_odds(self, predicted: Mapping[str, Tensor]) -> Tensor:
        """log p - log(1 - p) of the given probabilities, or of the given answers."""
        if "p" in predicted:
            return inverses.log_odds_of(inverses.sides_of(predicted["p"], self.threshold))
        assert self.answer is not None
        return inverses.log_odds_of(inverses.p_of_answers(predicted[self.answer], self.threshold))


class YesNo(_YesOrNo):
    """Yes or no, from one logit. Constants: temperature (T,), threshold (T,), and optionally positive_weight (T,)."""

    answer = "yes"

    def row_loss(self, logits_BTO: Tensor, target: Tensor) -> Tensor:
        return losses.binary_cross_entropy(
            logits_BTO.squeeze(-1), target, self.label_smoothing, self.weight_of_yes()
        )

    def metric(self, names: frozenset[str]) -> Metric:
        from mtl.model.tasks.scores import GroupedScores

        return GroupedScores(
            len(self.tasks),
            self.threshold,
            self.temperature,
            curves=bool(names & {"auroc", "average_precision"}),
            calibration="calibration_error" in names,
        )

    def predict(self, logits_BTO: Tensor) -> dict[str, Tensor]:
        """`p` (B, T) is the probability of yes; `yes` (B, T) says whether p reaches the threshold."""
        p_BT = (logits_BTO.squeeze(-1) / self.temperature).sigmoid()
        return {"yes": p_BT >= self.threshold, "p": p_BT}

    def class_probabilities(self, logits_BTO: Tensor) -> Tensor:
        """(B, T, 2) the probabilities of no and yes."""
        z_BTO = logits_BTO / self.temperature[:, None]
        return torch.cat([(-z_BTO).sigmoid(), z_BTO.sigmoid()], dim=-1)

    def predicted_of(self, p_BTC: Tensor) -> dict[str, Tensor]:
        return {"p": p_BTC[..., 1]}

    def logits_of(self, predicted: Mapping[str, Tensor]) -> Tensor:
        return (self._log_odds(predicted) * self.temperature.double()).float().unsqueeze(-1)

    def negative_log_likelihood(
        self, logits_BO: Tensor, target: Tensor, weight_B: Tensor | None = None
    ) -> Tensor:
        truth = target.to(logits_BO.dtype)
        loss_B = F.binary_cross_entropy_with_logits(logits_BO[:, 0], truth, reduction="none")
        return losses.mean_of(loss_B, weight_B)


class Labels(_YesOrNo):
    """Any number of O labels. Constants: temperature (T,), threshold (T, O), and optionally positive_weight (T, O)."""

    answer = "there"

    def row_loss(self, logits_BTO: Tensor, target: Tensor) -> Tensor:
        return losses.multilabel_loss(logits_BTO, target, self.label_smoothing, self.weight_of_yes())

    def metric(self, names: frozenset[str]) -> Metric:
        from mtl.model.tasks.metrics import GroupedLabels

        return GroupedLabels(
            len(self.tasks),
            self.head.n_outputs,
            self.threshold,
            self.temperature,
            curves=bool(names & {"macro_auroc", "macro_average_precision"}),
            calibration="calibration_error" in names,
        )

    def predict(self, logits_BTO: Tensor) -> dict[str, Tensor]:
        """`p` (B, T, O) is the probability of each label; `there` (B, T, O) says whether p reaches its threshold."""
        p_BTO = (logits_BTO / self.temperature[:, None]).sigmoid()
        return {"there": p_BTO >= self.threshold, "p": p_BTO}

    def logits_of(self, predicted: Mapping[str, Tensor]) -> Tensor:
        return (self._log_odds(predicted) * self.temperature.double()[:, None]).float()

    def negative_log_likelihood(
        self, logits_BO: Tensor, target: Tensor, weight_B: Tensor | None = None
    ) -> Tensor:
        known = target >= 0
        truth = target[known].to(logits_BO.dtype)
        loss = F.binary_cross_entropy_with_logits(logits_BO[known], truth, reduction="none")
        return losses.mean_of(loss, None if weight_B is None else weight_B[:, None].expand_as(known)[known])


class Quantity(TaskModule):
    """A standardized number z, which stands for the value mean + std * z.

    Constants: mean, mean_rest and std, (T,) each; mean_rest is the rounding error of the mean in float32.
    """

    answer = "value"
    mean: Tensor
    mean_rest: Tensor
    std: Tensor

    def __init__(
        self, head: GroupedHead, constants: Mapping[str, Tensor], *, loss: str = "mse", delta: float = 1.0
    ) -> None:
        super().__init__(head, constants)
        self.loss_kind, self.delta = loss, delta

    def row_loss(self, logits_BTO: Tensor, target: Tensor) -> Tensor:
        # labels keep float64 here: float32 would round labels near 1e6 to steps of 0.06
        y_BT = (target - self.mean - self.mean_rest) / self.std
        return losses.regression_loss(
            logits_BTO.squeeze(-1), y_BT.to(logits_BTO.dtype), self.loss_kind, self.delta
        )

    def metric(self, names: frozenset[str]) -> Metric:
        from mtl.model.tasks.metrics import GroupedMoments

        return GroupedMoments(len(self.tasks), self.mean, self.std, self.mean_rest)

    def predict(self, logits_BTO: Tensor) -> dict[str, Tensor]:
        """`value` (B, T) is the predicted value in the unit of the label."""
        wide = torch.float32 if logits_BTO.device.type == "mps" else torch.float64  # MPS has no float64
        mean_T = self.mean.to(wide) + self.mean_rest.to(wide)
        return {"value": mean_T + self.std.to(wide) * logits_BTO.squeeze(-1).to(wide)}

    def logits_of(self, predicted: Mapping[str, Tensor]) -> Tensor:
        mean_T = self.mean.double() + self.mean_rest.double()
        return ((predicted["value"].double() - mean_T) / self.std.double()).float().unsqueeze(-1)
