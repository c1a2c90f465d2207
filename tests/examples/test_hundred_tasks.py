"""A hundred tasks in one short recipe."""

from pathlib import Path

from mtl.errors import OK
from tests.support.assertions import Capture, called

RECIPE = Path(__file__).parents[2] / "examples" / "hundred_tasks.yaml"


def test_the_recipe_is_short_and_its_summary_readable(capsys: Capture) -> None:
    assert len(RECIPE.read_text().splitlines()) < 40
    done = called(capsys, "validate", str(RECIPE))
    assert (done.returncode, done.stderr) == (OK, "")
    assert "100 tasks, 100 towers" in done.stdout
    lines = called(capsys, "summary", str(RECIPE)).stdout.splitlines()
    assert len(lines) < 30
    (row,) = [line for line in lines if line.startswith("100 tasks, task0 to task99")]
    assert row.split()[5:] == ["binary", "100", "towers", "1", "33", "1"]


def test_it_runs(capsys: Capture, tmp_path: Path) -> None:
    small = ["data.source.rows=200", "data.source.test_rows=50", "train.epochs=1", "train.threads=1"]
    done = called(capsys, "run", str(RECIPE), *small, "--out", str(tmp_path / "run"))
    assert (done.returncode, done.stderr) == (OK, "")
    lines = done.stdout.splitlines()
    assert sum(line.startswith("task") for line in lines) == 100
    assert any(line.startswith("best possible accuracy: task0 1.000,") and "more" in line for line in lines)
