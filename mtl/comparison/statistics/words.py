"""Verdicts as sentences that somebody who knows the tasks and no statistics understands."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mtl.comparison.statistics.correction import name_of_correction
from mtl.comparison.statistics.delta_m import is_share
from mtl.comparison.statistics.differences import Difference, Interval
from mtl.comparison.statistics.power import ALPHA, MOST_SEEDS, POWER
from mtl.comparison.statistics.verdicts import (
    AHEAD,
    CANNOT_TELL,
    EQUIVALENT,
    IDENTICAL,
    SUPERIOR,
    WORSE,
    Verdict,
)
from mtl.console import counted

NEW_ROWS, SAME_ROWS = "new rows", "another seed, this test set"
NEW_SPLIT = "another split of rows like these"


@dataclass(frozen=True)
class Measure:
    """How a metric is written.

    Args:
        metric: its name.
        higher_is_better: its direction.
        unit: the unit of its values, or an empty text.
    """

    metric: str
    higher_is_better: bool = True
    unit: str = ""

    @property
    def points(self) -> bool:
        """Whether hundredths of the metric are called points."""
        return is_share(self.metric) and not self.unit

    def amount(self, value: float, decimals: int) -> str:
        """A difference with its unit: `2.3 points of accuracy`, `0.31 mm of mae`."""
        return f"{self.with_unit(value, decimals)} of {self.metric.replace('_', ' ')}"

    def with_unit(self, value: float, decimals: int) -> str:
        """A difference with its unit and without the metric's name: `2.3 points`, `0.31 mm`."""
        unit = " points" if self.points else f" {self.unit}" if self.unit else ""
        return f"{self.plain(value, decimals)}{unit}"

    def plain(self, value: float, decimals: int) -> str:
        """A difference without its unit."""
        text = f"{100 * value if self.points else value:.{decimals}f}"
        return text.lstrip("-") if not text.strip("-0.") else text

    def level(self, value: float, decimals: int) -> str:
        """The metric itself, with as many digits as its differences."""
        return f"{value:.{decimals + 2 if self.points else decimals}f}"

    def decimals(self, scale: float) -> int:
        """The decimals that show two digits of the uncertainty `scale`."""
        shown = abs(100 * scale if self.points else scale)
        if shown == 0 or not math.isfinite(shown):
            return 1 if self.points else 3
        return min(max(1 - math.floor(math.log10(shown)), 0), 9)


def sentence(
    task: str, arm: str, against: str, measure: Measure, verdict: Verdict, fresh: bool = False
) -> tuple[str, list[str]]:
    """A verdict as one short sentence in the metric's own units, and its details, each a clause.

    Args:
        task: its name.
        arm: the arm that is judged.
        against: the arm that it is compared with.
        measure: the metric.
        verdict: the verdict.
        fresh: whether the seeds are fresh ones, drawn after the arm was chosen.
    """
    d = verdict.difference
    if d.difference is None:
        return f"{task}: cannot tell {arm} from {against}: no seed has a value for both", []
    why = _why(verdict) if verdict.verdict == CANNOT_TELL else []
    ranges, notes = _ranges(measure, verdict), _notes(arm, against, d, fresh)
    return f"{task}: {_claim(arm, against, measure, verdict)}", [
        *why,
        *ranges,
        *notes,
        *_advice(measure, verdict),
    ]


def gain(measure: Measure, d: Difference) -> str:
    """A difference with its sign and unit, as `+0.35 points`; empty without pairs."""
    if d.difference is None:
        return ""
    shown = measure.with_unit(d.difference, measure.decimals(_scale(d)))
    return f"+{shown}" if d.difference > 0 else shown


def new_rows(d: Difference) -> str:
    """What the main interval of a difference is about."""
    return NEW_SPLIT if d.resampled else SAME_ROWS if d.se_rows is None else NEW_ROWS


def _claim(arm: str, against: str, measure: Measure, verdict: Verdict) -> str:
    """Who is better, by how much, from where to where, within which interval."""
    d = verdict.difference
    assert d.difference is not None
    assert d.mean is not None
    assert d.mean_against is not None
    n = measure.decimals(_scale(d))
    levels = f"({measure.level(d.mean_against, n)} -> {measure.level(d.mean, n)})"
    if verdict.verdict == IDENTICAL:
        level = measure.level(d.mean, n)
        name = measure.metric.replace("_", " ")
        return f"{arm} and {against} have the same {name} on every seed ({level} on average)"
    if verdict.verdict in (*SUPERIOR, WORSE):
        sign = 1 if verdict.verdict in SUPERIOR else -1
        but = ", but within the margin," if verdict.within_margin else ""
        head = f"{arm} is {verdict.verdict} {'of' if verdict.verdict == AHEAD else 'than'} {against}{but} by"
        return f"{head} {measure.amount(sign * d.difference, n)} {levels}{_interval(measure, d, n, sign)}"
    shown = measure.plain(d.difference, n)
    plus = "+" if d.difference > 0 and shown.strip("0.") else ""
    size = f"the difference is {plus}{measure.amount(d.difference, n)} {levels}{_interval(measure, d, n, 1)}"
    if verdict.verdict == EQUIVALENT:
        assert verdict.margin is not None
        margin = measure.with_unit(verdict.margin, measure.decimals(verdict.margin))
        return f"{arm} and {against} are equivalent within {margin}: {size}"
    return f"cannot tell {arm} from {against}: {size}"


def _scale(d: Difference) -> float:
    """The size that decides how many digits are shown: half the interval, or the difference itself."""
    half = (d.interval[1] - d.interval[0]) / 2 if d.interval else 0.0
    return half or abs(d.difference or 0.0)


def _interval(measure: Measure, d: Difference, n: int, sign: int) -> str:
    if d.interval is None:
        return ""
    return f", 95% interval {_from_to(measure, d.interval, n, sign)} for {new_rows(d)}"


def _from_to(measure: Measure, interval: Interval, n: int, sign: int) -> str:
    low, high = sorted(sign * end for end in interval)
    return f"{measure.plain(low, n)} to {measure.plain(high, n)}"


def _ranges(measure: Measure, verdict: Verdict) -> list[str]:
    """The interval over seeds alone, where it looks different."""
    d = verdict.difference
    n, sign = measure.decimals(_scale(d)), -1 if verdict.verdict == WORSE else 1
    if d.interval is None or d.interval_seeds is None or new_rows(d) != NEW_ROWS:
        return []
    of_seeds = _from_to(measure, d.interval_seeds, n, sign)
    if of_seeds == _from_to(measure, d.interval, n, sign):
        return []
    return [f"for {SAME_ROWS}: {of_seeds}"]


def _notes(arm: str, against: str, d: Difference, fresh: bool) -> list[str]:
    """What a reader must know of the pairs: few of them, missing, equal, or one value against many."""
    notes = []
    if fresh:
        notes.append(f"{d.n_seeds} fresh seeds")
    if d.n_seeds == 1:
        notes.append("one seed shows no spread")
    elif d.constant and d.difference:
        notes.append(f"the same difference on all {d.n_seeds} seeds")
    if d.single:
        notes.append(f"{arm if d.single == 'arm' else against} has one value for all seeds")
    if d.missing:
        notes.append(f"no value on {'seed' if len(d.missing) == 1 else 'seeds'} {_listed(d.missing)}")
    return notes


def _why(verdict: Verdict) -> list[str]:
    """Why a difference that looks large is no verdict."""
    if verdict.collapsed:
        parts = [
            f"{arm} collapsed on {'seed' if len(seeds) == 1 else 'seeds'} {_listed(seeds)}"
            for arm, seeds in verdict.collapsed.items()
        ]
        return [" and ".join(parts)]
    p = verdict.difference.p
    if p is not None and p <= ALPHA and verdict.n_tasks * verdict.n_arms > 1:
        many = [counted(n, what) for n, what in ((verdict.n_tasks, "task"), (verdict.n_arms, "arm")) if n > 1]
        method = name_of_correction(verdict.n_tasks) if verdict.n_tasks > 1 else "Bonferroni"
        return [f"chance alone gives as much among {' and '.join(many)} ({method})"]
    return []


def _advice(measure: Measure, verdict: Verdict) -> list[str]:
    """What would tell: more seeds, or more rows."""
    if verdict.target is None or (verdict.seeds_needed is None and verdict.rows_needed is None):
        return []
    size = measure.amount(verdict.target, measure.decimals(verdict.target))
    if verdict.rows_needed is not None:
        times = (
            f"about {_rounded(verdict.rows_needed)} times as many"
            if verdict.rows_needed < 1000
            else "far more"
        )
        return [f"more seeds cannot tell a difference of {size}, {times} test rows can"]
    low, high = verdict.seeds_needed or (0, 0)
    if low > MOST_SEEDS:
        range_ = f"more than {MOST_SEEDS}"
    else:
        end = f"more than {MOST_SEEDS}" if high > MOST_SEEDS else str(high)
        range_ = str(low) if low == high else f"{low} to {end}"
    seeds = "seed" if range_ == "1" else "seeds"
    return [f"a true difference of {size} needs {range_} further {seeds} to be found with {POWER:.0%} power"]


def _rounded(times: float) -> str:
    """A rough factor: two digits below ten, one from there on."""
    return f"{times:.2g}" if times < 10 else f"{float(f'{times:.1g}'):,.0f}"


def _listed(seeds: tuple[int, ...]) -> str:
    return ", ".join(str(seed) for seed in seeds)
