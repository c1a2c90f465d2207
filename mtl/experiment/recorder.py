"""What a run writes down while it trains: logs, checkpoints, its record."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from time import monotonic, perf_counter
from typing import Any, Protocol

from mtl.errors import EnvironmentFault, NotFinite
from mtl.runs import checkpoint, retention, state
from mtl.runs.disk import lacks_space, write_whole
from mtl.runs.folder import DIVERGED, TIMINGS, RunFolder
from mtl.runs.logs import METRICS, SHARING
from mtl.signals import StopSignals
from mtl.training.loop import Epoch, Evaluation
from mtl.training.trainer import Trainer


class Watcher(Protocol):
    """Who is told."""

    def stepped(self, epoch: int, step: int, n_steps: int) -> None: ...

    def warn(self, text: str) -> None: ...


class Recorder:
    """Keeps the folder of one run up to date.

    Args:
        trainer: what trains; its `on_step` and `between` are set.
        folder: the run, held.
        console: who is told.
        stop: the signals that have come.
        parent: the step that the run was resumed from, if it was.
    """

    def __init__(
        self, trainer: Trainer, folder: RunFolder, console: Watcher, stop: StopSignals, parent: int | None
    ) -> None:
        self.trainer, self.folder, self.console, self.stop, self.parent = (
            trainer,
            folder,
            console,
            stop,
            parent,
        )
        self.rows = folder.rows()
        self._sharing_step = next((row["step"] for row in reversed(folder.rows(SHARING))), None)
        self._unwritten: dict[str, list[Mapping[str, Any]]] = {}
        self._due, self._last_save, self._last_size = False, monotonic(), 0
        self._told: set[str] = set()
        trainer.on_step, trainer.between = self.stepped, stop.check

    def begin(self, save_first: bool = False) -> None:
        """Before the first step.

        Args:
            save_first: commit the state as it is, since the recipe and the data alone would not give it again.
        """
        progress = self.trainer.progress
        if self.folder.record["step"] != progress.step:  # a kill came between a checkpoint and its record
            self._record(step=progress.step, epoch=progress.epoch)
        if self.parent is not None:
            self._retain()  # which a kill may have kept from its end
        if self._sharing_step is None:
            self._log_sharing()
        if save_first:
            self.save()
        self._check_space()
        self.stop.check()

    def stepped(self, epoch: int, step: int, n_steps: int) -> None:
        """After each optimizer step."""
        self.console.stepped(epoch, step, n_steps)
        every = self.trainer.recipe.train.checkpoint.every
        by_steps = every.steps is not None and self.trainer.progress.step % every.steps == 0
        by_time = every.minutes is not None and monotonic() - self._last_save >= 60 * every.minutes
        self._due = self._due or by_steps or by_time
        if self._due and step < n_steps and not self.trainer.evaluation_is_due():
            self.save()  # or else after the evaluation, as at the end of an epoch
        self.stop.check()

    def evaluation(self, evaluation: Evaluation) -> None:
        """After each evaluation within an epoch."""
        self._measured(evaluation.rows)
        if evaluation.is_best or self._due:
            self.save()

    def epoch(self, epoch: Epoch) -> None:
        """After each epoch."""
        progress, every = self.trainer.progress, self.trainer.recipe.train.checkpoint.every.epochs
        self._measured(epoch.rows)
        began = perf_counter()
        by_epochs = every is not None and progress.epoch % every == 0
        if epoch.is_best or epoch.is_last or by_epochs or self._due:
            self.save()
        self.log(TIMINGS, [self._timing(epoch, perf_counter() - began)])
        self._record(step=progress.step, epoch=progress.epoch)

    def _measured(self, rows: list[dict[str, Any]]) -> None:
        self.rows += rows
        self.log(METRICS, rows)
        self._log_sharing()

    def save(self) -> None:
        """Commit a checkpoint of the state as it is.

        Raises:
            EnvironmentFault: the disk refused.
        """
        self._check_space()
        progress, checkpoints = self.trainer.progress, self.folder.checkpoints
        if not checkpoints.exists() and self._last_size:
            self._warn_once(f"{checkpoints}: was deleted; it is made again")
        self.log_again()
        files = state.capture(self.trainer, self.folder.offsets())
        path = checkpoint.commit(checkpoints, progress.step, files, self.folder.record["id"], self.parent)
        self._due, self._last_save, self._last_size = False, monotonic(), checkpoint.size_of(path)
        self._retain()

    def _retain(self) -> None:
        """Delete old checkpoints, but not the one that the run was resumed from, nor any that is the best by
        validation, be it for one of those that stay: to go back to it takes that too.
        """
        folder, keep = self.folder.checkpoints, self.trainer.recipe.train.checkpoint.keep
        stay = [*checkpoint.steps(folder)[-keep:], *([] if self.parent is None else [self.parent])]
        bests = [self.trainer.progress.best_step, *(state.best_step_at(folder, step) for step in stay)]
        protect = [step for step in (*bests, self.parent) if step is not None]
        warning = retention.retain(self.folder.checkpoints, self.folder.record["id"], keep, protect)
        if warning:
            self._warn_once(warning)

    def stopped(self) -> None:
        """A stop signal came at the edge of a step: save, unless the end of the run was being written."""
        progress = self.trainer.progress
        if self.folder.record["status"] == "finished":
            self.console.warn(
                f"stopped after the end of the run at step {progress.step}; its results are saved"
            )
            return
        if not self.trainer.finished:
            try:
                self.save()
            except KeyboardInterrupt:  # another one, from somebody who does not wait for the disk
                self.broken_off()
                raise
        self._record(status="interrupted", step=progress.step, epoch=progress.epoch)
        self.console.warn(
            f"stopped at step {progress.step}, which is saved; `mtl run --resume {self.folder.path}` goes on"
        )

    def broken_off(self) -> None:
        """The run was interrupted within a step: the last checkpoint stands."""
        self._record(status="interrupted")
        saved = checkpoint.steps(self.folder.checkpoints)
        kept = f"step {saved[-1]} is saved" if saved else "nothing is saved yet"
        self.console.warn(
            f"stopped at step {self.trainer.progress.step}; {kept}; "
            f"`mtl run --resume {self.folder.path}` goes on"
        )

    def diverged(self, fault: NotFinite) -> None:
        """A loss or gradient was not finite: what is known of that step goes into diverged.json."""
        self._record(status="diverged")
        text = json.dumps({"what": fault.what, **(fault.facts or {})}, indent=1) + "\n"
        self._unless_refused(lambda: write_whole(self.folder.path / DIVERGED, text.encode()), so="")

    def log(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append to a log; a disk that refuses is told once, for training and checkpoints go on.

        What it refused is tried again with the next rows and at each save, so that the log is complete once there is
        room; unless the run ends before.
        """
        waiting = self._unwritten.setdefault(name, [])
        waiting += rows

        def write() -> None:
            while waiting:
                self.folder.log(name, waiting[:1])
                del waiting[0]

        self._unless_refused(write)

    def log_again(self) -> None:
        """Try to write what the disk has refused."""
        for name in self._unwritten:
            self.log(name, [])

    def _record(self, **facts: Any) -> None:
        self._unless_refused(lambda: self.folder.save_record(**facts))

    def _unless_refused(self, write: Callable[[], object], so: str = "; training goes on without it") -> None:
        try:
            write()
        except EnvironmentFault as fault:
            self._warn_once(f"{fault.place}: {fault.what}{so}")

    def _check_space(self) -> None:
        size = self._last_size or 4 * sum(p.nbytes for p in self.trainer.built.model.parameters())
        warning = lacks_space(self.folder.checkpoints, size)
        if warning:
            self._warn_once(warning, f"{self.folder.checkpoints}: space")

    def _warn_once(self, text: str, what: str = "") -> None:
        """One warning for each thing that goes on going wrong."""
        key = what or text
        if key not in self._told:
            self._told.add(key)
            self.console.warn(text)

    def _log_sharing(self) -> None:
        """What is shared now, as one line, unless there is one of this step."""
        progress, shared = self.trainer.progress, self.trainer.built.model.sharing()
        if shared and progress.step != self._sharing_step:
            epoch = progress.epoch + (progress.step_in_epoch > 0)
            places = {
                place: {
                    "targets": list(found.targets),
                    "sources": list(found.sources),
                    "values": found.values.tolist(),
                }
                for place, found in shared.items()
            }
            self.log(SHARING, [{"epoch": epoch, "step": progress.step, "sharing": places}])
            self._sharing_step = progress.step

    def _timing(self, epoch: Epoch, saving: float) -> dict[str, Any]:
        trainer, train = self.trainer, self.trainer.recipe.train
        n_rows = min(len(trainer.dataset.splits["train"]), epoch.steps * train.batch_size * train.accumulate)
        seconds = {**epoch.seconds, "save": saving}
        return {
            "epoch": trainer.progress.epoch,
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
            "rows_per_second": round(n_rows / epoch.seconds["train"], 1),
            "steps_per_second": round(epoch.steps / epoch.seconds["train"], 3),
        }
