"""Shows a sweep to a person: its plan, a bar or a line for each trial, and its outcome."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import Any

from mtl.commands.compare.bars import Bars, Pace
from mtl.comparison.processes.pool import Report
from mtl.console import complain, counted, number, percent, say, table
from mtl.recipe.keys.tune import Range
from mtl.tuning.outcome import BEST, FOUND, TABLE, Outcome, Trial
from mtl.tuning.request import Announced
from mtl.tuning.space import decoded

SHOWN_NOTICES = 6
SHOWN_TRIALS = 20
"""Most trials in the table, the best first; trials.csv has all."""


class TuneConsole:
    """Prints the plan of a sweep before it starts, its progress, and its outcome.

    Args:
        quiet: print only the outcome.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bars = Bars("all trials")
        self._pace = Pace(0, 1)

    def begins(self, announced: Announced) -> None:
        """Print what is tried, by what it is judged, and where it is kept."""
        if self.quiet:
            return
        asked = announced.asked
        for line in announced.notices[:SHOWN_NOTICES]:
            complain(f"warning: {line}")
        direction = "higher" if announced.higher else "lower"
        say(
            f"{asked.recipe.name}: {announced.metric} judges ({direction} is better); the test split is not read"
        )
        say(
            table(
                ["setting", "values"],
                [[key, _words(tried)] for key, tried in asked.recipe.tune.items()],
                left=2,
            )
        )
        n = max(0, asked.trials - announced.n_done)
        done = f", {announced.n_done} of them begun already" if announced.n_done else ""
        at_once = (
            f"{announced.jobs} at a time{announced.where} with {counted(announced.threads, 'thread')} each"
        )
        say(
            f"{counted(asked.trials, 'trial')}{done}; {at_once}"
            if n
            else f"all {asked.trials} trials have begun"
        )
        say(f"folder: {announced.folder}")
        say(f"study: {announced.study} in {announced.storage}")
        self._pace = Pace(n, announced.jobs)
        self._bars.start(n)

    def reports(self, report: Report) -> None:
        """Move the bars, or print a line for a trial that has ended."""
        if report.ended is None:
            self._bars.moved(f"trial {report.said['trial']}", report.step, report.of)
            return
        if report.ended == "elsewhere":  # another process makes this trial
            return
        name, pace = f"trial {report.said['trial']}", self._pace
        left = pace.ended(monotonic())
        pace.n = max(pace.n, pace.n_done)  # those of dead processes come on top
        self._bars.ended(name, pace.n_done, left)
        if not self._bars.shown and not self.quiet:
            say(f"{pace.n_done} of {pace.n}: {name}: {_ended(report)}" + (f"; {left}" if left else ""))
        if report.why:
            complain(f"warning: {name}: {report.why}")

    def says(self, line: str) -> None:
        """Print a fact."""
        complain(f"warning: {line}")

    def close(self) -> None:
        """End the bars."""
        self._bars.close()

    def outcome(self, outcome: Outcome, command: str) -> None:
        """Print the trials, the best one, and the command that runs it."""
        say()
        say(_table(outcome))
        counts = outcome.counts()
        told = [
            f"{counted(sum(counts.values()), 'trial')}: " + ", ".join(f"{n} {s}" for s, n in counts.items())
        ]
        if repeated := sum(trial.state == "repeated" for trial in outcome.trials):
            told.append(f"{repeated} more {'was' if repeated == 1 else 'were'} broken off and repeated")
        if len(outcome.trials) > SHOWN_TRIALS:
            told.append(f"the best {SHOWN_TRIALS} are shown")
        say("; ".join(told))
        for line in _closing(outcome):
            say(line)
        say(f"sweep: {outcome.path}  ({BEST}, {TABLE}, {FOUND})")
        say("next: train with the best settings, and evaluate the test split:")
        say(f"  {command}")


def _words(tried: tuple[Any, ...] | Range) -> str:
    return str(tried) if isinstance(tried, Range) else ", ".join(map(_setting, tried))


def _setting(value: Any) -> str:
    """A value with four significant digits; a mapping or a truth value as in a recipe."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _settings(params: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={_setting(decoded(value))}" for key, value in params.items())


def _ended(report: Report) -> str:
    """How a trial ended, in words."""
    said = report.said
    value, settings = number(said["value"]), _settings(said["settings"])
    same = f", as trial {said['same']}" if said["same"] is not None else ""
    if report.ended == "complete":
        return f"{value}{same} with {settings}"
    if report.ended == "pruned":
        return f"pruned at {value}{same} with {settings}"
    return f"failed with {settings}" if settings else "failed"


def _closing(outcome: Outcome) -> Iterator[str]:
    """The best trial in words, and which settings count."""
    best = next(trial for trial in outcome.trials if trial.number == outcome.best)
    settings = " ".join(f"{key}={_setting(value)}" for key, value in best.settings.items())
    yield f"best: trial {best.number}, {outcome.metric} {number(outcome.value)} with {settings}"
    if len(outcome.importances) > 1:
        shares = ", ".join(f"{key} {percent(share, 1.0)}" for key, share in outcome.importances.items())
        yield f"what the differences between trials come from: {shares}"


def _table(outcome: Outcome) -> str:
    """A row for each trial, the best one first."""
    sign = -1.0 if outcome.higher_is_better else 1.0
    ranks = ("complete", "pruned")

    def place(trial: Trial) -> tuple[int, float, int]:
        rank = ranks.index(trial.state) if trial.state in ranks else len(ranks)
        return rank, sign * (trial.value if trial.value is not None else 0.0), trial.number

    keys = list(dict.fromkeys(key for trial in outcome.trials for key in trial.settings))
    rows = [
        [
            str(trial.number),
            trial.state,
            "" if trial.value is None else number(trial.value),
            *(_setting(trial.settings[key]) if key in trial.settings else "" for key in keys),
        ]
        for trial in sorted(outcome.trials, key=place)[:SHOWN_TRIALS]
    ]
    return table(["trial", "state", outcome.metric, *keys], rows, left=2)
