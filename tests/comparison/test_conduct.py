"""A comparison by real runs: what it leaves, that it repeats nothing, and that it goes on after any end."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from mtl.comparison.conduct import conduct
from mtl.comparison.files import write_outcome
from mtl.comparison.label_curve import conduct_curve
from mtl.comparison.processes.pool import Report
from mtl.comparison.request import Announced, Asked, Silent
from mtl.comparison.results import Found
from mtl.errors import UserError
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe, to_yaml
from mtl.registry import load_plugin
from mtl.report.page.compare_file import CompareFile
from mtl.runs.results.reading import read_checked
from tests.support.assertions import plugins_undone
from tests.support.comparisons import compare_values, unknown_keys
from tests.support.recipes import classes, linear, recipe, stitched

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.xdist_group("comparison")  # its fixtures are made once
GENERATED = {"kind": "synthetic", "tasks": 2, "rows": 200, "test_rows": 150, "features": 8, "classes": 2}


def compared(**changes: Any) -> Recipe:
    given: dict[str, Any] = {
        "name": "small", "data__source": GENERATED, "tasks": classes("ab"),
        "model__backbone__stages": linear(4), "model__sharing": stitched("fc1"), "train__batch_size": 50,
    }  # fmt: skip
    return recipe(**(given | changes))


class Watching(Silent):
    """Keeps what a watcher hears."""

    def __init__(self) -> None:
        self.announced: list[Announced] = []
        self.ended: list[str] = []
        self.said: list[str] = []

    def begins(self, announced: Announced) -> None:
        self.announced.append(announced)

    def reports(self, report: Report) -> None:
        if report.ended is not None:
            self.ended.append(report.job.name)

    def says(self, line: str) -> None:
        self.said.append(line)


def asked(out: Path, made: Recipe | None = None, **options: Any) -> Asked:
    given: dict[str, Any] = {"arms": ["single", "sharing"], "seeds": (0, 1), "jobs": 2, "out": out}
    return Asked(made or compared(), **(given | options))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Watching]:
    out, watching = tmp_path_factory.mktemp("comparison") / "c", Watching()
    conduct(asked(out), watching)
    return out, watching


def content(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "compare.json").read_bytes())
    return values


def test_what_a_comparison_leaves(done: tuple[Path, Watching]) -> None:
    folder, watching = done
    found = content(folder)
    assert sorted(watching.ended) == [
        "sharing, seed 0",
        "sharing, seed 1",
        "single, seed 0",
        "single, seed 1",
    ]
    assert (found["seeds"], found["looks"], found["exploratory"]) == ([0, 1], 1, False)
    assert found["arms"]["single"]["parameters"] == 2 * (8 * 4 + 2 * 4 + 4 * 2 + 2)  # map, norm, head
    assert (found["arms"]["single"]["models"], found["arms"]["sharing"]["models"]) == (2, 1)
    for arm in ("single", "sharing"):
        for seed in (0, 1):
            record = json.loads((folder / "runs" / arm / f"seed-{seed}/run.json").read_bytes())
            assert record["seeds"] == {"init": seed, "order": seed, "split": 0, "labels": 0}
            for task in "ab":
                own = found["arms"][arm]["results"][task]
                assert (
                    own["values"][seed]
                    == own["one_model"][seed]
                    == record["results"][f"test/{task}/accuracy"]
                )
    (difference,) = (c for c in found["comparisons"] if c["task"] == "a")
    values = {arm: found["arms"][arm]["results"]["a"]["values"] for arm in ("single", "sharing")}
    assert difference["difference"] == pytest.approx(sum(values["sharing"]) / 2 - sum(values["single"]) / 2)
    rows = list(csv.DictReader((folder / "compare.csv").read_text().splitlines()))
    assert len(rows) == 8
    assert {row["round"] for row in rows} == {"first"}
    assert found["confirmation"] is None
    assert float(rows[0]["test"]) == found["arms"]["single"]["results"]["a"]["values"][0]
    assert json.loads((folder / "timings.json").read_bytes()).keys() == {"single", "sharing"}
    assert "seconds" not in (folder / "compare.json").read_text()


def links_of(folder: Path) -> list[str]:
    """Where the links of the page of a comparison lead, but for its own sections; each leads to something."""
    page = (folder / "compare.html").read_text(encoding="utf-8")
    links = [unquote(link) for link in re.findall(r'href="([^"#][^"]*)"', page)]
    assert [link for link in links if not (folder / link).exists()] == []
    return links


def test_the_page_of_a_comparison_knows_all_that_it_wrote(done: tuple[Path, Watching]) -> None:
    folder, _ = done
    found = read_checked(folder / "compare.json", CompareFile)
    assert found is not None
    assert list(unknown_keys(found)) == []
    assert links_of(folder) == [
        f"runs/{arm}/seed-{seed}/" for arm in ("single", "sharing") for seed in (0, 1)
    ]


def test_nothing_is_repeated(done: tuple[Path, Watching]) -> None:
    folder, _ = done
    before = {path: path.stat().st_mtime_ns for path in folder.glob("runs/**/run.json")}
    first = (folder / "compare.json").read_bytes()
    watching = Watching()
    conduct(asked(folder), watching)
    assert watching.ended == []
    assert watching.announced[0].n_done == len(before) == 4
    assert {path: path.stat().st_mtime_ns for path in folder.glob("runs/**/run.json")} == before
    assert (folder / "compare.json").read_bytes() == first


def test_one_candidate_needs_no_confirmation(done: tuple[Path, Watching]) -> None:
    watching = Watching()
    _, found = conduct(asked(done[0], confirm=True), watching)
    assert (watching.ended, found["confirmation"]) == ([], None)
    assert watching.said == [
        "--confirm has nothing to confirm: nobody chose the arm among several candidates"
    ]


def test_fresh_seeds_are_in_the_table(tmp_path: Path) -> None:
    values = compare_values()
    write_outcome(tmp_path, values)
    rows = [
        row
        for row in csv.DictReader((tmp_path / "compare.csv").read_text().splitlines())
        if (row["arm"], row["task"]) == ("sharing", "price")
    ]
    assert [(row["round"], row["seed"]) for row in rows] == [
        *(("first", str(seed)) for seed in range(5)), *(("fresh", str(seed)) for seed in range(5, 10)),
    ]  # fmt: skip
    fresh = values["confirmation"]["arms"]["sharing"]["results"]["price"]["values"]
    assert [float(row["test"]) for row in rows[5:]] == fresh


def test_missing_runs_are_made_and_the_end_is_the_same(done: tuple[Path, Watching], tmp_path: Path) -> None:
    folder = shutil.copytree(done[0], tmp_path / "c")
    shutil.rmtree(folder / "runs/sharing/seed-1")
    (folder / "compare.json").unlink()
    watching = Watching()
    conduct(asked(folder), watching)
    assert watching.ended == ["sharing, seed 1"]
    assert (folder / "compare.json").read_bytes() == (done[0] / "compare.json").read_bytes()


def test_more_seeds_after_a_look_are_exploratory(done: tuple[Path, Watching], tmp_path: Path) -> None:
    folder = shutil.copytree(done[0], tmp_path / "c")
    watching = Watching()
    conduct(asked(folder, seeds=(0, 1, 2)), watching)
    assert sorted(watching.ended) == ["sharing, seed 2", "single, seed 2"]
    found = content(folder)
    assert (found["looks"], found["exploratory"], found["seeds"]) == (2, True, [0, 1, 2])


def test_a_folder_of_another_recipe_is_refused(done: tuple[Path, Watching]) -> None:
    with pytest.raises(UserError, match="holds the comparison of another recipe; give another --out"):
        conduct(asked(done[0], compared(optimizer__lr=0.5)))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="exists and holds no comparison; give another --out"):
        conduct(asked(tmp_path))


def test_a_budget_that_is_over_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--budget: is over before every arm has one run"):
        conduct(asked(tmp_path / "c", budget=0.0))


WILD = """
import mtl
from mtl.weightings.sum import Sum

@mtl.register_weighting("wild")
class Wild(Sum):
    '''Weights that overflow after a step.'''

    reference = "ours"

    def build(self, task_weights, is_quantity):
        return super().build(tuple(1e38 for _ in task_weights), is_quantity)
"""


def test_a_run_that_diverges_is_named_and_not_repeated(tmp_path: Path) -> None:
    plugin = tmp_path / "wild.py"
    plugin.write_text(WILD, encoding="utf-8")
    with plugins_undone():
        load_plugin(str(plugin))
        given = asked(
            tmp_path / "c", compared(optimizer={"kind": "sgd", "lr": 1.0}), seeds=(0,),
            arms=["single", "weighting=wild"], plugins=[str(plugin)],
        )  # fmt: skip
        watching = Watching()
        _, found = conduct(given, watching)
        assert sorted(watching.ended) == ["single, seed 0", "weighting=wild, seed 0"]
        assert found["arms"]["weighting=wild"]["results"]["a"]["values"] == [None]
        conduct(given, watching)
    assert len(watching.ended) == 2


def test_runs_without_any_result_are_an_error(
    done: tuple[Path, Watching], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtl.comparison.conduct.collect", lambda *_: Found())  # as if every run had diverged
    with pytest.raises(UserError, match=r"no run has a result: a loss of each was infinite or NaN; lower"):
        conduct(asked(done[0]))


def test_trials_choose_the_settings_of_each_arm(tmp_path: Path) -> None:
    made = compared(
        data__split={"validation": 0.3}, train__epochs=3,
        tune={"optimizer.lr": [1e-6, 3e-2], "model.sharing.lr_scale": [1.0, 10.0]},
    )  # fmt: skip
    watching = Watching()
    _, found = conduct(asked(tmp_path / "c", made, seeds=(0,)), watching)
    trials = found["tuning"]
    assert [len(trials[arm]) for arm in ("single", "sharing")] == [2, 4]
    for arm, own in trials.items():
        values = np.array([[trial["validation"][task] for task in "ab"] for trial in own])
        spread = values.std(0)
        scores = ((values - values.mean(0)) / np.where(spread > 0, spread, 1)).sum(1)
        (chosen,) = (i for i, trial in enumerate(own) if trial["chosen"])
        assert scores[chosen] == pytest.approx(scores.max())
        made_with = load_recipe(tmp_path / "c/runs" / arm / "seed-0/recipe.resolved.yaml")
        assert f"optimizer.lr={made_with.optimizer.lr}" == own[chosen]["changes"][0]
    assert len(watching.ended) == 6 + 2
    record = json.loads((tmp_path / "c/runs/sharing/seed-0/run.json").read_bytes())
    assert record["seeds"]["init"] == 0  # trials have seeds of their own
    page = (tmp_path / "c/compare.html").read_text(encoding="utf-8")
    assert page.count("settings tried; validation chose optimizer.lr=") == 2


def test_a_curve_over_labels(tmp_path: Path) -> None:
    made = compared(data__source=GENERATED | {"rows": 400})
    folder, found = conduct_curve(asked(tmp_path / "c", made, seeds=(0,)), "a", [0.1, 1.0])
    points = [(p["fraction"], p["labels"], p["arm"]) for p in found["label_curve"]]
    assert points == [
        (0.1, 40, "single"), (0.1, 40, "single_rows"), (0.1, 40, "sharing"),
        (1.0, 400, "single"), (1.0, 400, "sharing"),
    ]  # fmt: skip
    assert folder == tmp_path / "c"
    assert content(folder)["label_curve"] == found["label_curve"]
    links = links_of(folder)
    assert [link for link in links if link.endswith(".html")] == ["a=0.1/compare.html", "a=1/compare.html"]
    assert "a=0.1/runs/single_rows/a/seed-0/" in links
    assert len(links_of(folder / "a=0.1")) == 3
    assert [*unknown_keys(read_checked(folder / "compare.json", CompareFile))] == []
    steps = {
        json.loads(path.read_bytes())["step"] for path in (tmp_path / "c/a=0.1").glob("runs/**/run.json")
    }
    assert len(steps) == 1  # equal steps for all arms


def command(folder: Path, out: Path) -> list[str]:
    return [
        sys.executable, "-m", "mtl", "compare", str(folder / "r.yaml"), "--arms", "single,sharing", "--seeds", "2",
        "--jobs", "2", "--out", str(out),
    ]  # fmt: skip


def children_of(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return found


def waited(what: Any, seconds: float = 120.0) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


LONG = {"train__epochs": 40, "data__source": GENERATED | {"rows": 1000}}
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """compare.json of a comparison that nobody stops."""
    place = tmp_path_factory.mktemp("undisturbed")
    (place / "r.yaml").write_text(to_yaml(compared(**LONG)), encoding="utf-8")
    subprocess.run(command(place, place / "c"), env=ENVIRONMENT, capture_output=True, check=True)
    return (place / "c/compare.json").read_bytes()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="children are found in /proc")
@pytest.mark.parametrize(
    "killed",
    [
        "parent",
        pytest.param("child", marks=pytest.mark.slow),
        pytest.param("interrupt", marks=pytest.mark.slow),
    ],
)
def test_a_killed_comparison_ends_the_same(tmp_path: Path, killed: str, undisturbed: bytes) -> None:
    (tmp_path / "r.yaml").write_text(to_yaml(compared(**LONG)), encoding="utf-8")
    out = tmp_path / "c"
    process = subprocess.Popen(
        command(tmp_path, out), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    waited(lambda: list(out.glob("runs/*/seed-*/run.json")))
    children = waited(lambda: children_of(process.pid))
    if killed == "parent":
        process.kill()
    elif killed == "interrupt":
        process.send_signal(signal.SIGINT)
    else:
        os.kill(children[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    if killed == "interrupt":
        assert (
            b"the same command goes on with this comparison; what is finished stays\ninterrupted\n" in errors
        )
    assert process.returncode == {"parent": -signal.SIGKILL, "interrupt": 130, "child": 0}[killed], errors
    waited(lambda: not any(Path(f"/proc/{child}/stat").exists() for child in children))
    finished = {
        path: path.stat().st_mtime_ns
        for path in out.glob("runs/**/run.json")
        if json.loads(path.read_bytes())["status"] == "finished"
    }
    again = subprocess.run(command(tmp_path, out), env=ENVIRONMENT, capture_output=True, check=False)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert (out / "compare.json").read_bytes() == undisturbed
