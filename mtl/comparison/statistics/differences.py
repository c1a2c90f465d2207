"""Two arms on one task: the paired difference over seeds, and what it says about new rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtl.comparison.statistics.paired import Array, Evidence, gather, rows_spread

LEVEL = 0.95
FEWEST_REPLICATES = 50
"""With fewer resamples of the test rows on which both arms are defined, the rows' part is unknown."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """One arm against another on one task; differences are oriented, so that + is better, in the metric's own unit.

    Args:
        n_seeds: pairs that were compared.
        mean: the metric of the arm, mean over the pairs; None without pairs.
        mean_against: that of the other arm.
        difference: their difference, + where the arm is better; None without pairs.
        sd: the standard deviation of the differences; None below two pairs.
        se_rows: what test rows add to the standard error; None if unknown.
        interval: 95%, for new seeds and new rows; None where the seeds have no spread.
        interval_seeds: 95%, for another seed on this test set; None where the seeds have no spread.
        p: the two-sided p-value; None without pairs.
        correlation: of the pairs (Pearson); None below three pairs or without spread.
        single: which side has one value for all seeds: `arm`, `against`, or None.
        missing: the seeds on which a side has no value.
        resampled: whether the split was drawn anew for each seed; there is no `interval_seeds` then.
        evidence: for p-values at other points.
    """

    n_seeds: int
    mean: float | None
    mean_against: float | None
    difference: float | None
    sd: float | None
    se_rows: float | None
    interval: Interval | None
    interval_seeds: Interval | None
    p: float | None
    correlation: float | None
    single: str | None
    missing: tuple[int, ...]
    resampled: bool
    evidence: Evidence | None

    @property
    def constant(self) -> bool:
        """Whether all of two or more differences are equal."""
        return self.sd == 0


def paired_difference(
    values: Sequence[float | None],
    against: Sequence[float | None],
    *,
    higher_is_better: bool,
    seeds: Sequence[int] | None = None,
    replicates: Sequence[Sequence[float]] | Array | None = None,
    against_replicates: Sequence[Sequence[float]] | Array | None = None,
    n_units: int | None = None,
    resampled: tuple[int, int] | None = None,
) -> Difference:
    """The paired difference of two arms over seeds (Student 1908), with the noise of test rows where it is known.

        d_s = +-(a_s - b_s),   se^2 = s^2 / k + u^2   (see `Evidence` and `rows_spread`)

    Nothing here covers other training rows, unless the split was drawn anew for each seed.

    Args:
        values: the metric of the arm on each of k seeds, None where it is undefined; one value stands for all seeds.
        against: that of the other arm, on the same seeds.
        higher_is_better: the direction of the metric.
        seeds: the names of the seeds; 0, 1, ... if not given.
        replicates: (k, R) or (1, R), the metric on R resamples of the test rows, the same in all runs.
        against_replicates: that of the other arm.
        n_units: test rows, or groups of them, that were resampled.
        resampled: (n_train, n_test) if the split was drawn anew for each seed: then Nadeau and Bengio's (2003) standard
            error is used, and no replicates.

    Raises:
        ValueError: the arms have different numbers of seeds or resamples.
    """
    a, b = _numbers(values, higher_is_better), _numbers(against, higher_is_better)
    single = _single_side(a, b)
    k = max(a.size, b.size)
    names = tuple(range(k)) if seeds is None or len(seeds) != k else tuple(seeds)
    there = np.isfinite(a) & np.isfinite(b)
    missing = tuple(seed for seed, ok in zip(names, there, strict=True) if not ok)
    if not there.any():
        return Difference(
            0, None, None, None, None, None, None, None, None, None, single, missing, bool(resampled), None
        )
    rows = None
    if replicates is not None and against_replicates is not None and not resampled:
        rows = _rows(replicates, against_replicates, there, n_units)
    ratio = resampled[1] / resampled[0] if resampled else None
    used_a, used_b = np.broadcast_to(a, (k,))[there], np.broadcast_to(b, (k,))[there]
    evidence = gather(used_a, used_b, None if rows is None else np.asarray(rows), n_units, ratio)
    sign = 1.0 if higher_is_better else -1.0
    return _told(evidence, sign * used_a, sign * used_b, single, missing)


def _told(evidence: Evidence, a: Array, b: Array, single: str | None, missing: tuple[int, ...]) -> Difference:
    """The numbers of the evidence as one flat record."""
    d, resampled = float(evidence.mean), evidence.ratio is not None
    spread = evidence.k > 1 and float(evidence.sd) > 0
    rows = None if evidence.rows is None else float(evidence.rows)
    return Difference(
        n_seeds=evidence.k,
        mean=float(a.mean()),
        mean_against=float(b.mean()),
        difference=d,
        sd=float(evidence.sd) if evidence.k > 1 else None,
        se_rows=rows,
        interval=_around(d, float(evidence.half(LEVEL))) if spread else None,
        interval_seeds=_around(d, float(evidence.half_seeds(LEVEL))) if spread and not resampled else None,
        p=float(evidence.p),
        correlation=_correlation(a, b) if single is None else None,
        single=single,
        missing=missing,
        resampled=resampled,
        evidence=evidence,
    )


def _numbers(values: Sequence[float | None], higher_is_better: bool) -> Array:
    """Oriented values, NaN where there is none."""
    sign = 1.0 if higher_is_better else -1.0
    return np.array([np.nan if v is None else sign * v for v in values], dtype=np.float64)


def _single_side(a: Array, b: Array) -> str | None:
    """Which side has one value for all seeds of the other."""
    if a.size == b.size:
        return None
    if a.size != 1 and b.size != 1:
        raise ValueError(f"values are paired by seed, but there are {a.size} and {b.size}")
    return "arm" if a.size == 1 else "against"


def _rows(
    replicates: Sequence[Sequence[float]] | Array,
    against: Sequence[Sequence[float]] | Array,
    there: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    n_units: int | None,
) -> float | None:
    """The rows' part of the standard error; None if too few resamples define the metric of all runs."""
    a, b = np.asarray(replicates, dtype=np.float64), np.asarray(against, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not {len(a), len(b)} <= {1, len(there)}:
        raise ValueError(f"replicates are (seeds, resamples), the same resamples: {a.shape} and {b.shape}")
    differences = np.broadcast_to(a - b, (len(there), a.shape[1]))[there]
    usable = np.isfinite(differences).all(0)
    if usable.sum() < FEWEST_REPLICATES or usable.mean() < 0.5:
        return None
    return float(rows_spread(differences[:, usable], n_units))


def _correlation(a: Array, b: Array) -> float | None:
    """Pearson's r of three or more pairs."""
    if a.size < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.clip(np.corrcoef(a, b)[0, 1], -1, 1))


def _around(middle: float, half: float) -> Interval:
    return middle - half, middle + half
