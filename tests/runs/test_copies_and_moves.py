"""A run in a copy made of hard links leaves the original alone, and a run folder that moves ends the run."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import mtl
from mtl.errors import EnvironmentFault
from mtl.runs.disk import move_folder
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


# --- a disk that cannot rename the folders that it was given, as an overlay ---


def test_checkpoints_of_a_lower_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Going back, saving, replacing and deleting give the files that a disk which renames them gives."""
    mtl.run(recipe(), out=tmp_path / "plain", report=False)
    shutil.copytree(tmp_path / "plain", tmp_path / "lower")
    given = {path.stat().st_ino for path in (tmp_path / "lower/checkpoints").iterdir()}
    rename, refused = os.rename, []

    def of_overlay(old: Path, new: Path) -> None:
        if Path(old).stat().st_ino in given:
            refused.append(Path(old).name)
            given.remove(Path(old).stat().st_ino)  # once it is gone, another folder may have this number
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(old, new)

    mtl.resume(tmp_path / "plain/checkpoints/step-00000006", ["train.epochs=6"], report=False)
    monkeypatch.setattr(os, "rename", of_overlay)
    mtl.resume(tmp_path / "lower/checkpoints/step-00000006", ["train.epochs=6"], report=False)
    monkeypatch.undo()
    assert len(refused) >= 2
    assert_same(tmp_path / "plain", tmp_path / "lower")
    names = [
        sorted(path.name[:9] for path in (tmp_path / run / "checkpoints").iterdir())
        for run in ("plain", "lower")
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize("call", ["copytree", "rename"])
def test_a_move_that_fails_leaves_the_folder(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x").write_text("x")
    rename = os.rename

    def fails(*given: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def of_overlay(old: Path, new: Path) -> None:
        if Path(old).name == "a":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        (fails if call == "rename" else rename)(old, new)

    monkeypatch.setattr(os, "rename", of_overlay)
    if call == "copytree":
        monkeypatch.setattr(shutil, "copytree", fails)
    with pytest.raises(OSError, match="No space"):
        move_folder(tmp_path / "a", tmp_path / "b")
    assert contents(tmp_path) == {"a": None, "a/x": b"x"}


def test_a_run_on_a_real_overlay(tmp_path: Path) -> None:
    """A damaged checkpoint of the lower layer is set aside, and the run goes on to the same files."""
    mtl.run(recipe(), out=tmp_path / "lower/run", report=False)
    newest = max((tmp_path / "lower/run/checkpoints").iterdir())
    (newest / "model.safetensors").write_bytes(b"damaged")
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    mounted = "mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged"
    tried = ["unshare", "-m", "sh", "-c"]
    if subprocess.run([*tried, mounted], cwd=tmp_path, capture_output=True).returncode != 0:
        pytest.skip("this user may not mount an overlay")
    resumed = f"{mounted} && exec {sys.executable} -m mtl run --resume merged/run train.epochs=6 --no-report --quiet"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    for _ in range(2):  # the second finds a finished run
        done = subprocess.run(
            [*tried, resumed], cwd=tmp_path, capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
    listed = "ls merged/run/checkpoints"
    done = subprocess.run([*tried, f"{mounted} && {listed}"], cwd=tmp_path, capture_output=True, text=True)
    aside = [name for name in done.stdout.split() if name.startswith("set-aside-")]
    assert len(aside) == 1
    assert newest.name in done.stdout.split()
