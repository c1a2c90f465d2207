"""A small recipe in a working directory of its own, and a finished run of it: import these fixtures by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtl.errors import OK
from tests.support.assertions import Capture, Done, called, plugins_undone
from tests.support.recipes import stitched, text

ROOT = Path(__file__).parents[2]
TINY = text(
    name="tiny",
    model__sharing=stitched("fc1"),
    train={"epochs": 2, "batch_size": 20, "threads": 1, "device": "cpu"},
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory with the recipe t.yaml."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (work / "t.yaml").write_text(TINY, encoding="utf-8")
    with plugins_undone():
        yield work


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """`mtl run t.yaml` in a process of its own; `finished.args` is its run folder."""
    place = tmp_path_factory.mktemp("finished")
    (place / "t.yaml").write_text(TINY, encoding="utf-8")
    command = [sys.executable, "-m", "mtl", "run", "t.yaml", "--out", "done"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    done.args = place / "done"
    return done


@pytest.fixture
def run_of(finished: Done, folder: Path) -> Path:
    """A copy of that finished run."""
    shutil.copytree(finished.args, folder / "done")
    return Path("done")


def good(done: Done) -> str:
    assert done.stderr == ""
    assert done.returncode == OK
    return str(done.stdout)


def ran(capsys: Capture, folder: Path) -> tuple[Done, dict[str, Any]]:
    """`mtl run r.yaml` to its end: what it said and its record."""
    done = called(capsys, "run", "r.yaml", "--out", "run")
    assert done.returncode == 0, done.stderr
    return done, json.loads((folder / "run" / "run.json").read_text())
