"""A user's part that remembers something which no checkpoint holds is refused before the run begins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mtl.cli import main
from mtl.errors import USER
from tests.experiment.test_resume import no_plots
from tests.support.assertions import plugins_undone
from tests.support.memories import ALLOWED, FILE, PARTS, PLACES, recipe_of_own_parts

__all__ = ["no_plots"]
pytestmark = pytest.mark.usefixtures("no_plots")
PLUGIN = Path(__file__).parents[1] / "support" / "own_parts.py"
SAID = {
    "backbone": "model.backbone: Stage.forward gives",
    "sharing": "model.sharing: Unit.forward gives",
    "task": "tasks.a: Loss.loss gives",
    "metric": "tasks.a: Loss.metric gives",
    "weighting": "weighting: Weights.forward gives",
    "optimizer": "optimizer: Steps.step gives",
    "schedule": "schedule: Rate.factor gives",
}
"""Part -> what is said of it."""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe that has the user's part in every place."""
    return recipe_of_own_parts(tmp_path, train__epochs=1)


@pytest.fixture(autouse=True)
def _undone() -> Iterator[None]:
    """The plug-in is loaded anew in each test, and no test leaves a memory."""
    with plugins_undone():
        yield
    FILE.unlink(missing_ok=True)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_a_resumed_run_would_have_forgotten(
    part: str,
    place: str,
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MEMORY", f"{part}:{place}")
    monkeypatch.delenv("MTL_TEST_CALLS", raising=False)
    out = tmp_path / "out"
    assert main(["run", str(recipe), "--plugin", str(PLUGIN), "--quiet", "--out", str(out)]) == USER
    told = capsys.readouterr().err
    assert f": {SAID[part]} other numbers after a stop and a resume" in told
    assert not out.exists()


def test_all_parts_and_places_are_tried() -> None:
    assert (len(PARTS), len(PLACES)) == (7, 22)
    assert SAID.keys() == set(PARTS)


@pytest.mark.parametrize("place", ALLOWED)
@pytest.mark.parametrize("part", PARTS)
def test_what_a_step_seeds_may_be_drawn_from(
    part: str, place: str, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORY", f"{part}:{place}")
    given = ["run", str(recipe), "--plugin", str(PLUGIN), "--quiet", "--no-report", "--dry-run"]
    assert main(given) == 0


UNHELD = {
    "late_buffer": "after 5 steps a checkpoint does not fit a new network: weighting.safetensors: has unknown 'late'",
    "extra_state": "weighting: the state '_extra_state' of Weights is an object of type dict",
    "number_in_optimizer": "optimizer: the state 'calls' of Steps is an object of type int",
    "tensor_in_optimizer": "optimizer: Steps keeps state for something that is no parameter",
    "complex128": "weighting: the state 'own' of Weights is a tensor of complex128",
    "expanded": "a part keeps what a checkpoint cannot hold or give back: RuntimeError: 'Error(s) in loading",
    "set_once": "model.backbone: Stage.forward gives other numbers after a stop and a resume",
    "evaluation": "model.backbone: Stage.forward gives other numbers after a stop and a resume",
    "source": "data.source: Rows.columns gives other rows each time it is called; draw random numbers from its ",
}
"""What `MODULE` makes a part do -> what is said."""


def test_a_buffer_of_eight_bits(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODULE", "float8")
    given = ["--plugin", str(PLUGIN), "--quiet", "--no-report"]
    assert main(["run", str(recipe), *given, "--out", str(tmp_path / "out")]) == 0
    assert main(["run", "--resume", str(tmp_path / "out"), "train.epochs=2", *given]) == 0


@pytest.mark.parametrize("state", UNHELD)
def test_state_that_no_checkpoint_can_hold(
    state: str, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODULE", state)
    assert main(["run", str(recipe), "--plugin", str(PLUGIN), "--quiet", "--dry-run"]) == USER
    assert UNHELD[state] in capsys.readouterr().err


def test_numbers_that_are_near_pass(recipe: Path) -> None:
    given = ["run", str(recipe), "train.deterministic=false", "--plugin", str(PLUGIN), "--quiet", "--dry-run"]
    assert main(given) == 0


@pytest.mark.parametrize("part", PARTS)
def test_numbers_need_only_be_near_where_they_are_not_exact(
    part: str, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a GPU: norms are compared to 1e-3, and a memory that changes numbers by 1% is found all the same."""
    given = ["run", str(recipe), "train.deterministic=false", "--plugin", str(PLUGIN), "--quiet", "--dry-run"]
    monkeypatch.setenv("MEMORY", f"{part}:count")
    assert main(given) == USER
    assert "other numbers after a stop and a resume" in capsys.readouterr().err
