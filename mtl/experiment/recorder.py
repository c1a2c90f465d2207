"""The recorder writes the logs, checkpoints and record of a run while it trains."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import monotonic, perf_counter
from typing import Any

from mtl.errors import EnvironmentFault, NotFinite
from mtl.runs import checkpoint, retention, state
from mtl.runs.disk import lacks_space, write_whole
from mtl.runs.folder import DIVERGED, RunFolder
from mtl.runs.logs import METRICS, SHARING, TIMINGS
from mtl.runs.record import Status
from mtl.training.events import EpochEnded, Evaluated, Event, Saved, Started, Stepped, Stream, Warned
from mtl.training.trainer import Trainer

RECORD_EVERY = 60.0
"""Seconds after which run.json gets the step of a run whose epoch goes on, so that `mtl runs` tells it."""


class Recorder:
    """The listener that keeps the folder of one run up to date.

    Args:
        trainer: the trainer of the run.
        folder: the run, which this process holds.
        others: the listeners that hear of checkpoints and of refusals by the disk.
        parent: the step that the run was resumed from, or None.
        save_first: commit the state before the first step, since recipe and data alone do not reproduce it.
        copy: is given the name of a log and each of its new lines.
    """

    def __init__(
        self,
        trainer: Trainer,
        folder: RunFolder,
        others: Stream,
        parent: int | None = None,
        save_first: bool = False,
        copy: Callable[[str, Sequence[Mapping[str, Any]]], None] = lambda name, rows: None,
    ) -> None:
        self.trainer, self.folder, self.others, self.copy = trainer, folder, others, copy
        self.parent, self.save_first = parent, save_first
        self.rows = folder.logs.rows()
        self._sharing_step = next((row["step"] for row in reversed(folder.logs.rows(SHARING))), None)
        self._unwritten: dict[str, list[Mapping[str, Any]]] = {}
        self._due, self._last_save, self._last_size = False, monotonic(), 0
        self._last_record = monotonic()
        self._told: set[str] = set()

    def on(self, event: Event) -> None:
        """Log the measurements of an event, and save a checkpoint if one is due."""
        match event:
            case Started():
                self._start()
            case Stepped():
                self._stepped(event)
            case Evaluated():
                self._measured(event.rows)
                if event.is_best or self._due:
                    self.save()
            case EpochEnded():
                self._epoch_ended(event)

    def _start(self) -> None:
        progress = self.trainer.progress
        if (
            self.folder.record.step != progress.step
        ):  # the process was killed between a checkpoint and its record
            self._record_position()
        if self.parent is not None:
            self._retain()  # a killed process may have left checkpoints to delete
        if self._sharing_step is None:
            self._log_sharing()
        if self.save_first:
            self.save()
        self._check_space()

    def _stepped(self, event: Stepped) -> None:
        every = self.trainer.recipe.train.checkpoint.every
        by_steps = every.steps is not None and self.trainer.progress.step % every.steps == 0
        by_time = every.minutes is not None and monotonic() - self._last_save >= 60 * every.minutes
        self._due = self._due or by_steps or by_time
        if self._due and event.step < event.n_steps and not self.trainer.evaluation_is_due():
            self.save()  # otherwise the save follows the evaluation, as at the end of an epoch
        if monotonic() - self._last_record >= RECORD_EVERY:
            self._record_position()

    def _epoch_ended(self, event: EpochEnded) -> None:
        progress, every = self.trainer.progress, self.trainer.recipe.train.checkpoint.every.epochs
        self._measured(event.rows)
        began = perf_counter()
        by_epochs = every is not None and progress.epoch % every == 0
        if event.is_best or event.is_last or by_epochs or self._due:
            self.save()
        self.log(TIMINGS, [self._timing(event, perf_counter() - began)])
        self._record_position()

    def _measured(self, rows: list[dict[str, Any]]) -> None:
        self.rows += rows
        self.log(METRICS, rows)
        self._log_sharing()

    def save(self) -> None:
        """Commit a checkpoint of the current state.

        Raises:
            EnvironmentFault: the disk refused.
        """
        self.folder.require_held()
        self._check_space()
        progress, checkpoints = self.trainer.progress, self.folder.checkpoints
        if not checkpoints.exists() and self._last_size:
            self._warn_once(f"{checkpoints}: was deleted; it is made again")
        self.log_again()
        files = state.capture(self.trainer, self.folder.logs.synced_lengths())
        path = checkpoint.commit(checkpoints, progress.step, files, self.folder.record.id, self.parent)
        self._due, self._last_save, self._last_size = False, monotonic(), checkpoint.size_of(path)
        self._retain()
        self.others.on(Saved(progress.step, path))

    def _retain(self) -> None:
        """Delete old checkpoints.

        The checkpoint that the run was resumed from stays. The best ones by validation stay too. For each checkpoint
        that stays, the best ones at its time also stay, since a run that resumes from the former needs them.
        """
        folder, keep = self.folder.checkpoints, self.trainer.recipe.train.checkpoint.keep
        stay = [*checkpoint.steps(folder)[-keep:], *([] if self.parent is None else [self.parent])]
        protect = self.trainer.progress.best_steps.union(
            *(state.best_steps_at(folder, step) for step in stay)
        )
        protect |= set() if self.parent is None else {self.parent}
        warning = retention.retain(self.folder.checkpoints, self.folder.record.id, keep, protect)
        if warning:
            self._warn_once(warning)

    def stopped(self) -> None:
        """Save after a stop signal between two steps, unless the training had ended."""
        progress = self.trainer.progress
        if self.folder.record.status == "finished":
            self._warn(f"stopped after the end of the run at step {progress.step}; its results are saved")
            return
        if not self.trainer.finished:
            try:
                self.save()
            except KeyboardInterrupt:  # a second signal: the user does not wait for the disk
                self.broken_off()
                raise
        self._record_position("interrupted")
        self._warn(
            f"stopped at step {progress.step}, which is saved; `mtl run --resume {self.folder.path}` goes on"
        )

    def broken_off(self) -> None:
        """Record that the run was interrupted within a step; the last checkpoint stays the newest."""
        self._warn(f"stopped at step {self.trainer.progress.step}; {self.lost()}")

    def lost(self) -> str:
        """Record that the run was interrupted from outside within a step, and return what is kept and goes on."""
        self._record_status("interrupted")
        saved = checkpoint.steps(self.folder.checkpoints)
        kept = f"step {saved[-1]} is saved" if saved else "nothing is saved yet"
        return f"{kept}; `mtl run --resume {self.folder.path}` goes on"

    def diverged(self, fault: NotFinite) -> None:
        """Record that a loss or gradient was infinite or NaN, and write the facts of that step to diverged.json."""
        self._record_status("diverged")
        text = json.dumps({"what": fault.what, **(fault.facts or {})}, indent=1) + "\n"
        self._unless_refused(lambda: write_whole(self.folder.path / DIVERGED, text.encode()), so="")

    def failed(self) -> None:
        """Record that an error ended the run, if the disk lets it; the last checkpoint stays the newest."""
        if self.folder.record.status != "finished":
            self.folder.record.status = "failed"
            with suppress(EnvironmentFault):  # the error itself is what the user has to know
                self.folder.save_record()

    def log(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows to a log; if the disk refuses, one warning tells it, and training and checkpoints go on.

        The next rows and each save try the refused rows again. So the log is complete again once the disk has room,
        if the run has not ended before.
        """
        waiting = self._unwritten.setdefault(name, [])
        waiting += rows
        self.copy(name, rows)

        def write() -> None:
            while waiting:
                self.folder.logs.append(name, waiting[:1])
                del waiting[0]

        self._unless_refused(write)

    def log_again(self) -> None:
        """Try again to write the rows that the disk has refused."""
        for name in self._unwritten:
            self.log(name, [])

    def _record_position(self, status: Status | None = None) -> None:
        record, progress = self.folder.record, self.trainer.progress
        record.step, record.epoch, self._last_record = progress.step, progress.epoch, monotonic()
        self._record_status(status or record.status)

    def _record_status(self, status: Status) -> None:
        self.folder.record.status = status
        self.folder.record.untold = self.others.lost or None
        self._unless_refused(self.folder.save_record)

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

    def _warn(self, text: str) -> None:
        self.others.on(Warned(text))

    def _warn_once(self, text: str, what: str = "") -> None:
        """Warn once for each lasting problem; `what` names it, by default the text."""
        key = what or text
        if key not in self._told:
            self._told.add(key)
            self._warn(text)

    def _log_sharing(self) -> None:
        """Log the current sharing matrices as one line, unless this step has a line already."""
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

    def _timing(self, epoch: EpochEnded, saving: float) -> dict[str, Any]:
        seconds = {**epoch.seconds, "save": saving}
        return {
            "epoch": self.trainer.progress.epoch,
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
            "rows_per_second": round(epoch.n_rows / epoch.seconds["train"], 1),
            "steps_per_second": round(epoch.steps / epoch.seconds["train"], 3),
        }
