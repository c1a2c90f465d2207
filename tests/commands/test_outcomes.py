"""How a command ends: its exit code, what it says, who may stop reading, and which packages it needs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from mtl.commands import outcomes
from mtl.errors import BUG, ENVIRONMENT, INTERRUPTED, OK, TERMINATED, NotFinite, Terminated
from mtl.recipe.load import load_recipe
from tests.support.assertions import Capture, Done, called, refused
from tests.support.command_line import ROOT, TINY
from tests.support.command_line import finished as finished
from tests.support.command_line import folder as folder
from tests.support.command_line import run_of as run_of


def test_a_bug_of_ours(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise IndexError("list index\nout of range")

    monkeypatch.setattr("mtl.recipe.load.load_recipe", breaks)
    done = called(capsys, "summary", "t.yaml")
    assert (done.returncode, done.stdout) == (BUG, "")
    (line,) = done.stderr.splitlines()
    match = re.fullmatch(
        r"error: a bug in mtl: IndexError: 'list index\\nout of range'; traceback in (.+\.txt)", line
    )
    assert match
    saved = Path(match[1])
    assert saved.read_text(encoding="utf-8").startswith("Traceback (most recent call last)")
    assert "breaks" in saved.read_text(encoding="utf-8")
    saved.unlink()


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), INTERRUPTED, "interrupted"),
        (click.Abort(), INTERRUPTED, "interrupted"),
        (Terminated(), TERMINATED, "interrupted"),
        (MemoryError(), ENVIRONMENT, "error: not enough memory; lower train.batch_size or the model's size"),
        (OSError(28, "No space left on device", "a/b"), ENVIRONMENT, "error: 'a/b': no space left on device"),
        (OSError(5, "Input/output error"), ENVIRONMENT, "error: mtl: input/output error"),
        (NotFinite("", "task 'a': loss is nan at step 57"), 4, "error: task 'a': loss is nan at step 57"),
    ],
)
def test_exit_codes(
    error: BaseException,
    code: int,
    line: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def breaks(*_: object) -> None:
        raise error

    monkeypatch.setattr("mtl.recipe.load.load_recipe", breaks)
    monkeypatch.setattr(outcomes, "mute", lambda stream: None)  # it would mute pytest
    done = called(capfd, "summary", "t.yaml")
    assert done.returncode == code
    (said,) = done.stderr.split("\n")[-2:-1]
    assert said.startswith(line)
    assert done.stderr in (f"{said}\n", f"\n{said}\n")  # after ^C
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [["--debug", "validate", "sed=1"], ["validate", "--debug", "sed=1"]])
def test_debug_shows_the_traceback(arguments: list[str], capsys: Capture) -> None:
    done = called(capsys, *arguments, "t.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith("Traceback (most recent call last)")
    assert done.stderr.splitlines()[-1].startswith("error: command line: sed: unknown key 'sed'")


def shell(command: str, **environment: str) -> Done:
    mtl = f"'{sys.executable}' -m mtl"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command.replace("MTL", mtl)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("arguments", ["ls", "--help", "show fashion_stitch"])
@pytest.mark.parametrize("to", ["| head -0", ">&-", "| head -1 > /dev/null"])
def test_nobody_reads_on(arguments: str, to: str) -> None:  # C8
    done = shell(f"MTL {arguments} {to}")
    assert (done.returncode, done.stderr) == (OK, "")


def test_a_run_goes_on_when_nobody_reads_on(folder: Path) -> None:  # C8
    done = shell("MTL run t.yaml --out out | head -0")
    assert (done.returncode, done.stderr) == (OK, "")
    assert json.loads((folder / "out" / "run.json").read_text())["status"] == "finished"


def test_stderr_is_closed_too() -> None:
    assert shell("MTL rnu 2>&-").returncode == 2
    assert shell("MTL rnu 2>&1 | head -0").returncode == 2


def test_stdout_is_full() -> None:
    done = shell("MTL schema > /dev/full")
    assert (done.returncode, done.stderr) == (ENVIRONMENT, "error: stdout: no space left on device\n")


def test_a_small_and_simple_terminal(folder: Path, capsys: Capture) -> None:  # C8
    (folder / "t.yaml").write_text(TINY + "description: größe\n", encoding="utf-8")
    done = shell("MTL show t.yaml; MTL rnu", LANG="C", LC_ALL="C", COLUMNS="1", TERM="dumb")
    Path("shown.yaml").write_text(done.stdout, encoding="utf-8")
    assert load_recipe("shown.yaml").sha256() == load_recipe("t.yaml").sha256()
    assert done.stderr == "error: mtl: no command 'rnu' (did you mean 'run'?); mtl --help lists them\n"


# --- the machine ---


def test_the_oldest_torch_is_that_of_the_package() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"torch>={outcomes.OLDEST_TORCH}"' in text
    named = set(re.findall(r'^    "([a-z0-9]+)[><=]', text, re.MULTILINE))
    assert set(outcomes.PACKAGES.values()) <= named


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ("2.9.1+cpu", "mtl: torch 2.9.1+cpu is too old, 2.10 is needed; pip install -U 'torch>=2.10'"),
        ("1.13", "mtl: torch 1.13 is too old, 2.10 is needed; pip install -U 'torch>=2.10'"),
        (None, "mtl: torch is not installed; pip install 'torch>=2.10'"),
    ],
)
def test_torch_is_missing_or_too_old(
    found: str | None, line: str, capsys: Capture, folder: Path, monkeypatch: pytest.MonkeyPatch, run_of: Path
) -> None:  # C6
    def version(package: str) -> str:
        if found is None:
            raise outcomes.PackageNotFoundError(package)
        return found

    monkeypatch.setattr(outcomes, "version", version)
    (folder / "x.csv").write_text("a\n1\n")
    commands = [["run", "t.yaml"], ["validate", "t.yaml"], ["summary", "t.yaml"], ["eval", "done"]]
    commands += [["run", "--resume", "done"], ["predict", "done", "--input", "x.csv", "--output", "y.csv"]]
    for command in commands:
        refused(lambda command=command: called(capsys, *command), folder, [line], code=ENVIRONMENT)  # type: ignore[misc]


@pytest.mark.parametrize("found", ["2.10", "2.10.0+cu128", "2.13.1", "3.0"])
def test_a_torch_that_will_do(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "version", lambda package: found)
    outcomes.require_torch()


def test_a_package_is_missing(capsys: Capture, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # C6
    def breaks(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'PIL'", name="PIL.Image")

    monkeypatch.setattr("mtl.recipe.load.load_recipe", breaks)
    expected = ["mtl: pillow is not installed; pip install pillow"]
    refused(lambda: called(capsys, "summary", "t.yaml"), folder, expected, code=ENVIRONMENT)


def test_cheap_mistakes_are_told_before_torch_is_imported(run_of: Path, folder: Path) -> None:
    (folder / "t.csv").write_text("a,b\n1,0\n2,1\n")
    source = "{kind: table, path: %s, inputs: {numeric: [%s]}}"
    for name, path, column in (("file", "no.csv", "a"), ("column", "t.csv", "no")):
        text = TINY_TABLE.replace("SOURCE", source % (path, column))
        (folder / f"{name}.yaml").write_text(text)
    cases = [
        ["run", "file.yaml"],
        ["run", "column.yaml"],
        ["validate", "column.yaml"],
        ["summary", "file.yaml"],
        ["run", "synthetic_stitch", "--out", str(run_of)],
        ["eval", "nosuchrun"],
        ["eval", str(run_of), "--data", "no.csv"],
        ["sharing", "nosuchrun"],
        ["predict", str(run_of), "--input", "t.csv", "--output", "o.txt"],
        ["predict", str(run_of), "--input", "no.csv", "--output", "o.csv"],
    ]
    code = (
        "import sys\nfrom mtl.cli import main\n"
        f"for case in {cases!r}:\n"
        "    assert main(case) == 2, case\n"
        "    assert 'torch' not in sys.modules, case\n"
    )
    environment, command = {**os.environ, "PYTHONPATH": str(ROOT)}, [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == len(cases)


TINY_TABLE = """\
schema_version: 1
name: t
data: {source: SOURCE, split: {test: 0.5}}
tasks: {b: {kind: binary, target: b}}
model: {backbone: {kind: layers, stages: [{name: fc1, kind: linear, features: 2}]}}
optimizer: {kind: sgd, lr: 0.1}
train: {epochs: 1, batch_size: 2}
"""
