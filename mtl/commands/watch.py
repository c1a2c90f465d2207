"""What a person sees of a run: a bar on a terminal, a line per epoch everywhere, and the results."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from mtl.console import complain, duration, number, results_table, say

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from mtl.experiment.run import Result
    from mtl.runs.folder import RunFolder
    from mtl.training.loop import Epoch, Evaluation
    from mtl.training.trainer import Trainer

SHOWN_TASKS = 6
"""Tasks named on the line of an epoch; the rest is in metrics.jsonl."""


class TrainingConsole:
    """Tells how a run goes: a bar with rate and time left on a terminal, and a line per epoch everywhere.

    Args:
        quiet: only warnings and the final table.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bar: Bar | None = None
        self._bar_task: TaskID | None = None
        self._began = monotonic()
        self._first_step = 0
        self._total_steps = 0
        self._epochs = 0

    def started(self, trainer: Trainer, run: RunFolder, notices: Sequence[str]) -> None:
        recipe, rows = trainer.recipe, run.record["data"]["rows"]
        self._began, self._first_step = monotonic(), trainer.progress.step
        self._total_steps, self._epochs = trainer.total_steps, trainer.epochs
        if not self.quiet:
            say(f"{recipe.name}: {recipe.description}" if recipe.description else recipe.name)
            counts = ", ".join(f"{count:,} {split}" for split, count in rows.items())
            size = f"{run.record['parameters']:,} parameters"
            say(f"{counts} rows; {size}; {run.record['device']}; run {run.path}")
            progress = trainer.progress
            if progress.step:
                within = f", {progress.step_in_epoch} steps into the next" if progress.step_in_epoch else ""
                say(f"resuming after epoch {progress.epoch}{within} (step {progress.step})")
        for notice in notices:
            self.warn(notice)
        if not self.quiet and sys.stderr.isatty():
            self._start_bar(trainer)

    def _start_bar(self, trainer: Trainer) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._bar_task = self._bar.add_task(
            "training", total=trainer.total_steps, completed=trainer.progress.step, rate=""
        )
        self._bar.start()

    def stepped(self, epoch: int, step: int, n_steps: int) -> None:
        if self._bar is not None and self._bar_task is not None:
            done = self._bar.tasks[0].completed + 1
            rate = (done - self._first_step) / max(monotonic() - self._began, 1e-9)
            self._bar.update(
                self._bar_task,
                advance=1,
                description=f"epoch {epoch + 1}, step {step}/{n_steps}",
                rate=f"{rate:.1f} steps/s",
            )

    def evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        if self.quiet:
            return
        step, row = trainer.progress.step, evaluation.rows[0]
        self._line(
            f"step {step:>{len(str(trainer.total_steps))}}/{trainer.total_steps}  "
            f"{row['split']}: {_headlines(trainer, row)}{_watched(trainer, row)}  {duration(evaluation.seconds)}"
        )

    def epoch(self, trainer: Trainer, epoch: Epoch) -> None:
        if self.quiet:
            return
        row = next((r for r in epoch.rows if r["split"] != "train"), epoch.rows[0])
        loss = sum(
            value for name, value in epoch.rows[0].items() if name.endswith("/loss") and value is not None
        )
        left = trainer.total_steps - trainer.progress.step
        done = trainer.progress.step - self._first_step
        seconds_left = (monotonic() - self._began) / max(done, 1) * left
        train, epochs = trainer.recipe.train, self._epochs or trainer.epochs
        # an epoch that was resumed or stopped within it has fewer
        n_rows = min(len(trainer.dataset.splits["train"]), epoch.steps * train.batch_size * train.accumulate)
        line = (
            f"epoch {trainer.progress.epoch:>{len(str(epochs))}}/{epochs}  "
            f"train loss {loss:.4f}  {row['split']}: {_headlines(trainer, row)}{_watched(trainer, row)}  "
            f"{duration(sum(epoch.seconds.values()))}, {n_rows / epoch.seconds['train']:,.0f} rows/s"
        )
        line += f", {duration(seconds_left)} left" if left and not trainer.progress.stopped else ""
        self._line(line)

    def _line(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, soft_wrap=True)
        else:
            say(line)

    def finished(self, result: Result) -> None:
        self.close()
        record = result.record
        say()
        say(results_table(result.metrics, "test"))
        ceilings = record["data"]["best_possible_accuracy"]
        if ceilings:
            shown = [f"{task} {value:.4f}" for task, value in list(ceilings.items())[:SHOWN_TASKS]]
            more = f" and {len(ceilings) - SHOWN_TASKS} more" if len(ceilings) > SHOWN_TASKS else ""
            say(f"best possible accuracy: {', '.join(shown)}{more}")
        if record["data"]["generated"]:
            say("the data are generated, not measured")
        chosen = record["selected"]
        why = "chosen on validation" if "validation" in record["data"]["rows"] else "the last"
        at = f"epoch {chosen['epoch']}, step {chosen['step']}"
        say(f"{at} ({why}); {duration(monotonic() - self._began)}; run {result.path}")

    def note(self, text: str) -> None:
        if not self.quiet:
            say(text)

    def warn(self, text: str) -> None:
        complain(f"warning: {text}")

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _headlines(trainer: Trainer, row: dict[str, Any]) -> str:
    """`garment 0.9151  audience 0.9430  mean 0.9290`."""
    split, tasks = row["split"], trainer.recipe.tasks
    parts = [
        f"{task} {number(row.get(f'{split}/{task}/{spec.headline}'))}"
        for task, spec in list(tasks.items())[:SHOWN_TASKS]
    ]
    if len(tasks) > SHOWN_TASKS:
        parts.append(f"and {len(tasks) - SHOWN_TASKS} more")
    return "  ".join([*parts, *_means(split, row)])


def _means(split: str, row: dict[str, Any]) -> list[str]:
    """`mean 0.9290`, or `mean loss 0.9290` where the tasks have no headline in common."""
    found = {name.split("/")[2]: value for name, value in row.items() if name.startswith(f"{split}/mean/")}
    return [f"mean {'loss ' if metric == 'loss' else ''}{number(value)}" for metric, value in found.items()]


def _watched(trainer: Trainer, row: dict[str, Any]) -> str:
    """The validation value that chooses a step, unless it is shown already: `  garment loss 1.2345`."""
    tasks, stopping = trainer.recipe.tasks, trainer.recipe.train.early_stopping
    if row["split"] != "validation" or stopping is None or stopping.metric is None:
        return ""
    _, task, metric = stopping.metric.split("/")
    shown = [f"validation/{name}/{spec.headline}" for name, spec in list(tasks.items())[:SHOWN_TASKS]]
    if task == "mean" or stopping.metric in shown:
        return ""
    return f"  {task} {metric.replace('_', ' ')} {number(row[stopping.metric])}"
