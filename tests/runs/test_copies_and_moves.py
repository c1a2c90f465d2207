"""A run in a copy made of hard links leaves the original alone, and a run folder that moves ends the run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import mtl
from mtl.errors import EnvironmentFault
from mtl.training.events import Stepped
from tests.experiment.test_resume import assert_same, no_plots, recipe
from tests.support.assertions import contents
from tests.support.listening import Watching

__all__ = ["no_plots"]
pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A finished run `run`, and `copy`, in which every file is a hard link to that of the run."""
    mtl.run(recipe(), out=tmp_path / "run", report=False)
    shutil.copytree(tmp_path / "run", tmp_path / "copy", copy_function=os.link)
    assert (tmp_path / "copy/metrics.jsonl").stat().st_nlink == 2
    return tmp_path


@pytest.mark.parametrize("goes_back", [False, True])
def test_a_copy_of_hard_links_is_a_run_of_its_own(linked: Path, goes_back: bool) -> None:
    before = contents(linked / "run")
    if goes_back:
        mtl.resume(linked / "copy/checkpoints/step-00000006", report=False)
        assert_same(linked / "run", linked / "copy")
    else:
        mtl.resume(linked / "copy", ["train.epochs=6"], report=False)
        longer, shorter = (
            (linked / name / "metrics.jsonl").read_bytes().splitlines() for name in ("copy", "run")
        )
        assert longer[:4] == shorter[:4]  # the evaluation after the last epoch is repeated later
        assert len(longer) > len(shorter)
    after = contents(linked / "run")
    # the lock is one file for both, so that they cannot train at once; it names who held it last
    assert {name: data for name, data in after.items() if name != ".lock"} == {
        name: data for name, data in before.items() if name != ".lock"
    }


class At(Watching):
    """Does something to the run folder after a step."""

    def __init__(self, step: int, do: Callable[[], object]) -> None:
        super().__init__()
        self.step, self.do = step, do

    def stepped(self, event: Stepped) -> None:
        if self.trainer.progress.step == self.step:
            self.do()


def test_a_folder_that_moves_ends_the_run_and_goes_on_where_it_is(tmp_path: Path) -> None:
    whole = mtl.run(recipe(), out=tmp_path / "whole", report=False)
    here, there = tmp_path / "run", tmp_path / "moved"
    with pytest.raises(EnvironmentFault, match=r"was moved, or its \.lock was removed, while it trained"):
        mtl.run(recipe(), out=here, report=False, listeners=(At(4, lambda: here.rename(there)),))
    assert not here.exists()
    assert mtl.resume(there, report=False).metrics == whole.metrics


def test_a_lock_that_was_removed_ends_the_run(tmp_path: Path) -> None:
    """Another process may have begun to write there."""
    run = tmp_path / "run"
    with pytest.raises(EnvironmentFault, match=r"resume it where it is now"):
        mtl.run(recipe(), out=run, report=False, listeners=(At(4, (run / ".lock").unlink),))
    assert sorted(os.listdir(run / "checkpoints")) == ["step-00000003"]
