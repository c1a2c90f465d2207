"""A sweep by real processes: what it leaves, that it repeats nothing, and that it goes on after any end."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import mtl
from mtl.comparison.processes.pool import Report
from mtl.errors import INTERRUPTED, EnvironmentFault, UserError
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from mtl.runs.logs import read_lines
from mtl.tuning.conduct import conduct
from mtl.tuning.outcome import Outcome
from mtl.tuning.request import Announced, Asked, Silent
from tests.support.recipes import recipe, write

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.xdist_group("sweep")  # its fixture is made once
CHANGES: dict[str, Any] = {
    "data__split": {"validation": 0.25}, "data__source__rows": 80, "train__epochs": 3,
    "tune": {"optimizer.lr": {"log_uniform": [1e-3, 1]}, "model.head.dropout": [0.0, 0.5]},
}  # fmt: skip


def tuned(**changes: Any) -> Recipe:
    return recipe(**(CHANGES | changes))


class Watching(Silent):
    """Keeps what a watcher hears."""

    def __init__(self) -> None:
        self.announced: list[Announced] = []
        self.ended: list[dict[str, Any]] = []
        self.said: list[str] = []

    def begins(self, announced: Announced) -> None:
        self.announced.append(announced)

    def reports(self, report: Report) -> None:
        if report.ended not in (None, "elsewhere"):
            self.ended.append(dict(report.said))

    def says(self, line: str) -> None:
        self.said.append(line)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Watching]:
    watching = Watching()
    out = tmp_path_factory.mktemp("tuning") / "t"
    return conduct(Asked(tuned(), 5, jobs=2, out=out), watching), watching


def test_every_trial_has_ended_and_is_told(done: tuple[Outcome, Watching]) -> None:
    outcome, watching = done
    (announced,) = watching.announced
    assert (announced.n_done, announced.jobs, announced.metric) == (0, 2, "validation/mean/accuracy")
    assert announced.storage == f"sqlite:///{outcome.path}/study.db"
    assert sorted(ended["trial"] for ended in watching.ended) == [0, 1, 2, 3, 4]
    assert outcome.counts() == {"complete": 5}
    assert outcome.trials[0].settings == {"optimizer.lr": 0.1, "model.head.dropout": 0.0}, "the recipe itself"
    values = {trial.number: trial.value for trial in outcome.trials}
    assert outcome.value == max(values.values()) == values[outcome.best]  # type: ignore[type-var]
    assert watching.said == []


def test_the_files_of_a_sweep(done: tuple[Outcome, Watching]) -> None:
    outcome, _ = done
    names = {path.name for path in outcome.path.iterdir()}
    assert names == {
        "best.yaml",
        "tune.json",
        "trials.csv",
        "sweep.json",
        "study.db",
        "workers.log",
        "trials",
    }
    content = json.loads((outcome.path / "tune.json").read_bytes())
    assert (content["best"], content["value"]) == (outcome.best, outcome.value)
    with open(outcome.path / "trials.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["value"]) for row in rows] == [trial.value for trial in outcome.trials]
    assert float(rows[0]["optimizer.lr"]) == 0.1
    logs = list(outcome.path.glob("trials/*/metrics.jsonl"))
    assert len(logs) == 5
    assert {row["split"] for log in logs for row in read_lines(log)} == {"train", "validation"}


def test_the_best_recipe_runs_and_gives_its_value_again(
    done: tuple[Outcome, Watching], tmp_path: Path
) -> None:
    outcome, _ = done
    head = outcome.recipe.read_text(encoding="utf-8").splitlines()[:3]
    assert head[0].startswith(f"# Trial {outcome.best} of study {outcome.study}, the best of 5 trials: ")
    assert head[1] == f"# Its settings: {' '.join(outcome.settings)}"
    assert load_recipe(outcome.recipe).tune == {}
    result = mtl.run(outcome.recipe, out=tmp_path / "run", report=False)
    assert result.metrics["validation/mean/accuracy"] == outcome.value
    assert "test/mean/accuracy" in result.metrics


def test_the_same_request_repeats_nothing_and_more_trials_add(done: tuple[Outcome, Watching]) -> None:
    outcome, _ = done
    watching = Watching()
    again = mtl.tune(tuned(), trials=5, jobs=1, out=outcome.path)
    assert again == outcome
    more = conduct(Asked(tuned(), 6, jobs=1, out=outcome.path), watching)
    assert [ended["trial"] for ended in watching.ended] == [5]
    assert more.trials[:5] == outcome.trials
    assert watching.announced[0].n_done == 5


def test_trials_of_another_storage_are_left_alone(done: tuple[Outcome, Watching], tmp_path: Path) -> None:
    outcome, _ = done
    with pytest.raises(UserError, match="holds trials that are not in this storage; give the --storage that"):
        conduct(Asked(tuned(), 5, f"sqlite:///{tmp_path}/new.db", out=outcome.path))


def test_a_storage_that_is_refused_leaves_no_sweep(tmp_path: Path) -> None:
    made = recipe(data__split={"validation": 0.25}, tune={"optimizer.lr": [0.1]})
    with pytest.raises(EnvironmentFault, match="--storage: there is no folder '/nowhere'; make it"):
        conduct(Asked(made, 1, "sqlite:////nowhere/s.db", 1, tmp_path / "t"))
    assert not (tmp_path / "t").exists()
    (tmp_path / "s.db").write_text("no database at all, but long enough to be looked at" * 10)
    with pytest.raises(EnvironmentFault, match="--storage: cannot be used: file is not a database"):
        conduct(Asked(made, 1, f"sqlite:///{tmp_path}/s.db", 1, tmp_path / "t"))
    assert not list((tmp_path / "t").iterdir())


def test_other_data_under_the_same_recipe_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    rows = [f"{i},{i % 2}" for i in range(60)]
    table.write_text("\n".join(["x,label", *rows]), encoding="utf-8")
    source = {"kind": "table", "path": str(table), "inputs": {"numeric": ["x"]}}
    made = recipe(
        data={"source": source, "split": {"validation": 0.25, "test": 0.25}},
        tasks={"a": {"kind": "multiclass", "target": "label"}}, tune={"optimizer.lr": [0.1]},
    )  # fmt: skip
    asked = Asked(made, 1, jobs=1, out=tmp_path / "t")
    assert conduct(asked).counts() == {"complete": 1}
    table.write_text("\n".join(["x,label", *rows, "60,0"]), encoding="utf-8")
    with pytest.raises(UserError, match=r"--storage: the study small-.* was begun with other data"):
        conduct(asked)


def command(folder: Path, storage: str, n: int, out: str) -> list[str]:
    return [
        sys.executable, "-m", "mtl", "tune", str(folder / "r.yaml"), "--trials", str(n), "--jobs", "1",
        "--storage", storage, "--out", str(folder / out),
    ]  # fmt: skip


def begun(folder: Path, storage: str, n: int) -> subprocess.Popen[bytes]:
    """A sweep in a process of its own, which is within its second trial."""
    process = subprocess.Popen(
        command(folder, storage, n, "one"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    while b"1 of " not in (line := process.stdout.readline()):
        assert line, process.communicate()[1]
    limit = time.monotonic() + 120
    while not list(folder.glob("one/trials/trial-0001/run.json")) and time.monotonic() < limit:
        time.sleep(0.05)
    return process


def children_of(parent: int) -> list[int]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    return [pid for pid, above in pairs if above == parent]


@pytest.mark.parametrize("how", ["killed", pytest.param("interrupted", marks=pytest.mark.slow)])
def test_all_trials_are_accounted_for_after_a_kill(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process on the same file goes on, and takes over the trial that was under way."""
    monkeypatch.setattr("mtl.tuning.study.BEAT", 1)
    monkeypatch.setattr("mtl.tuning.study.GRACE", 3)
    write(tmp_path, **CHANGES | {"train__epochs": 100})
    storage = f"sqlite:///{tmp_path}/t.db"
    process = begun(tmp_path, storage, 4)
    if how == "killed":
        for pid in (process.pid, *children_of(process.pid)):
            os.kill(pid, signal.SIGKILL)
    else:
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    if how == "interrupted":
        assert process.returncode == INTERRUPTED
        assert errors == b"the same command goes on with this sweep; what is finished stays\ninterrupted\n"
    made = load_recipe(tmp_path / "r.yaml")
    watching = Watching()
    outcome = conduct(Asked(made, 4, storage, 1, tmp_path / "one"), watching)
    counts = outcome.counts()
    assert sum(counts.values()) == 4
    assert counts.keys() <= {"complete", "pruned"}
    assert [trial.number for trial in outcome.trials if trial.state == "repeated"] == [1]
    runs = [trial.run for trial in outcome.trials]
    assert len(runs) == 5
    assert runs.count(str(tmp_path / "one/trials/trial-0001")) == 2, (
        "the repetition goes on in the same folder"
    )
    mtl.run(outcome.recipe, ["train.epochs=1"], out=tmp_path / "run", report=False)
