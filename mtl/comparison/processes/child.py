"""A process that makes the runs of a comparison one after the other, as its parent asks for them.

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
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from mtl.errors import NotFinite, UserError
from mtl.training.process import load_torch, start_process

EVERY = 0.5
"""Seconds between two reports of a position."""


def main(plugins: Sequence[str]) -> int:
    """Do every job that comes, and report each; the end of stdin ends the process."""
    from mtl.registry import load_plugin

    start_process()
    load_torch()
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a user's part prints belongs to the log, not to the reports
    loaded = [load_plugin(name) for name in plugins]
    for job in _jobs():
        report = _done(job, loaded, reports)
        print(json.dumps(report), file=reports, flush=True)
    return 0


def _jobs() -> Any:
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


def _done(job: Mapping[str, Any], plugins: Sequence[str], reports: Any) -> dict[str, Any]:
    """Do one job, and return what became of it."""
    from mtl.registry import fault_of_plugin

    try:
        if job["do"] == "reference":
            from mtl.comparison.references.make import make

            make(job)
        else:
            _run(job, plugins, reports)
    except NotFinite as fault:
        return {"ended": "diverged", "why": str(fault)}
    except UserError as error:
        return {"ended": "refused", "errors": [str(each) for each in error.errors], "code": error.code}
    except BaseException as error:  # an exit or an interrupt of a plug-in's own too
        if isinstance(error, KeyboardInterrupt) and fault_of_plugin(error) is None:
            raise
        traceback.print_exc()
        return {"ended": "failed", "why": _said(error)}
    return {"ended": "finished"}


def _said(error: BaseException) -> str:
    """A fault of a plug-in in words, or an unforeseen error by its type."""
    from mtl.registry import fault_of_plugin

    fault = fault_of_plugin(error)
    return str(fault) if fault is not None else f"{type(error).__name__}: {error}"


def _run(job: Mapping[str, Any], plugins: Sequence[str], reports: Any) -> None:
    """Begin a run, or go on with one that was broken off."""
    from mtl.experiment.resume import resume
    from mtl.experiment.run import run
    from mtl.training.events import Event, Started, Stepped

    last = [0.0]
    total = [0]

    class Position:
        """Reports the step now and then."""

        def on(self, event: Event) -> None:
            """Report the step of a run."""
            if isinstance(event, Started):
                self.trainer, total[0] = event.trainer, event.trainer.total_steps
            if isinstance(event, Stepped) and monotonic() - last[0] >= EVERY:
                last[0] = monotonic()
                print(
                    json.dumps({"step": self.trainer.progress.step, "of": total[0]}), file=reports, flush=True
                )

    out = Path(job["out"])
    if (out / "run.json").exists():
        resume(out, plugins=plugins, listeners=(Position(),), report=False)
    else:
        run(job["recipe"], out=out, plugins=plugins, listeners=(Position(),), report=False)
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
    sys.exit(main(sys.argv[1:]))
