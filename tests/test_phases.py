"""A recipe with phases: what each run is, which weights it begins with, and that it goes on after any end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import mtl
from mtl.errors import UserError
from mtl.experiment.run import run as run_one
from mtl.phases import chain_of, resume_chain, run_chain
from mtl.recipe.load import load_recipe, to_yaml
from tests.support.assertions import Capture, called
from tests.support.listening import Watching
from tests.support.recipes import classes, linear, recipe, stitched

ROOT = Path(__file__).parents[1]
GENERATED = {"kind": "synthetic", "tasks": 2, "rows": 200, "test_rows": 50, "features": 8, "classes": 2}
PHASES = {
    "alone": {"model.sharing": {"kind": "none"}},
    "stitched": {"optimizer.lr": 0.002, "train.epochs": 2},
}


def made(**changes: Any) -> Any:
    given: dict[str, Any] = {
        "data__source": GENERATED, "tasks": classes("ab"), "model__backbone__stages": linear(4),
        "model__sharing": stitched("fc1"), "train__batch_size": 50, "phases": PHASES,
    }  # fmt: skip
    return recipe(**(given | changes))


def weights(run: Path, first: bool = False) -> dict[str, Any]:
    steps = sorted((run / "checkpoints").glob("step-????????"))
    return load_file(steps[0 if first else -1] / "model.safetensors")


def test_each_phase_is_an_ordinary_run_that_begins_with_the_weights_of_the_one_before(tmp_path: Path) -> None:
    result = mtl.run(made(), out=tmp_path / "c")
    first, second = tmp_path / "c/1-alone", tmp_path / "c/2-stitched"
    assert result.path.samefile(second)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "1-alone", "2-stitched", "recipe.resolved.yaml", "recipe.yaml",
    ]  # fmt: skip
    own = load_recipe(second / "recipe.resolved.yaml")
    assert (own.phases, own.optimizer.lr, own.train.epochs, own.model.sharing.kind) == (
        {},
        0.002,
        2,
        "cross_stitch",
    )
    assert load_recipe(first / "recipe.resolved.yaml").model.sharing.kind == "none"
    before, after = weights(first), weights(second, first=True)
    towers = [name for name in before if "stages" in name and name.endswith("weight")]
    assert towers
    assert all(before[name].equal(after[name]) for name in towers)
    by_hand = run_one(
        load_recipe(own.plain(), [f"train.init_from={json.dumps(str(first))}"]), out=tmp_path / "by_hand"
    )
    assert by_hand.metrics == result.metrics


def test_a_single_tower_becomes_several(tmp_path: Path) -> None:
    """Hard sharing first; then every tower begins as a copy of the one tower, and every task with its own head."""
    split = {
        "hard": {"model.towers": "one", "model.sharing": {"kind": "none"}},
        "split": {"model.sharing": {"kind": "none"}},
    }
    mtl.run(made(phases=split), out=tmp_path / "c")
    one, two = weights(tmp_path / "c/1-hard"), weights(tmp_path / "c/2-split", first=True)
    name = "trunk.towers.stages.fc1.map.weight"
    assert two[name].chunk(2)[0].equal(one[name])
    assert two[name].chunk(2)[1].equal(one[name])


def test_a_finished_chain_is_not_repeated_and_a_stopped_one_goes_on_with_the_same_bits(
    tmp_path: Path,
) -> None:
    straight = run_chain(made(), tmp_path / "straight")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "straight").rglob("*.safetensors")}
    watching = Watching()
    again = run_chain(made(), tmp_path / "straight", listeners=(watching,), go_on=True)
    assert again.metrics == straight.metrics
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert resume_chain(tmp_path / "straight").metrics == straight.metrics


@pytest.mark.parametrize(
    "wait_for",
    [
        pytest.param("1-alone/run.json", marks=pytest.mark.slow),
        "1-alone/checkpoints/step-00000004",
        pytest.param("2-stitched/run.json", marks=pytest.mark.slow),
    ],
)
def test_killed_anywhere_it_ends_with_the_same_bits(wait_for: str, tmp_path: Path) -> None:
    long = made(
        data__source=GENERATED | {"rows": 1000}, train__epochs=30, train__checkpoint={"every": {"steps": 4}}
    )
    (tmp_path / "r.yaml").write_text(to_yaml(long), encoding="utf-8")
    command = [sys.executable, "-m", "mtl", "run", "r.yaml", "--resume", "auto", "--no-report", "--out"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([*command, "straight"], cwd=tmp_path, env=environment, check=True, capture_output=True)
    process = subprocess.Popen([*command, "killed"], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not (tmp_path / "killed" / wait_for).exists() and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = subprocess.run(
        [*command, "killed"], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for phase in ("1-alone", "2-stitched"):
        one, two = weights(tmp_path / "straight" / phase), weights(tmp_path / "killed" / phase)
        assert all(one[name].equal(two[name]) for name in one)
        logs = [(tmp_path / name / phase / "metrics.jsonl").read_text() for name in ("straight", "killed")]
        assert logs[0] == logs[1]


def test_the_command_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(to_yaml(made()), encoding="utf-8")
    done = called(capsys, "run", "r.yaml", "--dry-run")
    assert done.returncode == 0
    assert done.stdout.count("would train for") == 2
    done = called(capsys, "run", "r.yaml", "--out", "c")
    assert done.returncode == 0, done.stderr
    assert "phase 1 of 2: alone" in done.stdout + done.stderr
    assert "phase 2 of 2: stitched" in done.stdout + done.stderr
    assert "run folder: c/2-stitched " in done.stdout
    shared = called(capsys, "sharing", "c")
    assert shared.returncode == 0, shared.stderr
    assert shared.stderr == "note: c holds the phases of a recipe; the last one is c/2-stitched\n"
    assert (tmp_path / "c/2-stitched/links.json").is_file()
    again = called(capsys, "run", "--resume", "c")
    assert again.returncode == 0, again.stderr
    assert "already finished" in again.stderr
    dry = called(capsys, "run", "--resume", "c", "--dry-run")
    assert dry.returncode == 2
    assert "--dry-run: looks at one run, and these are the phases of a recipe" in dry.stderr
    changed = called(capsys, "run", "--resume", "c", "train.epochs=9")
    assert changed.returncode == 2
    assert "--resume: the phases of a recipe go on as they are; leave out 'train.epochs=9'" in changed.stderr
    twice = called(capsys, "run", "r.yaml", "--out", "c")
    assert twice.returncode == 2
    assert "the folder is not empty" in twice.stderr
    lost = called(capsys, "eval", "c")
    assert lost.returncode == 2
    assert "it has runs in it: mtl runs c" in lost.stderr


def test_validate_looks_at_every_phase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(to_yaml(made()), encoding="utf-8")
    assert called(capsys, "validate", "r.yaml").stdout.startswith("ok r.yaml: 2 tasks, 2 towers")
    done = called(capsys, "validate", "r.yaml", "phases.stitched={model.sharing.after: [fc9]}")
    assert done.returncode == 2
    assert "phases.stitched: model.sharing.after[0]: no stage 'fc9'" in done.stderr


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"phases\.alone: optimizer.*unknown key 'lrr'"):
        chain_of(made(phases={"alone": {"optimizer.lrr": 1}}), tmp_path)
    run_chain(made(), tmp_path / "c")
    with pytest.raises(UserError, match="holds the phases of another recipe; give another --out"):
        run_chain(made(optimizer__lr=0.5), tmp_path / "c", go_on=True)
    with pytest.raises(UserError, match="an arm is one run, and these are several"):
        mtl.compare(made(), out=tmp_path / "compared")
    with pytest.raises(ValueError, match="overrides are applied while a recipe is loaded"):
        mtl.run(made(), ["train.epochs=2"])
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/recipe.resolved.yaml").write_text(to_yaml(made(phases={})), encoding="utf-8")
    with pytest.raises(UserError, match=r"holds a run that never began; begin it: mtl run"):
        resume_chain(tmp_path / "plain")


def test_a_fault_of_a_later_phase_is_told_before_the_first_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(to_yaml(made()), encoding="utf-8")
    long = {"kind": "cosine", "warmup_steps": 1000}
    for more in ([], ["--dry-run"]):
        done = called(
            capsys, "run", "r.yaml", f"phases.stitched={json.dumps({'schedule': long})}", "--out", "c", *more
        )
        assert done.returncode == 2
        said = "phases.stitched.schedule.warmup_steps: 1,000 warm-up steps, but the run has 4 steps"
        assert done.stderr.endswith(f": {said}\n"), done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not Path("c").exists()
