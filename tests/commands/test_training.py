"""`mtl run --resume RUN --dry-run` says what the same command without --dry-run would do, and does nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load, save

import mtl
from mtl.errors import OK
from tests.commands.test_runs import RECIPE, crash, held, says
from tests.support.assertions import Capture, called, contents, refused


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mtl.run(RECIPE, out=tmp_path_factory.mktemp("made") / "run").path


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that crashed after its second of three epochs, `run` in the working directory."""
    shutil.copytree(made, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    crash(Path("run"))
    return Path("run")


def foretold(capsys: Capture, *arguments: str, warned: str = "") -> list[str]:
    """The lines of a dry run, which writes nothing and takes no lock."""
    before = contents(Path())
    times = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
    done = called(capsys, "run", "--dry-run", *arguments)
    assert (done.returncode, done.stderr) == (OK, warned)
    assert contents(Path()) == before
    assert {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")} == times
    return done.stdout.splitlines()


def steps(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").glob("step-*"))


def test_it_goes_on_from_where_it_is_said(run: Path, capsys: Capture) -> None:
    line = "run: crashed; would go on from step-00000004, to step 6"
    assert foretold(capsys, "--resume", "run") == [line]
    assert foretold(capsys, "--resume", "auto", "--out", "run") == [line]
    done = called(capsys, "run", "--resume", "run")
    assert "resuming after epoch 2 (step 4)" in done.stdout
    assert steps(run)[-1] == "step-00000006"
    finished = ["run: already finished at step 6; nothing would be done"]
    assert foretold(capsys, "--resume", "run") == finished


def test_a_run_that_early_stopping_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The rate is so small that no evaluation is better than the first."""
    monkeypatch.chdir(tmp_path)
    recipe = {
        **RECIPE,
        "data": {**RECIPE["data"], "split": {"validation": 0.25}},
        "optimizer": {"kind": "sgd", "lr": 1e-9},
        "train": {**RECIPE["train"], "epochs": 9, "early_stopping": {"patience": 2}},
    }
    Path("r.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    done = called(capsys, "run", "r.yaml", "--out", "run", "--quiet")
    ended = "ended it after epoch 3, step 6: validation/mean/accuracy was no better in 2 evaluations"
    assert f"\nearly stopping {ended}\nepoch 1, step 2 (chosen on validation); " in done.stdout
    again = called(capsys, "run", "--resume", "run")
    finished = "run: already finished at step 6, where early stopping ended it"
    assert (again.returncode, again.stdout, again.stderr) == (OK, "", f"warning: {finished}\n")
    assert foretold(capsys, "--resume", "run") == [f"{finished}; nothing would be done"]
    more = called(capsys, "run", "--resume", "run", "train.epochs=20", "--quiet")
    assert "warning: run: early stopping ended it at step 6; nothing more is trained" in more.stderr
    assert f"\nearly stopping {ended}\n" in more.stdout


def test_a_checkpoint_that_is_named(run: Path, capsys: Capture) -> None:
    named = "run/checkpoints/step-00000002"
    lines = ["run: crashed; would go on from step-00000002, to step 6", "would set aside: step-00000004"]
    assert foretold(capsys, "--resume", named) == lines
    assert called(capsys, "run", "--resume", named, "--quiet").returncode == OK
    (aside,) = (run / "checkpoints").glob("set-aside-*")
    assert os.listdir(aside) == ["step-00000004"]


def test_what_changes_is_told(run: Path, capsys: Capture) -> None:
    more = ["train.epochs=5", "description=longer"]
    lines = foretold(capsys, "--resume", "run", *more)
    assert lines == [
        "run: crashed; would go on from step-00000004, to step 10",
        "changed: description '' -> 'longer'",
        "changed: train.epochs 3 -> 5",
        "the learning rate's schedule would have 6 steps",
    ]
    extended = foretold(capsys, "--resume", "run", *more, "--extend-schedule")
    assert extended == [*lines[:3], "the learning rate's schedule would have 10 steps"]


def test_damage_is_told_and_passed_over(run: Path, capsys: Capture) -> None:
    os.truncate(run / "checkpoints/step-00000004/optim.safetensors", 3)
    warned = "warning: step-00000004 is damaged (optim.safetensors: size differs); using step-00000002\n"
    lines = ["run: crashed; would go on from step-00000002, to step 6", "would set aside: step-00000004"]
    assert foretold(capsys, "--resume", "run", warned=warned) == lines


def test_a_run_without_a_checkpoint(run: Path, capsys: Capture) -> None:
    shutil.rmtree(run / "checkpoints")
    warned = "warning: run: no checkpoint found; starting from the beginning\n"
    line = "run: crashed; would go on from the beginning, for nothing is saved, to step 6"
    assert foretold(capsys, "--resume", "run", warned=warned) == [line]


def other_data(run: Path) -> None:
    record = json.loads((run / "run.json").read_bytes())
    says(run, data={**record["data"], "sha256": "0" * 64})


def damaged_line(name: str, line: bytes) -> None:
    """The second line of a log is another one of the same length."""
    lines = Path("run", name).read_bytes().split(b"\n")
    lines[1] = line.ljust(len(lines[1]))
    Path("run", name).write_bytes(b"\n".join(lines))


def without_moments(run: Path) -> None:
    """The newest checkpoint's optimizer file lacks a moment of each parameter, its manifest in order."""
    step = run / "checkpoints/step-00000004"
    tensors = load((step / "optim.safetensors").read_bytes())
    data = save({name: tensor for name, tensor in tensors.items() if not name.endswith("::exp_avg_sq")})
    (step / "optim.safetensors").write_bytes(data)
    manifest = json.loads((step / "manifest.json").read_bytes())
    manifest["files"]["optim.safetensors"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (step / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


REFUSED = {
    "moments": ([], without_moments, "run/checkpoints/step-00000004/optim.safetensors: lacks '"),
    "key": (["optimizer.lr=1"], lambda run: None, "run: cannot resume: these keys changed: optimizer.lr 0.1 -> 1.0"),
    "fewer epochs": (["train.epochs=2"], lambda run: None, "run: cannot resume: these keys changed: train.epochs"),
    "data": ([], other_data, "run: data changed since this run began (sha256 "),
    "plug-in": (
        [], lambda run: says(run, plugins=["mine.py"]),
        "run: the run began with plug-ins that are not loaded; add --plugin mine.py",
    ),
    "bits": (
        ["--require-bitwise"], lambda run: says(run, threads=3, device="cuda"),
        "run: not bitwise: device cuda -> cpu; threads 3 -> 1; leave out --require-bitwise",
    ),
    "none whole": (
        [], lambda run: [path.unlink() for path in run.glob("checkpoints/*/state.json")],
        "no usable checkpoint in run (2 damaged); see mtl checkpoints run",
    ),
    "short log": ([], lambda run: os.truncate(run / "metrics.jsonl", 5), "run: metrics.jsonl is shorter than"),
    "no object": (
        [], lambda run: damaged_line("metrics.jsonl", b"[1]"),
        "run/metrics.jsonl:2: is no object; put back the one that the run wrote",
    ),
    "not JSON": ([], lambda run: damaged_line("metrics.jsonl", b'{"epoch":'), "run/metrics.jsonl:2: cannot be read: "),
    "no metric": (
        [], lambda run: damaged_line("metrics.jsonl", b'{"split": "train", "epoch": 2, "step": 4, "loss": 1}'),
        "run/metrics.jsonl:2: has a key 'loss', which no run writes; put back",
    ),
    "no alpha": (
        [], lambda run: damaged_line("sharing.jsonl",
            b'{"epoch": 1, "step": 2, "sharing": {"fc1": {"targets": ["a"], "sources": ["a"], "values": [[1, 2]]}}}'),
        "run/sharing.jsonl:2: sharing.fc1: the values are not a row for each target and a column for each source",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("dry", [["--dry-run"], []], ids=["dry", "real"])
def test_what_a_resume_refuses_a_dry_run_does_too(
    case: str, dry: list[str], run: Path, capsys: Capture
) -> None:
    more, spoil, line = REFUSED[case]
    (run / ".lock").write_bytes(b"")
    spoil(run)  # type: ignore[operator]
    locked = (run / ".lock").stat().st_mtime_ns
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    done = called(capsys, "run", "--resume", "run", *more, *dry)  # type: ignore[misc]
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {line}")
    assert done.stderr.count("\n") == 1
    now = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    assert now == before
    if dry:
        assert (run / ".lock").stat().st_mtime_ns == locked


def test_a_run_in_use(run: Path, capsys: Capture) -> None:
    (run / ".lock").write_text("pid 4711 on host h\n", encoding="utf-8")
    with held(run):
        for more in ([], ["--dry-run"]):
            start = lambda more=more: called(capsys, "run", "--resume", "run", *more)  # noqa: E731
            refused(start, Path(), ["run: is in use by pid 4711 on host h"])


def test_a_recipe_in_a_folder_with_an_equals_sign(run: Path, capsys: Capture) -> None:
    """`lr=0.1/r.yaml` is a file, and no override."""
    Path("lr=0.1").mkdir()
    Path("lr=0.1/r.yaml").write_text(json.dumps(RECIPE), encoding="utf-8")
    assert called(capsys, "run", "lr=0.1/r.yaml", "--dry-run").returncode == OK
    assert called(capsys, "validate", "lr=0.1/r.yaml", "train.epochs=1").stdout.startswith(
        "ok lr=0.1/r.yaml: "
    )


@pytest.mark.parametrize("arguments", [[], ["train.epochs=1"], ["~model.sharing", "--dry-run"]])
def test_a_recipe_is_missing(arguments: list[str], run: Path, capsys: Capture) -> None:
    line = "mtl run: a recipe is missing; give a path or a built-in name; mtl ls lists them"
    refused(lambda: called(capsys, "run", *arguments), Path(), [line])
