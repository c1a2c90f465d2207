"""The runs that lie below a folder, and the checkpoints of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mtl.errors import UserError
from mtl.runs.checkpoint import Damaged, manifest_of, size_of, steps, verified
from mtl.runs.folder import RECORD, RunFolder


def list_runs(root: Path, refused: Callable[[UserError], object] = lambda error: None) -> list[RunFolder]:
    """Every run below `root`, at most three levels down, oldest first; `refused` gets the error of a damaged run."""
    found = []
    for pattern in (RECORD, f"*/{RECORD}", f"*/*/{RECORD}"):
        for path in sorted(root.glob(pattern)):
            try:
                found.append(RunFolder.open(path.parent))
            except UserError as error:
                refused(error)
    return sorted(found, key=lambda run: run.record.started)


@dataclass(frozen=True)
class Listed:
    """One checkpoint on disk; `fault` says how it is damaged or is empty; `run_id` is the run in its manifest."""

    step: int
    size: int
    created: str
    fault: str
    run_id: str = ""


def listed(folder: Path) -> list[Listed]:
    """Every checkpoint of a run in ascending order of steps, with its health; this reads every byte."""
    found = []
    for step in steps(folder):
        path, fault, created, run_id = folder / f"step-{step:08d}", "", "", ""
        try:
            manifest = manifest_of(path)
            created, run_id = (str(manifest.get(key, ""))[:40] for key in ("created", "run_id"))
            verified(path)
        except Damaged as reason:
            fault = f"damaged ({reason})"
        except UserError as error:
            fault = error.what
        found.append(Listed(step, size_of(path), created, fault, run_id))
    return found
