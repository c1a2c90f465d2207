"""Residuals of numbers, and predictions beside similar labels, counted in bins.

Shapes: B batch, T tasks of a group, S bins, Q groups of rows with similar labels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mtl.data.types import Rows
from mtl.dataset.batch import ResidentRows
from mtl.evaluation.points import DIGITS, amount, amounts, quantile
from mtl.model.tasks.kinds import Quantity
from mtl.model.tasks.scores import count, weighed

N_BINS, FINEST, LARGEST = 4001, 1e-3, 1e3
"""Standardized numbers z are counted in equal bins of asinh(z / 0.001), for |z| up to 1000: a bin is 7e-6 wide at 0,
and 0.7% of z far from it."""
GROUPS = 10
"""Groups of rows with similar labels, of equal size if labels differ enough."""
SAMPLE = 100_000
"""Most labels from which the bounds of groups are taken."""
SHOWN_BINS, TAIL = 40, 0.005
"""Bins of the shown histogram of residuals, and the share of rows beyond either end of it."""
WHOLE = math.asinh(LARGEST / FINEST)


class NumberCounts:
    """Counts of a group of numbers: residuals, and predictions by groups of rows with similar labels.

    Args:
        module: the module of the T tasks.
        labels: holds the labels.
        group: the name of the task group.
        rows: the rows that will be counted.
    """

    def __init__(self, module: Quantity, labels: ResidentRows, group: str, rows: Rows) -> None:
        self.tasks, n_tasks = module.tasks, len(module.tasks)
        self.mean_T = module.mean.cpu().double() + module.mean_rest.cpu().double()
        self.std_T = module.std.cpu().double()
        sample = labels.targets(rows[:: -(-len(rows) // SAMPLE)]) if len(rows) else labels.targets(rows)
        self.bounds = [
            _bounds(self._standardized(sample.target[group].cpu())[sample.present[group][:, t].cpu(), t])
            for t in range(n_tasks)
        ]
        self.residual_TS = torch.zeros(n_tasks, N_BINS, dtype=torch.float64)
        self.predicted_TQS = torch.zeros(n_tasks, GROUPS, N_BINS, dtype=torch.float64)
        self.label_TQ = torch.zeros(n_tasks, GROUPS, dtype=torch.float64)

    def _standardized(self, label_BT: Tensor) -> Tensor:
        return (label_BT.double() - self.mean_T) / self.std_T

    def add(self, logits_BTO: Tensor, target_BT: Tensor, weight_BT: Tensor) -> None:
        """Count rows with their logits, labels and weights, as a metric does."""
        predicted_BT, label_BT = logits_BTO.squeeze(-1).double(), self._standardized(target_BT)
        first_T = torch.arange(len(self.tasks))
        count(self.residual_TS, first_T * N_BINS + _bins(predicted_BT - label_BT), weight_BT)
        group_BT = torch.stack(
            [torch.bucketize(label_BT[:, t].contiguous(), bounds) for t, bounds in enumerate(self.bounds)], 1
        )
        place_BT = first_T * GROUPS + group_BT
        count(self.predicted_TQS, place_BT * N_BINS + _bins(predicted_BT), weight_BT)
        summand_BT = weighed(label_BT, weight_BT)
        self.label_TQ.view(-1).scatter_add_(0, place_BT.flatten(), summand_BT.flatten())

    def details(self) -> dict[str, dict[str, Any]]:
        """Task -> its plain values."""
        return {
            task: {
                "form": "number",
                "n": amount(float(self.residual_TS[t].sum())),
                "residuals": self._residuals(t),
                "groups": self._groups(t),
            }
            for t, task in enumerate(self.tasks)
        }

    def _residuals(self, t: int) -> dict[str, Any] | None:
        """Counts in equal bins, and the counts beyond them; None without a label."""
        fine_S, middle_S, std = self.residual_TS[t], _middles(), float(self.std_T[t])
        if not fine_S.any():
            return None
        low, high = quantile(fine_S, middle_S, TAIL), quantile(fine_S, middle_S, 1 - TAIL)
        if low == high:
            low, high = low - FINEST, high + FINEST
        edges = torch.linspace(low, high, SHOWN_BINS + 1, dtype=torch.float64)
        inside_S = (middle_S >= low) & (middle_S <= high)
        bin_S = (torch.bucketize(middle_S, edges, right=True) - 1).clamp(0, SHOWN_BINS - 1)
        counts = torch.zeros(SHOWN_BINS, dtype=torch.float64)
        counts.scatter_add_(0, bin_S[inside_S], fine_S[inside_S])
        return {
            "edges": [_rounded(edge * std) for edge in edges.tolist()],
            "counts": amounts(counts),
            "below": amount(float(fine_S[middle_S < low].sum())),
            "above": amount(float(fine_S[middle_S > high].sum())),
        }

    def _groups(self, t: int) -> list[list[float]]:
        """[rows, mean label, 10%, 50% and 90% quantile of the predictions] of each group with rows."""
        mean, std, found = float(self.mean_T[t]), float(self.std_T[t]), []
        for q in range(GROUPS):
            n = float(self.predicted_TQS[t, q].sum())
            if n > 0:
                z = [quantile(self.predicted_TQS[t, q], _middles(), share) for share in (0.1, 0.5, 0.9)]
                values = [mean + std * each for each in (float(self.label_TQ[t, q]) / n, *z)]
                found.append([amount(n), *map(_rounded, values)])
        return found


def _bounds(labels: Tensor) -> Tensor:
    """The bounds between groups, at equal steps of the quantiles; ties leave groups empty."""
    if not len(labels):
        return torch.zeros(GROUPS - 1, dtype=torch.float64)
    shares = torch.arange(1, GROUPS, dtype=torch.float64) / GROUPS
    return torch.quantile(labels, shares)


def _bins(z: Tensor) -> Tensor:
    """The bin of each number, see `N_BINS`; log is five times as fast as torch.asinh on a CPU."""
    x = z.nan_to_num(nan=0.0).clamp(-LARGEST, LARGEST) / FINEST
    inside = torch.copysign((x.abs() + (x.square() + 1).sqrt()).log(), x)
    return (inside * ((N_BINS - 1) / (2 * WHOLE))).round().long() + N_BINS // 2


def _middles() -> Tensor:
    """(S,) the number in the middle of each bin."""
    steps = torch.arange(N_BINS, dtype=torch.float64) - N_BINS // 2
    return FINEST * (steps * (2 * WHOLE / (N_BINS - 1))).sinh()


def _rounded(value: float) -> float:
    """Six significant digits."""
    return float(f"{value:.{DIGITS}g}")
