"""Loads a run's network with its selected weights from its folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from mtl.build import Built, build
from mtl.data.learned import Learned, from_record
from mtl.data.types import Header
from mtl.errors import UserError, quoted, raise_all
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from mtl.runs import checkpoint, state
from mtl.runs.folder import RECORD, RunFolder
from mtl.runs.record import PUT_BACK
from mtl.training import devices


@dataclass(frozen=True)
class Trained:
    """A run's network with its selected weights, and everything that is needed to use it.

    Args:
        recipe: the run's recipe.
        built: the network and its task groups.
        header: the header of its data, with the shape of inputs.
        learned: classes, scales and other numbers from training.
        folder: the run.
        notice: if the run is not finished, a sentence that says which weights are used.
    """

    recipe: Recipe
    built: Built
    header: Header
    learned: Learned
    folder: RunFolder
    notice: str | None = None


def load_trained(path: str | os.PathLike[str], device: str = "auto") -> Trained:
    """Load the network of a finished run, or of a run with a checkpoint; its data are not needed.

    Raises:
        UserError: there is no such run or device, or the run has no whole checkpoint.
    """
    folder = RunFolder.open(Path(path))
    try:
        target = devices.resolve(device)
    except UserError as error:
        raise UserError("--device", error.what, error.todo) from None
    recipe = _recipe(folder)
    _require_whole(folder)
    header, learned = from_record(folder.record.model.model_dump())
    _require_tasks(folder, recipe, learned)
    files, notice = selected_files(folder)
    # whatever sizes the record names, they cost nothing before the weights have them too
    with torch.device("meta"):
        state.require_same_weights(build(recipe, header, learned).model, files)
    built = build(recipe, header, learned)
    state.load_weights(built.model, files)
    state.require_finite(
        built.model.state_dict(), "train again, with a lower optimizer.lr or train.clip_norm"
    )
    return Trained(recipe, built.to(target), header, learned, folder, notice)


def _require_whole(folder: RunFolder) -> None:
    """Refuse a record whose facts about the model are not those that the run wrote.

    Raises:
        UserError: they are not.
    """
    if folder.record.model_sha256 != folder.record.model.sha256():
        raise UserError(str(folder.path / RECORD), "model is not as the run wrote it", PUT_BACK)


def _require_tasks(folder: RunFolder, recipe: Recipe, learned: Learned) -> None:
    """Refuse a record that was learned with other tasks than the recipe's.

    Raises:
        UserError: the tasks differ.
    """
    for name, of in (("outputs", learned.outputs), ("constants", learned.constants)):
        for task in recipe.tasks.keys() ^ of.keys():
            what = f"model.{name} {'lacks' if task in recipe.tasks else 'has unknown'} {quoted(task)}"
            raise UserError(str(folder.path / RECORD), what, PUT_BACK)


def _recipe(folder: RunFolder) -> Recipe:
    """The run's recipe; if it names parts of plug-ins that are not loaded, the error says which to load."""
    try:
        return load_recipe(folder.recipe())
    except UserError as error:
        plugins = " ".join(f"--plugin {name}" for name in folder.record.plugins)
        if plugins:
            todo = f"the run began with plug-ins; add {plugins}"
            raise_all([UserError(e.place, e.what, todo, path=e.path) for e in error.errors])
        raise


def selected_files(folder: RunFolder) -> tuple[Mapping[str, Path], str | None]:
    """The files of the checkpoint that the run selected, and a sentence about it; None if the run is finished.

    An unfinished run gives its best checkpoint so far by validation. If validation chose none, or if the best one is
    not whole, the run gives its newest one. The sentence says which checkpoint it is.

    Raises:
        UserError: there is no whole checkpoint, or the selected one is damaged.
    """
    run_id, selected = folder.record.id, folder.record.selected
    if selected is None:
        step, files, _ = checkpoint.newest(folder.checkpoints, run_id)
        best = state.progress_of(files).best_step
        if best is not None and best != step:
            with suppress(checkpoint.Damaged):
                files = checkpoint.verified(_at(folder, best), run_id)
                step = best
        return files, f"{folder.path} is not finished: weights of step {step} are used"
    try:
        return checkpoint.verified(_at(folder, selected.step), run_id), None
    except checkpoint.Damaged as reason:
        raise UserError(str(folder.path), f"step-{selected.step:08d} {reason.told}") from None


def _at(folder: RunFolder, step: int) -> Path:
    return folder.checkpoints / f"step-{step:08d}"
