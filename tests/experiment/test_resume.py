"""A run that was stopped and resumed ends with the same bytes as one that never was (Q1-Q3, Q8, Q9, K)."""

import fcntl
import hashlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load, save

import mtl
from mtl.errors import USER, NotFinite, UserError, quoted
from mtl.recipe.load import load_recipe, to_yaml
from mtl.recipe.specs import OPTIMIZERS, SCHEDULES, SHARING, WEIGHTINGS
from mtl.registry import Registry
from mtl.runs import checkpoint
from mtl.runs.record import SCHEMA_VERSION
from mtl.training.events import EpochEnded, Stepped
from mtl.training.loop import evaluate_split
from tests.support.listening import Watching
from tests.support.recipes import changed, small, stitched

ROOT = Path(__file__).parents[2]
EPOCHS, STEPS_PER_EPOCH = 4, 3

BASE = small(
    seed=3,
    data__source__rows=60,
    data__source__test_rows=20,
    data__source__features=8,
    data__source__labelled={"task1": 0.4},
    task_defaults={"kind": "multiclass", "missing": "mask"},
    tasks={"a": {"target": "task0"}, "b": {"target": "task1", "weight": 0.5}},
    model__backbone__stages=[
        {"name": "fc1", "kind": "linear", "features": 6},
        {"name": "drop", "kind": "dropout", "p": 0.2},
        {"name": "fc2", "kind": "linear", "features": 5},
    ],
    model__sharing=stitched("fc1", "fc2", lr_scale=10),
    model__head={"dropout": 0.1},
    optimizer={"kind": "adam", "lr": 0.01, "l2": 0.01},
    train={"epochs": EPOCHS, "batch_size": 20, "threads": 1},
)


def recipe(**changes: Any) -> dict[str, Any]:
    return changed(BASE, **changes)


def shipped(registry: Registry[Any]) -> set[str]:
    """The members that come with mtl; other tests may have registered their own."""
    return {name for name in registry.names() if registry[name].__module__.startswith("mtl.")}


def with_validation(**sections: Any) -> dict[str, Any]:
    return {"data__split": {"validation": 0.25}, "train__batch_size": 15, **sections}


PLACES = {
    "optimizer": (OPTIMIZERS, "optimizer"),
    "schedule": (SCHEDULES, "schedule"),
    "sharing": (SHARING, "model__sharing"),
    "weighting": (WEIGHTINGS, "weighting"),
}
ALL_LABELS = {"data__source__labelled": {}}
MEMBERS: dict[str, tuple[Registry[Any], dict[str, dict[str, Any]]]] = {
    family: (
        registry,
        {
            name: {
                place: {"kind": name, **registry[name].example},
                **(ALL_LABELS if getattr(registry[name], "stateful", False) else {}),
            }
            for name in sorted(shipped(registry))
        },
    )
    for family, (registry, place) in PLACES.items()
}
"""Every member of the families that a checkpoint depends on, by its example; a new member is among them by itself."""

VARIANTS: dict[str, dict[str, Any]] = {
    **{
        f"{family}-{name}": sections
        for family, (_, members) in MEMBERS.items()
        for name, sections in members.items()
    },
    "sgd-plain": {"optimizer": {"kind": "sgd", "lr": 0.05}},
    "channel": {"model__sharing": {"kind": "cross_stitch", "after": ["fc1"], "granularity": "channel"}},
    "dense": {"model__sharing": {"kind": "cross_stitch", "after": ["fc2"], "granularity": "dense"}},
    "debias": {"model__backbone__norm": {"kind": "batch", "debias": True, "momentum": 0.01}},
    "validation": with_validation(),
    "early-stopping": with_validation(
        train__epochs=12, train__early_stopping={"patience": 2}, optimizer={"kind": "sgd", "lr": 0.001}
    ),
    "monitor": {"train__monitor": "test", "train__evaluate_every": {"epochs": 2}},
    "evaluate-by-steps": with_validation(train__monitor="test", train__evaluate_every={"steps": 2}),
    "accumulate": {"train__accumulate": 2, "train__batch_size": 10},
    "drop-last": {"train__batch_size": 17, "train__drop_last": True},
    "max-steps": {"train__max_steps": 8, "train__epochs": None},
    "clip": {"train__clip_norm": 0.1},
    "bfloat16": {"train__precision": "bfloat16"},
    "save-rarely": with_validation(train__checkpoint={"every": {"epochs": 3}, "keep": 2}),
}


class Stop(Exception):
    """What a listener raises in place of a kill."""


class StopAfter(Watching):
    """Stops a run after so many epochs, or after so many optimizer steps."""

    def __init__(self, *, epoch: int | None = None, step: int | None = None) -> None:
        super().__init__()
        self.after_epoch, self.steps_left = epoch, step

    def stepped(self, event: Stepped) -> None:
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left == 0:
                raise Stop

    def epoch_ended(self, event: EpochEnded) -> None:
        if self.trainer.progress.epoch == self.after_epoch:
            raise Stop


def results(run: Path) -> dict[str, bytes]:
    """The bytes that two equal runs have in common: logs and every checkpoint but for its manifest."""
    paths = [run / "metrics.jsonl", run / "sharing.jsonl", run / "metrics.csv"]
    newest = max((run / "checkpoints").glob("step-????????"))
    paths += [path for path in sorted(newest.iterdir()) if path.name != "manifest.json"]
    return {str(path.relative_to(run)): path.read_bytes() for path in paths if path.exists()}


def selected(run: Path) -> dict[str, Any]:
    record = json.loads((run / "run.json").read_bytes())
    assert record["status"] == "finished"
    return {key: record[key] for key in ("results", "selected", "step", "stopped_early", "skipped_steps")}


def assert_same(one: Path, two: Path) -> None:
    before, after = results(one), results(two)
    assert list(before) == list(after)
    assert len(before) >= 6
    assert [name for name in before if before[name] != after[name]] == []
    assert selected(one) == selected(two)
    kept, too = (sorted(os.listdir(run / "checkpoints")) for run in (one, two))
    assert kept[-1] == too[-1]  # those before may differ: a stop saves one more, and its save is kept
    assert len(too) >= len(kept)


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take most of a small run's time and nothing that is resumed depends on them."""
    monkeypatch.setattr("mtl.report.plots.plot_run", lambda *_: [])


def stop_and_resume(made: Mapping[str, Any], out: Path, *stops: StopAfter) -> StopAfter:
    """Run until each stop in turn, each time resumed, and then to the end."""
    start: Callable[[StopAfter], Any] = lambda stop: mtl.run(made, out=out, listeners=(stop,))  # noqa: E731
    for stop in stops:
        with pytest.raises(Stop):
            start(stop)
        start = lambda stop: mtl.resume(out, listeners=(stop,))  # noqa: E731
    last = StopAfter()
    start(last)
    return last


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.usefixtures("no_plots")
def test_stopped_after_any_epoch(variant: str, tmp_path: Path) -> None:
    made = recipe(**VARIANTS[variant])
    epochs = mtl.run(made, out=tmp_path / "straight").record.epoch
    assert epochs is not None
    assert epochs >= 3
    for k in range(1, epochs + 1):
        stop_and_resume(made, tmp_path / f"stop{k}", StopAfter(epoch=k))
        assert_same(tmp_path / "straight", tmp_path / f"stop{k}")
        shutil.rmtree(tmp_path / f"stop{k}")


def test_early_stopping_variant_stops_early(tmp_path: Path, no_plots: None) -> None:
    record = mtl.run(recipe(**VARIANTS["early-stopping"]), out=tmp_path / "a").record
    assert record.stopped_early is True
    assert record.epoch is not None
    assert record.epoch < 12


@pytest.mark.usefixtures("no_plots")
def test_stopped_after_any_step(tmp_path: Path) -> None:
    made = recipe()
    mtl.run(made, out=tmp_path / "straight")
    for step in range(1, EPOCHS * STEPS_PER_EPOCH + 1):
        stop_and_resume(made, tmp_path / f"{step}", StopAfter(step=step))
        assert_same(tmp_path / "straight", tmp_path / f"{step}")


@pytest.mark.parametrize(
    "steps", [(4, 4), (4, 1, 2), (5, 4, 4), (1, 1, 1, 4, 4)], ids=lambda steps: "-".join(map(str, steps))
)
@pytest.mark.usefixtures("no_plots")
def test_stopped_again_and_again(steps: tuple[int, ...], tmp_path: Path) -> None:
    """Also twice in one epoch, and before the first save after a resume."""
    made = recipe(**with_validation(optimizer={"kind": "sgd", "lr": 0.05, "momentum": 0.9}))
    mtl.run(made, out=tmp_path / "straight")
    stop_and_resume(made, tmp_path / "stopped", *(StopAfter(step=step) for step in steps))
    assert_same(tmp_path / "straight", tmp_path / "stopped")


@pytest.mark.usefixtures("no_plots")
def test_stopped_between_the_last_checkpoint_and_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(**with_validation())
    mtl.run(made, out=tmp_path / "straight")

    def stop(*_: object) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr("mtl.runs.logs.RunLogs.write_csv", stop)  # the test row is in the log by then
        with pytest.raises(Stop):
            mtl.run(made, out=tmp_path / "stopped")
    mtl.resume(tmp_path / "stopped")
    assert_same(tmp_path / "straight", tmp_path / "stopped")


@pytest.mark.usefixtures("no_plots")
def test_a_run_without_a_checkpoint_begins_again_and_says_so(tmp_path: Path) -> None:
    made = recipe()
    mtl.run(made, out=tmp_path / "straight")
    listener = stop_and_resume(made, tmp_path / "stopped", StopAfter(step=2))
    assert listener.warnings == [f"{tmp_path / 'stopped'}: no checkpoint found; starting from the beginning"]
    assert_same(tmp_path / "straight", tmp_path / "stopped")


@pytest.mark.usefixtures("no_plots")
def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    mtl.run(recipe(), out=tmp_path / "a")
    before = {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}
    listener = StopAfter()
    result = mtl.resume(tmp_path / "a", listeners=(listener,))
    assert listener.warnings == [f"{tmp_path / 'a'}: already finished at step {EPOCHS * STEPS_PER_EPOCH}"]
    assert result.metrics["test/mean/accuracy"] is not None
    assert before == {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}


@pytest.mark.usefixtures("no_plots")
def test_a_moved_run_resumes(tmp_path: Path) -> None:
    made = recipe()
    mtl.run(made, out=tmp_path / "straight")
    with pytest.raises(Stop):
        mtl.run(made, out=tmp_path / "before", listeners=(StopAfter(epoch=2),))
    (tmp_path / "before").rename(tmp_path / "after")
    mtl.resume(tmp_path / "after")
    assert_same(tmp_path / "straight", tmp_path / "after")


# --- damage ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that never stopped, and its twin stopped after epoch 3 of 4 with three checkpoints."""
    folder = tmp_path_factory.mktemp("stopped")
    made = recipe(**with_validation())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mtl.report.plots.plot_run", lambda *_: [])
        mtl.run(made, out=folder / "straight")
        with pytest.raises(Stop):
            mtl.run(made, out=folder / "stopped", listeners=(StopAfter(epoch=3),))
    return folder / "straight", folder / "stopped"


FILES = ("model.safetensors", "optim.safetensors", "weighting.safetensors", "state.json", "manifest.json")


def flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1
    path.write_bytes(data)


def edited(**changes: Any) -> Callable[[Path], object]:
    def edit(step: Path) -> None:
        path = step / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    **{f"flip-{name}": (lambda step, name=name: flip(step / name), name) for name in FILES},
    **{f"flip-first-{name}": (lambda step, name=name: flip(step / name, 0), name) for name in FILES},
    **{f"delete-{name}": (lambda step, name=name: (step / name).unlink(), name) for name in FILES},
    **{
        f"truncate-{name}": (lambda step, name=name: os.truncate(step / name, 7), f"{name}: ")
        for name in FILES
    },
    **{f"empty-{name}": (lambda step, name=name: os.truncate(step / name, 0), f"{name}: ") for name in FILES},
    "longer": (
        lambda step: (step / FILES[0]).write_bytes((step / FILES[0]).read_bytes() + b"\0"),
        "model.safetensors: size differs",
    ),
    "huge-number": (
        lambda step: (step / "manifest.json").write_text('{"files": 1e999}'),
        "1e999 is too large",
    ),
    "extra": (lambda step: (step / "extra").touch(), "extra: not in the manifest"),
    "folder": (lambda step: ((step / FILES[0]).unlink(), (step / FILES[0]).mkdir()), "model.safetensors: "),
    "not-json": (lambda step: (step / "manifest.json").write_text("hello"), "manifest.json: "),
    "list": (lambda step: (step / "manifest.json").write_text("[]"), "manifest.json: "),
    "nan": (lambda step: (step / "manifest.json").write_text('{"files": NaN}'), "NaN is not allowed"),
    "twice": (
        lambda step: (step / "manifest.json").write_text('{"files": {}, "files": {}}'),
        "a key is given twice",
    ),
    "nested": (lambda step: (step / "manifest.json").write_text("[" * 100_000), "manifest.json: "),
    "latin": (lambda step: (step / "manifest.json").write_bytes(b'{"\xe9": 1}'), "manifest.json: "),
    "schema-type": (edited(schema_version="one"), "manifest.json: "),
    "schema-bool": (edited(schema_version=True), "manifest.json: "),
    "files-list": (edited(files=["model.safetensors"]), "manifest.json: "),
    "renamed": (edited(step=1), "manifest.json: "),
    "of-another-run": (edited(run_id="another"), "manifest.json: is of another run"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.usefixtures("no_plots")
def test_a_damaged_checkpoint_is_passed_over(
    damage: str, stopped_run: tuple[Path, Path], tmp_path: Path
) -> None:
    straight, stopped = stopped_run
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    step = run / "checkpoints" / "step-00000009"
    hurt, reason = DAMAGE[damage]
    if damage == "flip-manifest.json":  # in the middle of a digest: what it says of that file is then wrong
        reason = ""
    hurt(step)
    listener = StopAfter()
    mtl.resume(run, listeners=(listener,))
    (warning,) = listener.warnings
    assert warning.startswith("step-00000009 is damaged (")
    assert warning.endswith("); using step-00000006")
    assert reason in warning
    assert "\n" not in warning
    assert_same(straight, run)


@pytest.mark.usefixtures("no_plots")
def test_the_damaged_checkpoint_is_written_anew(stopped_run: tuple[Path, Path], tmp_path: Path) -> None:
    """Its step is reached again, and whatever needs it later (such as the best epoch) must find it whole."""
    straight, stopped = stopped_run
    shutil.copytree(stopped, tmp_path / "run")
    flip(tmp_path / "run/checkpoints/step-00000009/model.safetensors")
    mtl.resume(tmp_path / "run")
    for name in ("model.safetensors", "state.json"):
        made = (tmp_path / "run/checkpoints/step-00000009" / name).read_bytes()
        assert made == (straight / "checkpoints/step-00000009" / name).read_bytes()
    assert not [name for name in os.listdir(tmp_path / "run/checkpoints") if name.startswith(".")]


@pytest.mark.usefixtures("no_plots")
def test_a_damaged_best_epoch_is_trained_again_and_selected(tmp_path: Path) -> None:
    """The best epoch's checkpoint is damaged, its epoch run again, and its weights evaluated at the end."""
    made = recipe(**with_validation(optimizer={"kind": "adam", "lr": 0.03}))
    for seed in range(20):
        made["seed"] = seed
        straight = tmp_path / f"straight{seed}"
        selected = mtl.run(made, out=straight).record.selected
        assert selected is not None
        if selected.epoch in (2, 3):
            break
    best = selected.epoch
    assert best in (2, 3)
    run = tmp_path / "run"
    with pytest.raises(Stop):
        mtl.run(made, out=run, listeners=(StopAfter(epoch=best),))
    flip(run / "checkpoints" / f"step-{selected.step:08d}" / "model.safetensors")
    mtl.resume(run)
    assert_same(straight, run)


@pytest.mark.usefixtures("no_plots")
def test_two_damaged(stopped_run: tuple[Path, Path], tmp_path: Path) -> None:
    straight, stopped = stopped_run
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    for step in (6, 9):
        flip(run / f"checkpoints/step-{step:08d}/optim.safetensors")
    listener = StopAfter()
    mtl.resume(run, listeners=(listener,))
    assert listener.warnings == [
        "step-00000009 is damaged (optim.safetensors: sha256 differs)",
        "step-00000006 is damaged (optim.safetensors: sha256 differs); using step-00000003",
    ]
    assert_same(straight, run)


def test_all_damaged(stopped_run: tuple[Path, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped_run[1], run)
    for step in (3, 6, 9):
        flip(run / f"checkpoints/step-{step:08d}/model.safetensors")
    before = {path: path.read_bytes() for path in run.rglob("*.safetensors")}
    with pytest.raises(UserError) as caught:
        mtl.resume(run)
    line = f"no usable checkpoint in {run} (3 damaged); see mtl checkpoints {run}"
    assert str(caught.value) == line
    assert before == {path: path.read_bytes() for path in run.rglob("*.safetensors")}


def test_a_newer_schema_is_refused(stopped_run: tuple[Path, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped_run[1], run)
    edited(schema_version=9)(run / "checkpoints/step-00000009")
    with pytest.raises(
        UserError, match=r"written by mtl 0\.1\.0 \(schema 9\), this is 0\.1\.0 \(schema 1\); upgrade mtl"
    ):
        mtl.resume(run)


@pytest.mark.usefixtures("no_plots")
def test_foreign_names_are_ignored_and_leftovers_removed(
    stopped_run: tuple[Path, Path], tmp_path: Path
) -> None:
    straight, stopped = stopped_run
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    folder = run / "checkpoints"
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder / "step-00000003", elsewhere)
    (folder / "step-00000099").symlink_to(elsewhere)
    foreign = ["step-00000009.bak", "xstep-1", "step-9", "step-000000099", "step-0000000a", "STEP-00000001"]
    for name in foreign:
        (folder / name).mkdir()
        (folder / name / "kept").touch()
    (folder / "step-00000098").write_text("a file")
    left = [".tmp-00000012-1-abcd", ".del-00000003-abcd"]
    for name in left:
        (folder / name / "inner").mkdir(parents=True)
    (folder / ".tmp-link").symlink_to(elsewhere)
    listener = StopAfter()
    mtl.resume(run, listeners=(listener,))
    assert listener.warnings == []
    names = set(os.listdir(folder))
    assert names >= {*foreign, "step-00000099", "step-00000098"}
    assert names.isdisjoint(left)
    assert all((folder / name / "kept").exists() for name in foreign)
    assert len(os.listdir(elsewhere)) == 5
    for name in [*foreign, "step-00000098", "step-00000099", ".tmp-link"]:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    assert_same(straight, run)


# --- what may not change ---------------------------------------------------------------------------------


def test_changed_keys_are_named(stopped_run: tuple[Path, Path]) -> None:
    with pytest.raises(UserError) as caught:
        mtl.resume(stopped_run[1], ["optimizer.lr=0.5", "train.batch_size=16"])
    text = str(caught.value)
    assert "cannot resume: these keys changed: " in text
    assert "optimizer.lr 0.01 -> 0.5" in text
    assert "train.batch_size 15 -> 16" in text
    assert text.endswith("; start a new run or use train.init_from")


def test_changed_data_are_refused(
    stopped_run: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from mtl.experiment import run as experiment

    original = experiment.load_dataset
    monkeypatch.setattr(
        experiment, "load_dataset", lambda *args: replace(original(*args), fingerprint="0123456789abcdef")
    )
    run = tmp_path / "run"
    shutil.copytree(stopped_run[1], run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(
        UserError, match=r"data changed since this run began \(sha256 0123456789ab\.\.\., was"
    ):
        mtl.resume(run)
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_no_run_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint found: no such folder$"):
        mtl.resume(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"no checkpoint found: it has no run\.json"):
        mtl.resume(tmp_path)


def test_a_run_in_use_is_refused(stopped_run: tuple[Path, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped_run[1], run)
    holder = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX);"
        "f.write('pid 4711 on host h\\n'); f.flush(); print('held', flush=True); sys.stdin.read()"
    )
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(run / ".lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="is in use by pid 4711 on host h") as caught:
            mtl.resume(run)
        process.communicate("")
    assert caught.value.code == USER
    now = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    assert before == now


@pytest.mark.usefixtures("no_plots")
def test_leftovers_of_an_interrupted_record_are_removed(
    stopped_run: tuple[Path, Path], tmp_path: Path
) -> None:
    straight, stopped = stopped_run
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    left = [run / ".run.json-123-0123abcd", run / ".metrics.csv-9-0123abcd"]
    own = [run / ".run.json-notes", run / ".notes-1-0123abcd"]
    for path in [*left, *own]:
        path.touch()
    mtl.resume(run)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in own)
    assert_same(straight, run)


def test_a_log_shorter_than_its_checkpoint_says_is_refused(
    stopped_run: tuple[Path, Path], tmp_path: Path
) -> None:
    for name in ("metrics.jsonl", "sharing.jsonl"):
        for hurt in (lambda path: os.truncate(path, 10), lambda path: path.unlink()):
            run = tmp_path / "run"
            shutil.copytree(stopped_run[1], run)
            hurt(run / name)
            with pytest.raises(UserError, match=f"{name} is shorter than the checkpoint says"):
                mtl.resume(run)
            shutil.rmtree(run)


@pytest.mark.usefixtures("no_plots")
def test_a_stale_lock_is_no_lock(stopped_run: tuple[Path, Path], tmp_path: Path) -> None:
    straight, stopped = stopped_run
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    (run / ".lock").write_text("pid 1 on host h\n")
    mtl.resume(run)
    assert_same(straight, run)
    with (run / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given back at the end


def test_a_failed_resume_gives_the_lock_back(stopped_run: tuple[Path, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped_run[1], run)
    for step in (3, 6, 9):
        (run / f"checkpoints/step-{step:08d}/model.safetensors").unlink()
    with pytest.raises(UserError, match="no usable checkpoint"):
        mtl.resume(run)
    with (run / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


# --- a checkpoint that is named, or that others need -------------------------------------------------------


@pytest.mark.usefixtures("no_plots")
def test_an_older_checkpoint_is_gone_back_to(stopped_run: tuple[Path, Path], tmp_path: Path) -> None:
    straight, stopped = stopped_run
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    mtl.resume(run / "checkpoints/step-00000003")
    assert_same(straight, run)
    (aside,) = (run / "checkpoints").glob("set-aside-*")
    assert sorted(os.listdir(aside)) == ["step-00000006", "step-00000009"]


def test_a_named_checkpoint_that_is_damaged_is_refused(
    stopped_run: tuple[Path, Path], tmp_path: Path
) -> None:
    """K4: and nothing is moved out of its way."""
    run = tmp_path / "run"
    shutil.copytree(stopped_run[1], run)
    named = run / "checkpoints/step-00000006"
    flip(named / "optim.safetensors")
    before = sorted(os.listdir(run / "checkpoints"))
    with pytest.raises(UserError) as caught:
        mtl.resume(named)
    text = "is damaged (optim.safetensors: sha256 differs); resume the run to use an older one"
    assert str(caught.value) == f"{named}: {text}"
    with pytest.raises(UserError, match=r"step-00000007: no checkpoint found$"):
        mtl.resume(run / "checkpoints/step-00000007")
    assert sorted(os.listdir(run / "checkpoints")) == before


def poisoned(step: Path) -> str:
    """Put a NaN into a weight of a checkpoint, its manifest in order; returns the weight's name."""
    path = step / "model.safetensors"
    tensors = load(path.read_bytes())
    name = next(name for name in sorted(tensors) if name.endswith("weight"))
    tensors[name].view(-1)[0] = float("nan")
    data = save(tensors)
    path.write_bytes(data)
    entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    files = json.loads((step / "manifest.json").read_text())["files"]
    edited(files={**files, path.name: entry})(step)
    return name


def test_weights_that_are_nan_are_refused(stopped_run: tuple[Path, Path], tmp_path: Path) -> None:
    """K10: the later checkpoints stay where they are; and the option lets them pass."""
    run = tmp_path / "run"
    shutil.copytree(stopped_run[1], run)
    named = run / "checkpoints/step-00000006"
    name = poisoned(named)
    before = sorted(os.listdir(run / "checkpoints"))
    with pytest.raises(UserError) as caught:
        mtl.resume(named)
    todo = "resume an older checkpoint, or add --allow-nonfinite"
    place = named / "model.safetensors"
    assert str(caught.value) == f"{place}: holds non-finite values in {quoted(name)}; {todo}"
    assert sorted(os.listdir(run / "checkpoints")) == before
    with pytest.raises(NotFinite, match="loss is nan at step 6"):
        mtl.resume(named, allow_nonfinite=True)


@pytest.fixture(scope="module")
def early_best(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    """A run whose best epoch was not its last saved one, its twin stopped after epoch 4 of 5, and that best step."""
    folder = tmp_path_factory.mktemp("best")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mtl.report.plots.plot_run", lambda *_: [])
        for seed in range(30):
            made = recipe(
                **with_validation(optimizer={"kind": "adam", "lr": 0.03}, train__epochs=5, seed=seed),
                train__checkpoint={"keep": 10},
            )
            straight = folder / f"straight{seed}"
            best = mtl.run(made, out=straight).record.plain()["selected"]["step"]
            if best in (6, 9):
                break
        with pytest.raises(Stop):
            mtl.run(made, out=folder / "stopped", listeners=(StopAfter(epoch=4),))
    assert best in (6, 9)
    return straight, folder / "stopped", best


@pytest.mark.usefixtures("no_plots")
def test_the_best_epoch_must_be_whole_too(early_best: tuple[Path, Path, int], tmp_path: Path) -> None:
    """F40: its weights are what the end of the run needs, so that it is trained again from an older one."""
    straight, stopped, best = early_best
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    flip(run / f"checkpoints/step-{best:08d}/model.safetensors")
    listener = StopAfter()
    mtl.resume(run, listeners=(listener,))
    damaged = f"step-{best:08d}, the best by validation, is damaged (model.safetensors: sha256 differs)"
    assert listener.warnings == [f"{damaged}; using step-{best - 3:08d}"]
    assert_same(straight, run)


def test_a_best_epoch_without_an_older_one(early_best: tuple[Path, Path, int], tmp_path: Path) -> None:
    run, best = tmp_path / "run", early_best[2]
    shutil.copytree(early_best[1], run)
    flip(run / f"checkpoints/step-{best:08d}/model.safetensors")
    for step in range(3, best, 3):
        flip(run / f"checkpoints/step-{step:08d}/state.json")
    before = sorted(os.listdir(run / "checkpoints"))
    with pytest.raises(UserError) as caught:
        mtl.resume(run)
    damaged = f"step-{best:08d}, the best by validation, is damaged (model.safetensors: sha256 differs)"
    todo = f"and no older checkpoint is whole; see mtl checkpoints {run}"
    assert str(caught.value) == f"{run}: {damaged}, {todo}"
    assert sorted(os.listdir(run / "checkpoints")) == before


@pytest.mark.usefixtures("no_plots")
def test_the_best_epoch_is_damaged_before_the_end(early_best: tuple[Path, Path, int], tmp_path: Path) -> None:
    """Not a bug of ours but of the disk: one line, and the run can be resumed."""
    straight, stopped, best = early_best
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    path = run / f"checkpoints/step-{best:08d}"

    class Damage(StopAfter):
        def started(self) -> None:
            flip(path / "model.safetensors")

    with pytest.raises(UserError) as caught:
        mtl.resume(run, listeners=(Damage(),))
    todo = f"mtl run --resume {run} trains it again from an older one"
    what = "the best by validation is damaged (model.safetensors: sha256 differs)"
    assert str(caught.value) == f"{path}: {what}; {todo}"
    mtl.resume(run)
    assert_same(straight, run)


@pytest.mark.usefixtures("no_plots")
def test_a_stop_after_damage_is_kept(stopped_run: tuple[Path, Path], tmp_path: Path) -> None:
    """Damaged checkpoints of later steps are not counted among the last that are kept."""
    run = tmp_path / "run"
    shutil.copytree(stopped_run[1], run)
    for step in (6, 9):
        flip(run / f"checkpoints/step-{step:08d}/model.safetensors")
    mtl.resume(run, ["train.checkpoint={keep: 2, every: {steps: 1}}"])
    assert_same(stopped_run[0], run)
    run2 = tmp_path / "again"
    shutil.copytree(stopped_run[1], run2)
    for step in (6, 9):
        flip(run2 / f"checkpoints/step-{step:08d}/model.safetensors")
    with pytest.raises(Stop):
        mtl.resume(run2, ["train.checkpoint={keep: 2, every: {steps: 1}}"], listeners=(StopAfter(step=1),))
    # the stop came after the first save: that of step 4 must be there, beside the one resumed from
    assert {"step-00000003", "step-00000004"} <= set(os.listdir(run2 / "checkpoints"))


# --- what may change (K14, F36) -----------------------------------------------------------------------------


def final_weights(run: Path) -> bytes:
    return (max((run / "checkpoints").glob("step-????????")) / "model.safetensors").read_bytes()


@pytest.mark.parametrize("stop", [2, None], ids=["stopped", "finished"])
@pytest.mark.usefixtures("no_plots")
def test_more_epochs(stop: int | None, tmp_path: Path) -> None:
    """With a schedule that knows no horizon, a run that was made longer is one that was so from the start."""
    mtl.run(recipe(train__epochs=5), out=tmp_path / "long")
    if stop is None:
        mtl.run(recipe(), out=tmp_path / "run")
    else:
        with pytest.raises(Stop):
            mtl.run(recipe(), out=tmp_path / "run", listeners=(StopAfter(epoch=stop),))
    record = mtl.resume(tmp_path / "run", ["train.epochs=5"]).record.plain()
    assert (record["step"], record["epoch"]) == (15, 5)
    assert record["changes"] == [{"step": 12 if stop is None else 6, "changed": ["train.epochs 4 -> 5"]}]
    assert final_weights(tmp_path / "run") == final_weights(tmp_path / "long")
    for name in ("metrics.jsonl", "sharing.jsonl", "metrics.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "long" / name).read_bytes()
    listener = StopAfter()
    mtl.resume(tmp_path / "run", listeners=(listener,))
    assert listener.warnings == [f"{tmp_path / 'run'}: already finished at step 15"]


@pytest.mark.usefixtures("no_plots")
def test_more_steps_are_all_taken(tmp_path: Path) -> None:
    """Also when the first end cut an epoch short."""
    mtl.run(recipe(train__epochs=None, train__max_steps=8), out=tmp_path / "run")
    record = mtl.resume(tmp_path / "run", ["train.max_steps=12"]).record.plain()
    assert (record["status"], record["step"], record["epoch"]) == ("finished", 12, 5)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["split"] == "train"] == [3, 6, 8, 11, 12]


class Rates(StopAfter):
    """Notes the learning rate of each step."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.rates: list[float] = []

    def stepped(self, event: Stepped) -> None:
        self.rates.append(self.trainer.optimizer.param_groups[0]["lr"])
        super().stepped(event)


@pytest.mark.parametrize("extend", [False, True])
@pytest.mark.usefixtures("no_plots")
def test_the_schedule_stays_unless_it_is_extended(extend: bool, tmp_path: Path) -> None:
    """12 steps of a cosine, stopped at 6 and made 18: it ends where it would have and holds, or is stretched."""
    made = recipe(schedule={"kind": "cosine"}, optimizer={"kind": "sgd", "lr": 0.5})
    with pytest.raises(Stop):
        mtl.run(made, out=tmp_path / "run", listeners=(StopAfter(epoch=2),))
    listener = Rates()
    mtl.resume(tmp_path / "run", ["train.epochs=6"], listeners=(listener,), extend_schedule=extend)

    horizon = 18 if extend else 12
    expected = [0.25 * (1 + math.cos(math.pi * min(step, horizon - 1) / horizon)) for step in range(6, 18)]
    assert listener.rates == pytest.approx(expected, rel=1e-12)
    assert (listener.rates[6] == listener.rates[-1]) is not extend


@pytest.mark.usefixtures("no_plots")
def test_a_schedule_that_was_extended_stays_so(tmp_path: Path) -> None:
    """Killed before the next save: the longer schedule was saved when it was asked for."""
    made = recipe(schedule={"kind": "cosine"})
    for name in ("straight", "killed"):
        mtl.run(made, out=tmp_path / name)
    mtl.resume(tmp_path / "straight", ["train.epochs=6"], extend_schedule=True)
    with pytest.raises(Stop):
        mtl.resume(
            tmp_path / "killed", ["train.epochs=6"], extend_schedule=True, listeners=(StopAfter(step=2),)
        )
    mtl.resume(tmp_path / "killed")
    assert_same(tmp_path / "straight", tmp_path / "killed")


@pytest.mark.usefixtures("no_plots")
def test_a_warm_start_outlives_a_kill_in_the_first_steps(tmp_path: Path) -> None:
    """Weights that came from another run are saved before the first step: that run may be gone later."""
    mtl.run(recipe(seed=9), out=tmp_path / "other")
    made = recipe(train__init_from=str(tmp_path / "other"))
    mtl.run(made, out=tmp_path / "straight")
    with pytest.raises(Stop):
        mtl.run(made, out=tmp_path / "killed", listeners=(StopAfter(step=2),))
    assert os.listdir(tmp_path / "killed/checkpoints") == ["step-00000000"]
    shutil.rmtree(tmp_path / "other")
    mtl.resume(tmp_path / "killed")
    assert_same(tmp_path / "straight", tmp_path / "killed")


@pytest.mark.usefixtures("no_plots")
def test_a_warm_start_is_made_again_if_nothing_was_saved(tmp_path: Path) -> None:
    mtl.run(recipe(seed=9), out=tmp_path / "other")
    made = recipe(train__init_from=str(tmp_path / "other"))
    mtl.run(made, out=tmp_path / "straight")
    with pytest.raises(Stop):
        mtl.run(made, out=tmp_path / "killed", listeners=(StopAfter(step=2),))
    shutil.rmtree(tmp_path / "killed/checkpoints")
    mtl.resume(tmp_path / "killed")
    assert_same(tmp_path / "straight", tmp_path / "killed")


@pytest.mark.usefixtures("no_plots")
def test_the_best_of_an_older_checkpoint_stays_as_long_as_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Best after epoch 2, then after epoch 6: going back to epoch 5 takes the first of them too."""
    accuracies = {3: 0.1, 6: 0.5, 9: 0.4, 12: 0.3, 15: 0.2, 18: 0.6}

    def scripted(trainer: Any, split: str, *_: object) -> dict[str, Any]:
        row = evaluate_split(trainer, split)
        return {**row, f"{split}/mean/accuracy": accuracies[trainer.progress.step]}

    monkeypatch.setattr("mtl.training.loop.evaluate_split", scripted)
    made = recipe(**with_validation(train__epochs=6, train__checkpoint={"keep": 2}))
    mtl.run(made, out=tmp_path / "straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "run")
    saved = tmp_path / "run/checkpoints"
    assert checkpoint.steps(saved) == [6, 15, 18]
    flip(saved / "step-00000018/model.safetensors")
    edit = json.loads((tmp_path / "run/run.json").read_text()) | {"status": "interrupted"}
    (tmp_path / "run/run.json").write_text(json.dumps(edit))
    mtl.resume(tmp_path / "run")
    assert_same(tmp_path / "straight", tmp_path / "run")
    with pytest.raises(Stop):
        mtl.resume(saved / "step-00000015", listeners=(StopAfter(step=1),))
    shutil.rmtree(saved / "step-00000006")
    with pytest.raises(UserError, match="step-00000015: its best by validation, step-00000006, is missing"):
        mtl.resume(saved / "step-00000015")


@pytest.mark.usefixtures("no_plots")
def test_an_end_that_was_left_is_not_told_any_more(tmp_path: Path) -> None:
    done = mtl.run(recipe(**with_validation()), out=tmp_path / "run")
    with pytest.raises(Stop):
        mtl.resume(tmp_path / "run/checkpoints/step-00000006", listeners=(StopAfter(step=1),))
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert (record["status"], record["step"], record["epoch"], record["results"]) == ("failed", 6, 2, {})
    assert not {"selected", "stopped_early"} & set(record)
    mtl.load(tmp_path / "run")
    again = mtl.resume(tmp_path / "run")
    assert (again.metrics, again.record.selected) == (done.metrics, done.record.selected)


@pytest.mark.usefixtures("no_plots")
def test_more_epochs_after_early_stopping_are_told_to_be_in_vain(tmp_path: Path) -> None:
    mtl.run(recipe(**VARIANTS["early-stopping"]), out=tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["stopped_early"]
    listener = StopAfter()
    again = mtl.resume(tmp_path / "run", ["train.epochs=90"], listeners=(listener,))
    told = f"early stopping ended it at step {record['step']}; nothing more is trained, whatever its epochs"
    assert listener.warnings == [f"{tmp_path}/run: {told}"]
    assert again.record.results == record["results"]
    assert again.record.step == record["step"]


@pytest.mark.usefixtures("no_plots")
def test_other_keys_that_may_change_change_no_bit(stopped_run: tuple[Path, Path], tmp_path: Path) -> None:
    straight, stopped = stopped_run
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    listener = StopAfter()
    overrides = ["description=other", "train.checkpoint.keep=7", "train.device=cpu"]
    mtl.resume(run, overrides, listeners=(listener,))
    assert listener.warnings == []
    assert_same(straight, run)
    assert "description: other" in (run / "recipe.resolved.yaml").read_text()


ELSEWHERE: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "torch": ({"environment": {"torch": "2.10.0"}}, [], "torch 2.10.0 -> "),
    "python": ({"environment": {"python": "3.10.1"}}, [], "python 3.10.1 -> "),
    "cpu": ({"environment": {"cpu_capability": "NEON"}}, [], "cpu_capability NEON -> "),
    "device": ({"device": "cuda"}, [], "device cuda -> cpu"),
    "threads": ({}, ["train.threads=2"], "threads 1 -> 2"),
}


@pytest.mark.parametrize("case", ELSEWHERE)
@pytest.mark.usefixtures("no_plots")
def test_another_machine_is_told_or_refused(
    case: str, stopped_run: tuple[Path, Path], tmp_path: Path
) -> None:
    """F36."""
    changes, overrides, text = ELSEWHERE[case]
    run = tmp_path / "run"
    shutil.copytree(stopped_run[1], run)
    record = json.loads((run / "run.json").read_text())
    record["environment"] |= changes.get("environment", {})
    record["device"] = changes.get("device", record["device"])
    (run / "run.json").write_text(json.dumps(record))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UserError) as caught:
        mtl.resume(run, overrides, require_bitwise=True)
    assert caught.value.code == USER
    assert str(caught.value).startswith(f"{run}: not bitwise: {text}")
    assert str(caught.value).endswith("; leave out --require-bitwise")
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    listener = StopAfter()
    result = mtl.resume(run, overrides, listeners=(listener,))
    (warning,) = listener.warnings
    assert warning.startswith(f"not bitwise: {text}")
    assert result.record.status == "finished"


# --- a run of this release (K7) ------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_plots")
def test_a_run_of_this_release_goes_on(small_run: Path, tmp_path: Path) -> None:
    """Its files are of the schemas that this release names; checkpoints that are there stay as they are."""
    run = shutil.copytree(small_run, tmp_path / "run")
    step = run / "checkpoints/step-00000008"
    before = {path.name: path.read_bytes() for path in step.iterdir()}
    for name in ("manifest.json", "state.json"):
        assert json.loads(before[name])["schema_version"] == checkpoint.SCHEMA_VERSION
    assert json.loads((run / "run.json").read_bytes())["schema_version"] == SCHEMA_VERSION
    listener = StopAfter()
    result = mtl.resume(run, listeners=(listener,))
    assert listener.warnings == []
    assert (result.record.status, result.record.step) == ("finished", 16)
    assert {path.name: path.read_bytes() for path in step.iterdir()} == before


# --- real processes, really killed -----------------------------------------------------------------------

LONG = {"train__epochs": 60, **with_validation(schedule={"kind": "one_cycle"}, train__accumulate=2)}


def start(*args: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mtl", "run", "--quiet", *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def kill_after_next_checkpoint(process: subprocess.Popen[str], run: Path, wait: float) -> None:
    """SIGKILL some time after a checkpoint appears that was not there before."""
    folder = run / "checkpoints"
    before = set(os.listdir(folder)) if folder.is_dir() else set()
    end = time.monotonic() + 500  # a starved machine takes minutes to start
    try:
        while not (folder.is_dir() and {n for n in os.listdir(folder) if n.startswith("step-")} - before):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end
            time.sleep(0.002)
        time.sleep(wait)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run ended before it was killed"


def killed_and_resumed(tmp_path: Path, kills: int, seed: int) -> None:
    made = recipe(**LONG)
    path = tmp_path / "small.yaml"
    path.write_text(to_yaml(load_recipe(made)))
    run, waits = tmp_path / "killed", random.Random(seed)
    arguments: tuple[str | Path, ...] = (path, "--out", run)
    for _ in range(kills):
        kill_after_next_checkpoint(start(*arguments), run, waits.uniform(0, 0.1))
        assert json.loads((run / "run.json").read_bytes())["status"] == "running"
        arguments = ("--resume", run)
    process = start(*arguments)
    _, complaints = process.communicate()
    assert process.returncode == 0, complaints
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mtl.report.plots.plot_run", lambda *_: [])
        mtl.run(made, out=tmp_path / "straight")
    assert_same(tmp_path / "straight", run)
    assert not [name for name in os.listdir(run / "checkpoints") if name.startswith(".")]


def test_killed_and_resumed_in_new_processes(tmp_path: Path) -> None:
    killed_and_resumed(tmp_path, kills=1, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_three_times(tmp_path: Path, seed: int) -> None:
    killed_and_resumed(tmp_path, kills=3, seed=seed)
