"""Shows a run to a person: a bar on a terminal, a line per epoch everywhere, and the results."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from mtl.commands.closing import closing_lines
from mtl.commands.results import say_results
from mtl.console import complain, counted, duration, forgiving, giving_up, number, rows_of_splits, say
from mtl.training.events import Ended, EpochEnded, Evaluated, Event, Noted, Started, Stepped, Warned
from mtl.training.trainer import Trainer

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID


SHOWN_TASKS = 6
"""Most tasks on the line of an epoch; metrics.jsonl has all of them."""
LINE_EVERY = 60.0
"""Seconds after which a line tells the step, where no bar shows it."""
LOSS_EVERY = 0.5
"""Seconds after which the bar shows another loss; reading it from a GPU waits for the GPU."""


class TrainingConsole:
    """Listens to a run and prints its progress.

    A terminal shows a bar with the loss, the rate and the remaining time. Output that goes elsewhere gets a line with
    them once a minute. A line per epoch is printed everywhere.

    Args:
        quiet: print only warnings and the final table.
        clock: seconds that only grow.
    """

    def __init__(self, quiet: bool = False, clock: Callable[[], float] = monotonic) -> None:
        self.quiet, self._clock = quiet, clock
        self._bar: Bar | None = None
        self._bar_task: TaskID | None = None
        self._joins_bar = False  # whether lines go to the terminal that shows the bar
        self._began = self._last_line = clock()
        self._loss, self._loss_at = "", -LOSS_EVERY
        self._first_step = 0
        self._epochs = 0
        self.lost: list[str] = []

    def on(self, event: Event) -> None:
        """Print an event, or move the bar; output that cannot be written is noted in `lost`."""
        with forgiving(self.lost):
            self._show(event)

    def _show(self, event: Event) -> None:
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
        self._began = self._last_line = self._clock()
        self._first_step, self._epochs = progress.step, trainer.epochs
        if self.quiet:
            return
        say(f"{recipe.name}: {recipe.description}" if recipe.description else recipe.name)
        size = sum(parameter.numel() for parameter in trainer.built.model.parameters())
        say(
            f"{rows_of_splits(trainer.dataset.splits)}; {counted(size, 'parameter')}; {trainer.device}; run {path}"
        )
        if progress.step:
            steps = counted(progress.step_in_epoch, "step")
            within = f", {steps} into the next" if progress.step_in_epoch else ""
            say(f"resuming after epoch {progress.epoch}{within} (step {progress.step})")
        if sys.stderr.isatty():
            self._start_bar(trainer)

    def _start_bar(self, trainer: Trainer) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        if console.is_dumb_terminal:  # it cannot erase a line
            return
        self._joins_bar = sys.stdout.isatty()  # asked now, since the bar replaces this stream
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            redirect_stdout=self._joins_bar,
            transient=True,
        )
        self._bar_task = self._bar.add_task(
            "training", total=trainer.total_steps, completed=trainer.progress.step, loss="", rate=""
        )
        self._bar.start()

    def _stepped(self, event: Stepped) -> None:
        if self.quiet:
            return
        trainer, now = self._trainer, self._clock()
        step, total = trainer.progress.step, trainer.total_steps
        rate = (step - self._first_step) / max(now - self._began, 1e-9)
        if self._bar is not None and self._bar_task is not None:
            if now - self._loss_at >= LOSS_EVERY:
                self._loss, self._loss_at = _loss_so_far(trainer), now
            self._bar.update(
                self._bar_task,
                completed=step,
                description=f"epoch {event.epoch + 1}, step {event.step}/{event.n_steps}",
                loss=self._loss,
                rate=f"{number(rate)} steps/s",
            )
        if now - self._last_line >= LINE_EVERY and not self._joins_bar:
            left = duration((total - step) / rate)
            self._line(
                f"step {step:>{len(str(total))}}/{total}  {_loss_so_far(trainer)}  {rate:.1f} steps/s, {left} left"
            )

    def _evaluated(self, event: Evaluated) -> None:
        trainer, row = self._trainer, event.rows[0]
        step, total = trainer.progress.step, trainer.total_steps
        self._line(
            f"step {step:>{len(str(total))}}/{total}  "
            f"{_headlines(trainer, row)}{_watched(trainer, row)}  {duration(event.seconds)}"
        )

    def _epoch_ended(self, event: EpochEnded) -> None:
        trainer, progress = self._trainer, self._trainer.progress
        row = next((r for r in event.rows if r["split"] != "train"), event.rows[0])
        tasks, of_train = trainer.recipe.tasks, event.rows[0]
        loss = sum(spec.weight * (of_train.get(f"train/{task}/loss") or 0.0) for task, spec in tasks.items())
        line = (
            f"epoch {progress.epoch:>{len(str(self._epochs))}}/{self._epochs}  "
            f"train loss {number(loss)}  {_headlines(trainer, row)}{_watched(trainer, row)}  "
            f"{duration(sum(event.seconds.values()))}, {event.n_rows / event.seconds['train']:,.0f} rows/s"
        )
        left, done = trainer.total_steps - progress.step, progress.step - self._first_step
        if left and not progress.stopped:
            line += f", {duration((self._clock() - self._began) / max(done, 1) * left)} left"
        self._line(line)

    def _line(self, line: str) -> None:
        self._last_line = self._clock()
        if self._bar is not None and self._joins_bar:
            with giving_up(sys.stderr):
                self._bar.console.print(line, highlight=False, soft_wrap=True)
        else:
            say(line)

    def _end(self, event: Ended) -> None:
        self.close()
        dataset, sources = self._trainer.dataset, self._trainer.recipe.data.by_name.values()
        say()
        stopped = self._trainer.progress.stopped
        say_results(self._trainer.recipe.tasks, event.metrics, event.baselines, "test", stopped, self._path)
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
        if stopped:
            say(_early_stop(self._trainer))
        chosen = self._trainer.progress.best_step is not None
        why = "chosen on validation" if chosen else "the last epoch"
        took = duration(self._clock() - self._began)
        say(f"epoch {event.epoch}, step {event.step} ({why}); {took}")
        say()
        say("\n".join(closing_lines(self._trainer, self._path, event)))

    def close(self) -> None:
        """Remove the bar from the screen."""
        bar, self._bar = self._bar, None
        if bar is not None:
            with forgiving(self.lost), giving_up(sys.stderr):
                bar.stop()


def _early_stop(trainer: Trainer) -> str:
    """A line on a run that early stopping ended."""
    progress, stopping = trainer.progress, trainer.recipe.train.early_stopping
    assert stopping is not None
    assert trainer.selecting is not None
    metric, _ = trainer.selecting
    where = f"epoch {progress.epoch}, step {progress.step}"
    evaluations = counted(stopping.patience, "evaluation")
    return f"early stopping ended it after {where}: {metric} was no better in {evaluations}"


def _loss_so_far(trainer: Trainer) -> str:
    """The weighted sum of the losses of the tasks, each its mean since the epoch began."""
    if trainer.meter is None:
        return ""
    losses_N, _ = trainer.meter.losses()
    weighted = (
        spec.weight * loss
        for spec, loss in zip(trainer.recipe.tasks.values(), losses_N.tolist(), strict=True)
    )
    return f"train loss {number(sum(weighted))}"


def _headlines(trainer: Trainer, row: dict[str, Any]) -> str:
    """The headline metric of each task, and their mean.

    `test accuracy: garment 0.9151  audience 0.9430  mean 0.9290` if all tasks have the same headline, or otherwise
    `test: churned auroc 0.9151  spend r2 0.4300  mean loss 0.9290`.
    """
    split, tasks = row["split"], trainer.recipe.tasks
    names = {task: spec.headline for task, spec in tasks.items()}
    same = len(set(names.values())) == 1
    parts = [
        f"{task}{'' if same else ' ' + _words(name)} {number(row.get(f'{split}/{task}/{name}'))}"
        for task, name in list(names.items())[:SHOWN_TASKS]
    ]
    if len(tasks) > SHOWN_TASKS:
        parts.append(f"and {len(tasks) - SHOWN_TASKS} more")
    metric = f" {_words(next(iter(names.values())))}" if same else ""
    return f"{split}{metric}: " + "  ".join([*parts, *_means(split, row)])


def _words(metric: str) -> str:
    return metric.replace("_", " ")


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
    return f"  {task} {_words(metric)} {number(row[stopping.metric])}"
