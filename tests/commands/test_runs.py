"""Commands about runs that are there: they tell the truth of each, write nothing, and refuse what is no run."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mtl
from mtl.errors import ENVIRONMENT, OK
from mtl.runs.json_text import canonical_json
from tests.support.assertions import Capture, called, contents, refused
from tests.support.recipes import small, stitched

ROOT = Path(__file__).parents[2]
RECIPE = small(
    name="tiny",
    data={"source": {"kind": "synthetic", "rows": 40, "test_rows": 10}},
    model__sharing=stitched("fc1"),
    optimizer={"kind": "adam", "lr": 0.1},
    train={"epochs": 3, "batch_size": 20, "device": "cpu", "threads": 1},
)
"""Two steps an epoch, a checkpoint after each: 2, 4 and 6."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mtl.run(RECIPE, out=tmp_path_factory.mktemp("made") / "run").path


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a finished run, `run` in the working directory."""
    shutil.copytree(made, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return Path("run")


def says(run: Path, **facts: Any) -> None:
    """Put facts into run.json; None takes the key away."""
    record = json.loads((run / "run.json").read_bytes()) | facts
    kept = {key: value for key, value in record.items() if value is not None}
    (run / "run.json").write_text(json.dumps(kept), encoding="utf-8")


def crash(run: Path) -> None:
    """As a kill leaves a run after its second checkpoint: run.json still speaks of the first epoch."""
    says(run, status="running", step=2, epoch=1, results={}, selected=None)
    shutil.rmtree(run / "checkpoints/step-00000006")


def listed(capsys: Capture, *arguments: str) -> list[list[str]]:
    done = called(capsys, "runs", *arguments)
    assert (done.returncode, done.stderr) == (OK, "")
    return [line.split() for line in done.stdout.splitlines()[2:]]


def held(run: Path) -> Any:
    """The lock of a run, as another process has it; closing it lets go."""
    file = (run / ".lock").open("rb")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


# --- mtl runs ---


def test_a_run_is_running_while_its_lock_is_held(run: Path, capsys: Capture) -> None:
    crash(run)
    before = contents(Path())
    with held(run):
        assert listed(capsys, ".") == [["run", "tiny", "running", "4"]]
    assert listed(capsys, ".") == [["run", "tiny", "crashed", "4"]]
    assert contents(Path()) == before


@pytest.mark.parametrize("status", ["interrupted", "diverged", "running"])
def test_a_run_that_goes_on_again_is_running(status: str, run: Path, capsys: Capture) -> None:
    crash(run)
    says(run, status=status)
    with held(run):
        assert listed(capsys, ".")[0][2] == "running"
    assert listed(capsys, ".") == [["run", "tiny", {"running": "crashed"}.get(status, status), "4"]]


def test_a_finished_run_is_finished_whoever_holds_it(run: Path, capsys: Capture) -> None:
    with held(run):
        assert listed(capsys, ".")[0][2:4] == ["finished", "6"]


def test_a_run_without_lock_or_checkpoints(run: Path, capsys: Capture) -> None:
    """As it lies on a disk that was copied, or was killed before its first checkpoint."""
    crash(run)
    (run / ".lock").unlink()
    shutil.rmtree(run / "checkpoints")
    before = contents(Path())
    assert listed(capsys, ".") == [["run", "tiny", "crashed", "0"]]
    assert contents(Path()) == before


def test_a_look_does_not_keep_a_run_from_being_held(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look takes a shared lock for a moment; who wants the run waits for as long."""
    from mtl.runs import lock as run_lock
    from mtl.runs.folder import RunFolder

    monkeypatch.setattr(run_lock, "PATIENCE", 60)
    crash(run)
    with (run / ".lock").open("rb") as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        release = subprocess.Popen(
            [sys.executable, "-c", "import sys, time; time.sleep(0.05)"], pass_fds=[look.fileno()]
        )
    mine = RunFolder.open(run)
    mine.hold()
    assert release.wait() == 0
    mine.release()


def test_a_run_that_ends_during_the_look_has_not_crashed(
    run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl.runs import lock as run_lock

    finished = json.loads((run / "run.json").read_bytes())
    crash(run)
    real = run_lock._is_locked

    def ends(file: Any) -> bool:
        says(run, **{key: finished[key] for key in ("status", "step", "results")})
        return real(file)

    monkeypatch.setattr(run_lock, "_is_locked", ends)
    assert listed(capsys, ".")[0][2:4] == ["finished", "6"]


def test_broken_folders_are_told_of(run: Path, capsys: Capture) -> None:
    for i in range(8):
        Path(f"broken{i}").mkdir()
        Path(f"broken{i}", "run.json").write_text("{", encoding="utf-8")
    says_so = "cannot be read: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    done = called(capsys, "runs", ".")
    assert done.returncode == OK
    assert done.stdout.splitlines()[2].split()[:3] == ["run", "tiny", "finished"]
    assert done.stderr.splitlines() == [
        *(f"warning: broken{i}/run.json: {says_so}" for i in range(5)),
        "warning: 3 more run folders cannot be read",
    ]
    shutil.rmtree("run")
    assert called(capsys, "runs", ".").stdout == ""


def test_a_root_that_is_no_folder(run: Path, capsys: Capture) -> None:
    refused(lambda: called(capsys, "runs", "rnu"), Path(), ["rnu: no such folder"])
    refused(lambda: called(capsys, "runs", "run/run.json"), Path(), ["run/run.json: is not a folder"])
    assert called(capsys, "runs").stdout == "no runs below runs; mtl runs DIR looks elsewhere\n"
    Path("runs").mkdir()
    assert called(capsys, "runs", "runs").stdout == "no runs below runs\n"
    assert listed(capsys, "run")[0][:3] == ["run", "tiny", "finished"]


def test_a_thousand_runs(run: Path, capsys: Capture) -> None:
    """L12: statuses are looked up too, and those of crashed runs take the longest."""
    from tests.support.assertions import cpu_seconds

    record = json.loads((run / "run.json").read_bytes())
    for i in range(1000):
        folder = Path("runs", f"recipe{i % 10}", f"{i:03}")
        (folder / "checkpoints/step-00000002").mkdir(parents=True)
        (folder / ".lock").touch()
        facts = {"status": "running" if i % 2 else "finished", "started": f"{i:03}"}
        (folder / "run.json").write_text(json.dumps(record | facts), encoding="utf-8")
    began = cpu_seconds()
    rows = listed(capsys)
    assert cpu_seconds() - began < 4, "2 s, and room for the coverage tracer"
    assert [row[2] for row in rows] == ["finished", "crashed"] * 500
    assert [row[0][-3:] for row in rows] == [f"{i:03}" for i in range(1000)]


# --- mtl checkpoints ---


def remarks(capsys: Capture) -> list[str]:
    """What stands below the table."""
    done = called(capsys, "checkpoints", "run")
    assert (done.returncode, done.stderr) == (OK, "")
    lines = done.stdout.splitlines()
    return lines[2 + sum(line.startswith("step-") and "  " in line for line in lines) :]


def test_what_goes_on_from_where(run: Path, capsys: Capture) -> None:
    assert remarks(capsys) == []
    crash(run)
    with held(run):
        assert remarks(capsys) == []
    goes_on = "`mtl run --resume run` goes on"
    assert remarks(capsys) == [f"crashed: step-00000004 is the newest whole one; {goes_on}"]
    os.truncate(run / "checkpoints/step-00000004/model.safetensors", 3)
    assert remarks(capsys) == [f"crashed: step-00000002 is the newest whole one; {goes_on}"]
    os.truncate(run / "checkpoints/step-00000002/model.safetensors", 3)
    assert remarks(capsys) == ["crashed: none is whole"]
    shutil.rmtree(run / "checkpoints")
    done = called(capsys, "checkpoints", "run")
    assert done.stdout.splitlines() == ["no checkpoints in run", f"crashed: nothing is saved; {goes_on}"]


def test_a_checkpoint_of_another_run_and_one_that_tells_nothing(run: Path, capsys: Capture) -> None:
    says(run, id="another")
    done = called(capsys, "checkpoints", "run")
    states = [line.split("  ")[1].strip() for line in done.stdout.splitlines()[2:5]]
    assert states == ["whole, of another run"] * 2 + ["whole, selected, of another run"]
    (run / "checkpoints/step-00000004/manifest.json").write_bytes(b"{")
    assert remarks(capsys) == [
        f"step-{step:08d} is never deleted: it does not say that it is of this run" for step in (2, 4, 6)
    ]


def test_what_was_set_aside_is_told_with_its_size(run: Path, capsys: Capture) -> None:
    aside = run / "checkpoints/set-aside-01234567/step-00000004"
    shutil.copytree(run / "checkpoints/step-00000004", aside)
    (aside / "more").write_bytes(bytes(3 << 20))
    (line,) = remarks(capsys)
    assert line == "set-aside-01234567 was set aside (3.2 MB): nothing reads it, delete it when you like"


def test_a_damaged_checkpoint_goes_when_it_is_older_than_those_that_are_kept(
    run: Path, capsys: Capture
) -> None:
    """It counts for nothing; one whose manifest does not say whose it is stays."""
    crash(run)
    says(run, status="interrupted")
    os.truncate(run / "checkpoints/step-00000002/optim.safetensors", 3)
    shutil.copytree(run / "checkpoints/step-00000002", run / "checkpoints/step-00000001")
    (run / "checkpoints/step-00000001/manifest.json").write_bytes(b"")
    assert called(capsys, "run", "--resume", "run", "train.epochs=6", "--quiet").returncode == OK
    saved = sorted(path.name for path in (run / "checkpoints").iterdir())
    # 3 are kept, beside the one gone on from
    assert saved == [f"step-{step:08d}" for step in (1, 4, 8, 10, 12)]


# --- what is no run ---


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("rnu", "rnu: no checkpoint found: no such folder (did you mean 'run'?)"),
        ("run/run.json", "run/run.json: no checkpoint found: it is a file, not the folder of a run"),
        ("run/checkpoints", "run/checkpoints: is inside a run, and no run itself; give run"),
        (
            "run/checkpoints/step-00000004",
            "run/checkpoints/step-00000004: is inside a run, and no run itself; give run",
        ),
        (".", ".: no checkpoint found: it has no run.json, so it is no run; it has runs in it: mtl runs ."),
        ("empty", "empty: no checkpoint found: it has no run.json, so it is no run"),
    ],
)
@pytest.mark.parametrize("command", [["eval"], ["predict"], ["checkpoints"]], ids=lambda c: c[0])
def test_what_is_no_run(command: list[str], path: str, line: str, run: Path, capsys: Capture) -> None:
    Path("empty").mkdir()
    more = ["--input", "x.csv", "--output", "y.csv"] if command == ["predict"] else []
    refused(lambda: called(capsys, *command, path, *more), Path(), [line])


# --- devices ---


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ("gpu", "--device: no device 'gpu'; one of auto, cpu, cuda, cuda:1, mps"),
        ("cuda:-1", "--device: no device 'cuda:-1'; one of auto, cpu, cuda, cuda:1, mps"),
        ("cuda:9", "--device: cuda:9 asked, "),
    ],
)
@pytest.mark.parametrize("command", ["eval", "predict"])
def test_a_device_that_is_not_there(command: str, device: str, text: str, run: Path, capsys: Capture) -> None:
    Path("x.csv").write_text("a\n1\n")
    more = ["--input", "x.csv", "--output", "y.csv"] if command == "predict" else []
    refused(lambda: called(capsys, command, "run", "--device", device, *more), Path(), [text])


def test_eval_takes_a_device(run: Path, capsys: Capture) -> None:
    plain = called(capsys, "eval", "run")
    assert (plain.returncode, plain.stderr) == (OK, "")
    assert called(capsys, "eval", "run", "--device", "cpu").stdout == plain.stdout


# --- damage deep in a record ---


def test_weights_of_a_run_that_is_not_finished_are_told_of(run: Path, capsys: Capture) -> None:
    """On stderr by each command that uses them, and not in Python, where the model says it."""
    crash(run)
    warning = "run is not finished: weights of step 4 are used"
    Path("r.yaml").write_text(json.dumps(RECIPE), encoding="utf-8")
    np.savez("in.npz", inputs=np.zeros((2, 32), np.float32))
    for command in (
        ["eval", "run"],
        ["predict", "run", "--input", "in.npz", "--output", "out.csv"],
        ["run", "r.yaml", "train.init_from=run", "train.epochs=1", "--quiet", "--out", "second"],
    ):
        done = called(capsys, *command)
        told = done.stderr.replace(f"{Path.cwd()}/", "")  # a recipe's paths are made absolute
        assert (done.returncode, told) == (OK, f"warning: {warning}\n"), command
    model = mtl.load("run")
    assert capsys.readouterr() == ("", "")
    assert model.notice == warning


def damaged(run: Path, path: str, value: object) -> None:
    """Put a value deep into run.json; `path` has dots."""
    record = json.loads((run / "run.json").read_bytes())
    *above, last = path.split(".")
    place = record
    for key in above:
        place = place[key]
    place[last] = value
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")


DAMAGE: dict[str, tuple[object, str]] = {
    "selected": (3, "selected is 3, which no run writes"),
    "selected.step": (-1, "selected.step is -1, which no run writes"),
    "environment": ([], "environment is [], which no run writes"),
    "plugin_sha256": ({"a": 1}, "plugin_sha256.a is 1, which no run writes"),
    "data": (None, "data is None, which no run writes"),
    "data.rows": ({"train": "x"}, "data.rows.train is 'x', which no run writes"),
    "threads": (0, "threads is 0, which no run writes"),
    "status": ("done", "status is 'done', which no run writes"),
    "results": ({"accuracy": 1.0}, "results has a key 'accuracy', which no run writes"),
    "towers.a": (1, "towers.a is 1, which no run writes"),
    "model.input_shape": ([10**5, 10**5], "model: more than 268435456 inputs"),
    "model.outputs": ({"a": []}, "model.outputs.a is [], which no run writes"),
    "model.layout": ({}, "model.layout has no 'numeric'"),
    "resolved_sha256": ("x", "resolved_sha256 is 'x', which no run writes"),
}


@pytest.mark.parametrize("path", DAMAGE)
@pytest.mark.parametrize("command", [["eval"], ["checkpoints"], ["run", "--resume"]], ids=lambda c: c[0])
def test_a_section_of_the_wrong_type(command: list[str], path: str, run: Path, capsys: Capture) -> None:
    value, text = DAMAGE[path]
    damaged(run, path, value)
    expected = f"run/run.json: {text}; put back the one that the run wrote"
    refused(lambda: called(capsys, *command, "run"), Path(), [expected])
    done = called(capsys, "runs", ".")
    assert (done.returncode, done.stdout, done.stderr) == (OK, "", f"warning: {expected}\n")


def test_what_was_learned_is_that_of_the_run(run: Path, capsys: Capture) -> None:
    """Another class, or scale, would give other predictions, and nobody would know."""
    place = "run/run.json: model"
    damaged(run, "model.outputs.a", ["0", "2"])
    refused(lambda: called(capsys, "eval", "run"), Path(), [f"{place} is not as the run wrote it; put back"])
    for outputs, text in {
        (("a", ("0", "1")),): "lacks 'b'",
        (("a", ("0", "1")), ("b", ("0", "1")), ("c", ("0", "1"))): "has unknown 'c'",
    }.items():
        damaged(run, "model.outputs", dict(outputs))
        signed(run)
        refused(lambda: called(capsys, "eval", "run"), Path(), [f"{place}.outputs {text}; put back"])


def signed(run: Path) -> None:
    """Put the digest of what run.json says of the model beside it, as an attacker would."""
    model = json.loads((run / "run.json").read_bytes())["model"]
    says(run, model_sha256=hashlib.sha256(canonical_json(model)).hexdigest())


# --- folders of others ---

OTHERS = """
import os, sys
# what is imported later could not be read any more
import mtl.cli, mtl.experiment.resume, mtl.runs.listing, mtl.runs.retention
from mtl.commands import runs
from mtl.inference.predict import load
load("run").evaluate()
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
for arguments in (["runs", "."], ["checkpoints", "run"], ["eval", "run"], ["run", "--resume", "run"],
                  ["run", "--resume", "run", "--dry-run"]):
    sys.stdout.flush()
    print(mtl.cli.main(arguments), file=sys.stderr, flush=True)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_run_of_somebody_else(run: Path) -> None:
    """It can be looked at and evaluated; going on with it is refused, also by a dry run."""
    crash(run)
    for folder in [run.resolve(), *run.resolve().parents]:
        if folder.stat().st_uid == 0 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o755)
    before = contents(Path())
    warning = "warning: run is not finished: weights of step 4 are used"
    # coverage could not write what it traced
    not_traced = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS")
    }
    done = subprocess.run(
        [sys.executable, "-c", OTHERS],
        env={**not_traced, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines() == [
        *("0", "0", warning, "0"),
        "error: run: cannot be locked: permission denied",
        str(ENVIRONMENT),
        "error: run: cannot be written to",
        str(ENVIRONMENT),
    ]
    assert "run  tiny    crashed     4" in done.stdout
    assert "crashed: step-00000004 is the newest whole one" in done.stdout
    assert contents(Path()) == before
