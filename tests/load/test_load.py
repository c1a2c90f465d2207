"""Loads that a user may bring: sizes and repetitions. Times are of the CPU, with room for a slow machine."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import secrets
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl.data.rows.order import order
from mtl.errors import Terminated, UserError
from mtl.experiment.run import prepare, run
from mtl.recipe.load import load_recipe
from mtl.recipe.text.yaml import MAX_BYTES, MAX_VALUES, read_bytes
from mtl.runs import checkpoint, state
from mtl.runs.folder import RECORD, RunFolder
from mtl.runs.listing import list_runs
from mtl.sources import fashion_mnist
from mtl.training.loop import fit
from tests.faults.whole import final_bytes
from tests.load import many_at_once, save_peak, soak
from tests.support.assertions import Capture, called
from tests.support.listening import epochs_of
from tests.support.recipes import linear, small
from tests.support.records import record, record_values
from tests.test_equalities import StopAt, begin_or_go_on

ROOT = Path(__file__).parents[2]
ROOM = 4
"""How much slower than the limit a shared machine under a coverage tracer may be."""


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than these runs."""
    monkeypatch.setattr("mtl.report.plots.plot_run", lambda *given: [])


def seconds(act: Callable[[], object]) -> float:
    began = time.process_time()
    act()
    return time.process_time() - began


# --- L1: many tasks ---


def of_tasks(n: int) -> dict[str, object]:
    """n tasks that read the two columns of generated data, each with a small head on one tower."""
    return small(
        data__source={"kind": "synthetic", "tasks": 2, "rows": 512, "test_rows": 64, "features": 8},
        tasks={f"t{i}": {"kind": "multiclass", "target": f"task{i % 2}"} for i in range(n)},
        model__towers="one",
        model__backbone__stages=linear(16),
        optimizer={"kind": "adam", "lr": 1e-3},
        train={"epochs": 1, "batch_size": 32, "device": "cpu"},
    )


def test_start_and_step_with_many_tasks() -> None:
    """Start under 1 s + 5 ms a task; a step of 1024 tasks far below 512 times one of 2."""
    step: dict[int, float] = {}
    prepare(load_recipe(of_tasks(2)))
    for n in (1, 2, 8, 32, 128, 1024):
        began = time.process_time()
        trainer, _ = prepare(load_recipe(of_tasks(n)))
        assert time.process_time() - began < ROOM * (1 + 0.005 * n)
        assert sum(len(group.tasks) for group in trainer.built.groups) == n
        step[n] = seconds(lambda: list(fit(trainer))) / trainer.steps_per_epoch  # noqa: B023
    assert step[1024] < 128 * step[2], step


# --- L3: long recipes ---


def body(name: str, count: int, value: str = "1") -> str:
    return f"{name}:\n" + "".join(f"  k{i}: {value}\n" for i in range(count))


MOST = MAX_VALUES // 2 - 100
TABLE = "data: {source: {kind: table, path: t.csv, inputs: {numeric: [c0]}}}\n"
LONG: dict[str, dict[str, str]] = {
    "long texts": {"r.yaml": body("x", MOST, "'" + "a" * 90 + "'")},
    "comments": {"r.yaml": ("# " + "x" * 100 + "\n") * (MAX_BYTES // 103 - 10) + "name: a\n"},
    "unknown keys": {"r.yaml": "".join(f"k{i}: 1\n" for i in range(MOST))},
    "near keys": {"r.yaml": "".join(f"task_defaultz{i}: 1\n" for i in range(MOST))},
    "one list": {"r.yaml": "a: [" + "1," * (2 * MOST) + "]\n"},
    "on a long base": {"r.yaml": "base: b.yaml\n" + body("x", MOST), "b.yaml": body("x", MOST)},
    "eight bases": {
        "r.yaml": "base: c0.yaml\n",
        **{f"c{i}.yaml": f"base: c{i + 1}.yaml\n" + body("x", MOST) for i in range(7)},
        "c7.yaml": body("x", MOST),
    },
    "defaults": {"r.yaml": body("task_defaults", 5000) + body("tasks", 256, "{}")},
    "too many tasks": {"r.yaml": "task_defaults: {kind: binary}\n" + body("tasks", MOST, "{}").replace(" k", " t")},
    "patterns": {
        "r.yaml": TABLE + "tasks:\n" + "".join(f"  'c{i}*': {{kind: binary}}\n" for i in range(3000)),
        "t.csv": ",".join(f"c{i}" for i in range(5000)) + "\n" + ",".join("1" * 5000) + "\n",
    },
    "one long pattern": {
        "r.yaml": TABLE + "tasks: {'" + "*c" * 90 + "*x': {kind: binary}}\n",
        "t.csv": ",".join("c" * 150 + str(i) for i in range(1000)) + "\n" + ",".join("1" * 1000) + "\n",
    },
}  # fmt: skip


@pytest.mark.parametrize("case", LONG)
def test_a_long_recipe_is_refused_soon(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1 MB or 20,000 values in 2 s; what bases, defaults and patterns make of a text counts too."""
    monkeypatch.chdir(tmp_path)
    for name, text in LONG[case].items():
        assert len(text) <= MAX_BYTES
        Path(name).write_text(text, encoding="utf-8")
    began = time.process_time()
    with pytest.raises(UserError):
        load_recipe("r.yaml")
    assert time.process_time() - began < 2 * ROOM


def test_what_comes_out_of_a_recipe_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = {
        "eight bases": "c2.yaml:1:7: base: more than 20000 values in recipes on top of each other",
        "defaults": "r.yaml:5003:3: tasks: 1280256 values come out for 256 tasks; at most 200000",
        "too many tasks": f"r.yaml:3:3: tasks: {MOST} tasks given; at most 1024 tasks",
    }
    for case, line in expected.items():
        for name, text in LONG[case].items():
            Path(name).write_text(text, encoding="utf-8")
        with pytest.raises(UserError) as caught:
            load_recipe("r.yaml")
        assert str(caught.value) == line


def test_a_recipe_of_a_megabyte_that_is_good() -> None:
    text = ("# " + "x" * 100 + "\n") * 10_000 + "a: [" + "1, " * 6000 + "1]\n"
    assert 1_000_000 < len(text) <= MAX_BYTES
    assert seconds(lambda: read_bytes(text.encode(), "r.yaml")) < 2 * ROOM


# --- L5: the order of many rows ---


def test_order_of_ten_million_rows() -> None:
    """30 s for 10^8 rows; here 10^7 in 3 s, and no more than 16 bytes a row while it sorts."""
    n = 10_000_000
    tracemalloc.start()
    try:
        began = time.process_time()
        rows = order(n, seed=0, epoch=3)
        took = time.process_time() - began
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert took < 3 * ROOM
    assert rows.nbytes == 8 * n
    assert peak < 17 * n
    seen = np.zeros(n, bool)
    seen[rows] = True
    assert seen.all()


# --- L7: large models ---


def test_a_save_builds_no_file_in_memory(tmp_path: Path) -> None:
    """Of 16 MB of weights and 32 MB of moments, Python holds less than 1 MB at any time; nor does it to verify them."""
    trainer, _ = prepare(load_recipe(save_peak.recipe(16)))
    assert len(list(epochs_of(trainer))) == 1
    tracemalloc.start()
    try:
        path = checkpoint.commit(tmp_path, 1, state.capture(trainer, {}), "run")
        files = checkpoint.verified(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(file.stat().st_size for file in files.values()) > 45_000_000
    assert peak < 1_000_000


@pytest.mark.slow
def test_memory_of_a_save_and_of_a_resume(tmp_path: Path) -> None:
    """128 MB of weights and 256 MB of moments: next to nothing to save; to restore, what becomes the state, a second
    copy of the weights until all is found good, and the pages of the largest file.
    """

    def measured(*options: str) -> dict[str, Any]:
        command = [
            sys.executable,
            "-m",
            "tests.load.save_peak",
            "--megabytes",
            "128",
            *options,
            str(tmp_path),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        print(done.stdout)
        return dict(json.loads(done.stdout))

    saved, restored = measured(), measured("--resume")
    assert saved["digest"] == restored["digest"]
    assert saved["model"] > 128_000_000
    assert saved["files"] > 3 * saved["model"] - 1_000_000
    assert saved["growth"] < 32_000_000
    assert restored["growth"] < 5 * saved["model"] + 64_000_000


# --- L8, L9: long runs ---


@pytest.fixture
def few_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A soak that is short looks at itself less often; each note begins a yardstick, which takes a second."""
    monkeypatch.setattr(soak, "NOTES", 4)
    monkeypatch.setattr(soak, "LOOKS", 5)


@pytest.mark.usefixtures("few_looks")
def test_a_save_at_every_step(tmp_path: Path) -> None:
    """200 saves; `make soak` does 10,000."""
    found, _ = soak.soak(tmp_path / "run", 200, save_every_step=True)
    assert found.steps == 200
    assert found.most_checkpoints in (3, 4)
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [198, 199, 200]
    assert found.handles[1] <= found.handles[0]
    assert found.megabytes_per_10000_steps < 100, "2 MB in 200 steps"


@pytest.mark.usefixtures("few_looks")
def test_a_long_run_in_short(tmp_path: Path) -> None:
    """600 steps; `make soak` does 100,000."""
    found, notes = soak.soak(tmp_path / "run", 600)
    assert found.steps == 600
    assert len(notes) == soak.NOTES
    assert found.handles[1] <= found.handles[0]
    assert found.megabytes_per_10000_steps < 40, "2 MB in 600 steps"
    first, last = found.log_bytes_per_epoch
    assert last < 1.3 * first, "the log grows by the epoch"
    assert found.step_time_ratio < 3
    assert all(note.yardstick > 0 and note.all_seconds >= 0.8 * note.seconds for note in notes)


@pytest.mark.usefixtures("few_looks")
def test_a_yardstick_leaves_the_run_as_it_is(tmp_path: Path) -> None:
    """A soak ends with the bytes of a run that nobody looks at."""
    soak.soak(tmp_path / "soak", 120)
    run(soak.recipe(120, save_every_step=False), out=tmp_path / "run")
    assert final_bytes(tmp_path / "soak") == final_bytes(tmp_path / "run")


def test_drift_is_of_the_last_quarter_over_the_second() -> None:
    assert soak.drift([9, 9, 2, 4, 0, 0, 3, 9]) == 2.0
    assert soak.drift([1.0] * 5 + [2.0] * 5 + [7.0] * 5 + [3.0] * 5) == 1.5


# --- L10: long logs ---


def test_a_log_of_100_megabytes(tmp_path: Path) -> None:
    """Rows are appended without reading what is there, and the last line may be cut."""
    row = {f"train/t{i}/accuracy": 0.5 + i / 1e6 for i in range(1000)} | {
        "split": "train",
        "epoch": 1,
        "step": 1,
    }
    line = json.dumps(row).encode() + b"\n"
    copies = 100_000_000 // len(line)
    (tmp_path / "metrics.jsonl").write_bytes(line * copies)
    folder = RunFolder(tmp_path, record())
    assert seconds(lambda: folder.logs.append("metrics.jsonl", [row] * 100)) < 1
    assert (tmp_path / "metrics.jsonl").stat().st_size == (copies + 100) * len(line)
    with (tmp_path / "metrics.jsonl").open("r+b") as file:
        file.truncate(300 * len(line) + 50)
    rows = folder.logs.rows("metrics.jsonl")
    assert len(rows) == 300
    assert all(each == row for each in rows)


# --- L11: many resumes ---


@pytest.mark.parametrize("resumes", [6, pytest.param(500, marks=pytest.mark.slow)])
def test_a_run_that_is_resumed_again_and_again(resumes: int, tmp_path: Path) -> None:
    """Stopped after each step: it ends with the bytes of a straight run, and no file, handle or memory has grown."""
    made = soak.recipe(resumes + 1, save_every_step=False)
    run(made, out=tmp_path / "straight")
    out, seen = tmp_path / "resumed", []
    for _ in range(resumes):
        with pytest.raises(Terminated):
            begin_or_go_on(made, out, StopAt(1))
        seen.append((len(os.listdir("/proc/self/fd")), soak.resident()))
    begin_or_go_on(made, out, StopAt())
    assert final_bytes(out) == final_bytes(tmp_path / "straight")
    assert sorted(os.listdir(out)) == sorted(os.listdir(tmp_path / "straight"))
    sizes = [(tmp_path / name / RECORD).stat().st_size for name in ("straight", "resumed")]
    assert abs(sizes[1] - sizes[0]) < 40, "seconds and the like"
    assert len(checkpoint.steps(out / "checkpoints")) <= 4
    early = seen[len(seen) // 4 :]
    assert early[-1][0] <= early[0][0]
    print(f"{resumes} resumes: {(early[-1][1] - early[0][1]) / 2**20:.1f} MB more in the last three quarters")
    assert early[-1][1] - early[0][1] < 20_000_000


# --- L12: many runs ---


def test_a_thousand_runs_are_listed(tmp_path: Path, capsys: Capture) -> None:
    for i in range(1000):
        folder = tmp_path / "runs" / f"r{i % 10}" / f"{i:04}"
        folder.mkdir(parents=True)
        (folder / RECORD).write_text(json.dumps(record_values(started=f"2026-01-01T00:00:{i:05}")))
    assert seconds(lambda: list_runs(tmp_path / "runs")) < 2 * ROOM
    done = called(capsys, "runs", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("interrupted") == 1000
    assert [run.path.name for run in list_runs(tmp_path / "runs")] == [f"{i:04}" for i in range(1000)]


# --- L13: many at once ---

CROWD = 64


def together(act: Callable[[], object]) -> list[object]:
    """What `act` gives in each of 64 threads that start it at the same moment; locks are between open files."""
    barrier = threading.Barrier(CROWD)

    def begin(_: int) -> object:
        barrier.wait()
        return act()

    with ThreadPoolExecutor(CROWD) as pool:
        return list(pool.map(begin, range(CROWD)))


def test_many_fetch_one_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into one empty cache: each file is downloaded once, and all have the same bytes of it."""
    monkeypatch.delenv("MTL_OFFLINE", raising=False)
    monkeypatch.setenv("MTL_CACHE", str(tmp_path / "cache"))
    with many_at_once.serving() as server:
        for module, name, value in many_at_once.settings(server.url):
            monkeypatch.setattr(module, name, value)
        found = together(lambda: fashion_mnist._locate())
        names = sorted(f"/{file.remote.name}" for file in fashion_mnist.FILES)
    assert sorted(server.asked) == names
    assert len(names) == 4
    digests = set()
    for folder, arrays in found:  # type: ignore[misc]
        assert folder == tmp_path / "cache" / "fashion_mnist"
        digests.add(tuple(hashlib.sha256(array.tobytes()).hexdigest() for array in arrays.values()))
    assert len(digests) == 1
    assert sorted(os.listdir(tmp_path / "cache" / "fashion_mnist")) == [".lock", *(n[1:] for n in names)]


def test_many_runs_get_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one second, and although the random part of their names is one of 80 and often the same."""
    monkeypatch.chdir(tmp_path)
    real, drawn = secrets.token_hex, itertools.count()
    monkeypatch.setattr(secrets, "token_hex", lambda n: f"{next(drawn) // 3 % 80:04x}" if n == 2 else real(n))
    recipe = load_recipe(of_tasks(2))
    numbers = itertools.count()
    folders = together(lambda: RunFolder.create(None, recipe, record(id=str(next(numbers)))))
    assert len({folder.path for folder in folders}) == CROWD  # type: ignore[attr-defined]
    written = [json.loads(path.read_bytes())["id"] for path in tmp_path.glob("runs/*/*/run.json")]
    assert sorted(map(int, written)) == list(range(CROWD))
    for folder in folders:
        folder.release()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_many_processes_at_once(tmp_path: Path) -> None:
    found = many_at_once.crowd(tmp_path, CROWD)
    print(found)
    assert found.faults == []
    assert (found.folders, found.statuses, found.fingerprints) == (CROWD, {"finished": CROWD}, 1)
    assert found.asked == {f"/{file.remote.name}": 1 for file in fashion_mnist.FILES}


# --- L15: large counters ---


@pytest.mark.parametrize("epoch", [0, 10**6, 2**31, 2**40])
@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_order_of_late_epochs(epoch: int, seed: int) -> None:
    rows = order(1000, seed, epoch)
    assert sorted(rows.tolist()) == list(range(1000))
    assert (rows != order(1000, seed, epoch + 1)).any()


def test_the_last_step_that_has_a_name(tmp_path: Path) -> None:
    path = checkpoint.commit(tmp_path / "checkpoints", 99_999_999, {"a": b"1"}, "id")
    assert path.name == "step-99999999"
    assert checkpoint.steps(tmp_path / "checkpoints") == [99_999_999]


@pytest.mark.parametrize("keys", [{"max_steps": 10**8}, {"epochs": 10**6}])
def test_more_steps_than_have_a_name_are_refused(keys: dict[str, int]) -> None:
    """Names of checkpoints have 8 digits."""
    recipe = soak.recipe(100, save_every_step=False)
    train = recipe["train"]
    assert isinstance(train, dict)
    del train["max_steps"]
    with pytest.raises(UserError, match=r"at most|less than"):
        prepare(load_recipe(recipe | {"train": train | keys}))
