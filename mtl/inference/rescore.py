"""Evaluates a trained model again: on a split of its own data, or on another file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from mtl.console import counted
from mtl.data.columns.spelling import Known
from mtl.data.columns.unseen import Unseen, notices, trackers
from mtl.data.files.opening import opened_once
from mtl.data.files.parts import found_at
from mtl.data.files.remote.fetch import local
from mtl.data.types import Layout
from mtl.dataset.assemble import Dataset, assembled, load_dataset, wanted_of
from mtl.dataset.copies import hashes, n_among
from mtl.dataset.header import header_of
from mtl.dataset.join import Joined, join
from mtl.dataset.notices import MANY
from mtl.dataset.standardize import check_finite
from mtl.errors import UserError, did_you_mean, quoted, without_paths
from mtl.evaluation.evaluate import evaluate
from mtl.inference.load import Trained
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.text.files import file_paths
from mtl.training import devices


@opened_once()
def rescore(
    model: Trained, split: str, data: str | os.PathLike[str] | None, warn: Callable[[str], None]
) -> dict[str, float | None]:
    """Metrics of `split` of the run's data, or of all rows of the file `data`; `warn` gets what is unusual about it.

    Raises:
        UserError: there is no such split, the run's data have changed, or the file has another form.
    """
    recipe = model.recipe
    with devices.settings(recipe.train.deterministic, model.folder.record.threads):
        if data is not None:
            with without_paths():
                path = local(data)
            dataset, split = other_data(model, path, warn), "test"
            known = _of_training(model, path, dataset)
            if known is not None:
                held_out = f"mtl eval {model.folder.path} measures the rows that were held out"
                warn(f"{data} {known} and the numbers say little of new rows; {held_out}")
        else:
            dataset = own_data(model, split)
        device = next(model.built.model.parameters()).device
        dataset = dataset.to(device)
        return evaluate(model.built.model, recipe.tasks, dataset, dataset.splits[split], split)


def _of_training(model: Trained, path: Path, dataset: Dataset) -> str | None:
    """What a file holds of the rows that the run was trained on, in words; None if nothing, or if nobody can tell.

    Nobody can tell if the data of the run are gone or have changed.
    """
    try:
        own = load_dataset(model.recipe, header_of(model.recipe))
    except (UserError, OSError):
        return None
    if own.fingerprint != model.folder.record.data.sha256:
        return None
    if _is_file_of(model.recipe, path):
        n_train = counted(len(own.splits["train"]), "training row")
        return f"is the file that the run was trained on, so that its {n_train} count too"
    inputs = own.rows.inputs.numpy()
    given = dataset.rows.inputs.numpy().astype(inputs.dtype, copy=False)
    train, n = hashes(inputs, own.splits["train"]), len(given)
    n_known, test = n_among(train, hashes(given, np.arange(n))), own.splits["test"]
    # rows of few values are alike by chance: as many as rows that were held out
    by_chance = n_among(train, hashes(inputs, test)) / len(test)
    if n_known <= max(MANY, 2 * by_chance) * n:
        return None
    which = "has the inputs of a training row" if n_known == 1 else "have the inputs of training rows"
    return f"holds rows that the run was trained on: {n_known:,} of {counted(n, 'row')} {which}, so that they count too"


def _is_file_of(recipe: Recipe, path: Path) -> bool:
    """Whether a file is one that the training rows come from, byte for byte."""
    # a source names the files of validation and test by keys of these names
    own = [found_at(local(file)) for keys, file in file_paths(recipe.data, ()) if keys[-1] == "path"]
    given = found_at(path)
    return any(file.size == given.size and file.sha256 == given.sha256 for file in own)


def own_data(model: Trained, split: str) -> Dataset:
    """The run's own data; changed data are refused, because their rows would be split differently.

    Raises:
        UserError: the data have changed, or have no such split.
    """
    record = model.folder.record.data
    place = str(model.folder.path)
    if split not in record.rows:
        near, known = did_you_mean(split, record.rows), ", ".join(record.rows)
        raise UserError(place, f"no split {quoted(split)}{near}", f"one of {known}")
    dataset = load_dataset(model.recipe, header_of(model.recipe))
    if dataset.fingerprint != record.sha256:
        raise UserError(
            place,
            f"data changed since this run began (sha256 {dataset.fingerprint[:12]}..., "
            f"was {record.sha256[:12]}...)",
            "to evaluate on other rows, give them by --data",
        )
    return dataset


def other_data(model: Trained, path: Path, warn: Callable[[str], None]) -> Dataset:
    """All rows of another file as one split, encoded like the run's own rows.

    If the run has several sources, the file needs the form of the first one and the label columns of all tasks.

    Raises:
        UserError: the run's source reads no file, or this file lacks columns or labels.
    """
    recipe = _without_sources(model.recipe)
    own = next(iter(recipe.data.by_name.values())).elsewhere(str(path), model.learned.layout)
    if own is None:
        raise UserError(str(path), "only runs on a file can be evaluated on another one", "use --split")
    wanted = wanted_of(recipe)
    labels = replace(wanted, extra={c: how for c, how in wanted.extra.items() if how == "numbers"})
    with without_paths():
        joined = join({"": own.read(recipe.seeds.labels, labels)})
    if joined.layout is not None:
        unseen = trackers(model.learned.layout.values) if model.learned.layout is not None else {}
        joined = replace(joined, inputs=_recoded(joined, joined.layout, model, unseen))
        for notice in notices(unseen):
            warn(notice)
    else:
        check_finite(joined.inputs, np.arange(joined.n_rows))
    if joined.inputs.shape[1:] != tuple(model.header.input_shape):
        shape, wants = joined.inputs.shape[1:], tuple(model.header.input_shape)
        raise UserError(str(path), f"gives inputs of shape {shape}, the run takes {wants}")
    everything = {"test": np.arange(joined.n_rows)}
    return assembled(recipe, joined, model.header, everything, model.learned)


def _without_sources(recipe: Recipe) -> Recipe:
    """The recipe, with tasks that name no source; their labels come from any file."""
    tasks = {task: spec.model_copy(update={"source": None}) for task, spec in recipe.tasks.items()}
    return recipe.model_copy(update={"tasks": tasks})


def _recoded(joined: Joined, layout: Layout, model: Trained, unseen: Mapping[str, Unseen]) -> np.ndarray:
    """The inputs with the run's codes of categories instead of the file's; an unknown value becomes 0."""
    known, inputs = model.learned.layout, joined.inputs
    assert known is not None
    lacking = np.isnan(inputs[:, : layout.n_numeric])
    if known.missing == "error" and lacking.any():
        row, i = np.argwhere(lacking)[0]
        raise UserError(
            f"{joined.place(int(row))}, column {quoted(layout.numeric_name(int(i)))}",
            "the value is missing",
            "the run was trained with inputs.missing: error",
        )
    for i, name in enumerate(layout.categorical):
        among, own = Known(known.values[name]), layout.values[name]
        found = [among.find(value) for value in own]
        lookup = np.array([0, *(0 if code is None else code + 1 for code in found)], dtype=np.float32)
        column = inputs[:, layout.n_numeric + i]
        rows = np.bincount(column.astype(np.int64), minlength=len(lookup))[1:]
        unseen[name].count(own, rows, lookup[1:] == 0)
        column[:] = lookup[column.astype(np.int64)]
    return inputs
