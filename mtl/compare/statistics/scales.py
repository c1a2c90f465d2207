"""What a metric's name says about its scale: a share of one, an error, or something with a zero inside its range."""

from __future__ import annotations

from collections.abc import Sequence

SHARES = ("accuracy", "f1", "auroc", "average_precision", "precision", "recall", "specificity", "iou", "dice")
"""Scores from 0 to 1; a name that ends in one of them, as `macro_f1` does, is one too."""
SIGNED = (
    "r2",
    "kappa",
    "correlation",
    "pearson",
    "spearman",
    "matthews",
    "mcc",
    "bias",
    "likelihood",
    "skill",
)
"""Metrics that can be zero or negative, so that a share of them means nothing."""


def is_share(metric: str) -> bool:
    """Whether a metric is a score from 0 to 1, so that a hundredth of it is a point."""
    return metric.endswith(SHARES)


def no_ratio(metric: str, higher_is_better: bool, values: Sequence[float]) -> str | None:
    """Why a change of a metric cannot be told as a share of it; None if it can.

    Args:
        metric: its name.
        higher_is_better: its direction.
        values: what the single-task arm reached on each seed.
    """
    if any(word in metric for word in SIGNED):
        return f"{metric} can be zero or negative"
    if not values:
        return f"{metric} has no single-task value"
    mean = sum(values) / len(values)
    sd = (sum((v - mean) ** 2 for v in values) / max(len(values) - 1, 1)) ** 0.5
    if mean <= 3 * sd or mean <= 0:
        return f"{metric} of the single-task networks is near zero"
    if higher_is_better and max(values) > 1:
        return f"{metric} is not known to be a share of one"
    return None
