"""Runs that collapsed: far below their own arm, as ordinary noise is not.

Shapes: ... tasks side by side, A arms, K seeds. Everything is oriented: more is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy import special

from mtl.comparison.statistics.paired import Array

NOISE, AT_CONSTANT = 1e-3, 1e-2
"""Chance of naming a run of normal noise, per task: far below the others, and not better than one constant answer."""
FAR, NEAR = 6.0, 5.0
"""The fewest scales of a gap for each of these, since noise may have longer tails than the normal has."""
LOST = 0.5
"""A run that collapsed lost at least this share of what its arm gains over the constant answer, where that is known."""
CONSISTENT = 1.4826
"""The median absolute deviation times this is the standard deviation of normal noise."""

Flags = npt.NDArray[np.bool_]


def collapsed(values: Array, constant: float | None = None) -> Flags:
    """Which runs of a task collapsed: (..., A, K) -> (..., A, K) bool.

    The seeds of an arm are split into a lower and an upper part. The lower part collapsed if the gap between both is
    more than t scales, where

        scale^2 = max(s_up^2, (df_up s_up^2 + sum_b df_b s_b^2) / (df_up + sum_b df_b)),

    s_up is the standard deviation within the upper part with df_up degrees of freedom, s_b that of another arm, and t
    the quantile of Student's t at 0.001 / (number of runs), at least 6: the test of a deleted residual for an outlier.
    Several outliers hide each other in s_b (Rosner 1983). Therefore a first pass takes the median absolute deviation
    for it, and a second one the standard deviation of the runs that the first one left.

    Without a constant answer to compare with, at most half of an arm can collapse, and two seeds must be left, since
    otherwise the others may be the exception. With one, a run that kept half of its gain over it did not collapse; a
    run that is no better than it needs the level 0.01 and 5 scales only, and all but one seed may be so. A whole arm
    never collapses: it is worse. No scale is below the smallest step of a coarse metric.

    Args:
        values: oriented metrics, NaN where a run has none.
        constant: the oriented metric of the best constant answer, if known.
    """
    far = _flags(values, *_robust(values), constant)
    return _flags(values, *_plain(np.where(far, np.nan, values)), constant)


def _flags(values: Array, variance: Array, df_of: Array, constant: float | None) -> Flags:
    """As `collapsed`, with the variance of each arm's noise and its degrees of freedom: both (..., A)."""
    flags = np.zeros(values.shape, dtype=bool)
    pooled = np.sort(values.reshape(*values.shape[:-2], -1), axis=-1)
    n_runs = np.isfinite(pooled).sum(-1)
    step = _smallest_step(pooled)
    for arm in range(values.shape[-2]):
        others = [b for b in range(values.shape[-2]) if b != arm]
        rest, df_rest = (variance * df_of)[..., others].sum(-1), df_of[..., others].sum(-1)
        ordered = np.sort(values[..., arm, :], axis=-1)
        for m in range(1, values.shape[-1]):
            found = _fell(ordered, m, rest, df_rest, step, n_runs, constant)
            flags[..., arm, :] |= found[..., None] & (values[..., arm, :] <= ordered[..., m - 1, None])
    return flags


def _fell(
    ordered: Array,
    m: int,
    rest: Array,
    df_rest: Array,
    step: Array,
    n_runs: npt.NDArray[np.intp],
    constant: float | None,
) -> Flags:
    """Whether the m lowest values of an arm collapsed: (..., K) ascending, NaN last -> (...) bool."""
    n = np.isfinite(ordered).sum(-1)
    low, upper = ordered[..., m - 1], ordered[..., m:]
    centre, df_up = _mean(upper), np.maximum(n - m - 1, 0)
    squares = _mean(np.square(upper - centre[..., None])) * (n - m)
    df = df_up + df_rest
    scale = np.sqrt(np.maximum(squares / np.maximum(df_up, 1), (squares + rest) / np.maximum(df, 1e-9)))
    if (
        constant is not None
    ):  # where healthy runs are equal, the distance to the constant answer gives a scale
        step = np.minimum(step, np.maximum(centre - constant, 0) / 20)
    scales = (upper[..., 0] - low) / np.maximum(np.maximum(scale, step), 1e-300)
    found = (scales > np.maximum(_limit(NOISE, n_runs, df), FAR)) & (2 * m <= n) & (n - m >= 2)
    if constant is not None:
        found &= low <= constant + (1 - LOST) * (centre - constant)
        near = scales > np.maximum(_limit(AT_CONSTANT, n_runs, df), NEAR)
        found |= near & (low <= constant) & (upper[..., 0] > constant)
    return np.asarray(found & (df > 0) & (n > m))


def named(
    values: Mapping[str, Sequence[float | None]],
    seeds: Sequence[int],
    *,
    higher_is_better: bool,
    constant: float | None = None,
) -> dict[str, list[int]]:
    """The seeds on which each arm collapsed on one task; arms without any are left out.

    Args:
        values: arm -> the metric per seed, None where it is undefined; arms with a single value are not looked at.
        seeds: the seeds of the runs.
        higher_is_better: the direction of the metric.
        constant: the metric of the best constant answer, if known.
    """
    sign = 1.0 if higher_is_better else -1.0
    arms = [arm for arm, own in values.items() if len(own) == len(seeds) and len(seeds) > 1]
    if not arms:
        return {}
    table = np.array([[np.nan if v is None else sign * v for v in values[arm]] for arm in arms])
    flags = collapsed(table, None if constant is None else sign * constant)
    return {
        arm: [seed for seed, flag in zip(seeds, row, strict=True) if flag]
        for arm, row in zip(arms, flags, strict=True)
        if row.any()
    }


def _plain(values: Array) -> tuple[Array, Array]:
    """The variance of each arm, and its degrees of freedom: both (..., A)."""
    df = np.maximum(np.isfinite(values).sum(-1) - 1.0, 0.0)
    squares = _mean(np.square(values - _mean(values)[..., None])) * (df + 1)
    return np.asarray(squares / np.maximum(df, 1)), df


def _robust(values: Array) -> tuple[Array, Array]:
    """The squared, scaled median absolute deviation of each arm, and its degrees of freedom: both (..., A)."""
    n = np.isfinite(values).sum(-1)
    centre = _median(np.sort(values, axis=-1), n)
    away = np.sort(np.abs(values - centre[..., None]), axis=-1)
    return np.square(CONSISTENT * _median(away, n)), np.maximum(n - 1, 0) / 2


def _median(ordered: Array, n: npt.NDArray[np.intp]) -> Array:
    """The median of the first n of each ordered row; 0 if there is none."""
    low = np.take_along_axis(ordered, np.maximum((n - 1) // 2, 0)[..., None], -1)[..., 0]
    high = np.take_along_axis(ordered, np.minimum(n // 2, ordered.shape[-1] - 1)[..., None], -1)[..., 0]
    return np.where(n > 0, (low + np.where(n > 1, high, low)) / 2, 0.0)


def _mean(values: Array) -> Array:
    """The mean of what is there; 0 if nothing is."""
    there = np.isfinite(values)
    total = np.where(there, values, 0.0).sum(-1)
    return np.asarray(total / np.maximum(there.sum(-1), 1))


def _smallest_step(ordered: Array) -> Array:
    """The smallest positive difference of ordered values; infinite if all are equal."""
    steps = np.diff(ordered, axis=-1)
    return np.asarray(np.where(steps > 0, steps, np.inf).min(-1))


def _limit(level: float, n_runs: npt.NDArray[np.intp], df: Array) -> Array:
    """How many scales a gap must have."""
    return np.asarray(special.stdtrit(np.maximum(df, 0.5), 1 - level / np.maximum(n_runs, 1)))
