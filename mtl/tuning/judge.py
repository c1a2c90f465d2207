"""The judgement of a trial by validation, through the events of its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from mtl.errors import UserError
from mtl.runs import retention
from mtl.runs.folder import RunFolder
from mtl.runs.logs import RunLogs
from mtl.training.events import EpochEnded, Evaluated, Event, Halted, Started
from mtl.training.trainer import Trainer


class Judge:
    """The listener that judges a run by validation: it reports each evaluation, prunes, and ends before the test.

    A run that it halts has the status `interrupted`. Its results on the test split were never computed.

    Args:
        trial: the trial of the run.
        metric: the validation metric that chooses.
    """

    def __init__(self, trial: optuna.Trial, metric: str) -> None:
        self.trial, self.metric = trial, metric
        self.trainer: Trainer | None = None
        self.pruned = False
        self._n_evaluations = 0
        self._last: float | None = None

    @property
    def value(self) -> float | None:
        """The best value so far; with `train.select: last` the last one."""
        if self.trainer is None:
            return None
        return self._last if self.trainer.recipe.train.select == "last" else self.trainer.progress.best

    def on(self, event: Event) -> None:
        """Report the evaluations of a run, and halt it once it is pruned or trained.

        Raises:
            Halted: it is.
            UserError: another metric chooses in this run.
        """
        if isinstance(event, Started):
            self._start(event)
        if isinstance(event, Evaluated | EpochEnded):
            is_last = isinstance(event, EpochEnded) and event.is_last
            is_new = self._measured(event.rows)
            self.pruned = is_new and not is_last and self.trial.should_prune()
            if self.pruned or is_last:
                raise Halted

    def _start(self, event: Started) -> None:
        self.trainer = event.trainer
        selecting = event.trainer.selecting
        if selecting is None or selecting[0] != self.metric:
            what = f"{'no metric' if selecting is None else selecting[0]} chooses in it, where {self.metric} does else"
            raise UserError("", what)
        self._measured(RunLogs(event.path).rows())
        if event.trainer.finished:
            raise Halted

    def _measured(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Report lines of metrics.jsonl, and return whether one is of validation.

        Evaluations are counted, so that trials with batches of other sizes can be compared.
        """
        of_validation = [row for row in rows if row["split"] == "validation"]
        for row in of_validation:
            self._n_evaluations += 1
            self._last = row[self.metric]
            if self._last is not None:
                self.trial.report(self._last, self._n_evaluations)
        return bool(of_validation)

    def release(self, path: Path) -> None:
        """Delete the checkpoints that nobody needs who goes on with the run, since a sweep has many of them."""
        assert self.trainer is not None
        folder = RunFolder.open(path)
        retention.retain(folder.checkpoints, folder.record.id, 1, self.trainer.progress.best_steps)
