"""Tables, numbers and times as people read them; the bar on a terminal, and plain lines elsewhere."""

from __future__ import annotations

import io
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mtl.commands.watch import SHOWN_TASKS, TrainingConsole
from mtl.console import (
    complain,
    counted,
    duration,
    file_size,
    number,
    percent,
    results_table,
    rows_of_splits,
    say,
    table,
)
from mtl.recipe.load import load_recipe
from mtl.training.events import Ended, EpochEnded, Evaluated, Event, Started, Stepped, Warned

Capture = pytest.CaptureFixture[str]


# --- texts ---


def test_table() -> None:
    text = table(["name", "n"], [["a", "1"], ["longer", "1,000"]])
    assert text.splitlines() == ["name        n", "------  -----", "a           1", "longer  1,000"]


def test_table_with_two_columns_to_the_left() -> None:
    text = table(["a", "b", "c"], [["x", "yy", "1"], ["xxx", "y", "22"]], left=2)
    assert text.splitlines() == ["a    b    c", "---  --  --", "x    yy   1", "xxx  y   22"]


def test_no_line_of_a_table_ends_in_spaces() -> None:
    assert table(["name", "what"], [["a", ""], ["b", "text"]], left=2).splitlines()[2] == "a"
    assert table(["name", "n"], []).splitlines() == ["name  n", "----  -"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.5, "0.5000"),
        (1.0, "1.000"),
        (0.99996, "1.000"),
        (-0.25, "-0.2500"),
        (0.05123456, "0.05123"),
        (31.4, "31.40"),
        (999.96, "1,000"),
        (2973641.7829, "2,974,000"),
        (-2973641.7829, "-2,974,000"),
        (999_949_999.0, "999,900,000"),
        (999_960_000.0, "1.000e9"),
        (2.5e12, "2.500e12"),
        (0.0001, "0.0001000"),
        (0.000099999, "0.0001000"),
        (0.00009, "9.000e-5"),
        (1e-9, "1.000e-9"),
        (-5e-324, "-4.941e-324"),
        (0.0, "0"),
        (-0.0, "0"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
        (7, "7"),
        (0, "0"),
        (1234567, "1,234,567"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (0.0994, "99 ms"),
        (0.0996, "0.1 s"),
        (9.94, "9.9 s"),
        (9.99, "10 s"),
        (10.4, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (250, "4 min 10 s"),
        (3599.6, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("sizes", "text"), [((40, 10), "40 train, 10 test rows"), ((2_000, 1), "2,000 train, 1 test row")]
)
def test_rows_of_splits(sizes: tuple[int, int], text: str) -> None:
    assert rows_of_splits(dict(zip(("train", "test"), map(range, sizes), strict=True))) == text


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 tasks"), (1, "1 task"), (2, "2 tasks"), (2_000_000, "2,000,000 tasks")]
)
def test_counted(n: int, text: str) -> None:
    assert counted(n, "task") == text
    assert counted(n, "class", "classes") == text.replace("tasks", "classes").replace("task", "class")


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 7, "0%"),
        (7, 7, "100%"),
        (1, 20_000, "under 0.1%"),
        (19_999, 20_000, "over 99.9%"),
        (1, 1000, "0.1%"),
        (999, 1000, "99.9%"),
        (1, 16, "6.2%"),
        (1, 3, "33%"),
        (2, 3, "67%"),
        (199, 200, "99.5%"),
    ],
)
def test_a_percentage_is_whole_only_if_it_is_exact(part: int, whole: int, text: str) -> None:
    assert percent(part, whole) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (25_900_000, "25.9 MB"),
        (14_400_000_000, "14.4 GB"),
    ],
)
def test_file_size(n_bytes: int, text: str) -> None:
    assert file_size(n_bytes) == text


def test_numbers_of_a_column_have_their_points_below_each_other() -> None:
    values = (2973641.7829, 3.1, 1e-9, None, 12, 0.0123)
    text = table(["task", "rmse", "n"], [["t", number(v), "1"] for v in values] + [["u", "", "20"]])
    assert text.splitlines() == [
        "task              rmse   n",
        "----  ----------------  --",
        "t     2,974,000          1",
        "t             3.100      1",
        "t             1.000e-9   1",
        "t             -          1",
        "t            12          1",
        "t             0.01230    1",
        "u                       20",
    ]


def test_a_column_of_texts_is_not_moved() -> None:
    text = table(["a", "b"], [["x", "accuracy 0.5000"], ["y", "1"], ["z", "accuracy 31.40, loss 2"]])
    assert [line[-1] for line in text.splitlines()[2:]] == ["0", "1", "2"]


def test_results_table() -> None:
    metrics: dict[str, float | None] = {
        "test/a/loss": 0.5,
        "test/a/macro_f1": None,
        "test/a/rmse": 2973641.7829,
        "test/a/labels": 1200,
        "train/a/loss": 9.0,
        "test/b/loss": 0.25,
        "test/b/rmse": 0.0312,
        "test/mean/loss": 0.375,
    }
    assert results_table(metrics, "test").splitlines() == [
        "test    loss  macro f1             rmse  labels",
        "----  ------  --------  ---------------  ------",
        "a     0.5000         -  2,974,000         1,200",
        "b     0.2500                    0.03120",
        "mean  0.3750",
    ]
    with_units = results_table(metrics, "test", {"a": "CHF"}).splitlines()
    assert [line.split("  ")[0] for line in with_units[2:]] == ["a (CHF)", "b", "mean"]


def test_say_and_complain(capsys: Capture) -> None:
    say("result")
    complain("trouble")
    assert capsys.readouterr() == ("result\n", "trouble\n")


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:  # C8
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        say("into nowhere")
        say("and again")


# --- a run ---


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def trainer(
    n_tasks: int = 2,
    epoch: int = 0,
    total: int = 4,
    stopped: bool = False,
    within: int = 0,
    overrides: tuple[str, ...] = ("data.source={kind: fashion_mnist}",),
    ceiling: dict[str, float] | None = None,
    validation: bool = False,
) -> Any:
    """Of a run whose epochs are two steps of 500 rows each."""
    tasks = "{" + ", ".join(f"t{i}: {{kind: multiclass, target: task0}}" for i in range(n_tasks)) + "}"
    recipe = load_recipe(
        "synthetic_stitch",
        [
            f"tasks={tasks}",
            "name=small",
            "description=For a test.",
            "train.batch_size=250",
            "train.accumulate=2",
            *overrides,
        ],
    )
    stopping = recipe.train.early_stopping
    selecting = ((stopping and stopping.metric) or "validation/mean/accuracy", True)
    return SimpleNamespace(
        recipe=recipe,
        progress=SimpleNamespace(
            epoch=epoch,
            step=2 * epoch + within,
            step_in_epoch=within,
            stopped=stopped,
            best_step=4 if validation else None,
        ),
        total_steps=total,
        epochs=total // 2,
        dataset=SimpleNamespace(
            splits={
                "train": range(1000),
                **({"validation": range(100)} if validation else {}),
                "test": range(500),
            },
            ceiling=ceiling or {},
            learned=SimpleNamespace(layout=None),
        ),
        built=SimpleNamespace(model=torch.nn.Linear(12344, 1)),
        meter=SimpleNamespace(losses=lambda: (torch.tensor([0.5, 0.25]), torch.tensor([True, True]))),
        device="cpu",
        selecting=selecting,
    )


PATH = Path("runs/small/1")


def tell(*events: Event, of: Any = None, quiet: bool = False) -> None:
    """Tell a console of a run that has begun; what it prints at the beginning is not looked at."""
    console = TrainingConsole(quiet=True)
    console.on(Started(of or trainer(), PATH))
    console.quiet = quiet
    for event in events:
        console.on(event)


def epoch(split: str = "train", n_tasks: int = 2, n_rows: int = 1000) -> EpochEnded:
    train: dict[str, Any] = {"split": "train"}
    for i in range(n_tasks):
        train.update({f"train/t{i}/loss": 0.5, f"train/t{i}/accuracy": 0.75})
    train["train/mean/accuracy"] = 0.75
    rows = [train]
    if split != "train":
        measured = {"t0/accuracy": 0.5, "t1/accuracy": None, "mean/accuracy": None}
        rows.append({"split": split, **{f"{split}/{name}": value for name, value in measured.items()}})
    return EpochEnded(rows, 2, n_rows, {"train": 0.5, "evaluate": 0.25}, is_best=False, is_last=False)


METRICS: dict[str, float | None] = {
    "test/t0/accuracy": 0.5,
    "test/mean/accuracy": 0.5,
    "train/t0/accuracy": 0.75,
}
END = Ended(METRICS, epoch=2, step=4, baselines={})


class Clock:
    """A clock that goes on by so many seconds at each step."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        return self.now


def watch(console: TrainingConsole, clock: Clock | None = None) -> None:
    """A run of two epochs with two steps each."""
    running = trainer()
    try:
        console.on(Started(running, PATH))
        console.on(Warned("task 't1' has few labels"))
        for i in range(2):
            for step in (1, 2):
                if clock is not None:
                    clock.now += clock.step
                running.progress = trainer(epoch=i, within=step).progress
                console.on(Stepped(i, step, 2, 500))
            running.progress = trainer(epoch=i + 1).progress
            console.on(epoch())
        console.on(END)
    finally:
        console.close()


def test_an_evaluation_within_an_epoch(capsys: Capture) -> None:
    row = {"split": "validation", "validation/t0/accuracy": 0.75, "validation/mean/accuracy": 0.5}
    for quiet in (False, True):
        tell(Evaluated([row], 1.5, is_best=False), quiet=quiet)
    line = capsys.readouterr().out
    assert line == "step 0/4  validation accuracy: t0 0.7500  t1 -  mean 0.5000  1.5 s\n"


def test_plain_lines(capsys: Capture) -> None:
    watch(TrainingConsole())
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "small: For a test."
    assert lines[1] == "1,000 train, 500 test rows; 12,345 parameters; cpu; run runs/small/1"
    assert lines[2].startswith(
        "epoch 1/2  train loss 1.000  train accuracy: t0 0.7500  t1 0.7500  mean 0.7500  0.8 s, 2,000 rows/s, "
    )
    assert lines[2].endswith(" left")
    assert lines[3].startswith("epoch 2/2  ")
    assert lines[3].endswith(" rows/s")
    assert lines[4:8] == ["", "test  accuracy", "----  --------", "t0      0.5000"]
    assert lines[8] == "mean    0.5000"
    assert lines[9].startswith("epoch 2, step 4 (the last epoch); ")
    assert lines[10:] == [
        "",
        "t0: 50% of test labels predicted right",
        "t1: accuracy is undefined for its test labels",
        "run folder: runs/small/1  (results in metrics.csv)",
        "next: does sharing help? Compare it with networks that share nothing:",
        "  mtl compare runs/small/1/recipe.resolved.yaml",
    ]
    assert err == "warning: task 't1' has few labels\n"
    assert "\x1b" not in out + err


def test_quiet(capsys: Capture) -> None:
    watch(TrainingConsole(quiet=True))
    out, err = capsys.readouterr()
    assert out.splitlines()[1] == "test  accuracy"
    assert "epoch 1/2" not in out
    assert err == "warning: task 't1' has few labels\n"


def test_a_bar_on_a_terminal(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is gone at the end, the cursor is back, and each epoch has left its line."""
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", results := Terminal())
    console = TrainingConsole(clock=(clock := Clock(61)))
    watch(console, clock)
    assert console._bar is None
    shown = terminal.getvalue()
    assert "steps/s" in shown
    assert "train loss 0.7500" in shown
    assert "step 1/4" not in shown  # the bar shows it
    assert "2/4" in shown or "4/4" in shown
    assert shown.index("epoch 1/2  train loss 1.000") < shown.index("epoch 2/2  train loss 1.000")
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # hidden, shown again
    assert shown.rstrip().endswith("\x1b[2K")  # the bar's line is erased last
    assert "steps/s" not in results.getvalue()
    assert "t0      0.5000" in results.getvalue()
    assert capsys.readouterr() == ("", "")


def test_a_file_gets_the_lines_while_a_terminal_shows_the_bar(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mtl run RECIPE > log` on a terminal: the bar there, every line in the file, and in the file alone."""
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    watch(TrainingConsole(clock=(clock := Clock(61))), clock)
    out = capsys.readouterr().out
    assert out.count("\nepoch ") == 3  # two epochs, and the last line
    assert "\nstep 1/4  train loss 0.7500  0.0 steps/s, 3 min 03 s left\n" in out
    assert "steps/s" in terminal.getvalue()
    assert "epoch 1/2" not in terminal.getvalue()


@pytest.mark.parametrize(
    ("seconds", "steps"),
    [(19.0, []), (30.0, ["2/4", "4/4"]), (59.0, ["2/4", "4/4"]), (60.0, ["1/4", "2/4", "3/4", "4/4"])],
)
def test_a_line_a_minute(seconds: float, steps: list[str], capsys: Capture) -> None:
    """A step takes so many seconds; the line of an epoch counts too, and there is none when it is quiet."""
    watch(TrainingConsole(clock=(clock := Clock(seconds))), clock)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in said] == steps
    watch(TrainingConsole(quiet=True, clock=(clock := Clock(seconds))), clock)
    assert "step " not in capsys.readouterr().out.partition("\nepoch ")[0]


def test_the_line_of_a_minute_tells_loss_rate_and_time_left(capsys: Capture) -> None:
    console, running = TrainingConsole(clock=(clock := Clock())), trainer(epoch=10, total=1000)
    console.on(Started(running, PATH))
    running.progress, clock.now = trainer(epoch=15).progress, 60.0
    console.on(Stepped(15, 1, 2, 500))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert line == "step   30/1000  train loss 0.7500  0.2 steps/s, 1 h 37 min left"


def test_a_terminal_that_cannot_erase_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "dumb")
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, terminal)
    watch(TrainingConsole(clock=(clock := Clock(61))), clock)
    shown = terminal.getvalue()
    assert "\nstep 1/4  train loss 0.7500  0.0 steps/s, 3 min 03 s left\n" in shown
    assert "\x1b" not in shown


def test_no_bar_where_it_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    watch(TrainingConsole(quiet=True))
    assert terminal.getvalue() == "warning: task 't1' has few labels\n"


def test_the_bar_goes_when_a_run_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    console = TrainingConsole()
    console.on(Started(trainer(), PATH))
    console.on(Stepped(0, 1, 2, 500))
    console.close()
    console.close()
    assert terminal.getvalue().count("\x1b[?25h") == 1


def test_an_epoch_shows_what_was_evaluated(capsys: Capture) -> None:
    tell(epoch("validation"), of=trainer(epoch=1))
    assert "train loss 1.000  validation accuracy: t0 0.5000  t1 -  mean -  " in capsys.readouterr().out


def test_the_loss_of_training_is_the_weighted_sum_over_tasks(capsys: Capture) -> None:
    """A mean loss, which stands in the same row, is no further task."""
    ended = epoch()
    ended.rows[0]["train/mean/loss"] = 0.5
    tell(ended, of=trainer(overrides=("tasks.t1.weight=3",), epoch=1))
    assert "train loss 2.000  " in capsys.readouterr().out


def test_an_epoch_of_many_tasks_is_one_line(capsys: Capture) -> None:
    tell(epoch(n_tasks=20), of=trainer(20, epoch=1))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.count("0.7500") == SHOWN_TASKS + 1
    assert f"and {20 - SHOWN_TASKS} more  mean 0.7500" in line


def test_an_early_stop_has_no_time_left(capsys: Capture) -> None:
    tell(epoch(), of=trainer(epoch=1, stopped=True))
    assert " left" not in capsys.readouterr().out


@pytest.mark.parametrize("stopped", [True, False])
def test_the_advice_after_an_early_stop_is_not_to_train_longer(stopped: bool, capsys: Capture) -> None:
    end = replace(END, baselines={"test/t0/linear": 0.75})
    early = ("train.early_stopping={metric: validation/t0/accuracy}",)
    tell(end, of=trainer(epoch=2, stopped=stopped, overrides=early, validation=True))
    out = capsys.readouterr().out
    assert "t0: accuracy 0.5000 is not better than a linear model's 0.7500; " in out
    assert ("train longer" in out) == (not stopped)


@pytest.mark.parametrize(("n_rows", "rate"), [(1000, "2,000"), (499, "998"), (1500, "3,000")])
def test_the_rate_is_that_of_the_rows_trained(n_rows: int, rate: str, capsys: Capture) -> None:
    """In half a second: an epoch of 1000 rows, the rest of one after a resume, and one whose rows come again."""
    tell(epoch(n_rows=n_rows), of=trainer(epoch=1))
    assert f"0.8 s, {rate} rows/s" in capsys.readouterr().out


def test_the_total_of_epochs_stays_when_one_is_cut_short(capsys: Capture) -> None:
    """Closing an epoch that early stopping broke off leaves more steps than the epochs that remain hold."""
    console, cut = TrainingConsole(), trainer(total=80)
    console.on(Started(cut, PATH))
    cut.progress, cut.epochs = trainer(epoch=10, stopped=True).progress, 41
    console.on(epoch(n_rows=500))
    assert capsys.readouterr().out.splitlines()[-1].startswith("epoch 10/40  train loss ")


MIXED = "tasks={a: {kind: multiclass, target: task0, weight: 2}, b: {kind: binary, target: task1}}"


@pytest.mark.parametrize(
    ("overrides", "watched"),
    [
        ((), "mean 0.6000"),  # the headlines are the same: their mean is watched, and shown already
        (("train.early_stopping={metric: validation/t0/accuracy}",), "mean 0.6000"),
        (("train.early_stopping={metric: validation/t1/loss}",), "mean 0.6000  t1 loss 0.2500"),
        (("train.early_stopping={metric: validation/t0/macro_f1}",), "mean 0.6000  t0 macro f1 -"),
    ],
)
def test_what_chooses_a_step_is_shown(overrides: tuple[str, ...], watched: str, capsys: Capture) -> None:
    row = {
        "split": "validation",
        "validation/t0/accuracy": 0.75,
        "validation/t0/macro_f1": None,
        "validation/t1/accuracy": 0.45,
        "validation/t1/loss": 0.25,
        "validation/mean/accuracy": 0.6,
    }
    assert (
        lines_of(trainer(epoch=1, overrides=overrides), row, capsys)
        == [f"validation accuracy: t0 0.7500  t1 0.4500  {watched}"] * 2
    )


@pytest.mark.parametrize(("loss", "watched"), [(0.4125, "0.4125"), (None, "-")])
def test_of_mixed_headlines_the_mean_loss_is_shown(loss: float | None, watched: str, capsys: Capture) -> None:
    mixed = trainer(epoch=1, overrides=(MIXED,))
    headline = mixed.recipe.tasks["b"].headline
    assert len({task.headline for task in mixed.recipe.tasks.values()}) == 2
    for split in ("validation", "test"):
        row = {
            "split": split,
            f"{split}/a/accuracy": 0.75,
            f"{split}/b/{headline}": 0.5,
            f"{split}/mean/loss": loss,
        }
        assert (
            lines_of(mixed, row, capsys)
            == [f"{split}: a accuracy 0.7500  b {headline.replace('_', ' ')} 0.5000  mean loss {watched}"] * 2
        )


def lines_of(of: Any, row: dict[str, Any], capsys: Capture) -> list[str]:
    """What is told of an evaluation within an epoch and of one at its end, without counts and times."""
    monitored = {"split": "test"}  # the split that selects is the one shown
    measured = epoch()
    measured.rows.extend([row, monitored] if row["split"] == "validation" else [row])
    tell(Evaluated([row], 1.5, is_best=False), measured, of=of)
    within, at_end = capsys.readouterr().out.splitlines()
    assert within.endswith("  1.5 s")
    assert "  0.8 s, " in at_end
    return [
        within[within.index(row["split"]) : within.rindex("  ")],
        at_end[at_end.index(row["split"]) : at_end.index("  0.8 s")],
    ]


def test_resuming_is_said(capsys: Capture) -> None:
    TrainingConsole().on(Started(trainer(epoch=1), PATH))
    assert capsys.readouterr().out.splitlines()[2] == "resuming after epoch 1 (step 2)"
    TrainingConsole().on(Started(trainer(epoch=1, within=1), PATH))
    assert capsys.readouterr().out.splitlines()[2] == "resuming after epoch 1, 1 step into the next (step 3)"


@pytest.mark.parametrize(
    ("stopping", "text"),
    [
        ("{patience: 3}", "validation/mean/accuracy was no better in 3 evaluations"),
        ("{patience: 1, metric: validation/t1/loss}", "validation/t1/loss was no better in 1 evaluation"),
    ],
)
def test_the_end_says_that_early_stopping_came(stopping: str, text: str, capsys: Capture) -> None:
    overrides = (f"train.early_stopping={stopping}",)
    for stopped in (True, False):
        tell(END, of=trainer(epoch=3, stopped=stopped, overrides=overrides, validation=True))
    early, late = capsys.readouterr().out.split("run folder: runs/small/1 ")[:2]
    lines = early.splitlines()
    at = lines.index(f"early stopping ended it after epoch 3, step 6: {text}")
    assert lines[at + 1].startswith("epoch 2, step 4 (chosen on validation); ")
    assert "early stopping" not in late


def test_the_end_says_what_is_known_of_the_data(capsys: Capture) -> None:
    tell(END, of=trainer(overrides=(), ceiling={"t0": 0.95, "t1": 1.0}, validation=True))
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("best possible accuracy: t0 0.9500, t1 1.000")
    assert lines[at + 1] == "the data are generated, not measured"
    assert lines[at + 2].startswith("epoch 2, step 4 (chosen on validation); ")
    undefined = trainer(overrides=(), validation=True)  # every value that could have chosen a step
    undefined.progress.best_step = None
    tell(END, of=undefined)
    assert "\nepoch 2, step 4 (the last epoch); " in capsys.readouterr().out
