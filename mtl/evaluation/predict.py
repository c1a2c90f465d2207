"""A trained run as a predictor: raw rows in, classes, values and probabilities out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtl.build import Built, build
from mtl.console import complain
from mtl.data.columns import Array, Header
from mtl.data.learned import Learned, from_record
from mtl.errors import UserError, quoted, raise_all
from mtl.evaluation.evaluate import evaluation_mode
from mtl.evaluation.feeding import Feed
from mtl.recipe.load import load_recipe
from mtl.recipe.schema import Recipe
from mtl.training import checkpoint, devices, state
from mtl.training.record import PUT_BACK, digest_of_model
from mtl.training.runs import RECORD, RunFolder, recipe_of

Predictions = dict[str, Array | list[Any]]


@dataclass(frozen=True)
class TrainedModel:
    """A run's network with its selected weights, and all that is needed to feed and read it.

    Args:
        recipe: the run's recipe.
        built: the network and its task groups.
        header: the shape of its inputs.
        learned: classes, scales and other numbers from training.
        folder: the run.
    """

    recipe: Recipe
    built: Built
    header: Header
    learned: Learned
    folder: RunFolder

    @cached_property
    def feed(self) -> Feed:
        """How raw rows reach the network; of several sources, those of the first one's form."""
        return Feed(next(iter(self.recipe.data.by_name.values())), self.header, self.learned)

    def predict(self, data: Any) -> Predictions:
        """Predictions for all rows at once.

        Args:
            data: an array of raw inputs (n, ...); a path of a CSV, Parquet or npz file; a pyarrow Table; a
                mapping of column -> sequence; or a data frame.

        Returns:
            Column -> n values: `<task>` is the class or the value in the label's unit, `<task>_p` the
            probability of yes, `<task>_p_<class>` that of each class or label.

        Raises:
            UserError: a column is missing, or a value is not what its column should hold.
        """
        parts = [part for _, part in self.batches(data)]
        parts = parts or [self._predict(np.empty((0, *self.feed.shape), np.float32))]
        joined: Predictions = {}
        for name, first in parts[0].items():
            pieces = [part[name] for part in parts]
            if isinstance(first, list):
                joined[name] = [value for piece in pieces for value in piece]
            else:
                joined[name] = np.concatenate(pieces)
        return joined

    def batches(self, data: Any, keep: Sequence[str] = ()) -> Iterator[tuple[dict[str, Any], Predictions]]:
        """Predictions batch by batch, with the columns of the input that are carried through."""
        for kept, inputs in self.feed.batches(data, keep):
            yield kept, self._predict(inputs)

    @torch.inference_mode()
    def _predict(self, inputs: Array) -> Predictions:
        device = next(self.built.model.parameters()).device
        with evaluation_mode(self.built.model):
            logits = self.built.model.forward_groups(torch.from_numpy(inputs).to(device))
        return decoded(self.recipe, self.built, logits)

    def evaluate(
        self, split: str = "test", data: str | os.PathLike[str] | None = None
    ) -> dict[str, float | None]:
        """Metrics on a split of the run's data, or on all rows of another file that has labels.

        Raises:
            UserError: there is no such split, or the file is not like the run's.
        """
        from mtl.evaluation.rescore import rescore

        return rescore(self, split, data)


def decoded(recipe: Recipe, built: Built, logits: Mapping[str, Tensor]) -> Predictions:
    """The predictions of all tasks, in their order, from the logits (B, T, O) of each task group.

    Raises:
        UserError: two tasks give a column of the same name.
    """
    place = {task: (group, t) for group in built.groups for t, task in enumerate(group.tasks)}
    columns: Predictions = {}
    for task, spec in recipe.tasks.items():
        group, t = place[task]
        found = spec.decode(logits[group.name][:, t].float(), group.outputs[t], group.constants_of(t))
        for suffix, values in found.items():
            if task + suffix in columns:
                raise UserError(
                    "", f"another task predicts a column {quoted(task + suffix)} too", "rename one of the two",
                    path=("tasks", task),
                )  # fmt: skip
            columns[task + suffix] = values
    return columns


def check_columns(recipe: Recipe, built: Built) -> None:
    """Refuse, before training begins, tasks whose predictions could not stand in one table.

    Raises:
        UserError: two tasks give a column of the same name.
    """
    device = next(built.model.parameters()).device
    logits = {
        group.name: torch.zeros(1, len(group.tasks), group.n_outputs, device=device) for group in built.groups
    }
    with recipe.at():
        decoded(recipe, built, logits)


def load(path: str | os.PathLike[str], device: str = "cpu") -> TrainedModel:
    """A finished run (or one with a checkpoint) as a predictor; its data are not needed.

    Raises:
        UserError: there is no such run or device, or the run has no whole checkpoint.
    """
    folder = RunFolder.open(Path(path))
    try:
        target = devices.resolve(device)
    except UserError as error:
        raise UserError("--device", error.what, error.todo) from None
    recipe = _recipe(folder)
    if "model" not in folder.record:
        raise UserError(
            str(folder.path), "was made by an earlier mtl that did not record its inputs", "train it again"
        )
    _require_whole(folder)
    header, learned = from_record(folder.record["model"])
    _require_tasks(folder, recipe, learned)
    built = build(recipe, header, learned)
    state.load_weights(built.model, selected_files(folder))
    return TrainedModel(recipe, built.to(target), header, learned, folder)


def _require_whole(folder: RunFolder) -> None:
    """The record says of the model what the run wrote; older runs have no digest of it.

    Raises:
        UserError: it does not.
    """
    record = folder.record
    if record.get("model_sha256", "") not in ("", digest_of_model(record)):
        raise UserError(str(folder.path / RECORD), "model is not as the run wrote it", PUT_BACK)


def _require_tasks(folder: RunFolder, recipe: Recipe, learned: Learned) -> None:
    """What was learned is of the recipe's tasks.

    Raises:
        UserError: the record is not that of this recipe.
    """
    for name, of in (("outputs", learned.outputs), ("constants", learned.constants)):
        for task in recipe.tasks.keys() ^ of.keys():
            what = f"model.{name} {'lacks' if task in recipe.tasks else 'has unknown'} {quoted(task)}"
            raise UserError(str(folder.path / RECORD), what, PUT_BACK)


def _recipe(folder: RunFolder) -> Recipe:
    """The run's recipe; if it names parts of plug-ins that are not loaded, the message says which to add."""
    try:
        return load_recipe(recipe_of(folder))
    except UserError as error:
        plugins = " ".join(f"--plugin {name}" for name in folder.record.get("plugins", []))
        if plugins:
            todo = f"the run began with plug-ins; add {plugins}"
            raise_all([UserError(e.place, e.what, todo, path=e.path) for e in error.errors])
        raise


def selected_files(folder: RunFolder) -> Mapping[str, Path]:
    """The checkpoint that the run selected; of a run that is not finished, the best one so far by validation.

    Where validation chose none, or the best one is not whole, it is the newest. Stderr says which it is.

    Raises:
        UserError: there is no whole checkpoint, or the one selected is damaged.
    """
    run_id, selected = folder.record["id"], folder.record.get("selected", {}).get("step")
    if selected is None:
        step, files, _ = checkpoint.newest(folder.checkpoints, run_id)
        best = state.best_step(files)
        if best is not None and best != step:
            with suppress(checkpoint.Damaged):
                files = checkpoint.verified(_at(folder, best), run_id)
                step = best
        complain(f"warning: {folder.path} is not finished: weights of step {step} are used")
        return files
    try:
        return checkpoint.verified(_at(folder, selected), run_id)
    except checkpoint.Damaged as reason:
        raise UserError(str(folder.path), f"step-{selected:08d} is damaged ({reason})") from None


def _at(folder: RunFolder, step: int) -> Path:
    return folder.checkpoints / f"step-{step:08d}"
