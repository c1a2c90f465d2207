"""delta_m: the mean relative change against single-task networks, as one number, where a metric's scale allows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class DeltaM:
    """The mean relative change over tasks, in percent; + is better.

    Args:
        by_score: with each metric as it is; None if refused.
        by_error: with 1 - score in place of a score; None if refused.
        helped: tasks on which the arm's mean is better than the single-task mean.
        hurt: tasks on which it is worse.
        reason: why it is refused; None if it is not.
    """

    by_score: float | None
    by_error: float | None
    helped: tuple[str, ...]
    hurt: tuple[str, ...]
    reason: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether both forms say the same: only then the number means more than its scale."""
        return self.by_score is not None and self.by_error is not None and self.by_score * self.by_error > 0

    def sentence(self, arm: str) -> str:
        """What the number says of an arm; a trade where its two forms disagree."""
        if self.by_score is None or self.by_error is None:
            return f"delta_m has no meaning here: {self.reason}"
        if self.agrees:
            both = f"{self.by_score:+.2f}% by score and {self.by_error:+.2f}% by error"
            return f"delta_m of {arm} is {both}, the mean relative change over tasks"
        if not self.helped or not self.hurt:
            return f"delta_m of {arm} is zero"
        helped, hurt = _all_of(self.helped), _all_of(self.hurt)
        return f"a trade by the means alone: {arm} is above in {helped}, and below in {hurt}"


def delta_m(
    values: Mapping[str, Sequence[float | None]],
    single: Mapping[str, Sequence[float | None]],
    metrics: Mapping[str, tuple[str, bool]],
    weights: Mapping[str, float] | None = None,
) -> DeltaM:
    """The mean over tasks of the signed relative change against the single-task mean over seeds.

        delta_m = 100 * sum_t w_t (-1)^(l_t) (M_t - S_t) / S_t / sum_t w_t

    l_t is 1 where less is better (Vandenhende et al. 2021, "Multi-Task Learning for Dense Prediction Tasks: A Survey",
    eq. 14). `by_error` puts 1 - M and 1 - S in place of a score from 0 to 1, since a rise from 0.98 to 0.99 is 1% of
    the score and half of the error. It describes and decides nothing: it has no interval.

    Args:
        values: task -> the metric of the arm per seed.
        single: task -> that of the single-task arm.
        metrics: task -> (name of the metric, whether higher is better).
        weights: task -> weight; 1 if not given.
    """
    means = {task: (_there(values[task]), _there(single[task])) for task in metrics}
    changes = {
        task: (1 if higher else -1) * (_mean(means[task][0]) - _mean(means[task][1]))
        for task, (_, higher) in metrics.items()
        if all(means[task])
    }
    helped = tuple(task for task, change in changes.items() if change > 0)
    hurt = tuple(task for task, change in changes.items() if change < 0)
    for task, (metric, higher) in metrics.items():
        reason = no_ratio(metric, higher, means[task][1])
        if reason is None and not means[task][0]:
            reason = f"{metric} has no value"
        if reason is None and higher and _mean(means[task][1]) >= 1:
            reason = f"{metric} of the single-task networks is perfect"
        if reason:
            return DeltaM(None, None, helped, hurt, f"{task}: {reason}")
    share = {task: weights[task] if weights else 1.0 for task in metrics}
    total = sum(share.values())
    if total <= 0:
        return DeltaM(None, None, helped, hurt, "all weights are zero")
    by_score = by_error = 0.0
    for task, (_, higher) in metrics.items():
        base = _mean(means[task][1])
        by_score += share[task] * changes[task] / base
        by_error += share[task] * changes[task] / (1 - base if higher else base)
    return DeltaM(100 * by_score / total, 100 * by_error / total, helped, hurt)


def _there(values: Sequence[float | None]) -> list[float]:
    return [v for v in values if v is not None]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _all_of(names: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
