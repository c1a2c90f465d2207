"""Comparisons whose answer is known: a network with itself, tasks that are related, tasks that are not."""

import json
from pathlib import Path

import numpy as np
import pytest

from mtl.comparison.conduct import conduct
from mtl.comparison.request import Asked
from mtl.comparison.statistics.arms import Arm, Task
from mtl.comparison.statistics.judge import judge
from mtl.recipe.load import load_recipe
from mtl.runs.results.bootstrap import read_bootstrap
from tests.comparison.test_conduct import compared

SEEDS = 60
"""Real runs of one network with other initial weights, out of which pairs of arms are drawn."""
MARGIN = 0.02


@pytest.mark.slow
def test_a_network_is_rarely_better_than_itself(tmp_path: Path) -> None:
    made = compared(train__epochs=3, optimizer__lr=0.02)
    conduct(Asked(made, ["single", "hard"], tuple(range(SEEDS)), 2, out=tmp_path / "c"))
    folders = [tmp_path / f"c/runs/single/seed-{seed}" for seed in range(SEEDS)]
    results = [json.loads((folder / "run.json").read_bytes())["results"] for folder in folders]
    found = [read_bootstrap(folder) for folder in folders]
    values = {task: np.array([own[f"test/{task}/accuracy"] for own in results]) for task in "ab"}
    replicates = {
        task: np.array([own.tasks[task].replicates for own in found if own is not None], dtype=float)
        for task in "ab"
    }
    draws, wrong, n = np.random.default_rng(0), 0, 0
    for _ in range(500):
        seeds = draws.permutation(SEEDS)[:10].reshape(2, 5)
        arms = {
            name: Arm(
                role,  # type: ignore[arg-type]
                {task: values[task][own].tolist() for task in "ab"},
                {task: replicates[task][own] for task in "ab"},
            )
            for name, role, own in (("single", "single", seeds[0]), ("again", "candidate", seeds[1]))
        }
        verdicts = judge(
            {task: Task("accuracy") for task in "ab"},
            arms,
            dict.fromkeys("ab", "single"),
            range(5),
            n_units=150,
        )["tasks_verdict"]
        wrong += sum(own["verdict"] in ("better", "worse") for own in verdicts.values())
        n += len(verdicts)
    assert n == 1000
    assert wrong / n <= 0.062


@pytest.mark.slow
def test_sharing_helps_where_tasks_are_related(tmp_path: Path) -> None:
    _, found = conduct(Asked(load_recipe("synthetic_stitch"), jobs=2, out=tmp_path / "c"))
    assert found["tasks_verdict"]["scarce"]["verdict"] == "better"
    assert found["transfer"]["scarce"]["claimed"] is True
    assert found["transfer"]["scarce"]["size"] > 0.02
    assert found["summary"][0].startswith("cross_stitch (sharing) helps scarce")


@pytest.mark.slow
def test_sharing_does_not_help_where_they_are_not(tmp_path: Path) -> None:
    _, found = conduct(Asked(load_recipe("synthetic_unrelated"), jobs=2, out=tmp_path / "c"))
    assert found["tasks_verdict"]["scarce"]["verdict"] != "better"
    assert not any(own["claimed"] for own in found["transfer"].values())
    (against,) = (
        one
        for one in found["comparisons"]
        if (one["arm"], one["against"], one["task"]) == ("sharing", found["baseline"]["scarce"], "scarce")
    )
    assert against["interval"][1] < MARGIN
