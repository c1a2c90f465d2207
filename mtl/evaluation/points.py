"""Counts as the plain values of a report: tables of classes, confusions, and the points of curves.

Shapes: C classes, S score bins, G bins of probability.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

POINTS = 200
"""Most points of a curve."""
MOST_SHOWN = 30
"""Most classes whose whole matrix of confusions is kept; of more, the most frequent confusions are."""
MOST_CONFUSIONS = 50
DIGITS = 6


def amount(value: float) -> float:
    """A number of rows, which is whole unless rows have weights."""
    return int(value) if value == int(value) else round(value, DIGITS)


def amounts(counts: Tensor) -> list[Any]:
    """The same for each number of a tensor."""
    return [amounts(row) for row in counts] if counts.ndim > 1 else [amount(x) for x in counts.tolist()]


def ratios(counts: Tensor, totals: Tensor) -> list[float | None]:
    """counts / totals, None where the total is 0."""
    pairs = zip(counts.tolist(), totals.tolist(), strict=True)
    return [round(part / whole, DIGITS) if whole else None for part, whole in pairs]


def by_output(true_C: Tensor, predicted_C: Tensor, hits_C: Tensor) -> dict[str, Any]:
    """Rows, precision, recall and F1 of each class or label."""
    return {
        "n": amount(float(true_C.sum())),
        "support": amounts(true_C),
        "predicted": amounts(predicted_C),
        "precision": ratios(hits_C, predicted_C),
        "recall": ratios(hits_C, true_C),
        "f1": ratios(2 * hits_C, true_C + predicted_C),
    }


def confusions(matrix_CC: Tensor) -> dict[str, Any]:
    """`confusion`, the matrix of a few classes; `confusions`, the most frequent [true, predicted, rows] of many."""
    if len(matrix_CC) <= MOST_SHOWN:
        return {"confusion": amounts(matrix_CC)}
    wrong = matrix_CC.clone()
    wrong.fill_diagonal_(0)
    values, places = wrong.flatten().sort(descending=True, stable=True)
    shown = zip(places[:MOST_CONFUSIONS].tolist(), values[:MOST_CONFUSIONS].tolist(), strict=True)
    return {"confusions": [[*divmod(k, len(wrong)), amount(rows)] for k, rows in shown if rows]}


def reliability(sums_3G: Tensor) -> list[list[float]]:
    """[rows, mean probability, share of hits] of each bin with rows, from `calibration_sums`."""
    return [
        [amount(n), round(p / n, DIGITS), round(hits / n, DIGITS)]
        for n, p, hits in sums_3G.double().T.tolist()
        if n > 0
    ]


def curve(no_S: Tensor, yes_S: Tensor) -> dict[str, list[float]] | None:
    """Recall and precision from the highest threshold down, thinned evenly along the recall; None if a side is empty.

    Args:
        no_S: the histogram of the scores of negative rows.
        yes_S: that of positive rows.
    """
    if not (no_S.any() and yes_S.any()):
        return None
    seen_S = ((no_S + yes_S) > 0).flip(0)
    hits = yes_S.flip(0).cumsum(0)[seen_S].numpy()
    answers = (no_S + yes_S).flip(0).cumsum(0)[seen_S].numpy()
    recall, precision = hits / hits[-1], hits / answers
    wanted = np.searchsorted(recall, np.linspace(recall[0], 1, POINTS - 1))
    kept = np.unique([0, *wanted])
    return {
        "recall": [round(x, 5) for x in recall[kept].tolist()],
        "precision": [round(x, 5) for x in precision[kept].tolist()],
    }


def quantile(histogram_S: Tensor, middles_S: Tensor, share: float) -> float:
    """The middle of the bin in which a quantile lies."""
    below_S = histogram_S.cumsum(0)
    k = int(torch.searchsorted(below_S, share * below_S[-1]))
    return float(middles_S[min(k, len(middles_S) - 1)])
