"""`mtl compare`: how its options are read, what it refuses, and what a person sees."""

from pathlib import Path

import pytest

from mtl.commands.compare.command import fractions_of, pairs_of, seconds_of, seeds_of, split_arms
from mtl.errors import UserError
from tests.support.assertions import Capture, called
from tests.support.command_line import folder as folder
from tests.support.recipes import classes, linear, stitched, text

TINY = text(
    name="small",
    data__source={
        "kind": "synthetic",
        "tasks": 2,
        "rows": 200,
        "test_rows": 150,
        "features": 8,
        "classes": 2,
    },
    tasks=classes("ab"),
    model__backbone__stages=linear(4),
    model__sharing=stitched("fc1"),
    train__batch_size=50,
)


@pytest.mark.parametrize(
    ("given", "seeds"), [("5", (0, 1, 2, 3, 4)), ("1", (0,)), ("10-12", (10, 11, 12)), ("7-7", (7,))]
)
def test_seeds(given: str, seeds: tuple[int, ...]) -> None:
    assert seeds_of(given) == seeds


@pytest.mark.parametrize("given", ["0", "-1", "5-2", "x", "1001", "0-1000", "1.5", ""])
def test_no_seeds(given: str) -> None:
    with pytest.raises(
        UserError, match=r"--seeds: .*is not a number of seeds up to 1000, or a range such as 10-14"
    ):
        seeds_of(given)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("90s", 90), ("30min", 1800), ("2h", 7200), ("1.5h", 5400), ("1d", 86400), ("2m", 120)],
)
def test_times(given: str, seconds: float) -> None:
    assert seconds_of(given) == seconds


@pytest.mark.parametrize("given", ["2", "h", "2 weeks", "-1h", "2hh"])
def test_no_times(given: str) -> None:
    with pytest.raises(UserError, match=r"--budget: .*is not a time such as 30min or 2h"):
        seconds_of(given)


def test_arms_are_separated_by_commas_outside_brackets() -> None:
    assert split_arms("single, hard,sharing:after=[fc1,fc2]+init={convex: 0.8},weighting=uncertainty,") == [
        "single", "hard", "sharing:after=[fc1,fc2]+init={convex: 0.8}", "weighting=uncertainty",
    ]  # fmt: skip
    assert split_arms("") == []


def test_pairs() -> None:
    assert pairs_of("--predictions", ["lgbm=a=b.csv", "x=y"]) == {"lgbm": "a=b.csv", "x": "y"}
    with pytest.raises(UserError, match=r"--predictions: 'preds.csv' has no name; write NAME=VALUE"):
        pairs_of("--predictions", ["preds.csv"])
    with pytest.raises(UserError, match="'x' is given twice"):
        pairs_of("--predictions", ["x=a", "x=b"])


def test_fractions() -> None:
    assert fractions_of(["a=1,0.1,0.01,0.1"]) == {"a": (0.01, 0.1, 1.0)}
    for given in ("a=0", "a=1.5", "a=x", "a=nan"):
        with pytest.raises(UserError, match=r"is not a list of parts such as 0.01,0.1,1"):
            fractions_of([given])
    with pytest.raises(UserError, match="thins out the labels of one task at a time; give it once"):
        fractions_of(["a=0.1", "b=0.1"])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ["--arms", "shering"],
            "error: --arms: no arm 'shering' (did you mean 'sharing'?); arms are single, ",
        ),
        (["--seeds", "x"], "error: --seeds: 'x' is not a number of seeds"),
        (
            ["train.monitor=test"],
            "error: command line: train.monitor: a comparison reads the test split once",
        ),
        (["--predictions", "sharing=x.csv"], "error: --predictions: there is an arm 'sharing' already"),
        (["--label-fraction", "zz=0.1"], "error: command line: data.label_fraction.zz: unknown task 'zz'"),
        (
            ["tune={optimizer.lr: [0.1]}"],
            "error: command line: tune: validation chooses the settings, and no rows",
        ),
        (
            ["--arms", "train.monitor=test"],
            "error: command line: train.monitor: a comparison reads the test split",
        ),
        (
            ["data.split.validation=0.2", "tune={optimizer.lrr: [0.1]}"],
            "error: command line: tune.optimizer.lrr: is a key of no arm; name a key as on the command line",
        ),
    ],
)
def test_what_is_refused(options: list[str], line: str, folder: Path, capsys: Capture) -> None:
    (folder / "t.yaml").write_text(TINY, encoding="utf-8")
    done = called(capsys, "compare", "t.yaml", *options)
    assert done.returncode == 2
    assert done.stderr.startswith(line), done.stderr


def test_a_comparison_from_the_command_line(folder: Path, capsys: Capture) -> None:
    (folder / "t.yaml").write_text(TINY, encoding="utf-8")
    done = called(
        capsys,
        "compare",
        "t.yaml",
        "--arms",
        "single,sharing,trees",
        "--seeds",
        "2",
        "--jobs",
        "2",
        "--out",
        "c",
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(
        "small: initial weights, order of rows and dropout vary between seeds; data, split, "
    )
    assert "4 runs; 2 at a time with 1 thread each; about " in done.stdout
    assert "2 seeds find a difference of " in done.stdout
    assert sum(": finished; " in line for line in lines) == 5
    assert "comparison: c  (compare.html, compare.json, compare.csv)" in lines[-1]
    assert {path.name for path in Path("c").iterdir()} == {
        "compare.html", "compare.json", "compare.csv", "timings.json", "plan.json", "workers.log", "runs",
    }  # fmt: skip
    assert Path("c/workers.log").read_text() == ""
