"""Metrics of a whole task group in one update, from counts and sums: nothing is kept per row.

Shapes: B batch, T tasks of a group, O outputs per task, S score bins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

N_BINS, LARGEST = 2001, 20.0
"""Scores are counted in bins 0.02 wide on the scale of logits, from -20 to 20; a bin's middle is at 0."""
CALIBRATION_BINS = 15


class GroupedConfusion(Metric):
    """Metrics of T classifiers from T confusion matrices, counted at once.

    Equal to torchmetrics' Multiclass* metrics on each task alone (accuracy micro; the others macro over the
    classes that were predicted or seen); a group of 100 tasks takes one update instead of 100.

    Args:
        n_tasks: T.
        n_classes: C.
        log_p: head outputs (B, T, O) -> log probabilities (B, T, C); default: logits as they are.
        ordered: whether classes have an order: then `mae` (in classes, Gaudette and Japkowicz 2009) and
            `quadratic_kappa` (Cohen 1968) are there.
        scores: whether the binned scores are kept from which `auroc`, `average_precision` (one against the rest,
            mean over classes) and `calibration_error` are computed.
    """

    full_state_update = False
    confusion: Tensor

    def __init__(
        self,
        n_tasks: int,
        n_classes: int,
        *,
        log_p: Callable[[Tensor], Tensor] | None = None,
        ordered: bool = False,
        scores: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.n_tasks, self.n_classes = n_tasks, n_classes
        self.log_p, self.ordered = log_p, ordered
        counts = torch.zeros(n_tasks, n_classes, n_classes, dtype=torch.long)
        self.add_state("confusion", default=counts, dist_reduce_fx="sum")
        self.scores = GroupedScores(n_tasks * n_classes) if scores else None
        self.top = GroupedScores(n_tasks) if scores else None

    def update(self, logits_BTO: Tensor, target_BT: Tensor, present_BT: Tensor) -> None:
        """Count predictions; rows without a label are left out."""
        log_p_BTC = logits_BTO if self.log_p is None else self.log_p(logits_BTO)
        predicted_BT = log_p_BTC.argmax(-1)
        first_bin_T = torch.arange(self.n_tasks, device=target_BT.device) * self.n_classes**2
        _count(self.confusion, first_bin_T + target_BT * self.n_classes + predicted_BT, present_BT)
        if self.scores is not None and self.top is not None:
            p_BTC = log_p_BTC.softmax(-1)
            odds_BTC = torch.logit(p_BTC.double(), eps=1e-9)
            is_class_BTC = target_BT.unsqueeze(-1) == torch.arange(self.n_classes, device=target_BT.device)
            there_BTC = present_BT.unsqueeze(-1).expand_as(is_class_BTC)
            self.scores.update(
                odds_BTC.flatten(1).unsqueeze(-1), is_class_BTC.long().flatten(1), there_BTC.flatten(1)
            )
            top_BT = odds_BTC.max(-1).values
            self.top.update(top_BT.unsqueeze(-1), (predicted_BT == target_BT).long(), present_BT)

    def compute(self) -> dict[str, Tensor]:
        """Metric name -> (T,); NaN for a task without any label."""
        n_TCC = self.confusion.cpu().double()
        hits_TC = n_TCC.diagonal(dim1=1, dim2=2)
        true_TC, predicted_TC, n_T = n_TCC.sum(2), n_TCC.sum(1), n_TCC.sum((1, 2))
        seen_TC = true_TC + predicted_TC
        classes_T = (seen_TC > 0).sum(-1)
        f1_TC = 2 * hits_TC / seen_TC.clamp(min=1)
        chance_T = (true_TC * predicted_TC).sum(-1) / n_T.square()
        accuracy_T = hits_TC.sum(-1) / n_T
        recall_TC = hits_TC / true_TC.clamp(min=1)
        values = {
            "accuracy": accuracy_T,
            "macro_f1": f1_TC.sum(-1) / classes_T,
            "macro_precision": (hits_TC / predicted_TC.clamp(min=1)).sum(-1) / classes_T,
            "macro_recall": recall_TC.sum(-1) / classes_T,
            "balanced_accuracy": recall_TC.sum(-1) / (true_TC > 0).sum(-1),
            "cohen_kappa": (accuracy_T - chance_T) / (1 - chance_T),
        }
        if self.ordered:
            values |= self._ordered(n_TCC, true_TC, predicted_TC, n_T)
        if self.scores is not None and self.top is not None:
            each = {name: v.view(self.n_tasks, self.n_classes) for name, v in self.scores.compute().items()}
            values |= {name: each[name].nanmean(-1) for name in ("auroc", "average_precision")}
            values["calibration_error"] = self.top.compute()["calibration_error"].reshape(-1)
        return values

    def _ordered(
        self, n_TCC: Tensor, true_TC: Tensor, predicted_TC: Tensor, n_T: Tensor
    ) -> dict[str, Tensor]:
        c = torch.arange(self.n_classes, dtype=torch.float64)
        gap_CC = (c[:, None] - c).abs()
        expected_TCC = true_TC.unsqueeze(2) * predicted_TC.unsqueeze(1) / n_T[:, None, None]
        square = gap_CC.square()
        kappa_T = 1 - (square * n_TCC).sum((1, 2)) / (square * expected_TCC).sum((1, 2))
        return {"mae": (gap_CC * n_TCC).sum((1, 2)) / n_T, "quadratic_kappa": kappa_T}


class GroupedScores(Metric):
    """Metrics of T yes-or-no tasks from two histograms of scores each, one per true answer.

    Curves are those of scores rounded to 0.02 on the logit scale, ties counting half in the AUROC. The answer is
    yes from `threshold` on; counts at the threshold are exact.

    Args:
        n_tasks: T.
        threshold_T: probability from which the answer is yes; default 0.5.
        temperature_T: what logits are divided by before probabilities are taken; default 1.
    """

    full_state_update = False
    histogram: Tensor
    answers: Tensor
    squares: Tensor
    threshold: Tensor
    temperature: Tensor

    def __init__(
        self,
        n_tasks: int,
        threshold_T: Tensor | None = None,
        temperature_T: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.n_tasks = n_tasks
        ones = torch.ones(n_tasks)
        self.register_buffer(
            "threshold", ones / 2 if threshold_T is None else threshold_T.reshape(-1).float()
        )
        self.register_buffer(
            "temperature", ones if temperature_T is None else temperature_T.reshape(-1).float()
        )
        zeros = torch.zeros(n_tasks, 2, N_BINS, dtype=torch.long)
        self.add_state("histogram", default=zeros, dist_reduce_fx="sum")
        self.add_state("answers", default=torch.zeros(n_tasks, 2, 2, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("squares", default=torch.zeros(n_tasks, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits_BTO: Tensor, target_BT: Tensor, present_BT: Tensor) -> None:
        """Count scores; rows without a label are left out."""
        z_BT = logits_BTO.squeeze(-1) / self.temperature
        bin_BT = ((z_BT.clamp(-LARGEST, LARGEST) + LARGEST) * ((N_BINS - 1) / (2 * LARGEST))).round().long()
        first_T = torch.arange(self.n_tasks, device=z_BT.device)
        pair_BT = first_T * 2 + target_BT
        _count(self.histogram, pair_BT * N_BINS + bin_BT, present_BT)
        p_BT = z_BT.sigmoid()
        yes_BT = (p_BT >= self.threshold).long()
        _count(self.answers, pair_BT * 2 + yes_BT, present_BT)
        error_BT = torch.where(present_BT, (p_BT - target_BT).square(), 0.0)
        self.squares += error_BT.to(self.squares.dtype).sum(0)

    def compute(self) -> dict[str, Tensor]:
        """Metric name -> (T,); NaN where it is not defined, as an AUROC of one class."""
        histogram = self.histogram.cpu().double()
        no_TS, yes_TS = histogram[:, 0], histogram[:, 1]
        tn_T, fp_T, fn_T, tp_T = self.answers.cpu().double().flatten(1).unbind(1)
        n_T = tn_T + fp_T + fn_T + tp_T
        recall_T, specificity_T = tp_T / (tp_T + fn_T), tn_T / (tn_T + fp_T)
        return {
            "auroc": auroc(no_TS, yes_TS),
            "average_precision": average_precision(no_TS, yes_TS),
            "accuracy": (tp_T + tn_T) / n_T,
            "balanced_accuracy": (recall_T + specificity_T) / 2,
            "f1": 2 * tp_T / (2 * tp_T + fp_T + fn_T),
            "precision": tp_T / (tp_T + fp_T),
            "recall": recall_T,
            "specificity": specificity_T,
            "calibration_error": calibration_error(no_TS, yes_TS),
            "brier": self.squares.cpu().double() / n_T,
        }


def _count(counts: Tensor, bin_BT: Tensor, present_BT: Tensor) -> None:
    """Add one to the bin of each present entry, in place: the cost does not grow with the number of bins."""
    counts.view(-1).scatter_add_(0, bin_BT.flatten(), present_BT.flatten().to(counts.dtype))


def auroc(no_TS: Tensor, yes_TS: Tensor) -> Tensor:
    """(T,) P(score of a yes > score of a no) + P(equal) / 2 (Hanley and McNeil 1982), from histograms."""
    below_TS = no_TS.cumsum(-1) - no_TS
    pairs_T = no_TS.sum(-1) * yes_TS.sum(-1)
    return (yes_TS * (below_TS + no_TS / 2)).sum(-1) / torch.where(pairs_T > 0, pairs_T, torch.nan)


def average_precision(no_TS: Tensor, yes_TS: Tensor) -> Tensor:
    """(T,) sum over thresholds of (recall step) * precision, as in scikit-learn, from histograms."""
    tp_TS = yes_TS.flip(-1).cumsum(-1)
    fp_TS = no_TS.flip(-1).cumsum(-1)
    precision_TS = tp_TS / (tp_TS + fp_TS).clamp(min=1)
    n_T = yes_TS.sum(-1)
    return (yes_TS.flip(-1) * precision_TS).sum(-1) / torch.where(n_T > 0, n_T, torch.nan)


def calibration_error(no_TS: Tensor, yes_TS: Tensor) -> Tensor:
    """(T,) expected calibration error over 15 equal bins of probability (Guo et al. 2017), from histograms."""
    middle_S = torch.linspace(-LARGEST, LARGEST, N_BINS, dtype=torch.float64).sigmoid()
    n_TS = no_TS + yes_TS
    bin_S = (middle_S * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    one_hot_SC = torch.nn.functional.one_hot(bin_S, CALIBRATION_BINS).double()
    gap_TC = ((n_TS * middle_S) @ one_hot_SC - yes_TS @ one_hot_SC).abs()
    return gap_TC.sum(-1) / n_TS.sum(-1)


class GroupedLabels(Metric):
    """Metrics of T multilabel tasks of O labels each; a target of -1 is not known and left out.

    macro: the mean over labels; micro: over all pairs of row and label, `accuracy` too.
    """

    full_state_update = False

    def __init__(self, n_tasks: int, n_outputs: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_tasks, self.n_outputs = n_tasks, n_outputs
        self.scores = GroupedScores(n_tasks * n_outputs)

    def update(self, logits_BTO: Tensor, target_BTO: Tensor, present_BT: Tensor) -> None:
        """Count scores of the labels that are known."""
        known_BTO = (target_BTO >= 0) & present_BT.unsqueeze(-1)
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
        """Metric name -> (T,)."""
        each = {name: v.view(self.n_tasks, -1) for name, v in self.scores.compute().items()}
        answers = self.scores.answers.cpu().double().view(self.n_tasks, self.n_outputs, 4)
        tn_T, fp_T, fn_T, tp_T = answers.sum(1).unbind(1)
        known_TO = answers.sum(-1) > 0
        f1_TO = torch.where(known_TO, torch.nan_to_num(each["f1"], 0.0), torch.nan)
        return {
            "macro_auroc": each["auroc"].nanmean(-1),
            "macro_average_precision": each["average_precision"].nanmean(-1),
            "macro_f1": f1_TO.nanmean(-1),
            "micro_f1": 2 * tp_T / (2 * tp_T + fp_T + fn_T),
            "accuracy": (tp_T + tn_T) / (tp_T + tn_T + fp_T + fn_T),
            "calibration_error": each["calibration_error"].nanmean(-1),
        }


class GroupedMoments(Metric):
    """Metrics of T regressions from sums over rows, in the labels' own units.

    Args:
        n_tasks: T.
        mean_T, std_T: by which predictions are turned into labels.
    """

    full_state_update = False
    sums: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, n_tasks: int, mean_T: Tensor, std_T: Tensor, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_tasks = n_tasks
        self.register_buffer("mean", mean_T.reshape(-1))
        self.register_buffer("std", std_T.reshape(-1))
        self.add_state("sums", default=torch.zeros(n_tasks, 6, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits_BTO: Tensor, target_BT: Tensor, present_BT: Tensor) -> None:
        """Add n, sum e, sum |e|, sum e^2, sum y, sum y^2 of e = prediction - label, in standard deviations."""
        dtype = self.sums.dtype
        y_BT = (target_BT.to(dtype) - self.mean.to(dtype)) / self.std.to(dtype)
        e_BT = logits_BTO.squeeze(-1).to(dtype) - y_BT
        parts = torch.stack([torch.ones_like(e_BT), e_BT, e_BT.abs(), e_BT.square(), y_BT, y_BT.square()], -1)
        self.sums += torch.where(present_BT.unsqueeze(-1), parts, 0.0).sum(0)

    def compute(self) -> dict[str, Tensor]:
        """Metric name -> (T,); r2 is undefined (NaN) where all labels are equal."""
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
