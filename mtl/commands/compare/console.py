"""Shows a comparison to a person: its plan, a bar or a line for each run, and the verdict."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from mtl.comparison.outcome import BESIDE
from mtl.comparison.plan import IN_WORDS
from mtl.comparison.processes.pool import Report
from mtl.comparison.request import Announced
from mtl.comparison.statistics.power import plan_lines
from mtl.console import complain, counted, duration, number, say, table

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

SHOWN_NOTICES = 6


class CompareConsole:
    """Prints the plan of a comparison before it starts, its progress, and its verdict.

    Args:
        quiet: print only the verdict.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bar: Bar | None = None
        self._bars: dict[str, TaskID] = {}
        self._began, self._n_done, self._n_jobs = monotonic(), 0, 0

    def begins(self, announced: Announced) -> None:
        """Print what will be run, how long it takes, and what it can show."""
        if self.quiet:
            return
        asked = announced.asked
        for line in announced.notices[:SHOWN_NOTICES]:
            complain(f"warning: {line}")
        varied = "initial weights, order of rows and dropout" + (", and the split" if asked.resample else "")
        pinned = (
            "data, labels and generated rows" if asked.resample else "data, split, labels and generated rows"
        )
        selection = IN_WORDS[announced.settings.selection]
        say(
            f"{asked.recipe.name}: {varied} vary between seeds; {pinned} stay the same; the {selection} counts"
        )
        heads = ["trial", "settings"] if announced.trials else ["arm", "what it is"]
        say(table(heads, [[arm.name, arm.what] for arm in announced.arms], left=2))
        n = len(announced.runs) - announced.n_done
        done = f", {announced.n_done} of them finished already" if announced.n_done else ""
        at_once = f"{announced.jobs} at a time with {counted(announced.settings.threads, 'thread')} each"
        say(
            f"{counted(len(announced.runs), 'run')}{done}; {at_once}; about {duration(announced.seconds)}"
            if n
            else f"all {len(announced.runs)} runs are finished"
        )
        if announced.trials:
            say("validation chooses the settings of each arm; the comparison follows")
        margins = {task: spec.margin for task, spec in asked.recipe.tasks.items()}
        candidates = sum(arm.role == "candidate" and arm.name not in BESIDE for arm in announced.arms)
        for line in (
            () if announced.trials else plan_lines(len(asked.seeds), margins, n_arms=max(candidates, 1))
        ):
            say(line)
        say(f"folder: {announced.folder}")
        self._began, self._n_done, self._n_jobs = monotonic(), 0, n + announced.n_others
        self._start_bar(self._n_jobs)

    def _start_bar(self, n: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        if n == 0 or not sys.stderr.isatty() or console.is_dumb_terminal:
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[left]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._bars = {"": self._bar.add_task("all runs", total=n, left="")}
        self._bar.start()

    def reports(self, report: Report) -> None:
        """Move the bars, or print a line for a run that has ended."""
        name = report.job.name
        if self._bar is not None and report.ended is None:
            if name not in self._bars:
                self._bars[name] = self._bar.add_task(name, total=report.of, left="")
            self._bar.update(self._bars[name], completed=report.step, total=report.of)
        if report.ended is None:
            return
        self._n_done += 1
        left = (monotonic() - self._began) / self._n_done * max(self._n_jobs - self._n_done, 0)
        if self._bar is not None:
            if name in self._bars:
                self._bar.remove_task(self._bars.pop(name))
            self._bar.update(self._bars[""], completed=self._n_done, left=f"{duration(left)} left")
        elif not self.quiet:
            say(f"{self._n_done} of {self._n_jobs}: {name}: {report.ended}; {duration(left)} left")
        if report.ended == "diverged":
            complain(f"warning: {name}: {report.why}")

    def says(self, line: str) -> None:
        """Print a fact."""
        complain(f"warning: {line}")

    def close(self) -> None:
        """End the bars."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def verdict(self, folder: Path, outcome: Mapping[str, Any]) -> None:
        """Print the verdict in words, and the table of arms."""
        for line in outcome["summary"]:
            say(line)
        for task, own in outcome["transfer"].items():
            if not own["claimed"] and any(arm.endswith(f":{task}") for arm in outcome["arms"]):
                say(f"{own['sentence']}.")
        for arm, trials in (outcome["tuning"] or {}).items():
            for trial in trials:
                values = ", ".join(f"{task} {number(value)}" for task, value in trial["validation"].items())
                chosen = " (chosen)" if trial["chosen"] else ""
                say(f"tuning of {arm}: {' '.join(trial['changes'])}: validation {values}{chosen}")
        say()
        say(_arms_table(outcome))
        say(f"comparison: {folder}  (compare.html, compare.json, compare.csv)")


def _arms_table(outcome: Mapping[str, Any]) -> str:
    """A row for each arm, a column for the mean and the spread of each task."""
    tasks = list(outcome["tasks"])
    rows = []
    for name, arm in outcome["arms"].items():
        cells = []
        for task in tasks:
            own = arm["results"].get(task)
            spread = "" if own is None or own["sd"] is None else f" +- {number(own['sd'])}"
            cells.append("" if own is None else f"{number(own['mean'])}{spread}")
        rows.append(
            [name, "" if arm["parameters"] is None else f"{arm['parameters']:,}", str(arm["models"]), *cells]
        )
    heads = [f"{task} ({outcome['tasks'][task]['metric']})" for task in tasks]
    return table(["arm", "parameters", "models", *heads], rows)
