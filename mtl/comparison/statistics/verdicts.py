"""Differences become verdicts: one arm against another on all tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtl.comparison.statistics.correction import corrected
from mtl.comparison.statistics.differences import Difference
from mtl.comparison.statistics.paired import Array
from mtl.comparison.statistics.power import ALPHA, further_seeds, rows_factor

BETTER, AHEAD, WORSE, EQUIVALENT, CANNOT_TELL, IDENTICAL = (
    "better",
    "ahead",
    "worse",
    "equivalent",
    "cannot tell",
    "identical",
)
"""`ahead` is `better` by seeds among which the arm was chosen from several, so that fresh seeds have to confirm it."""
SUPERIOR = (BETTER, AHEAD)


@dataclass(frozen=True)
class Verdict:
    """What is said of one arm against another on one task.

    Args:
        difference: the numbers.
        verdict: `better`, `ahead`, `worse`, `equivalent`, `cannot tell` or `identical`.
        p_adjusted: the two-sided p-value, corrected for tasks and arms; None without pairs.
        margin: the largest difference that does not matter, in the metric's unit; None if there is none.
        within_margin: whether the difference is shown to be smaller than the margin; it can be `better` all the same.
        collapsed: arm -> seeds, where an arm collapsed on some seeds and not on all: no verdict then.
        target: the difference that `seeds_needed` and `rows_needed` are about.
        seeds_needed: how many more seeds an 80% chance of a verdict needs, as a range; 51 stands for more than 50.
        rows_needed: how many times the test rows are needed, where no number of seeds is enough.
        n_tasks: tasks that were corrected for.
        n_arms: candidate arms that were corrected for.
    """

    difference: Difference
    verdict: str
    p_adjusted: float | None
    margin: float | None
    within_margin: bool
    collapsed: Mapping[str, tuple[int, ...]]
    target: float | None
    seeds_needed: tuple[int, int] | None
    rows_needed: float | None
    n_tasks: int
    n_arms: int


def decided(mean: Array, p: Array, p_equivalent: Array) -> npt.NDArray[np.str_]:
    """Verdicts from corrected p-values, elementwise: `better` and `worse` come before `equivalent`.

    Args:
        mean: (...), oriented differences.
        p: (...), two-sided p-values.
        p_equivalent: (...), p-values of the two one-sided tests; 1 without a margin.
    """
    different = np.where(mean > 0, BETTER, WORSE)
    alike = np.where(p_equivalent <= ALPHA, EQUIVALENT, CANNOT_TELL)
    return np.where(p <= ALPHA, different, alike)


def verdicts(
    differences: Mapping[str, Difference],
    margins: Mapping[str, float | None] | None = None,
    collapsed: Mapping[str, Mapping[str, tuple[int, ...]]] | None = None,
    n_arms: int = 1,
    chosen: bool = False,
) -> dict[str, Verdict]:
    """The verdict of each task, corrected for the number of tasks and of candidate arms.

    Superiority and equivalence are corrected each for itself (see `corrected`). A task without a verdict counts as a
    test with p = 1.

    Args:
        differences: task -> the paired difference.
        margins: task -> the largest difference that does not matter, in the metric's unit.
        collapsed: task -> arm -> the seeds on which it collapsed, where these are not all seeds.
        n_arms: candidate arms that are compared with the same baseline.
        chosen: whether the arm is one of several and these seeds choose among them: `ahead` stands for `better` then.

    Raises:
        ValueError: a margin is not positive.
    """
    of_margin = {task: (margins or {}).get(task) for task in differences}
    if any(margin is not None and not margin > 0 for margin in of_margin.values()):
        raise ValueError(f"margins are positive numbers: {of_margin}")
    broken = {task: dict((collapsed or {}).get(task, {})) for task in differences}
    p = [1.0 if d.p is None or broken[task] else d.p for task, d in differences.items()]
    p_alike = [_p_equivalent(d, of_margin[task], broken[task]) for task, d in differences.items()]
    both = zip(differences.items(), corrected(p, n_arms), corrected(p_alike, n_arms), strict=True)
    return {
        task: _verdict(d, q, q_alike, of_margin[task], broken[task], len(differences), n_arms, chosen)
        for (task, d), q, q_alike in both
    }


def _p_equivalent(
    difference: Difference, margin: float | None, broken: Mapping[str, tuple[int, ...]]
) -> float:
    if margin is None or difference.evidence is None or broken:
        return 1.0
    return float(difference.evidence.p_equivalent(margin))


def _verdict(
    difference: Difference,
    p: float,
    p_alike: float,
    margin: float | None,
    broken: dict[str, tuple[int, ...]],
    n_tasks: int,
    n_arms: int,
    chosen: bool,
) -> Verdict:
    d = difference.difference
    if d is None or difference.n_seeds < 2 or broken:
        verdict = CANNOT_TELL
    elif d == 0 and difference.constant:
        verdict = IDENTICAL
    else:
        verdict = str(decided(np.asarray(d), np.asarray(p), np.asarray(p_alike)))
    if verdict == BETTER and chosen:
        verdict = AHEAD
    alpha = ALPHA * (difference.p / p if difference.p and difference.p < p < 1 else 1 / (n_tasks * n_arms))
    target, seeds, rows = None, None, None
    if verdict == CANNOT_TELL and not broken:
        target, seeds, rows = _needed(difference, margin, alpha)
    return Verdict(
        difference=difference,
        verdict=verdict,
        p_adjusted=None if difference.p is None else p,
        margin=margin,
        within_margin=verdict in (*SUPERIOR, WORSE, EQUIVALENT) and p_alike <= ALPHA,
        collapsed=broken,
        target=target,
        seeds_needed=seeds,
        rows_needed=rows,
        n_tasks=n_tasks,
        n_arms=n_arms,
    )


def _needed(
    difference: Difference, margin: float | None, alpha: float
) -> tuple[float | None, tuple[int, int] | None, float | None]:
    """The difference to be found, and the range of further seeds, or how many times the rows, that it needs.

    The difference is the one observed, or the margin if that is larger: a smaller one would not matter. A power at the
    observed difference is a way to plan, not a second look at the p-value (Hoenig and Heisey 2001).
    """
    evidence, d = difference.evidence, difference.difference
    if evidence is None or d is None or not difference.sd:
        return None, None, None
    target = max(abs(d), margin or 0.0)
    if target == 0:
        return None, None, None
    if evidence.ratio is not None:  # further splits of the same rows do not shrink n_test / n_train
        return target, None, None
    sd, k, rows, n = difference.sd, difference.n_seeds, difference.se_rows, evidence.n_units
    factor = rows_factor(target, rows or 0.0, n, alpha)
    return target, None if factor else further_seeds(target, k, sd, rows, n, alpha), factor
