"""Writes the page of a run or of a comparison into its folder."""

from __future__ import annotations

import os
from pathlib import Path

from mtl.errors import UserError
from mtl.report.page.compare_page import COMPARE_PAGE, COMPARISON, compare_page
from mtl.report.page.facts import read_facts
from mtl.report.page.run_page import run_page
from mtl.runs.disk import require_own, write_whole
from mtl.runs.folder import RECORD, RunFolder

RUN_PAGE = "report.html"


def write_report(path: str | os.PathLike[str]) -> Path:
    """Write `report.html` of a run, or `compare.html` of a comparison, and return its path; no data are needed.

    Args:
        path: the folder of a run, finished or not, or of a comparison.

    Raises:
        UserError: there is neither, or a file of it is not what mtl writes.
        EnvironmentFault: the page cannot be written.
    """
    folder = Path(path)
    if (folder / COMPARISON).exists() and not (folder / RECORD).exists():
        return _write(folder / COMPARE_PAGE, compare_page(folder))
    return write_run_report(RunFolder.open(folder))


def write_run_report(folder: RunFolder, standing: tuple[str, int] | None = None) -> Path:
    """Write `report.html` of a run.

    Args:
        folder: the run.
        standing: its status and step, if the caller holds the run; otherwise its lock tells them.

    Raises:
        UserError: a file of the run is not what a run writes.
        EnvironmentFault: the page cannot be written.
    """
    return _write(folder.path / RUN_PAGE, run_page(read_facts(folder, standing)))


def _write(path: Path, page: bytes) -> Path:
    if path.is_dir():
        raise UserError(str(path), "is a folder, and the page would have this name", "move it away")
    require_own(path)
    write_whole(path, page)
    return path
