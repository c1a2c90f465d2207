"""Files and folders that may not be read or written, and places where none can be (K17, C9, R3).

In processes that have given up root's rights, so that the kernel itself refuses. A fault planned at the first step
would show if a run came as far as to training.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtl.errors import ENVIRONMENT, USER, quoted
from tests.faults.test_runs import STEPS, Command, _quick, straight
from tests.faults.test_stop_signals import fetches, small_fashion
from tests.support.assertions import Capture, Done, called, contents
from tests.support.lives import GROUPED, Life
from tests.support.lives import command as in_a_life
from tests.support.recipes import around, table, write

__all__ = ["_quick", "straight"]
pytestmark = GROUPED


@pytest.fixture(autouse=True)
def _there(tmp_path: Path) -> Iterator[None]:
    """Modes are put back, or pytest could not delete what the tests made."""
    yield
    for path in tmp_path.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)


@pytest.fixture
def shut(tmp_path: Path) -> Path:
    """A folder in which nothing can be made."""
    path = tmp_path / "shut"
    path.mkdir()
    path.chmod(0o500)
    return path


def without_rights(folder: Path, *arguments: str | Path, **options: Any) -> Done:
    with Life(in_a_life, *arguments, folder=folder, fail="forward:1:raise", rights=False, **options) as life:
        return life.end()


def run(command: Command, folder: Path) -> Done:
    return without_rights(
        folder, "run", command.straight / "r.yaml", "--quiet", "--resume", "auto", "--out", command.out
    )


def test_nothing_can_be_made_there(shut: Path, tmp_path: Path) -> None:
    """Or the tests below would show nothing."""
    with Life(make, shut / "file", folder=tmp_path, rights=False) as life:
        assert life.end().returncode == errno.EACCES
    assert list(shut.iterdir()) == []


def make(path: Path) -> int:
    try:
        path.touch()
    except OSError as error:
        return error.errno or 0
    return 0


# --- the run folder (K17) ---


@pytest.mark.parametrize("below", ["", "out", "a/b/out"], ids=["itself", "its parent", "far above"])
def test_a_place_for_a_run_that_is_read_only(
    below: str, shut: Path, capsys: Capture, straight: Path, tmp_path: Path
) -> None:
    command = Command(capsys, straight, shut / below)
    done = run(command, tmp_path)
    assert (done.returncode, done.stdout) == (ENVIRONMENT, "")
    what = "cannot make the run folder" if below else "cannot be locked"
    assert done.stderr == f"error: {command.out}: {what}: permission denied\n"
    assert list(shut.iterdir()) == []
    shut.chmod(0o700)
    command.goes_on()


@pytest.mark.parametrize("what", ["folder", "lock", "record", "checkpoints", "log"])
def test_a_run_that_may_not_go_on(what: str, capsys: Capture, straight: Path, tmp_path: Path) -> None:
    """A run that was stopped and belongs to somebody else by now; it is as it was, and goes on when it may."""
    command = Command(capsys, straight, tmp_path / "out")
    with Life(in_a_life, "run", straight / "r.yaml", "--quiet", "--out", command.out,
              folder=tmp_path, fail="backward:5:term") as life:  # fmt: skip
        life.end()
    assert command.saved() == [STEPS, 5]
    places = {
        "folder": command.out, "lock": command.out / ".lock", "record": command.out / "run.json",
        "checkpoints": command.out / "checkpoints", "log": command.out / "metrics.jsonl",
    }  # fmt: skip
    place, before = places[what], contents(command.out)
    mode = place.stat().st_mode
    place.chmod(0o500 if place.is_dir() else 0o000)
    done = run(command, tmp_path)
    place.chmod(mode)
    assert (done.returncode, done.stdout) == (ENVIRONMENT, "")
    assert re.fullmatch(rf"error: {command.out}\S*: .*permission denied\n", done.stderr)
    assert {name: data for name, data in contents(command.out).items() if name != ".lock"} == {
        name: data for name, data in before.items() if name != ".lock"
    }
    command.goes_on()


LONG = {"a name": "n" * 256, "a path": "/".join(["d" * 200] * 21)}


@pytest.mark.parametrize("long", LONG)
def test_a_place_that_is_too_long(long: str, capsys: Capture, straight: Path, tmp_path: Path) -> None:
    out = tmp_path / LONG[long]
    what = os.strerror(errno.ENAMETOOLONG).lower()
    begun = called(capsys, "run", straight / "r.yaml", "--quiet", "--out", out)
    assert begun.stderr == f"error: {out}: cannot make the run folder: {what}\n"
    gone_on = Command(capsys, straight, out)()
    assert gone_on.stderr == f"error: {quoted(str(out / 'run.json'))}: {what}\n"
    assert (begun.returncode, begun.stdout, gone_on.returncode, gone_on.stdout) == (ENVIRONMENT, "") * 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "out"])
def test_a_file_in_the_place_of_a_folder(below: str, capsys: Capture, straight: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    command = Command(capsys, straight, tmp_path / "taken" / below)
    done = command()
    assert (done.returncode, done.stdout) == (ENVIRONMENT, "")
    what = {"": "file exists", "out": "not a directory"}[below]
    assert done.stderr == f"error: {command.out}: cannot make the run folder: {what}\n"
    assert contents(tmp_path) == {"taken": b"mine"}


# --- the cache (C9) ---


@pytest.mark.parametrize("chosen", [True, False], ids=["MTL_CACHE", "the home"])
def test_a_cache_that_is_not_ours(chosen: bool, shut: Path, tmp_path: Path) -> None:
    environment = {
        "MTL_CACHE": str(shut / "cache") if chosen else "",
        "HOME": str(shut),
        "XDG_CACHE_HOME": "",
    }
    arguments = ("http://127.0.0.1:9/", small_fashion(tmp_path), "out")
    with Life(fetches, *arguments, folder=tmp_path, environment=environment, rights=False) as life:
        done = life.end()
    place = shut / ("cache/fashion_mnist" if chosen else ".cache/mtl/fashion_mnist")
    what = f"data.source: {place}: cannot write: Permission denied; set MTL_CACHE to another folder"
    assert (done.returncode, done.stdout) == (ENVIRONMENT, "")
    assert re.fullmatch(rf"error: \S+f\.yaml:\d+:\d+: {re.escape(what)}\n", done.stderr)
    assert list(shut.iterdir()) == []
    assert not (tmp_path / "out").exists()


# --- what is read (R3, D) ---


@pytest.mark.parametrize("name", ["r.yaml", "t.csv"])
def test_a_file_that_may_not_be_read(name: str, tmp_path: Path) -> None:
    sold = {"kind": "binary", "target": "sold"}
    write(tmp_path, **around(table("t.csv", "u"), sold), train__batch_size=10)
    (tmp_path / "t.csv").write_text(
        "u,sold\n" + "".join(f"{i / 7},{['no', 'yes'][i % 2]}\n" for i in range(40))
    )
    (tmp_path / name).chmod(0o000)
    done = without_rights(tmp_path, "run", "r.yaml", "--out", "out")
    assert (done.returncode, done.stdout) == (USER, "")
    assert re.fullmatch(
        rf"error: (r\.yaml:\d+:\d+: .*)?{re.escape(name)}: .*permission denied\n", done.stderr, re.I
    )
    assert not (tmp_path / "out").exists()
    (tmp_path / name).chmod(0o600)
    assert "Injected" in without_rights(tmp_path, "run", "r.yaml", "--out", "out").stderr


def test_a_plug_in_that_may_not_be_read(straight: Path, tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text("import mtl\n")
    (tmp_path / "p.py").chmod(0o000)
    done = without_rights(tmp_path, "run", straight / "r.yaml", "--plugin", "p.py", "--out", "out")
    assert (done.returncode, done.stdout) == (USER, "")
    assert re.fullmatch(r"error: .*p\.py.*permission denied.*\n", done.stderr, re.I), done.stderr
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_may_not_be_read(capsys: Capture, straight: Path, tmp_path: Path) -> None:
    """Explicitly asked for it is refused; else it counts as damaged, and the one before it is used."""
    command = Command(capsys, straight, tmp_path / "out")
    shutil.copytree(straight / "run", command.out)
    newest = max((command.out / "checkpoints").glob("step-*"))
    (newest / "model.safetensors").chmod(0o000)
    done = without_rights(tmp_path, "run", "--resume", newest)
    said = f"error: {newest}: is damaged (model.safetensors: Permission denied); resume the run to use an older one\n"
    assert (done.returncode, done.stdout, done.stderr) == (USER, "", said)
