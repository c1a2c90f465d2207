"""Tasks and arms as plain values, and the comparison of two arms over all tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from mtl.comparison.statistics.collapse import named
from mtl.comparison.statistics.differences import Difference, paired_difference
from mtl.comparison.statistics.paired import Array
from mtl.comparison.statistics.verdicts import Verdict, verdicts
from mtl.comparison.statistics.words import Measure, sentence

Role = Literal["single", "candidate", "control", "reference"]


@dataclass(frozen=True)
class Task:
    """A task of a comparison.

    Args:
        metric: the name of its headline metric.
        higher_is_better: the direction of the metric.
        unit: the unit of the metric, or an empty text.
        margin: the largest difference that does not matter, in the metric's unit; None if there is none.
        weight: its weight in delta_m and in the choice of the leading arm.
        constant: the metric of the best constant answer, if known; it helps to find runs that collapsed.
    """

    metric: str
    higher_is_better: bool = True
    unit: str = ""
    margin: float | None = None
    weight: float = 1.0
    constant: float | None = None

    @property
    def measure(self) -> Measure:
        """How the metric is written."""
        return Measure(self.metric, self.higher_is_better, self.unit)


@dataclass(frozen=True)
class Arm:
    """An arm of a comparison and its results.

    Args:
        role: `single` (one network per task), `candidate` (shares), `control` (shares with permuted labels of the other
            tasks: the sterile arm) or `reference` (no network of the comparison).
        values: task -> the metric per seed, None where it is undefined; one value if it stands for all seeds.
        replicates: task -> (seeds, R), the metric on R resamples of the test rows, the same in all arms.
        control: the sterile arm of a candidate; the only control if not given.
        what: what the arm is, for the headline; its name if not given.
    """

    role: Role
    values: Mapping[str, Sequence[float | None]]
    replicates: Mapping[str, Sequence[Sequence[float]] | Array] = field(default_factory=dict)
    control: str | None = None
    what: str = ""


@dataclass(frozen=True)
class Pairs:
    """How the seeds of two arms are paired.

    Args:
        seeds: the seeds of the runs.
        n_units: test rows (or groups) that were resampled, of all tasks or per task; None if unknown.
        resampled: (n_train, n_test) if the split was drawn anew for each seed.
    """

    seeds: tuple[int, ...]
    n_units: int | Mapping[str, int] | None = None
    resampled: tuple[int, int] | None = None

    def difference(self, name: str, task: Task, arm: Arm, against: Arm) -> Difference | None:
        """The paired difference of two arms on a task; None if one of them has no results for it."""
        if not arm.values.get(name) or not against.values.get(name):
            return None
        return paired_difference(
            arm.values[name],
            against.values[name],
            higher_is_better=task.higher_is_better,
            seeds=self.seeds,
            replicates=arm.replicates.get(name),
            against_replicates=against.replicates.get(name),
            n_units=self.n_units.get(name) if isinstance(self.n_units, Mapping) else self.n_units,
            resampled=self.resampled,
        )


@dataclass(frozen=True)
class Comparison:
    """One arm against another on one task, with its sentence and the details of it."""

    arm: str
    against: str
    task: str
    verdict: Verdict
    words: str
    details: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """The entry of compare.json; differences and intervals are oriented, so that + is better."""
        d, v = self.verdict.difference, self.verdict
        return {
            "arm": self.arm,
            "against": self.against,
            "task": self.task,
            "difference": d.difference,
            "interval": pair(d.interval),
            "interval_seeds": pair(d.interval_seeds),
            "p": d.p,
            "p_adjusted": v.p_adjusted,
            "verdict": v.verdict,
            "words": self.words,
            "details": list(self.details),
            "sd": d.sd,
            "se_rows": d.se_rows,
            "correlation": d.correlation,
            "seeds_needed": pair(v.seeds_needed),
            "n_seeds": d.n_seeds,
        }


@dataclass(frozen=True)
class Bench:
    """The arms of one round of seeds, and how they are compared.

    Args:
        tasks: task -> metric and margin.
        arms: arm -> results.
        pairs: how seeds are paired.
        fresh: whether the seeds are fresh ones, for a confirmation.
    """

    tasks: Mapping[str, Task]
    arms: Mapping[str, Arm]
    pairs: Pairs
    fresh: bool = False

    @cached_property
    def collapses(self) -> dict[str, dict[str, list[int]]]:
        """Task -> arm -> the seeds on which it collapsed."""
        found = {}
        for name, task in self.tasks.items():
            values = {a: arm.values[name] for a, arm in self.arms.items() if name in arm.values}
            found[name] = named(
                values, self.pairs.seeds, higher_is_better=task.higher_is_better, constant=task.constant
            )
        return found

    def compared(self, arm: str, against: Mapping[str, str], n_arms: int = 1) -> dict[str, Comparison]:
        """Task -> the comparison of an arm with another one, which may differ from task to task.

        Args:
            arm: the arm.
            against: task -> the other arm.
            n_arms: the candidates that the arm is one of; if there are several, none is called better by these seeds.
        """
        differences: dict[str, Difference] = {}
        for name, task in self.tasks.items():
            other = against.get(name)
            if other is not None and other != arm and arm in self.arms and other in self.arms:
                difference = self.pairs.difference(name, task, self.arms[arm], self.arms[other])
                if difference is not None:
                    differences[name] = difference
        collapses = self.collapses
        broken = {
            name: {a: tuple(collapses[name][a]) for a in (arm, against[name]) if a in collapses[name]}
            for name in differences
        }
        margins = {n: t.margin for n, t in self.tasks.items()}
        judged = verdicts(differences, margins, broken, n_arms, chosen=n_arms > 1)
        found = {}
        for name, verdict in judged.items():
            measure, other = self.tasks[name].measure, against[name]
            words, details = sentence(name, arm, other, measure, verdict, self.fresh)
            found[name] = Comparison(arm, other, name, verdict, words, tuple(details))
        return found

    def spreads(self) -> dict[str, float]:
        """Task -> the standard deviation over seeds within arms, pooled."""
        found = {}
        for name in self.tasks:
            squares, df = 0.0, 0
            for arm in self.arms.values():
                own = [v for v in arm.values.get(name, ()) if v is not None]
                middle = sum(own) / len(own) if own else 0.0
                squares += sum((v - middle) ** 2 for v in own)
                df += max(len(own) - 1, 0)
            found[name] = float((squares / df) ** 0.5) if df else 0.0
        return found


def pair(ends: tuple[float, float] | None) -> list[float] | None:
    """An interval as JSON has it."""
    return None if ends is None else list(ends)
