"""Binned scores of many yes-or-no questions at once: curves, calibration, and answers at a threshold.

Shapes: B batch, T tasks (or classes, or labels, each a yes-or-no question), S score bins, G bins of probability.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

N_BINS, LARGEST = 4001, 1000.0
"""The histogram counts scores z, on the scale of logits, in equal bins of asinh(z / 2) for z from -1000 to 1000. A bin
is 0.007 wide at z = 0, and 0.35% of z far from 0. One bin has its middle at z = 0."""
CALIBRATION_BINS = 15


class GroupedScores(Metric):
    """Metrics of T yes-or-no tasks; each task has two histograms of scores, one for each true answer.

    The curves use scores rounded to 0.007 on the logit scale, or to 0.35% if that is more. A tie counts half in the
    AUROC. The answer is yes if the probability is at least `threshold`. The counts at the threshold, the Brier score
    and the calibration error are exact.

    Args:
        n_tasks: T.
        threshold_T: the least probability for the answer yes; default 0.5.
        temperature_T: logits are divided by this before probabilities are taken; default 1.
        curves: whether histograms are kept, which adds `auroc` and `average_precision`.
        calibration: whether `calibration_error` is measured.
    """

    full_state_update = False
    histogram: Tensor
    answers: Tensor
    squares: Tensor
    calibration: Tensor
    threshold: Tensor
    temperature: Tensor

    def __init__(
        self,
        n_tasks: int,
        threshold_T: Tensor | None = None,
        temperature_T: Tensor | None = None,
        *,
        curves: bool = True,
        calibration: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.n_tasks, self.curves, self.calibrated = n_tasks, curves, calibration
        self.register_buffer("threshold", per_task(threshold_T, n_tasks, 0.5))
        self.register_buffer("temperature", per_task(temperature_T, n_tasks, 1.0))
        histogram = torch.zeros(n_tasks if curves else 0, 2, N_BINS, dtype=torch.int32)
        self.add_state("histogram", default=histogram, dist_reduce_fx="sum")
        self.add_state("answers", default=torch.zeros(n_tasks, 2, 2, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("squares", default=torch.zeros(n_tasks, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("calibration", default=calibration_sums(n_tasks), dist_reduce_fx="sum")

    def update(self, logits_BTO: Tensor, target_BT: Tensor, weight_BT: Tensor) -> None:
        """Count the scores of the rows that have a label; `weight_BT` is as in `weighed`."""
        z_BT = logits_BTO.squeeze(-1) / self.temperature
        pair_BT = torch.arange(self.n_tasks, device=z_BT.device) * 2 + target_BT.long()
        if self.curves:
            count(self.histogram, pair_BT * N_BINS + _score_bins(z_BT), weight_BT)
        p_BT = z_BT.sigmoid()
        yes_BT = (p_BT >= self.threshold).long()
        count(self.answers, pair_BT * 2 + yes_BT, weight_BT)
        error_BT = weighed((p_BT - target_BT).square(), weight_BT)
        self.squares += error_BT.sum(0)  # without weights in float32, since float64 takes three times as long
        if self.calibrated:
            add_calibration(self.calibration, p_BT, target_BT, weight_BT)

    def compute(self) -> dict[str, Tensor]:
        """Metric name -> (T,), NaN where the metric is undefined, such as the AUROC of a single class."""
        tn_T, fp_T, fn_T, tp_T = self.answers.cpu().double().flatten(1).unbind(1)
        n_T = tn_T + fp_T + fn_T + tp_T
        recall_T, specificity_T = tp_T / (tp_T + fn_T), tn_T / (tn_T + fp_T)
        values = {
            "accuracy": (tp_T + tn_T) / n_T,
            "balanced_accuracy": (recall_T + specificity_T) / 2,
            "f1": 2 * tp_T / (2 * tp_T + fp_T + fn_T),
            "precision": tp_T / (tp_T + fp_T),
            "recall": recall_T,
            "specificity": specificity_T,
            "brier": self.squares.cpu().double() / n_T,
        }
        if self.curves:
            no_TS, yes_TS = self.histogram.cpu().double().unbind(1)
            values["auroc"] = auroc(no_TS, yes_TS)
            values["average_precision"] = average_precision(no_TS, yes_TS)
        if self.calibrated:
            values["calibration_error"] = calibration_error(self.calibration)
        return values


def _score_bins(z: Tensor) -> Tensor:
    """The bin of each score, see `N_BINS`; a NaN goes to the bin of 0, since the loss reports it.

    The code uses asinh x = sign(x) log(|x| + sqrt(x^2 + 1)), since torch.asinh takes five times as long on a CPU.
    """
    x = z.nan_to_num(nan=0.0).clamp(-LARGEST, LARGEST) / 2
    inside = torch.copysign((x.abs() + (x.square() + 1).sqrt()).log(), x)
    return (inside * ((N_BINS - 1) / (2 * math.asinh(LARGEST / 2)))).round().long() + N_BINS // 2


def per_task(values_T: Tensor | None, n_tasks: int, default: float) -> Tensor:
    """(T,) the given number of each task, or `default` for all tasks."""
    return torch.full((n_tasks,), default) if values_T is None else values_T.reshape(-1).float()


def weighed(values: Tensor, weight: Tensor) -> Tensor:
    """Values times their weights, and 0 where the weight is 0, whatever the value is.

    Args:
        values: any numbers.
        weight: the weight of each one; or bool, which stands for the weights 0 and 1.
    """
    if weight.dtype == torch.bool:
        return torch.where(weight, values, 0.0)
    return torch.where(weight > 0, weight * values, 0.0)


def hold_weights(metric: Metric, dtype: torch.dtype) -> None:
    """Let the counts of a metric and of its inner metrics hold weights of rows: whole numbers become `dtype`."""
    for part in metric.modules():
        for name, value in part.metric_state.items() if isinstance(part, Metric) else ():
            if isinstance(value, Tensor) and not value.is_floating_point():
                setattr(part, name, value.to(dtype))


def over(counts: Tensor, totals: Tensor) -> Tensor:
    """counts / totals, and 0 where the total is 0."""
    return counts / torch.where(totals > 0, totals, 1.0)


def count(counts: Tensor, bin_BT: Tensor, weight_BT: Tensor) -> None:
    """Add the weight of each entry to its bin, in place, at a cost independent of the number of bins."""
    assert counts.is_floating_point() or not weight_BT.is_floating_point()
    counts.view(-1).scatter_add_(0, bin_BT.flatten(), weight_BT.flatten().to(counts.dtype))


def log_odds(log_p_BTC: Tensor) -> Tensor:
    """(B, T, C) log p - log(1 - p), which stays exact for the most probable class although its 1 - p may round to 0."""
    top_BT1 = log_p_BTC.argmax(-1, keepdim=True)
    rest_BT1 = log_p_BTC.scatter(-1, top_BT1, -torch.inf).logsumexp(-1, keepdim=True)
    odds_BTC = log_p_BTC - torch.log1p(-log_p_BTC.exp().clamp(max=0.5))
    return odds_BTC.scatter(-1, top_BT1, log_p_BTC.gather(-1, top_BT1) - rest_BT1)


def auroc(no_TS: Tensor, yes_TS: Tensor) -> Tensor:
    """(T,) P(score of a yes > score of a no) + P(equal) / 2 (Hanley and McNeil 1982), from histograms."""
    below_TS = no_TS.cumsum(-1) - no_TS
    pairs_T = no_TS.sum(-1) * yes_TS.sum(-1)
    return (yes_TS * (below_TS + no_TS / 2)).sum(-1) / torch.where(pairs_T > 0, pairs_T, torch.nan)


def average_precision(no_TS: Tensor, yes_TS: Tensor) -> Tensor:
    """(T,) sum over thresholds of (step of recall) * precision, as in scikit-learn, from histograms."""
    tp_TS = yes_TS.flip(-1).cumsum(-1)
    fp_TS = no_TS.flip(-1).cumsum(-1)
    precision_TS = over(tp_TS, tp_TS + fp_TS)
    n_T = yes_TS.sum(-1)
    return (yes_TS.flip(-1) * precision_TS).sum(-1) / torch.where(n_T > 0, n_T, torch.nan)


def calibration_sums(n_tasks: int) -> Tensor:
    """(3, T, G) zeros for the sums of rows, probabilities and hits in equal bins of probability."""
    return torch.zeros(3, n_tasks, CALIBRATION_BINS, dtype=torch.float64)


def add_calibration(sums_3TG: Tensor, p_BT: Tensor, hit_BT: Tensor, weight_BT: Tensor) -> None:
    """Add the weights of rows, and their probabilities and hits times these, to `calibration_sums`, in place."""
    n_tasks = sums_3TG.shape[1]
    bin_BT = (p_BT * CALIBRATION_BINS).long().clamp(0, CALIBRATION_BINS - 1)
    bin_BT = bin_BT + torch.arange(n_tasks, device=p_BT.device) * CALIBRATION_BINS
    for sums_TG, value_BT in zip(sums_3TG, (torch.ones_like(p_BT), p_BT, hit_BT), strict=True):
        value_BT = weighed(value_BT.to(sums_TG.dtype), weight_BT)
        sums_TG.view(-1).scatter_add_(0, bin_BT.flatten(), value_BT.flatten())


def calibration_error(sums_3TG: Tensor) -> Tensor:
    """(T,) expected calibration error, the mean over rows of |mean probability - share of hits| of the row's bin.

    Source: Guo et al. 2017, arXiv:1706.04599.
    """
    n_TG, p_TG, hit_TG = sums_3TG.cpu().double().unbind(0)
    return (p_TG - hit_TG).abs().sum(-1) / n_TG.sum(-1)
