"""`mtl tune`: what it refuses, and what a person sees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mtl.commands.tune.console import SHOWN_TRIALS, TuneConsole
from mtl.comparison.processes.pool import Job, Report
from mtl.errors import ENVIRONMENT
from mtl.tuning.folder import Memory
from mtl.tuning.outcome import Outcome, Trial
from mtl.tuning.request import Announced, Asked
from tests.support.assertions import Capture, called, contents, refused
from tests.support.command_line import folder as folder
from tests.support.recipes import recipe, write

TUNE: dict[str, Any] = {"optimizer.lr": {"log_uniform": [1e-3, 1]}, "train.batch_size": [4, 8]}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["~tune"], "the recipe has no settings to tune; add tune: {optimizer.lr: "),
        (["tune={optimizer.lrr: [1]}"], "command line: tune.optimizer.lrr: unknown key 'lrr' ... (did you mean 'lr'?)"),
        (["train.monitor=test"], "command line: train.monitor: a sweep never looks at the test split; take this key"),
        (["phases={a: {}}"], "command line: phases: a trial is one run, and these are several; tune the recipe of"),
        (["~data.split"], "tune: validation judges the trials, and no rows are held out for it; set data.split"),
        (["--storage", "x"], "--storage: is not the URL of a database; write sqlite:///sweep.db"),
        (["--storage", "sqlite://"], "--storage: a database in memory is lost with its process"),
        (["--out", "full"], "full: exists and holds no sweep; give another --out"),
        (["--trials", "0"], "mtl tune: Invalid value for '--trials'"),
        (
            ["train.early_stopping={metric: validation/a/loss}", "tune={tasks.a.label_smoothing: [0, 0.1]}"],
            "tune.tasks.a.label_smoothing: changes what validation/a/loss means, by which trials are compared",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(options: list[str], line: str, folder: Path, capsys: Capture) -> None:
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").touch()
    write(folder, data__split={"validation": 0.25}, tune=TUNE)
    refused(lambda: called(capsys, "tune", "r.yaml", *options), folder, [line])


def test_a_sweep_of_another_recipe_is_left_alone(folder: Path, capsys: Capture) -> None:
    write(folder, data__split={"validation": 0.25}, tune=TUNE)
    (folder / "sweep").mkdir()
    Memory(recipe_sha256="another", threads=1).save(folder / "sweep")
    expected = ["sweep: holds the sweep of another recipe; give another --out"]
    refused(lambda: called(capsys, "tune", "r.yaml", "--out", "sweep"), folder, expected)


def test_without_optuna(folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtl.tuning.checks.find_spec", lambda name: None)
    write(folder, data__split={"validation": 0.25}, tune=TUNE)
    expected = ["mtl tune: optuna is not installed; pip install 'mtl-recipes[tune]'"]
    refused(lambda: called(capsys, "tune", "r.yaml"), folder, expected, code=ENVIRONMENT)


def test_a_comparison_refuses_a_range(folder: Path, capsys: Capture) -> None:
    write(folder, data__split={"validation": 0.25}, tune=TUNE)
    expected = [
        "r.yaml:11:22: tune.optimizer.lr: a comparison tries every value for every arm, and a range has too"
    ]
    refused(lambda: called(capsys, "compare", "r.yaml"), folder, expected)


def test_validate_refuses_what_tune_refuses(folder: Path, capsys: Capture) -> None:
    write(folder, tune={"optimizer.lr": [0.1, 100]})
    line = "tune.optimizer.lr[1]: Input should be less than or equal to 10"
    refused(lambda: called(capsys, "validate", "r.yaml"), folder, [line])
    refused(lambda: called(capsys, "tune", "r.yaml"), folder, [line])


def test_torch_is_not_loaded_for_what_the_recipe_alone_tells(folder: Path) -> None:
    write(folder, tune={"optimizer.lrr": [0.1]})
    look = (
        "import sys; from mtl.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(9 if 'torch' in sys.modules or 'optuna' in sys.modules else code)"
    )
    command = [sys.executable, "-c", look, "tune", str(folder / "r.yaml")]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, check=False, capture_output=True)
    assert done.returncode == 2, done.stderr


def test_an_interrupt_says_how_to_go_on(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mtl.tuning.conduct.conduct", interrupted)
    write(folder, data__split={"validation": 0.25}, tune=TUNE)
    before = contents(folder)
    done = called(capsys, "tune", "r.yaml")
    assert done.returncode == 130
    assert done.stderr == "the same command goes on with this sweep; what is finished stays\ninterrupted\n"
    assert contents(folder) == before


def outcome(n: int) -> Outcome:
    trials = [
        Trial(i, "complete", 1 / (i + 2), {"optimizer.lr": 0.1 * (i + 1), "train.batch_size": 8}, 4, None)
        for i in range(n)
    ]
    trials += [
        Trial(n, "failed", None, {"optimizer.lr": 1.0}, 0, None, "why"), Trial(n + 1, "repeated", None, {}, 0, None)
    ]  # fmt: skip
    importances = {"optimizer.lr": 0.8, "train.batch_size": 0.2}
    return Outcome(
        Path("c"), "s", "validation/mean/loss", False, n - 1, 1 / (n + 1), (), importances, tuple(trials)
    )


def test_the_outcome_in_words(capsys: Capture) -> None:
    TuneConsole().outcome(outcome(3), "mtl run c/best.yaml")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["trial", "state", "validation/mean/loss", "optimizer.lr", "train.batch_size"]
    assert [line.split()[0] for line in lines[3:8]] == ["2", "1", "0", "3", "4"], "the lowest loss first"
    assert lines[8:] == [
        "4 trials: 3 complete, 1 failed; 1 more was broken off and repeated",
        "best: trial 2, validation/mean/loss 0.2500 with optimizer.lr=0.3 train.batch_size=8",
        "what the differences between trials come from: optimizer.lr 80%, train.batch_size 20%",
        "sweep: c  (best.yaml, trials.csv, tune.json)",
        "next: train with the best settings, and evaluate the test split:",
        "  mtl run c/best.yaml",
    ]


def test_of_many_trials_the_best_are_shown(capsys: Capture) -> None:
    TuneConsole().outcome(outcome(50), "mtl run c/best.yaml")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines[3:]) == SHOWN_TRIALS + 6
    assert lines[3].split()[0] == "49"
    assert f"; the best {SHOWN_TRIALS} are shown" in lines[3 + SHOWN_TRIALS]


def report(ended: str, **said: Any) -> Report:
    said = {"trial": 3, "settings": {"optimizer.lr": 0.123456, "k": '"a"'}, "value": 0.5, "same": None} | said
    return Report(Job("slot", {}), None, None, ended, said.get("why", ""), said)


def test_the_lines_of_progress(capsys: Capture) -> None:
    console = TuneConsole()
    asked = Asked(recipe(tune=TUNE), 6)
    facts = ("c", "s", "sqlite:///x", "validation/mean/loss", False, 2, 1, 1, ["few rows"])
    console.begins(Announced(asked, *facts))  # type: ignore[arg-type]
    out, err = capsys.readouterr()
    assert err == "warning: few rows\n"
    assert out.splitlines() == [
        "small: validation/mean/loss judges (lower is better); the test split is not read",
        "setting           values",
        "----------------  ---------------------------",
        "optimizer.lr      log uniform from 0.001 to 1",
        "train.batch_size  4, 8",
        "6 trials, 2 of them begun already; 1 at a time with 1 thread each",
        "folder: c",
        "study: s in sqlite:///x",
    ]
    for given in (
        report("complete"), report("pruned", same=1), report("unfit", value=None, why="too large"),
        report("unfit", value=None, settings={}),
    ):  # fmt: skip
        console.reports(given)
    out, err = capsys.readouterr()
    lines = [line.partition("; about")[0] for line in out.splitlines()]
    assert lines == [
        "1 of 4: trial 3: 0.5000 with optimizer.lr=0.1235 k=a",
        "2 of 4: trial 3: pruned at 0.5000, as trial 1 with optimizer.lr=0.1235 k=a",
        "3 of 4: trial 3: failed with optimizer.lr=0.1235 k=a",
        "4 of 4: trial 3: failed",
    ]
    assert err == "warning: trial 3: too large\n"
    console.reports(report("complete", settings={"a": {"b": True}}))
    assert capsys.readouterr().out == '5 of 5: trial 3: 0.5000 with a={"b": true}\n', "of a dead process"
    quiet = TuneConsole(quiet=True)
    quiet.begins(Announced(asked, *facts))  # type: ignore[arg-type]
    quiet.reports(report("complete"))
    assert capsys.readouterr().out == ""
