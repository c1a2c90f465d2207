"""Shows a comparison to a person: its plan, a bar or a line for each run, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from mtl.commands.compare.bars import Bars, Pace
from mtl.comparison.outcome import roles_of
from mtl.comparison.plan import IN_WORDS
from mtl.comparison.processes.pool import Report
from mtl.comparison.request import Announced
from mtl.comparison.statistics.power import plan_lines
from mtl.comparison.statistics.verdicts import AHEAD
from mtl.console import complain, counted, duration, number, percent, say, table

SHOWN_NOTICES = 6


class CompareConsole:
    """Prints the plan of a comparison before it starts, its progress, and its verdict.

    Args:
        quiet: print only the verdict.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bars = Bars("all runs")
        self._pace = Pace(0, 1)

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
        n = len(announced.runs) - announced.n_done + announced.n_others
        total = announced.n_done + n
        done = f", {announced.n_done} of them finished already" if announced.n_done else ""
        threads = counted(announced.settings.threads, "thread")
        at_once = f"{announced.jobs} at a time{announced.where} with {threads} each"
        say(
            f"{counted(total, 'run')}{done}; {at_once}; about {duration(announced.seconds)} on a machine that "
            "does nothing else"
            if n
            else f"all {total} runs are finished"
        )
        if announced.trials:
            say("validation chooses the settings of each arm; the comparison follows")
        margins = {task: spec.margin for task, spec in asked.recipe.tasks.items()}
        candidates = list(roles_of(announced.arms).values()).count("candidate")
        for line in (
            () if announced.trials else plan_lines(len(asked.seeds), margins, n_arms=max(candidates, 1))
        ):
            say(line)
        say(f"folder: {announced.folder}")
        self._pace = Pace(n, announced.jobs)
        self._bars.start(n)

    def reports(self, report: Report) -> None:
        """Move the bars, or print a line for a run that has ended."""
        name, pace = report.job.name, self._pace
        if report.ended is None:
            self._bars.moved(name, report.step, report.of)
            return
        left = pace.ended(monotonic())
        self._bars.ended(name, pace.n_done, left)
        if not self._bars.shown and not self.quiet:
            say(f"{pace.n_done} of {pace.n}: {name}: {report.ended}" + (f"; {left}" if left else ""))
        if report.ended == "diverged":
            complain(f"warning: {name}: {report.why}")

    def says(self, line: str) -> None:
        """Print a fact."""
        complain(f"warning: {line}")

    def close(self) -> None:
        """End the bars."""
        self._bars.close()

    def verdict(self, folder: Path, outcome: Mapping[str, Any], confirm: str = "") -> None:
        """Print the verdict in words, the table of arms, and the command that confirms what is not confirmed."""
        for line in _of_part(outcome):
            say(line)
        details = {f"{each['words']}.": each["details"] for each in outcome["comparisons"]}
        for line in outcome["summary"]:
            say(line)
            for detail in details.get(line, ()):
                say(f"  {detail}")
        for task, own in outcome["transfer"].items():
            if not own["claimed"] and any(arm.endswith(f":{task}") for arm in outcome["arms"]):
                say(f"{own['sentence']}.")
        for arm, trials in (outcome["tuning"] or {}).items():
            for trial in trials:
                values = ", ".join(f"{task} {number(value)}" for task, value in trial["validation"].items())
                chosen = " (chosen)" if trial["chosen"] else ""
                settings = " ".join(trial["changes"]) or "the settings of the recipe"
                say(f"tuning of {arm}: {settings}: validation {values}{chosen}")
        say()
        say(_arms_table(outcome, outcome["arms"]))
        if outcome["confirmation"] is not None:
            fresh = outcome["confirmation"]
            say(f"\nfresh seeds {', '.join(map(str, fresh['seeds']))}:")
            say(_arms_table(outcome, fresh["arms"]))
        say(f"comparison: {folder}  (compare.html, compare.json, compare.csv)")
        if confirm and any(own["verdict"] == AHEAD for own in outcome["tasks_verdict"].values()):
            say(f"next: {confirm}")


def _of_part(outcome: Mapping[str, Any]) -> list[str]:
    """For how many labels the verdicts hold, where there are several comparisons."""
    smallest = min(outcome["label_curve"] or (), key=lambda point: point["fraction"], default=None)
    if smallest is None:
        return []
    labels = counted(smallest["labels"], "label")
    return [f"with {labels} of {smallest['task']} ({percent(smallest['fraction'], 1.0)}):"]


def _arms_table(outcome: Mapping[str, Any], arms: Mapping[str, Any]) -> str:
    """A row for each of some arms with results, a column for the mean and the spread of each task."""
    tasks = list(outcome["tasks"])
    rows = []
    for name, own_results in arms.items():
        arm, results = outcome["arms"][name], own_results["results"]
        cells = []
        for task in tasks:
            own = results.get(task)
            spread = "" if own is None or own["sd"] is None else f" +- {number(own['sd'])}"
            cells.append("" if own is None else f"{number(own['mean'])}{spread}")
        rows.append(
            [name, "" if arm["parameters"] is None else f"{arm['parameters']:,}", str(arm["models"]), *cells]
        )
    heads = [f"{task} ({outcome['tasks'][task]['metric']})" for task in tasks]
    return table(["arm", "parameters", "models", *heads], rows)
