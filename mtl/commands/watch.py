"""Shows a run to a person: a bar on a terminal, a line per epoch everywhere, and the results."""

from __future__ import annotations

import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from mtl.commands.closing import closing_lines
from mtl.console import complain, counted, duration, number, results_table, say
from mtl.recipe.task_spec import units_of
from mtl.training.events import Ended, EpochEnded, Evaluated, Event, Noted, Started, Stepped, Warned
from mtl.training.trainer import Trainer

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID


SHOWN_TASKS = 6
"""Most tasks on the line of an epoch; metrics.jsonl has all of them."""


class TrainingConsole:
    """Listens to a run and prints its progress.

    A terminal shows a bar with the rate and the remaining time. A line per epoch is printed everywhere.

    Args:
        quiet: print only warnings and the final table.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bar: Bar | None = None
        self._bar_task: TaskID | None = None
        self._began = monotonic()
        self._first_step = 0
        self._epochs = 0

    def on(self, event: Event) -> None:
        """Print an event, or move the bar."""
        match event:
            case Started():
                self._start(event.trainer, event.path)
            case Stepped():
                self._stepped(event)
            case Evaluated() if not self.quiet:
                self._evaluated(event)
            case EpochEnded() if not self.quiet:
                self._epoch_ended(event)
            case Ended():
                self._end(event)
            case Noted() if not self.quiet:
                say(event.text)
            case Warned():
                complain(f"warning: {event.text}")

    def _start(self, trainer: Trainer, path: Path) -> None:
        recipe, progress = trainer.recipe, trainer.progress
        self._trainer, self._path = trainer, path
        self._began, self._first_step, self._epochs = monotonic(), progress.step, trainer.epochs
        if self.quiet:
            return
        say(f"{recipe.name}: {recipe.description}" if recipe.description else recipe.name)
        counts = ", ".join(f"{len(rows):,} {split}" for split, rows in trainer.dataset.splits.items())
        size = sum(parameter.numel() for parameter in trainer.built.model.parameters())
        say(f"{counts} rows; {counted(size, 'parameter')}; {trainer.device}; run {path}")
        if progress.step:
            within = (
                f", {counted(progress.step_in_epoch, 'step')} into the next" if progress.step_in_epoch else ""
            )
            say(f"resuming after epoch {progress.epoch}{within} (step {progress.step})")
        if sys.stderr.isatty():
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

    def _stepped(self, event: Stepped) -> None:
        if self._bar is not None and self._bar_task is not None:
            done = self._bar.tasks[0].completed + 1
            rate = (done - self._first_step) / max(monotonic() - self._began, 1e-9)
            self._bar.update(
                self._bar_task,
                advance=1,
                description=f"epoch {event.epoch + 1}, step {event.step}/{event.n_steps}",
                rate=f"{number(rate)} steps/s",
            )

    def _evaluated(self, event: Evaluated) -> None:
        trainer, row = self._trainer, event.rows[0]
        step, total = trainer.progress.step, trainer.total_steps
        self._line(
            f"step {step:>{len(str(total))}}/{total}  "
            f"{row['split']}: {_headlines(trainer, row)}{_watched(trainer, row)}  {duration(event.seconds)}"
        )

    def _epoch_ended(self, event: EpochEnded) -> None:
        trainer, progress, train = self._trainer, self._trainer.progress, self._trainer.recipe.train
        row = next((r for r in event.rows if r["split"] != "train"), event.rows[0])
        losses = [value for name, value in event.rows[0].items() if name.endswith("/loss")]
        loss = sum(value for value in losses if value is not None)
        # an epoch that was resumed or stopped in the middle has fewer rows
        n_rows = min(len(trainer.dataset.splits["train"]), event.steps * train.batch_size * train.accumulate)
        line = (
            f"epoch {progress.epoch:>{len(str(self._epochs))}}/{self._epochs}  "
            f"train loss {number(loss)}  {row['split']}: {_headlines(trainer, row)}{_watched(trainer, row)}  "
            f"{duration(sum(event.seconds.values()))}, {number(n_rows / event.seconds['train'])} rows/s"
        )
        left, done = trainer.total_steps - progress.step, progress.step - self._first_step
        if left and not progress.stopped:
            line += f", {duration((monotonic() - self._began) / max(done, 1) * left)} left"
        self._line(line)

    def _line(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, soft_wrap=True)
        else:
            say(line)

    def _end(self, event: Ended) -> None:
        self.close()
        dataset, sources = self._trainer.dataset, self._trainer.recipe.data.by_name.values()
        say()
        say(results_table(event.metrics, "test", units_of(self._trainer.recipe.tasks)))
        if dataset.ceiling:
            shown = [f"{task} {number(value)}" for task, value in list(dataset.ceiling.items())[:SHOWN_TASKS]]
            more = (
                f" and {len(dataset.ceiling) - SHOWN_TASKS} more"
                if len(dataset.ceiling) > SHOWN_TASKS
                else ""
            )
            say(f"best possible accuracy: {', '.join(shown)}{more}")
        if any(source.generated_now() for source in sources):
            say("the data are generated, not measured")
        why = "chosen on validation" if "validation" in dataset.splits else "the last"
        took = duration(monotonic() - self._began)
        say(f"epoch {event.epoch}, step {event.step} ({why}); {took}")
        say()
        say("\n".join(closing_lines(self._trainer, self._path, event)))

    def close(self) -> None:
        """Remove the bar from the screen."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _headlines(trainer: Trainer, row: dict[str, Any]) -> str:
    """The headline of each task, and their mean: `garment 0.9151  audience 0.9430  mean 0.9290`."""
    split, tasks = row["split"], trainer.recipe.tasks
    parts = [
        f"{task} {number(row.get(f'{split}/{task}/{spec.headline}'))}"
        for task, spec in list(tasks.items())[:SHOWN_TASKS]
    ]
    if len(tasks) > SHOWN_TASKS:
        parts.append(f"and {len(tasks) - SHOWN_TASKS} more")
    return "  ".join([*parts, *_means(split, row)])


def _means(split: str, row: dict[str, Any]) -> list[str]:
    """`mean 0.9290`, or `mean loss 0.9290` if the tasks have different headlines."""
    found = {name.split("/")[2]: value for name, value in row.items() if name.startswith(f"{split}/mean/")}
    return [f"mean {'loss ' if metric == 'loss' else ''}{number(value)}" for metric, value in found.items()]


def _watched(trainer: Trainer, row: dict[str, Any]) -> str:
    """The validation value that chooses a step, unless the line shows it already: `  garment loss 1.2345`."""
    tasks, stopping = trainer.recipe.tasks, trainer.recipe.train.early_stopping
    if row["split"] != "validation" or stopping is None or stopping.metric is None:
        return ""
    _, task, metric = stopping.metric.split("/")
    shown = [f"validation/{name}/{spec.headline}" for name, spec in list(tasks.items())[:SHOWN_TASKS]]
    if task == "mean" or stopping.metric in shown:
        return ""
    return f"  {task} {metric.replace('_', ' ')} {number(row[stopping.metric])}"
