"""The runs that lie below a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mtl.errors import UserError
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
