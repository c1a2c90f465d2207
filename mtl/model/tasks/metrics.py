"""Metrics of a whole task group in one update; they keep counts and sums, and nothing for each row.

Shapes: B batch, T tasks of a group, O outputs per task, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from mtl.model.tasks.scores import (
    GroupedScores,
    add_calibration,
    calibration_error,
    calibration_sums,
    count,
    log_odds,
    over,
    per_task,
    weighed,
)


class GroupedClasses(Metric):
    """Metrics of T classifiers from three counts per class: true, predicted and hit.

    The values equal those of torchmetrics' Multiclass* metrics on each task alone. Accuracy is micro; balanced accuracy
    is the mean over the classes that labels have; the others are the mean over the classes that labels or predictions
    have. Memory grows linearly with the number of classes, and a group of 100 tasks takes one update.

    Args:
        n_tasks: T.
        n_classes: C.
        log_p: head outputs (B, T, O) -> log probabilities (B, T, C); by default the logits unchanged.
        ordered: whether classes have an order, which adds `mae` (in classes, Gaudette and Japkowicz 2009) and
            `quadratic_kappa` (Cohen 1968).
        curves: whether binned scores are kept, which adds `auroc` and `average_precision`: one class against the rest,
            mean over the classes with rows on both sides.
        calibration: whether `calibration_error` of the most probable class is measured.
        temperature_T: logits are divided by this before probabilities are taken; default 1.
    """

    full_state_update = False
    counts: Tensor
    gaps: Tensor
    calibration: Tensor
    temperature: Tensor

    def __init__(
        self,
        n_tasks: int,
        n_classes: int,
        *,
        log_p: Callable[[Tensor], Tensor] | None = None,
        ordered: bool = False,
        curves: bool = False,
        calibration: bool = False,
        temperature_T: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.n_tasks, self.n_classes = n_tasks, n_classes
        self.log_p, self.ordered, self.calibrated = log_p, ordered, calibration
        counts = torch.zeros(n_tasks, 3, n_classes, dtype=torch.long)
        self.add_state("counts", default=counts, dist_reduce_fx="sum")
        self.add_state("gaps", default=torch.zeros(n_tasks, 2, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("calibration", default=calibration_sums(n_tasks), dist_reduce_fx="sum")
        self.scores = GroupedScores(n_tasks * n_classes, calibration=False) if curves else None
        self.register_buffer("temperature", per_task(temperature_T, n_tasks, 1.0))

    def update(self, logits_BTO: Tensor, target_BT: Tensor, weight_BT: Tensor) -> None:
        """Count the predictions of the rows that have a label; `weight_BT` is as in `scores.weighed`."""
        target_BT = target_BT.long()
        log_p_BTC = logits_BTO if self.log_p is None else self.log_p(logits_BTO)
        predicted_BT = log_p_BTC.argmax(-1)
        hit_BT = predicted_BT == target_BT
        first_T = torch.arange(self.n_tasks, device=target_BT.device) * (3 * self.n_classes)
        true_BT = first_T + target_BT
        bins_3BT = torch.stack(
            [true_BT, first_T + self.n_classes + predicted_BT, true_BT + 2 * self.n_classes]
        )
        count(self.counts, bins_3BT, torch.stack([weight_BT, weight_BT, weight_BT * hit_BT]))
        if self.ordered:
            gap_BT = (predicted_BT - target_BT).abs()
            self.gaps += (torch.stack([gap_BT, gap_BT.square()], -1) * weight_BT.unsqueeze(-1)).sum(0)
        if self.scores is None and not self.calibrated:
            return
        log_p_BTC = (log_p_BTC / self.temperature[:, None]).log_softmax(-1)
        if self.calibrated:
            add_calibration(self.calibration, log_p_BTC.max(-1).values.exp(), hit_BT, weight_BT)
        if self.scores is not None:
            is_class_BTC = target_BT.unsqueeze(-1) == torch.arange(self.n_classes, device=target_BT.device)
            weight_BTC = weight_BT.unsqueeze(-1).expand_as(is_class_BTC)
            odds_BTC = log_odds(log_p_BTC)
            self.scores.update(
                odds_BTC.flatten(1).unsqueeze(-1), is_class_BTC.long().flatten(1), weight_BTC.flatten(1)
            )

    def reset(self) -> None:
        """Forget everything, the scores too."""
        super().reset()
        if self.scores is not None:
            self.scores.reset()

    def compute(self) -> dict[str, Tensor]:
        """Metric name -> (T,), NaN for a task without any label."""
        true_TC, predicted_TC, hits_TC = self.counts.cpu().double().unbind(1)
        n_T = true_TC.sum(-1)
        seen_TC = true_TC + predicted_TC
        classes_T = (seen_TC > 0).sum(-1)
        chance_T = (true_TC * predicted_TC).sum(-1) / n_T.square()
        accuracy_T = hits_TC.sum(-1) / n_T
        recall_TC = over(hits_TC, true_TC)
        values = {
            "accuracy": accuracy_T,
            "macro_f1": over(2 * hits_TC, seen_TC).sum(-1) / classes_T,
            "macro_precision": over(hits_TC, predicted_TC).sum(-1) / classes_T,
            "macro_recall": recall_TC.sum(-1) / classes_T,
            "balanced_accuracy": recall_TC.sum(-1) / (true_TC > 0).sum(-1),
            "cohen_kappa": (accuracy_T - chance_T) / (1 - chance_T),
        }
        if self.ordered:
            values |= self._ordered(true_TC, predicted_TC, n_T)
        if self.calibrated:
            values["calibration_error"] = calibration_error(self.calibration)
        if self.scores is not None:
            each = {name: v.view(self.n_tasks, self.n_classes) for name, v in self.scores.compute().items()}
            values |= {name: each[name].nanmean(-1) for name in ("auroc", "average_precision")}
        return values

    def _ordered(self, true_TC: Tensor, predicted_TC: Tensor, n_T: Tensor) -> dict[str, Tensor]:
        """`mae`, and `quadratic_kappa` = 1 - D / E.

        D is the sum of (prediction - truth)^2 over rows; E is its expected value if both are independent.
        """
        gap_T, square_T = self.gaps.cpu().double().unbind(1)
        c = torch.arange(self.n_classes, dtype=torch.float64)
        first_T, second_T = (true_TC * c).sum(-1), (predicted_TC * c).sum(-1)
        squares_T = ((true_TC + predicted_TC) * c.square()).sum(-1)
        expected_T = squares_T - 2 * first_T * second_T / n_T
        return {"mae": gap_T / n_T, "quadratic_kappa": 1 - square_T / expected_T}


class GroupedLabels(Metric):
    """Metrics of T multilabel tasks of O labels each; a target of -1 is unknown and does not count.

    A macro metric is the mean over labels; one of a curve is the mean over the labels with rows on both sides. A micro
    metric counts all pairs of row and label; so does `accuracy`.

    Args:
        n_tasks: T.
        n_outputs: O.
        threshold_TO: a label is predicted if its probability is at least this; default 0.5.
        temperature_T: logits are divided by this before probabilities are taken; default 1.
        curves, calibration: as in `GroupedScores`.
    """

    full_state_update = False

    def __init__(
        self,
        n_tasks: int,
        n_outputs: int,
        threshold_TO: Tensor | None = None,
        temperature_T: Tensor | None = None,
        *,
        curves: bool = True,
        calibration: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.n_tasks, self.n_outputs = n_tasks, n_outputs
        temperature = None if temperature_T is None else temperature_T.repeat_interleave(n_outputs)
        self.scores = GroupedScores(
            n_tasks * n_outputs, threshold_TO, temperature, curves=curves, calibration=calibration
        )

    def update(self, logits_BTO: Tensor, target_BTO: Tensor, weight_BT: Tensor) -> None:
        """Count the scores of the known labels; `weight_BT` is as in `scores.weighed`."""
        known_BTO = weight_BT.unsqueeze(-1) * (target_BTO >= 0)
        self.scores.update(
            logits_BTO.flatten(1).unsqueeze(-1),
            target_BTO.clamp(min=0).long().flatten(1),
            known_BTO.flatten(1),
        )

    def reset(self) -> None:
        """Forget everything, the scores too."""
        super().reset()
        self.scores.reset()

    def compute(self) -> dict[str, Tensor]:
        """Metric name -> (T,), NaN where the metric is undefined."""
        each = {name: v.view(self.n_tasks, -1) for name, v in self.scores.compute().items()}
        answers = self.scores.answers.cpu().double().view(self.n_tasks, self.n_outputs, 4)
        tn_T, fp_T, fn_T, tp_T = answers.sum(1).unbind(1)
        known_TO = answers.sum(-1) > 0
        f1_TO = torch.where(known_TO, torch.nan_to_num(each["f1"], 0.0), torch.nan)
        values = {
            "macro_f1": f1_TO.nanmean(-1),
            "micro_f1": 2 * tp_T / (2 * tp_T + fp_T + fn_T),
            "accuracy": (tp_T + tn_T) / (tp_T + tn_T + fp_T + fn_T),
        }
        for name, own in (("auroc", "macro_auroc"), ("average_precision", "macro_average_precision")):
            if name in each:
                both_TO = ~each["auroc"].isnan()
                values[own] = torch.where(both_TO, each[name], torch.nan).nanmean(-1)
        if "calibration_error" in each:
            values["calibration_error"] = each["calibration_error"].nanmean(-1)
        return values


class GroupedMoments(Metric):
    """Metrics of T regressions from sums over rows, in the labels' own units.

    Labels are standardized before they are squared, so that an offset much larger than the spread costs no digits.

    Args:
        n_tasks: T.
        mean_T, std_T: a prediction z stands for the value mean + std * z.
        rest_T: the rounding error of the mean in float32; default 0.
    """

    full_state_update = False
    sums: Tensor
    mean: Tensor
    std: Tensor
    rest: Tensor

    def __init__(
        self, n_tasks: int, mean_T: Tensor, std_T: Tensor, rest_T: Tensor | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.n_tasks = n_tasks
        self.register_buffer("mean", mean_T.reshape(-1))
        self.register_buffer("std", std_T.reshape(-1))
        self.register_buffer("rest", per_task(rest_T, n_tasks, 0.0))
        self.add_state("sums", default=torch.zeros(n_tasks, 6, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits_BTO: Tensor, target_BT: Tensor, weight_BT: Tensor) -> None:
        """Add n, sum e, sum |e|, sum e^2, sum y, sum y^2 of e = prediction - label, in standard deviations.

        With weights, as in `scores.weighed`, each row counts as often as its weight says.
        """
        dtype = self.sums.dtype
        y_BT = (target_BT.to(dtype) - self.mean.to(dtype) - self.rest.to(dtype)) / self.std.to(dtype)
        e_BT = logits_BTO.squeeze(-1).to(dtype) - y_BT
        parts = torch.stack([torch.ones_like(e_BT), e_BT, e_BT.abs(), e_BT.square(), y_BT, y_BT.square()], -1)
        self.sums += weighed(parts, weight_BT.unsqueeze(-1)).sum(0)

    def compute(self) -> dict[str, Tensor]:
        """Metric name -> (T,); r2 is undefined (NaN) for a task whose labels are all equal."""
        n, e, absolute, square, y, y2 = self.sums.cpu().double().unbind(1)
        std = self.std.cpu().double()
        spread = y2 - y.square() / n
        varies = spread > 1e-12 * y2.clamp(min=1e-300)
        return {
            "rmse": std * (square / n).sqrt(),
            "mse": std.square() * square / n,
            "mae": std * absolute / n,
            "bias": std * e / n,
            "r2": torch.where(varies, 1 - square / spread, torch.nan),
        }
