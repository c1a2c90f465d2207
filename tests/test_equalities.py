"""A run that is stopped by a signal at any step, as often as one likes, ends with the same bytes.

Q1-Q3 and Q7-Q9 of one process after another; F7 and F38.
"""

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mtl
from mtl.commands.watch import TrainingConsole
from mtl.errors import TERMINATED, Terminated
from mtl.recipe.load import load_recipe, to_yaml
from mtl.recipe.specs import OPTIMIZERS, SCHEDULES, SHARING, TASKS, WEIGHTINGS
from mtl.registry import load_plugin
from mtl.runs import checkpoint
from mtl.training import loop
from mtl.training.events import Stepped
from tests.experiment.test_resume import (
    MEMBERS,
    ROOT,
    VARIANTS,
    assert_same,
    no_plots,
    recipe,
    results,
    shipped,
    with_validation,
)  # fmt: skip
from tests.faults.whole import content
from tests.support.assertions import Capture, called, plugins_undone
from tests.support.listening import Watching
from tests.support.task_samples import OPTIONS

__all__ = ["no_plots"]
EPOCHS, PER_EPOCH = 3, 3


class StopAt(Watching):
    """Has SIGTERM come while so many steps more are done, or while so many batches more are evaluated."""

    def __init__(self, steps: int | None = None, *, batches: int | None = None) -> None:
        super().__init__()
        self.steps, self.batches, self.started_at = steps, batches, -1

    def started(self) -> None:
        self.started_at = self.trainer.progress.step

    def stepped(self, event: Stepped) -> None:
        if self.steps is not None:
            self.steps -= 1
            self._stop(self.steps)

    def evaluate(self, *given: Any, between: Callable[[], None], **named: Any) -> Any:
        """The evaluation of a split, in which each batch counts."""

        def counted() -> None:
            if self.batches is not None:
                self.batches -= 1
                self._stop(self.batches)
            between()

        return EVALUATE(*given, between=counted, **named)

    def _stop(self, left: int) -> None:
        if left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


EVALUATE = loop.evaluate


def begin_or_go_on(made: Mapping[str, Any], out: Path, stop: StopAt, **options: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "evaluate", stop.evaluate)
        if (out / "run.json").exists():
            mtl.resume(out, listeners=(stop,), **options)
        else:
            mtl.run(made, out=out, listeners=(stop,), **options)


SMALL = re.compile(r"split '|\d+ of \d+ test rows |task '.*': its label follows from ")
"""The beginning of a warning that each reading of a small table gives: few rows, equal rows, derived labels."""


def stopped_after(made: Mapping[str, Any], out: Path, *stops: StopAt, notices: Sequence[str] = ()) -> None:
    """Run until each of the stops in turn, and then to the end; each of them must have come.

    The data give these notices each time.
    """
    done = 0
    for number, stop in enumerate([*stops, StopAt()]):
        if number < len(stops):
            with pytest.raises(Terminated):
                begin_or_go_on(made, out, stop)
            record = json.loads((out / "run.json").read_text())
            assert record["status"] == "interrupted"
            assert stop.warnings[-1].startswith(f"stopped at step {record['step']}, which is saved; ")
            assert stop.started_at == done
            done = record["step"]
        else:
            begin_or_go_on(made, out, stop)
            assert stop.started_at == done
            assert [text for text in stop.warnings if not SMALL.match(text)] == list(notices)


# --- at every edge of a step, for every member of every family ----------------------------------------------


def write_table(path: Path) -> None:
    """48 training and 12 test rows with a column for every kind of task; some labels are missing."""
    draw = random.Random(4)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["u", "v", "part", "w", "label", "gender", "young", "amount", "a", "b", "c"])
        for row in range(60):
            u, v = draw.gauss(0, 1), draw.gauss(0, 1)
            label = row % 10
            words = [["female", "male"][u > 0], ["no", "yes"][v > 0], round(u + v + draw.random(), 3)]
            bits = [int(u + draw.gauss(0, 1) > 0) for _ in range(3)]
            cells = [label, *words, *bits]
            if row % 7 == 3 and row < 48:
                cells[draw.randrange(4)] = ""
            writer.writerow([round(u, 4), round(v, 4), "train" if row < 48 else "test", 1 + row % 3, *cells])


def all_kinds(folder: Path) -> dict[str, Any]:
    """One recipe with a task of every registered kind, each measured by all that it knows."""
    write_table(folder / "t.csv")
    tasks: dict[str, Any] = {}
    for kind in sorted(shipped(TASKS)):
        spec = TASKS[kind]
        first = [name for name, better in spec.known_metrics.items() if better is not None]
        rest = [name for name, better in spec.known_metrics.items() if better is None]
        tasks[kind.replace(".", "_")] = {
            "kind": kind, **OPTIONS[kind], "missing": "mask", "sample_weight": "w", "metrics": [*first, *rest],
        }  # fmt: skip
    tasks["binary"]["positive"] = ["5", "7", "9"]
    table = {"kind": "table", "path": str(folder / "t.csv"), "inputs": {"numeric": ["u", "v"]}}
    return recipe(
        data={"source": table, "split": {"column": "part"}}, task_defaults={}, tasks=tasks,
        model__towers={"one": list(tasks)[:4], "two": list(tasks)[4:]}, train__batch_size=16,
        train__epochs=EPOCHS,
    )  # fmt: skip


def two_sources(folder: Path) -> dict[str, Any]:
    """Two files, each with a task of its own, drawn by temperature, and sure labels in each batch."""
    for name, rows in (("one", 36), ("two", 12)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["u", "v", "part", name])
            for row in range(rows + 6):
                u, v = np.sin(row), np.cos(3 * row)
                writer.writerow([u, v, "train" if row < rows else "test", ["x", "y"][int(u * v > 0)]])
    sources = {
        name: {"kind": "table", "path": str(folder / f"{name}.csv"), "inputs": {"numeric": ["u", "v"]}}
        for name in ("one", "two")
    }
    return recipe(
        data={"sources": sources, "split": {"column": "part"}},
        tasks={name: {"target": name, "source": name} for name in sources},
        train__batches={"sampling": 2.0, "min_labelled": {"two": 3}}, train__batch_size=19,
        train__epochs=EPOCHS,
    )  # fmt: skip


MADE = {"every-task-kind": all_kinds, "two-sources": two_sources}
SHORT = {
    name: {**sections, "train__epochs": EPOCHS}
    for name, sections in VARIANTS.items()
    if name not in ("early-stopping", "max-steps", "save-rarely")
}
SHORT["min-labelled"] = {"train__batches": {"min_labelled": {"b": 5}}, "train__epochs": EPOCHS}
SHORT["skip"] = {"train__on_nonfinite": "skip", "train__epochs": EPOCHS}
CASES = [*SHORT, "max-steps", "early-stopping", *MADE]


def made_for(case: str, folder: Path) -> dict[str, Any]:
    if case in MADE:
        return MADE[case](folder)
    return recipe(**(SHORT[case] if case in SHORT else VARIANTS[case]))


def test_every_member_of_every_family_is_among_the_cases() -> None:
    families = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "sharing": SHARING, "weighting": WEIGHTINGS}
    assert {family: MEMBERS[family][0] for family in MEMBERS} == families
    for family, registry in families.items():
        assert {f"{family}-{name}" for name in shipped(registry)} <= set(CASES)
    assert {f"{family}-{name}" for family, name in (("sharing", "mmoe"), ("weighting", "upgrad"))} <= set(
        CASES
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("no_plots")
def test_stopped_at_every_step(case: str, tmp_path: Path) -> None:
    """Q1, Q2, Q9: one run in as many pieces as it has steps, each begun from the checkpoint of a signal."""
    made = made_for(case, tmp_path)
    steps = mtl.run(made, out=tmp_path / "straight").record.step
    assert steps >= 8 or case == "accumulate"
    stopped_after(made, tmp_path / "stopped", *(StopAt(1) for _ in range(steps)))
    assert_same(tmp_path / "straight", tmp_path / "stopped")


@pytest.mark.parametrize("steps", [(2,), (5, 2), (1, 1, 3), (2, 1, 1, 1, 3)], ids=str)
@pytest.mark.usefixtures("no_plots")
def test_stopped_now_and_then(steps: tuple[int, ...], tmp_path: Path) -> None:
    """Q2: once, twice, three and five times, also twice within one epoch."""
    made = recipe(**with_validation(train__epochs=EPOCHS, model__head={"dropout": 0.4}))
    mtl.run(made, out=tmp_path / "straight")
    stopped_after(made, tmp_path / "stopped", *map(StopAt, steps))
    assert_same(tmp_path / "straight", tmp_path / "stopped")


@pytest.mark.parametrize(
    ("every", "batches", "is_final"),
    [({"epochs": 1}, n, n == 4) for n in range(1, 5)] + [({"steps": 2}, n, n == 6) for n in range(1, 7)],
)
@pytest.mark.usefixtures("no_plots")
def test_stopped_in_an_evaluation(
    every: dict[str, int], batches: int, is_final: bool, tmp_path: Path
) -> None:
    """F7: the state before it is saved, and it is done again with the same numbers; the last one is the final test.

    Also within an epoch: one batch each, at steps 3, 6 and 9, or at 2, 4, 6, 8 and 9.
    """
    made = recipe(**with_validation(train__epochs=EPOCHS, train__evaluate_every=every))
    mtl.run(made, out=tmp_path / "straight")
    stop = StopAt(batches=batches)
    if is_final:  # after the last epoch: the checkpoint of that is the one to go on from
        with pytest.raises(Terminated):
            begin_or_go_on(made, tmp_path / "stopped", stop)
        mtl.resume(tmp_path / "stopped")
    else:
        stopped_after(made, tmp_path / "stopped", stop)
    assert stop.batches == 0
    assert_same(tmp_path / "straight", tmp_path / "stopped")


def test_in_new_processes(tmp_path: Path) -> None:
    """Q1: SIGTERM within a step of the second epoch, to a process; another one goes on; a third never stopped."""
    made = recipe(**with_validation(train__epochs=EPOCHS, schedule={"kind": "one_cycle"}))
    (tmp_path / "r.yaml").write_text(to_yaml(load_recipe(made)), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}

    def call(*arguments: str, fail: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.support.failpoints" if fail else "mtl", "run", "--quiet"]
        return subprocess.run(
            [*command, *arguments], cwd=tmp_path, env={**environment, "MTL_FAIL": fail},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    stopped = call("r.yaml", "--out", "stopped", fail="backward:5:term")
    assert stopped.returncode == TERMINATED
    said = "warning: stopped at step 5, which is saved; `mtl run --resume stopped` goes on"
    assert stopped.stderr.splitlines() == [said, "interrupted"]
    resumed = call("--resume", "stopped")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mtl.report.plots.plot_run", lambda *_: [])
        mtl.run(made, out=tmp_path / "straight")
    assert_same(tmp_path / "straight", tmp_path / "stopped")


# --- saving and watching change nothing ---------------------------------------------------------------------


@pytest.mark.usefixtures("no_plots")
def test_saving_at_every_step_or_hardly_ever(tmp_path: Path) -> None:
    """Q3."""
    made = {
        name: recipe(train__epochs=EPOCHS, train__checkpoint={"every": every, "keep": 100})
        for name, every in {
            "step": {"steps": 1}, "two": {"steps": 2}, "epoch": {"epochs": 1}, "end": {"epochs": 1000},
            "minutes": {"minutes": 1},
        }.items()
    }  # fmt: skip
    found, saved = {}, {}
    for name, one in made.items():
        mtl.run(one, out=tmp_path / name)
        found[name] = {key.split("/")[-1]: value for key, value in results(tmp_path / name).items()}
        saved[name] = checkpoint.steps(tmp_path / name / "checkpoints")
    assert saved == {
        "step": list(range(1, 10)), "two": [2, 4, 6, 8, 9], "epoch": [3, 6, 9], "end": [9], "minutes": [9],
    }  # fmt: skip
    assert all(one == found["end"] for one in found.values())
    assert len(found["end"]) >= 6


@pytest.mark.usefixtures("no_plots")
def test_checkpoints_of_every_step_are_those_of_a_stop(tmp_path: Path) -> None:
    """Q7: what a stop saves at a step is what a run that saves at every step wrote there, but for nothing."""
    options = {"train__epochs": 2, "train__checkpoint": {"every": {"steps": 1}, "keep": 100}}
    mtl.run(recipe(**options), out=tmp_path / "each")
    stopped_after(recipe(**options), tmp_path / "stopped", StopAt(2), StopAt(2))
    for step in range(1, 7):
        one, two = (content(tmp_path / name / f"checkpoints/step-{step:08d}") for name in ("each", "stopped"))
        assert one == two, step
    assert "meter.safetensors" in content(tmp_path / "each/checkpoints/step-00000002")
    assert "meter.safetensors" not in content(tmp_path / "each/checkpoints/step-00000003")


@pytest.mark.usefixtures("no_plots")
def test_bar_and_options_of_the_command(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Q3, Q4: with a bar, quiet, with tracebacks; evaluating and saving at each step, each epoch, or hardly ever."""
    (tmp_path / "r.yaml").write_text(to_yaml(load_recipe(recipe(train__epochs=EPOCHS))), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = {}
    for name, options in {
        "plain": [],
        "bar": [],
        "quiet": ["--quiet"],
        "debug": ["--debug"],
        "monitor": ["train.monitor=test", "train.checkpoint.every={steps: 1}"],
        "rarely": ["train.evaluate_every.epochs=100"],
        "all": ["train.monitor=test", "train.evaluate_every={steps: 1}", "train.checkpoint.every={steps: 1}"],
    }.items():
        with monkeypatch.context() as patch:
            if name == "bar":
                patch.setattr(sys.stderr, "isatty", lambda: True)
                patch.setattr("mtl.commands.watch.TrainingConsole._start_bar", counting(started := []))
            done = called(capsys, "run", "r.yaml", "--out", name, *options)
            assert name != "bar" or started
        assert done.returncode == 0, done.stderr
        files = content(tmp_path / name / "checkpoints/step-00000009")
        rows = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        train = [row for row in rows if '"split": "train"' in row]
        assert len(train) == EPOCHS
        assert len(rows) - len(train) == {"monitor": EPOCHS, "all": 9}.get(name, 1)
        found[name] = (files["model.safetensors"], files["optim.safetensors"], train, rows[-1])
    assert all(one == found["plain"] for one in found.values())


def counting(started: list[object]) -> Callable[[TrainingConsole, Any], None]:
    """Starts the bar and notes that it did."""
    start = TrainingConsole._start_bar

    def starts(console: TrainingConsole, trainer: Any) -> None:
        start(console, trainer)
        started.append(console._bar)

    return starts


# --- what users' code draws ---------------------------------------------------------------------------------

DRAWING = '''\
import random

import numpy as np
import torch

import mtl


@mtl.register_task("noisy")
class Noisy(mtl.tasks.Multiclass):
    """Draws from every global generator there is."""

    reference = "ours"
    target: str = "task0"

    def losses(self, logits_BTO, target_BT, weight_BT, constants):
        drawn = random.random() + np.random.rand() + float(torch.rand(()))
        return super().losses(logits_BTO, target_BT, weight_BT, constants) * drawn
'''


@pytest.mark.usefixtures("no_plots")
def test_what_a_plug_in_draws_is_drawn_again(tmp_path: Path) -> None:
    """F38: in training and in evaluation; and the caller's generators go on as if there had been no run."""
    (tmp_path / "noisy.py").write_text(DRAWING, encoding="utf-8")
    with plugins_undone():
        name = load_plugin(str(tmp_path / "noisy.py"))
        made = recipe(**with_validation(train__epochs=EPOCHS))
        made["tasks"]["a"] = {"kind": "noisy"}
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
        straight = mtl.run(made, out=tmp_path / "straight", plugins=[name])
        assert random.getstate() == before[0]
        assert np.random.get_state()[1].tolist() == before[1]
        assert torch.equal(torch.get_rng_state(), before[2])
        random.seed(77)
        np.random.seed(77)
        torch.manual_seed(77)
        for stop in (StopAt(2), StopAt(batches=1), StopAt(1)):
            with pytest.raises(Terminated):
                begin_or_go_on(made, tmp_path / "stopped", stop, plugins=[name])
        mtl.resume(tmp_path / "stopped", plugins=[name])
    assert_same(tmp_path / "straight", tmp_path / "stopped")
    losses = [
        json.loads(line)["train/a/loss"]
        for line in (tmp_path / "straight/metrics.jsonl").read_text().splitlines()
        if '"train"' in line
    ]
    assert len(set(losses)) == EPOCHS
    assert straight.record.status == "finished"
