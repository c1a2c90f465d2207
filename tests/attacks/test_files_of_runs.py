"""A run that somebody gave away may have anything in place of its files: every command says so within seconds.

All files of a run x what stands in their place x the commands that read runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from mtl.cli import main
from mtl.errors import ENVIRONMENT, OK, USER
from mtl.runs.json_text import canonical_json
from tests.experiment.test_resume import no_plots
from tests.support.assertions import Capture
from tests.support.recipes import stitched, write

__all__ = ["no_plots"]
LIMIT, MOST = 10, 64 << 20
"""Seconds, and bytes that Python may hold at once, for one command."""


def pipe(path: Path) -> None:
    os.mkfifo(path)


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def door(path: Path) -> None:
    """A socket, bound by its name alone since paths of sockets are short."""
    before = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def folder(path: Path) -> None:
    path.mkdir()


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(4 << 30)


def empty(path: Path) -> None:
    path.touch()


def link_outside(path: Path) -> None:
    path.symlink_to("/etc/hostname")


OFTEN: tuple[Callable[[Path], None], ...] = (pipe, zeros, folder, sparse)
INSTEAD = (*OFTEN, door, empty, link_outside)
FILES = (
    "run.json", "recipe.resolved.yaml", "metrics.jsonl", "sharing.jsonl", "timings.jsonl", "bootstrap.json",
    "test_details.json", *(f"checkpoints/step-{step:08d}/{name}" for step in (5, 15) for name in (
        "manifest.json", "state.json", "model.safetensors", "optim.safetensors", "weighting.safetensors")),
)  # fmt: skip
READ_WHOLE = tuple(name for name in FILES if not name.endswith(".safetensors"))
COMMANDS = {
    "resume": ("run", "--resume", "{run}", "train.epochs=4", "--quiet", "--no-report"),
    "report": ("report", "{run}"),
    "runs": ("runs", "{above}"),
    "checkpoints": ("checkpoints", "{run}"),
    "eval": ("eval", "{run}"),
    "sharing": ("sharing", "{run}"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    above = tmp_path_factory.mktemp("whole")
    recipe = write(above, model__sharing=stitched("fc1"), train__epochs=3)
    assert main(["run", str(recipe), "--quiet", "--out", str(above / "run")]) == OK
    present = {str(path.relative_to(above / "run")) for path in (above / "run").rglob("*") if path.is_file()}
    assert set(FILES) <= present
    return above / "run"


@pytest.fixture
def alarm() -> Iterator[None]:
    """A command that takes longer than `LIMIT` ends the test."""

    def late(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"more than {LIMIT} s")

    before = signal.signal(signal.SIGALRM, late)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def outcomes(run: Path, commands: tuple[str, ...]) -> dict[str, int]:
    """The exit code of each command, none of which may hang or hold much."""
    codes = {}
    for name in commands:
        given = [part.format(run=run, above=run.parent) for part in COMMANDS[name]]
        tracemalloc.start()
        signal.alarm(LIMIT)
        codes[name] = main(given)
        signal.alarm(0)
        assert tracemalloc.get_traced_memory()[1] < MOST, name
        tracemalloc.stop()
    return codes


def check(name: str, instead: Callable[[Path], None], run: Path, commands: tuple[str, ...]) -> None:
    (run / name).unlink()
    instead(run / name)
    codes = outcomes(run, commands)
    assert set(codes.values()) <= {OK, USER, ENVIRONMENT}, codes
    needless = {"run.json": {"runs"}, "recipe.resolved.yaml": {"runs", "checkpoints"}}.get(
        name, set(COMMANDS)
    )
    assert {code for command, code in codes.items() if command not in needless} <= {USER, ENVIRONMENT}, codes


@pytest.mark.usefixtures("no_plots", "alarm")
@pytest.mark.parametrize("instead", OFTEN, ids=lambda instead: instead.__name__)
@pytest.mark.parametrize("name", READ_WHOLE)
def test_what_a_command_reads_whole(
    name: str, instead: Callable[[Path], None], made: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(made, tmp_path / "run"))
    check(name, instead, run, ("report", "resume"))


@pytest.mark.slow
@pytest.mark.usefixtures("no_plots", "alarm")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("instead", INSTEAD, ids=lambda instead: instead.__name__)
@pytest.mark.parametrize("name", FILES)
def test_every_file_and_every_command(
    name: str, instead: Callable[[Path], None], command: str, made: Path, tmp_path: Path
) -> None:
    check(name, instead, Path(shutil.copytree(made, tmp_path / "run")), (command,))


def test_all_are_tried() -> None:
    assert (len(FILES), len(READ_WHOLE), len(OFTEN), len(INSTEAD), len(COMMANDS)) == (17, 11, 4, 7, 6)


# --- numbers ---

NUMBERS = (-1, 99, 2**31, 2**39, 10**30, 1.5, True, "7", [], {})
POSITIONS = (
    "global_step",
    "epoch",
    "step_in_epoch",
    "best_step",
    "best_epoch",
    "horizon",
    "evaluated",
    "skipped",
    "stale",
)


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that validation has chosen a step of; its newest checkpoint is that of step 12."""
    above = tmp_path_factory.mktemp("chosen")
    recipe = write(above, train__epochs=3, data__split={"validation": 0.25})
    assert main(["run", str(recipe), "--quiet", "--no-report", "--out", str(above / "run")]) == OK
    return above / "run"


def rewrite(checkpoint: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    """Change a file of a checkpoint, and its digest and length in the manifest: a forger would."""
    data = change((checkpoint / name).read_bytes())
    (checkpoint / name).write_bytes(data)
    manifest = json.loads((checkpoint / "manifest.json").read_bytes())
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.usefixtures("no_plots", "alarm")
@pytest.mark.parametrize(
    ("key", "value"),
    [
        (key, value) for key in POSITIONS for value in NUMBERS if (key, value) != ("horizon", 99)
    ],  # a longer schedule
)
def test_a_forged_position_drives_no_loop(
    key: str, value: object, chosen: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = Path(shutil.copytree(chosen, tmp_path / "run"))
    path = max((run / "checkpoints").glob("step-*"))
    found = []

    def change(data: bytes) -> bytes:
        state = json.loads(data)
        for section in (state["position"], state["progress"]):
            if key in section:
                section[key] = value
                found.append(key)
        return json.dumps(state).encode()

    rewrite(path, "state.json", change)
    assert found == [key]
    before = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**before, "status": "interrupted"}))
    assert outcomes(run, ("resume",))["resume"] == USER
    error = capsys.readouterr().err
    assert "state.json: is not the state of a run" in error
    assert len(error.splitlines()) <= 3


@pytest.mark.usefixtures("no_plots", "alarm")
@pytest.mark.parametrize("shape", [[2**28], [2**14, 2**14], [17]])
def test_sizes_of_a_record_take_no_memory(
    shape: list[int], chosen: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = Path(shutil.copytree(chosen, tmp_path / "run"))
    record = json.loads((run / "run.json").read_text())
    record["model"]["input_shape"] = shape
    record["model_sha256"] = hashlib.sha256(canonical_json(record["model"])).hexdigest()
    (run / "run.json").write_text(json.dumps(record))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert outcomes(run, ("eval",)) == {"eval": USER}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB
    assert "the recipe's is (" in capsys.readouterr().err


def test_weights_that_are_not_finite_are_refused(chosen: Path, tmp_path: Path, capsys: Capture) -> None:
    run = Path(shutil.copytree(chosen, tmp_path / "run"))
    selected = json.loads((run / "run.json").read_text())["selected"]["step"]

    def change(data: bytes) -> bytes:
        return data[:-4] + b"\x00\x00\xc0\x7f"  # NaN, in the last tensor

    rewrite(run / f"checkpoints/step-{selected:08d}", "model.safetensors", change)
    assert outcomes(run, ("eval",)) == {"eval": USER}
    assert "model.safetensors: holds non-finite values in " in capsys.readouterr().err
