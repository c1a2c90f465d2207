"""What a number of seeds can show, before a comparison starts and after it ended undecided."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import special

from mtl.comparison.statistics.paired import Array, satterthwaite
from mtl.console import counted

POWER, ALPHA = 0.8, 0.05
MOST_SEEDS = 50
"""More further seeds than this are not counted out; `MOST_SEEDS + 1` stands for them."""
ENOUGH = 10
"""A number of seeds that a plan of fewer is set beside."""
UNSURE = 0.8
"""The level of the interval of s from which the range of further seeds comes."""
FARTHEST = 35.0
"""Standard errors at which any test has found a difference; the noncentral t of more is of no use."""


def detectable(k: int, power: float = POWER, *, n_tasks: int = 1, n_arms: int = 1) -> float:
    """The true difference that k seeds find with this power, in standard deviations of the paired differences.

    The d that solves P(T'(k - 1, d sqrt(k)) > t(1 - alpha / 2, k - 1)) = power, with T' noncentral t. With more
    than one task or arm, alpha is 0.05 divided by both: the strictest step of Holm's correction.

    Raises:
        ValueError: one seed finds no difference.
    """
    if k < 2:
        raise ValueError("one seed shows no difference; a spread needs two or more")
    limit = special.stdtrit(k - 1, 1 - ALPHA / (2 * n_tasks * n_arms))
    return float(special.nctdtrinc(k - 1, 1 - power, limit) / np.sqrt(k))


def power_of(
    difference: float,
    k: Array,
    sd: float,
    rows: float = 0.0,
    n_units: int | None = None,
    alpha: float = ALPHA,
) -> Array:
    """The chance that k seeds find a true difference on the right side, for each number in `k`.

    Both tests of `Evidence` must pass, so that it is at most the smaller of their powers, which is returned.

    Args:
        difference: the true difference, positive.
        k: numbers of seeds, at least 2.
        sd: the standard deviation of the paired differences.
        rows: the rows' own standard error.
        n_units: rows or groups that were resampled.
        alpha: the level of the two-sided test.
    """
    se_seeds, df = sd / np.sqrt(k), k - 1.0
    found = _power(difference / se_seeds, df, alpha)
    if rows == 0:
        return found
    both = satterthwaite(se_seeds, df, np.full_like(se_seeds, rows), (n_units or 10**9) - 1.0)
    return np.minimum(found, _power(difference / np.hypot(se_seeds, rows), both, alpha))


def equivalence_power(
    k: int, margin_in_sd: float, difference_in_sd: float = 0.0, alpha: float = ALPHA
) -> float:
    """The chance that k seeds show two arms equivalent, whose true difference is `difference_in_sd`.

    P(|d| + t(1 - alpha, k - 1) s / sqrt(k) < margin), integrated over the chi distribution of s (Schuirmann 1987).

    Args:
        k: the number of seeds, at least 2.
        margin_in_sd: the margin in standard deviations of the paired differences.
        difference_in_sd: the true difference, in the same unit.
        alpha: the level of each of the two one-sided tests.
    """
    levels = (np.arange(4000) + 0.5) / 4000
    s = np.sqrt(special.chdtri(k - 1, levels) / (k - 1))
    room = np.maximum(margin_in_sd - special.stdtrit(k - 1, 1 - alpha) * s / np.sqrt(k), 0.0) * np.sqrt(k)
    shift = difference_in_sd * np.sqrt(k)
    return float(np.mean(special.ndtr(room - shift) - special.ndtr(-room - shift)))


def further_seeds(
    difference: float,
    k: int,
    sd: float,
    rows: float | None = None,
    n_units: int | None = None,
    alpha: float = ALPHA,
) -> tuple[int, int]:
    """How many more seeds an 80% chance to find `difference` needs, as a range, since s is known from k seeds only.

    The ends come from the 80% interval of the true standard deviation, s sqrt((k - 1) / chi2). `MOST_SEEDS + 1` stands
    for more than 50.
    """
    chi2 = special.chdtri(k - 1, np.array([(1 - UNSURE) / 2, (1 + UNSURE) / 2]))
    low, high = (sd * np.sqrt((k - 1) / chi2)).tolist()
    seeds = np.arange(k + 1, k + MOST_SEEDS + 1, dtype=np.float64)

    def first(spread: float) -> int:
        enough = power_of(difference, seeds, spread, rows or 0.0, n_units, alpha) >= POWER
        return int(np.argmax(enough)) + 1 if enough.any() else MOST_SEEDS + 1

    return first(low), first(high)


def rows_factor(
    difference: float, rows: float, n_units: int | None = None, alpha: float = ALPHA
) -> float | None:
    """How many times the test rows are needed if no number of seeds is enough; None if seeds can be enough.

    With endless seeds the standard error is `rows`, and it falls with the root of the number of rows.
    """
    if rows <= 0 or _power(difference / rows, (n_units or 10**9) - 1.0, alpha) >= POWER:
        return None
    needed = special.ndtri(1 - alpha / 2) + special.ndtri(POWER)
    return float(max(1.0, (needed * rows / difference) ** 2)) if difference > 0 else float("inf")


def plan_lines(
    k: int,
    margins: Mapping[str, float | None],
    spreads: Mapping[str, float | None] | None = None,
    n_arms: int = 1,
) -> list[str]:
    """What k seeds can show, for the plan that is printed before a comparison starts.

    Args:
        k: the number of seeds.
        margins: the margin of each task in the metric's unit, None where it has none.
        spreads: the standard deviation of the paired differences per task, where earlier runs tell it.
        n_arms: candidate arms.
    """
    if k < 2:
        return ["One seed shows the difference and no verdict: a spread needs two seeds or more."]
    d = detectable(k, n_tasks=len(margins), n_arms=n_arms)
    family = [counted(n, what) for n, what in ((len(margins), "task"), (n_arms, "candidate arm")) if n > 1]
    corrected = f", corrected for {' and '.join(family)}" if family else ""
    more = detectable(ENOUGH, n_tasks=len(margins), n_arms=n_arms)
    lines = [
        f"{counted(k, 'seed')} find a difference in {POWER:.0%} of comparisons if it is {_times(d)} times as large as "
        f"it varies from seed to seed{corrected}"
        + (f"; with {ENOUGH} seeds, {_times(more)} times is enough." if k < ENOUGH else ".")
    ]
    for task, margin in margins.items():
        spread = (spreads or {}).get(task)
        if spread:
            lines.append(f"{task}: with the spread of earlier runs, {spread:.3g}, that is {d * spread:.3g}.")
        if margin and spread:
            chance = equivalence_power(k, margin / spread, alpha=ALPHA / (len(margins) * n_arms))
            lines.append(
                f"{task}: equal arms are shown to be within {margin:g} in {chance:.0%} of comparisons."
            )
        elif margin:
            lines.append(f"{task}: {_margin_needed(k, margin, ALPHA / (len(margins) * n_arms))}")
    lines.append("Noise of the test rows comes on top; it does not fall with more seeds.")
    return lines


def _times(factor: float) -> str:
    return f"{factor:.1f}" if factor < 10 else f"{factor:.0f}"


def _margin_needed(k: int, margin: float, alpha: float) -> str:
    """The largest spread at which k seeds show equal arms to be within the margin."""
    low, high = 0.0, 1e4
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if equivalence_power(k, middle, alpha=alpha) < POWER else (low, middle)
    shown = f"equal arms are shown to be within {margin:g} in {POWER:.0%} of comparisons"
    return f"{shown} if the spread is at most {margin / high:.2g}."


def _power(nc: Array | float, df: Array | float, alpha: float) -> Array:
    """P(T'(df, nc) > t(1 - alpha / 2, df))."""
    limit = special.stdtrit(df, 1 - alpha / 2)
    return np.asarray(1 - special.nctdtr(df, np.minimum(nc, FARTHEST), limit))
