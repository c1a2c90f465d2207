"""When a run saves, what it says once, and what it writes when a disk has refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import mtl
from mtl.errors import EnvironmentFault
from mtl.experiment import recorder
from mtl.runs import checkpoint
from mtl.runs.folder import RunFolder
from mtl.runs.logs import RunLogs
from mtl.training import loop
from mtl.training.events import Stepped
from mtl.training.step import train_step
from tests.experiment.test_resume import recipe
from tests.faults.whole import content
from tests.support.listening import Watching

EPOCHS, STEPS = 3, 3


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtl.report.plots.plot_run", lambda *given: [])


@pytest.fixture
def saves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps at which something was committed."""
    steps: list[int] = []
    real = checkpoint.commit

    def commit(folder: Path, step: int, *rest: Any) -> Path:
        steps.append(step)
        return real(folder, step, *rest)

    monkeypatch.setattr(checkpoint, "commit", commit)
    return steps


def small(**every: float) -> dict[str, Any]:
    return recipe(train__epochs=EPOCHS, train__checkpoint={"every": every, "keep": 2})


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        ({"epochs": 1}, [3, 6, 9]),
        ({"epochs": 2}, [6, 9]),
        ({"epochs": 7}, [9]),
        ({"steps": 1}, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({"steps": 2}, [2, 4, 6, 8, 9]),
        ({"steps": 3}, [3, 6, 9]),  # each after the evaluation of its epoch, not before
        ({"steps": 100}, [9]),
    ],
)
def test_when_a_run_saves(
    every: dict[str, float], expected: list[int], saves: list[int], tmp_path: Path
) -> None:
    mtl.run(small(**every), out=tmp_path / "run")
    assert saves == expected
    newest = json.loads((tmp_path / "run/checkpoints/step-00000009/state.json").read_bytes())
    assert newest["position"] == {"epoch": 3, "step_in_epoch": 0, "global_step": 9}


def test_a_run_saves_by_the_clock(saves: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 25 s of this clock, and a minute is asked for."""
    now = [0.0]
    monkeypatch.setattr(recorder, "monotonic", lambda: now[0])

    def step(*given: Any) -> None:
        train_step(*given)
        now[0] += 25

    monkeypatch.setattr(loop, "train_step", step)
    mtl.run(small(minutes=1), out=tmp_path / "run")
    assert saves == [3, 6, 9]  # 75 s, after the evaluation; and again
    saves.clear()
    now[0] = 0.0
    made = small(minutes=0.5)
    mtl.run(made, out=tmp_path / "other")
    assert saves == [2, 4, 6, 8, 9]


def test_the_record_follows_the_step_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 25 s of this clock: the third and the sixth step end their epochs, and no other is recorded."""
    now, recorded = [0.0], []
    monkeypatch.setattr(recorder, "monotonic", lambda: now[0])

    class Looking(Watching):
        def stepped(self, event: Stepped) -> None:
            recorded.append(json.loads((tmp_path / "run/run.json").read_bytes())["step"])
            now[0] += 25

    mtl.run(small(epochs=1), out=tmp_path / "run", listeners=(Looking(),))
    assert recorded == [0, 0, 0, 3, 3, 3, 6, 6, 6]
    recorded.clear()
    now[0] = 0.0
    monkeypatch.setattr(recorder, "RECORD_EVERY", 20.0)
    (tmp_path / "run").rename(tmp_path / "before")
    mtl.run(small(epochs=1), out=tmp_path / "run", listeners=(Looking(),))
    assert recorded == [0, 2, 3, 3, 5, 6, 6, 8, 9]  # the end of an epoch was recorded just before
    assert json.loads((tmp_path / "run/run.json").read_bytes())["status"] == "finished"


def test_what_a_disk_refused_is_written_later_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mtl.run(small(epochs=1), out=tmp_path / "straight")
    real, refused = RunLogs.append, []

    def append(self: RunLogs, name: str, rows: Any) -> None:
        if name == "metrics.jsonl" and len(refused) < 2:
            refused.append(rows)
            raise EnvironmentFault(str(self.folder / name), "cannot write: no space left on device")
        real(self, name, rows)

    monkeypatch.setattr(RunLogs, "append", append)
    listener = Watching()
    mtl.run(small(epochs=1), out=tmp_path / "run", listeners=(listener,))
    assert len(refused) == 2
    assert listener.warnings == [
        f"{tmp_path}/run/metrics.jsonl: cannot write: no space left on device; training goes on without it"
    ]
    one, two = ((tmp_path / run / "metrics.jsonl").read_bytes() for run in ("straight", "run"))
    assert one == two
    assert one.count(b"\n") == EPOCHS + 1  # and the test split


def test_a_record_that_cannot_be_written_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refused = RunFolder.save_record, []

    def save_record(self: RunFolder) -> None:
        if self.record.status == "running":
            refused.append(self.record.step)
            raise EnvironmentFault(str(self.path / "run.json"), "cannot write: input/output error")
        real(self)

    class Refusing(Watching):
        def started(self) -> None:
            monkeypatch.setattr(RunFolder, "save_record", save_record)

    listener = Refusing()
    mtl.run(small(epochs=1), out=tmp_path / "run", listeners=(listener,))
    assert refused == [3, 6, 9]
    assert listener.warnings == [
        f"{tmp_path}/run/run.json: cannot write: input/output error; training goes on without it"
    ]


def test_an_old_checkpoint_that_a_kill_left_is_deleted_at_the_next_start(tmp_path: Path) -> None:
    mtl.run(small(steps=1), out=tmp_path / "run")
    folder = tmp_path / "run/checkpoints"
    assert sorted(os.listdir(folder)) == ["step-00000008", "step-00000009"]
    record = json.loads((tmp_path / "run/run.json").read_bytes())
    files = content(folder / "step-00000008")
    assert files is not None
    checkpoint.commit(folder, 5, files, record["id"])
    checkpoint.commit(folder, 6, files, "the id of another run")
    (tmp_path / "run/run.json").write_text(json.dumps({**record, "status": "running", "step": 7}))
    mtl.resume(tmp_path / "run")
    assert sorted(os.listdir(folder)) == ["step-00000006", "step-00000008", "step-00000009"]
    assert json.loads((tmp_path / "run/run.json").read_bytes())["step"] == 9


def test_timings_add_up(tmp_path: Path) -> None:
    mtl.run(small(epochs=1), out=tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run/timings.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert set(row["seconds"]) >= {"train", "evaluate", "save"}
        steps = row["steps_per_second"] * row["seconds"]["train"]
        assert steps == pytest.approx(STEPS, rel=0.05)
        assert row["rows_per_second"] == pytest.approx(row["steps_per_second"] * 20, rel=0.01)
