"""An exception of any kind in a user's part is a fault of that part: exit 2, its class and method, status `failed`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtl.cli import main
from mtl.errors import ENVIRONMENT, USER
from tests.experiment.test_resume import no_plots
from tests.support.assertions import plugins_undone
from tests.support.memories import recipe_of_own_parts

__all__ = ["no_plots"]
pytestmark = pytest.mark.usefixtures("no_plots")
PLUGIN = Path(__file__).parents[1] / "support" / "own_parts.py"
METHODS = {
    "source": "Rows.columns",
    "task": "Loss.row_loss",
    "metric": "Loss.metric",
    "backbone": "Stage.forward",
    "sharing": "Unit.forward",
    "matrix": "Unit.sharing_matrix",
    "weighting": "Weights.forward",
    "optimizer": "Steps.step",
    "schedule": "Rate.after_warmup",
}
"""Part -> the method of it that raises."""
RAISED = ("SystemExit", "KeyboardInterrupt", "GeneratorExit", "MemoryError", "RecursionError", "StopIteration",
          "BrokenPipeError", "TimeoutError", "ZeroDivisionError")  # fmt: skip
AT = {"source": 1, "metric": 12, "matrix": 3, "schedule": 30}
"""The call of a part's method that raises; the 60th of the others, which is in a step of the run itself."""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe that has the user's part in every place."""
    return recipe_of_own_parts(tmp_path, train__epochs=30)


@pytest.fixture(autouse=True)
def _undone() -> Iterator[None]:
    """The plug-in is loaded anew in each test, which also counts its calls anew."""
    with plugins_undone():
        yield


def run(recipe: Path, *more: str) -> int:
    return main(["run", str(recipe), "--plugin", str(PLUGIN), "--quiet", "--no-report", *more])


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("part", METHODS)
def test_an_exception_of_a_part_is_its_fault(
    part: str,
    kind: str,
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    monkeypatch.setenv("FAULT", f"{part}:{kind}:{AT.get(part, 60)}")
    assert run(recipe, "--out", str(out)) == USER
    told = capsys.readouterr().err.splitlines()[-1]
    expected = f"{METHODS[part]} raised {kind}: 'licence server gone' at line "
    assert told.startswith("error: plugin ")
    assert expected in told
    if part == "source":  # it is read before there is a run
        assert not out.exists()
        return
    assert json.loads((out / "run.json").read_text())["status"] == "failed"


def test_all_parts_and_exceptions_are_tried() -> None:
    assert (len(METHODS), len(RAISED)) == (9, 9)


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [
        ("SystemExit", USER, "Weights.forward raised SystemExit: 'licence server gone' at line "),
        (
            "KeyboardInterrupt",
            USER,
            "Weights.forward raised KeyboardInterrupt: 'licence server gone' at line ",
        ),
        ("_exit", ENVIRONMENT, "its process ended 3 times without a result (exit code 0)"),
    ],
)
def test_a_run_of_a_comparison_says_the_same(
    kind: str,
    code: int,
    said: str,
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The twentieth call is in a process that makes runs; the parent only tries two steps."""
    monkeypatch.setenv("FAULT", f"weighting:{kind}:20")
    given = ["compare", str(recipe), "--plugin", str(PLUGIN), "--seeds", "2", "--jobs", "1"]
    assert main([*given, "--out", str(tmp_path / "c")]) == code
    told = capfd.readouterr().err.splitlines()[-1]
    assert said in told
