"""A process that makes runs one after the other, as its parent asks for them; by itself those of a comparison.

Each line on stdin is a job in JSON, each line on stdout a report. A closed stdin ends the run under way after a save,
so that no run goes on when its parent was stopped or killed.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TextIO

from mtl.errors import NotFinite, UserError
from mtl.training.process import load_torch, start_process

if TYPE_CHECKING:
    from mtl.training.events import Event

EVERY = 0.5
"""Seconds between two reports of a position."""


Work = Callable[[Mapping[str, Any], Sequence[str], TextIO], Mapping[str, Any] | None]
"""Does a job, with the plug-ins that were loaded and the stream of reports; returns how it ended, or None: finished."""


def serve(plugins: Sequence[str], work: Work) -> int:
    """Do every job that comes, and report each; the end of stdin ends the process."""
    from mtl.registry import load_plugin

    start_process()
    load_torch()
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a user's part prints belongs to the log, not to the reports
    loaded = [load_plugin(name) for name in plugins]
    for job in _jobs():
        tell(reports, _done(work, job, loaded, reports))
    return 0


def tell(reports: TextIO, said: Mapping[str, Any]) -> None:
    """Write a report."""
    print(json.dumps(said), file=reports, flush=True)


def _jobs() -> Iterator[dict[str, Any]]:
    """Yield the jobs; once stdin is closed, this process gets the signal that ends a run after a save."""
    waiting: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            waiting.put(json.loads(line))
        waiting.put(None)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=listen, daemon=True).start()
    while (job := waiting.get()) is not None:
        yield job


def _done(work: Work, job: Mapping[str, Any], plugins: Sequence[str], reports: TextIO) -> Mapping[str, Any]:
    """Do one job, and return what became of it."""
    from mtl.registry import fault_of_plugin

    try:
        return work(job, plugins, reports) or {"ended": "finished"}
    except NotFinite as fault:
        return {"ended": "diverged", "why": str(fault)}
    except UserError as error:
        return {"ended": "refused", "errors": [str(each) for each in error.errors], "code": error.code}
    except BaseException as error:  # an exit or an interrupt of a plug-in's own too
        if isinstance(error, KeyboardInterrupt) and fault_of_plugin(error) is None:
            raise
        traceback.print_exc()
        return {"ended": "failed", "why": _said(error)}


def _said(error: BaseException) -> str:
    """A fault of a plug-in in words, or an unforeseen error by its type."""
    from mtl.registry import fault_of_plugin

    fault = fault_of_plugin(error)
    return str(fault) if fault is not None else f"{type(error).__name__}: {error}"


class Position:
    """A listener that reports the step of a run now and then.

    Args:
        reports: the stream of reports.
        further: what each report says beside it.
    """

    def __init__(self, reports: TextIO, further: Mapping[str, Any] | None = None) -> None:
        self.reports, self.further, self._last = reports, further or {}, 0.0

    def on(self, event: Event) -> None:
        """Report the step of a run."""
        from mtl.training.events import Started, Stepped

        if isinstance(event, Started):
            self._trainer = event.trainer
        if isinstance(event, Stepped) and monotonic() - self._last >= EVERY:
            self._last = monotonic()
            progress, total = self._trainer.progress, self._trainer.total_steps
            tell(self.reports, {**self.further, "step": progress.step, "of": total})


def _compared(job: Mapping[str, Any], plugins: Sequence[str], reports: TextIO) -> None:
    """Make a reference, or begin a run, or go on with one that was broken off."""
    if job["do"] == "reference":
        from mtl.comparison.references.make import make

        return make(job)
    from mtl.experiment.resume import resume
    from mtl.experiment.run import run

    listeners = (Position(reports),)
    out = Path(job["out"])
    if (out / "run.json").exists():
        resume(out, plugins=plugins, listeners=listeners, report=False)
    else:
        run(job["recipe"], out=out, plugins=plugins, listeners=listeners, report=False)
    _keep_result(out)


def _keep_result(out: Path) -> None:
    """Delete the checkpoints of a finished run that its result does not need, since a comparison has many runs."""
    from mtl.runs import retention
    from mtl.runs.folder import RunFolder

    folder = RunFolder.open(out)
    selected = folder.record.selected
    if selected is not None:
        retention.retain(folder.checkpoints, folder.record.id, 1, [selected.step])


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:], _compared))
