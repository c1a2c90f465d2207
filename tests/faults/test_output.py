"""Telling the user cannot break the work: a run goes on without the lines that nobody can read."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtl.errors import ENVIRONMENT, OK
from tests.support.assertions import contents
from tests.support.recipes import stitched, write

ROOT = Path(__file__).parents[2]
FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")


def full_stdout() -> None:
    os.dup2(os.open(FULL, os.O_WRONLY), 1)


def full_stderr() -> None:
    os.dup2(os.open(FULL, os.O_WRONLY), 2)


def full() -> None:
    full_stdout()
    full_stderr()


def closed() -> None:
    os.close(1)
    os.close(2)


def no_reader() -> None:
    """Both streams are pipes that nobody reads."""
    for number in (1, 2):
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, number)


def gone() -> None:
    """Both streams are a terminal that has been closed, by a shell that is gone."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    master, slave = os.openpty()
    for number in (0, 1, 2):
        os.dup2(slave, number)
    os.close(master)


NO_SPACE, NO_TERMINAL = os.strerror(errno.ENOSPC).lower(), os.strerror(errno.EIO).lower()
OUTPUTS: dict[Callable[[], None], list[str] | None] = {
    full_stdout: [f"stdout: {NO_SPACE}"],
    full_stderr: None,  # a run without warnings says nothing there
    full: [f"stdout: {NO_SPACE}"],
    closed: None,
    no_reader: None,
    gone: [f"stdout: {NO_TERMINAL}"],
}


def mtl(*arguments: object, output: Callable[[], None] | None = None, **environment: str) -> Any:
    """The command in a process of its own; `output` runs in it first and changes its streams."""
    return subprocess.run(
        [sys.executable, "-m", "mtl", *map(str, arguments)], preexec_fn=output, capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, and the run of it that nothing disturbed."""
    folder = tmp_path_factory.mktemp("output")
    write(folder, model__sharing=stitched("fc1"), train__epochs=2)
    assert mtl("run", folder / "r.yaml", "--out", folder / "out", "--no-report").returncode == OK
    return folder


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: output.__name__)
def test_a_run_goes_on_without_its_output(output: Callable[[], None], straight: Path, tmp_path: Path) -> None:
    done = mtl("run", straight / "r.yaml", "--out", tmp_path / "out", "--no-report", output=output)
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert (done.returncode, record["status"]) == (OK, "finished")
    assert record.get("untold") == OUTPUTS[output]
    logs = ("metrics.jsonl", "sharing.jsonl", "metrics.csv")
    assert [(tmp_path / "out" / log).read_bytes() for log in logs] == [
        (straight / "out" / log).read_bytes() for log in logs
    ]


def test_a_terminal_that_is_closed_while_its_bar_moves(tmp_path: Path) -> None:
    write(tmp_path, train__epochs=300)
    master, slave = os.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "mtl", "run", "r.yaml", "--out", "out", "--no-report"],
        stdin=slave, stdout=slave, stderr=slave, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    os.close(slave)
    shown = b""
    while b"epoch   2/300" not in shown:
        shown += os.read(master, 1024)
    os.close(master)
    assert child.wait(timeout=120) == OK
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert (record["status"], record["epoch"]) == ("finished", 300)
    assert {line.partition(": ")[2] for line in record["untold"]} == {NO_TERMINAL}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_without_a_letter_gets_its_escape(encoding: str, tmp_path: Path) -> None:
    described = "Zażółć Ω"
    write(tmp_path, name="r", description=described)
    done = mtl(
        "run", tmp_path / "r.yaml", "--out", tmp_path / "out", "--no-report", PYTHONIOENCODING=encoding
    )
    assert done.returncode == OK, done.stderr
    first = done.stdout.decode(encoding).splitlines()[0]
    assert first == "r: " + described.encode(encoding, "backslashreplace").decode(encoding)


def test_a_command_whose_result_is_its_output_fails_without_it(straight: Path) -> None:
    done = mtl("show", straight / "r.yaml", output=full_stdout)
    assert (done.returncode, done.stderr.decode()) == (ENVIRONMENT, f"error: stdout: {NO_SPACE}\n")
    assert mtl("show", straight / "r.yaml", output=no_reader).returncode == OK


def test_the_end_of_a_comparison_needs_no_reader(straight: Path, tmp_path: Path) -> None:
    given = ("compare", straight / "r.yaml", "--seeds", "2", "--jobs", "1", "--out", tmp_path / "c")
    assert mtl(*given, output=full_stdout).returncode == OK
    assert "compare.json" in contents(tmp_path / "c")
