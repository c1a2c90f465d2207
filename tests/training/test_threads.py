"""A run takes one thread for a small network, records how many it took, and goes on with as many."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mtl
from mtl.experiment.trial import build_and_try
from mtl.recipe.load import load_recipe
from mtl.training.devices import threads_of, work_of_row


@pytest.fixture
def four_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_work_counts_each_weight_at_each_position() -> None:
    recipe = load_recipe("fashion_few_labels")
    convolutions = 2 * (16 * 9 * 28**2 + 32 * 16 * 9 * 14**2)
    linear = 2 * 32 * 7**2 * 128 + 128 * (10 + 3)
    stitches = 3 * 2**2
    assert work_of_row(build_and_try(recipe)[0].model) == convolutions + linear + stitches


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("synthetic_stitch", "auto", 1),
        ("age_gender_stitch", "auto", 1),
        ("fashion_stitch", "auto", 4),
        ("synthetic_stitch", "3", 3),
        ("fashion_stitch", "1", 1),
    ],
)
def test_threads_follow_the_work(name: str, given: str, expected: int) -> None:
    recipe = load_recipe(name, [f"train.threads={given}"])
    assert threads_of(recipe.train, build_and_try(recipe)[0].model) == expected


@pytest.mark.usefixtures("four_threads")
def test_threads_are_recorded_and_given_back(tmp_path: Path) -> None:
    small = ["train.epochs=1", "data.source.rows=400", "data.source.test_rows=100"]
    assert mtl.run("synthetic_stitch", small, out=tmp_path / "auto", report=False).record.threads == 1
    asked = mtl.run("synthetic_stitch", [*small, "train.threads=2"], out=tmp_path / "two", report=False)
    assert asked.record.threads == 2
    assert torch.get_num_threads() == 4


def test_a_resumed_run_keeps_its_threads(tmp_path: Path) -> None:
    """On a machine that has more threads now, the bits stay the same."""
    small = ["train.epochs=1", "data.source.rows=400", "data.source.test_rows=100"]
    mtl.run("synthetic_stitch", small, out=tmp_path / "run", report=False)
    record = json.loads((tmp_path / "run/run.json").read_text())
    (tmp_path / "run/run.json").write_text(json.dumps(record | {"threads": 2}))
    code = "import sys, mtl; print(mtl.resume(sys.argv[1], ['train.epochs=2'], report=False).record.threads)"
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split()[-1] == "2"
