"""`mtl compare`: how its options are read, what it refuses, and what a person sees."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from mtl.commands.compare.bars import Pace
from mtl.commands.compare.command import (
    compare,
    fractions_of,
    given_again,
    pairs_of,
    seconds_of,
    seeds_of,
    split_arms,
)
from mtl.commands.compare.console import CompareConsole
from mtl.errors import UserError
from tests.support.assertions import Capture, called
from tests.support.command_line import folder as folder
from tests.support.comparisons import compare_values
from tests.support.recipes import classes, linear, stitched, text

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
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
    for nothing in ("", " ", ",,"):
        with pytest.raises(UserError, match="--arms: names no arm; leave it out, or name some"):
            split_arms(nothing)


def test_pairs() -> None:
    assert pairs_of("--predictions", ["lgbm=a=b.csv", "x=y"]) == {"lgbm": "a=b.csv", "x": "y"}
    with pytest.raises(UserError, match=r"--predictions: 'preds.csv' has no name; write NAME=VALUE"):
        pairs_of("--predictions", ["preds.csv"])
    with pytest.raises(UserError, match="'x' is given twice"):
        pairs_of("--predictions", ["x=a", "x=b"])


def test_fractions() -> None:
    assert fractions_of(["a=1,0.1,0.01,0.1"]) == {"a": (0.01, 0.1, 1.0)}
    for given in ("a=0", "a=1.5", "a=x", "a=nan"):
        with pytest.raises(UserError, match=r"such as 0.01,0.1,1; a part lies above 0 and is at most 1"):
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
        (["--arms", ""], "error: --arms: names no arm"),
        (["--on", "slurm"], "error: --on: 'slurm' is neither ray nor an address such as ray://head:10001"),
        (["--on", "ray://head"], "error: --on: 'ray://head' is neither ray nor an address"),
        (["--on", "ray://head:x"], "error: --on: 'ray://head:x' is neither ray nor an address"),
        (["--arms", "sterile:c"], "error: --arms: the recipe has no task 'c'; its tasks are a, b"),
        (["--arms", "single,optimizer.lr=abc"], "error: --arms: optimizer.lr: "),
        (["--arms", "sharing:afterr=fc1"], "error: --arms: model.sharing.afterr: "),
        (["--predictions", "foo=none.csv"], "error: --predictions foo: there is no file 'none.csv'"),
        (["--predictions", "foo=t.yaml"], "error: --predictions foo: "),
        (["--out", "full"], "error: full: exists and holds no comparison; give another --out"),
        (["--predictions", "sharing=x.csv"], "error: --predictions: there is an arm 'sharing' already"),
        (["--label-fraction", "zz=0.1"], "error: command line: data.label_fraction.zz: unknown task 'zz'"),
        (
            ["tune={optimizer.lr: [0.1]}"],
            "error: command line: tune: validation chooses the settings, and no rows",
        ),
        (
            ["--arms", "train.monitor=test"],
            "error: --arms: train.monitor: a comparison reads the test split",
        ),
        (
            ["data.split.validation=0.2", "tune={optimizer.lrr: [0.1]}"],
            "error: command line: tune.optimizer.lrr: is a key of no arm; name a key as on the command line",
        ),
    ],
)
def test_what_is_refused(options: list[str], line: str, folder: Path, capsys: Capture) -> None:
    (folder / "t.yaml").write_text(TINY, encoding="utf-8")
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").touch()
    done = called(capsys, "compare", "t.yaml", *options)
    assert done.returncode == 2
    assert done.stderr.startswith(line), done.stderr
    assert not list(folder.glob("runs/**/run.json")), "nothing was begun"


@pytest.mark.parametrize(
    "options", [["--arms", "shering"], ["--predictions", "a=b.csv"], ["--out", "."], ["--on", "head"]]
)
def test_what_is_refused_before_torch_is_loaded(options: list[str], folder: Path) -> None:
    (folder / "t.yaml").write_text(TINY, encoding="utf-8")
    look = (
        "import sys; from mtl.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(9 if 'torch' in sys.modules else code)"
    )
    command = [sys.executable, "-c", look, "compare", "t.yaml", *options]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=False, capture_output=True)
    assert done.returncode == 2, done.stderr


def test_the_time_left_is_told_once_it_is_known() -> None:
    pace = Pace(n=5, jobs=2)
    assert [pace.ended(now) for now in (60.0, 61.0, 65.0, 69.0, 73.0)] == [
        "", "", "about 8.0 s left", "about 4.0 s left", "",
    ]  # fmt: skip


def test_the_command_that_confirms(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    @click.command(params=compare.params)
    def again(**_: object) -> None:
        said.append(given_again("--confirm", "--out", "a b"))

    given = "my.yaml optimizer.lr=1 --seeds 3 --arms single,mmoe --predictions x=y --predictions z=w --quiet --out old"
    again(given.split(), standalone_mode=False)
    assert said == [
        "mtl compare my.yaml optimizer.lr=1 --arms single,mmoe --seeds 3 --predictions x=y --predictions z=w --quiet "
        "--confirm --out 'a b'"
    ]


def test_what_is_not_confirmed_ends_with_the_command_that_settles_it(capsys: Capture) -> None:
    found = compare_values(confirm=False)
    CompareConsole().verdict(Path("c"), found, "mtl compare my.yaml --confirm --out c")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "with 540 labels of garment (1.0%):"
    assert lines[1].startswith("cross_stitch (sharing) is ahead on garment (+0.99 points)")
    assert lines[-1] == "next: mtl compare my.yaml --confirm --out c"
    (at,) = (k for k, line in enumerate(lines) if line.startswith("garment: sharing is worse than trees by "))
    assert lines[at + 1 : at + 3] == [
        "  for another seed, this test set: 0.27 to 0.86",
        "  trees has one value for all seeds",
    ]
    assert not any(line.startswith("fresh seeds") for line in lines)


def test_fresh_seeds_are_shown(capsys: Capture) -> None:
    found = compare_values()
    CompareConsole().verdict(Path("c"), found, "mtl compare my.yaml --confirm --out c")
    shown = capsys.readouterr().out.split("fresh seeds 5, 6, 7, 8, 9:\n")[1]
    for result in found["confirmation"]["arms"]["sharing"]["results"].values():
        assert f"{result['mean']:#.4g}" in shown
    assert "next:" not in shown, "nothing is left to confirm"


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
    assert "5 runs; 2 at a time with 1 thread each; about " in done.stdout
    assert "2 seeds find a difference in 80% of comparisons if it is " in done.stdout
    assert [line.split(":")[0] for line in lines if ": finished" in line] == [
        f"{k} of 5" for k in range(1, 6)
    ]
    assert "0 ms left" not in done.stdout
    assert "comparison: c  (compare.html, compare.json, compare.csv)" in lines[-1]
    assert {path.name for path in Path("c").iterdir()} == {
        "compare.html", "compare.json", "compare.csv", "timings.json", "plan.json", "workers.log", "runs",
    }  # fmt: skip
    assert Path("c/workers.log").read_text() == ""
