"""Metrics of a trained model again: on a split of its own data, or on another file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mtl.build import header_of
from mtl.data.columns import Wanted
from mtl.data.join import join
from mtl.errors import UserError, did_you_mean, quoted
from mtl.evaluation.evaluate import evaluate
from mtl.training import devices
from mtl.training.dataset import Dataset, assembled, load_dataset, wanted_of

if TYPE_CHECKING:
    from mtl.evaluation.predict import TrainedModel


def rescore(model: TrainedModel, split: str, data: str | os.PathLike[str] | None) -> dict[str, float | None]:
    """Metrics of `split` of the run's data, or of all rows of `data`."""
    recipe = model.recipe
    with devices.settings(recipe.train.deterministic, model.folder.record["threads"]):
        if data is not None:
            dataset, split = other_data(model, Path(data)), "test"
        else:
            dataset = load_dataset(recipe, header_of(recipe))
            if split not in dataset.splits:
                known = ", ".join(dataset.splits)
                raise UserError(
                    str(model.folder.path),
                    f"no split {quoted(split)}{did_you_mean(split, dataset.splits)}",
                    known,
                )
        device = next(model.built.model.parameters()).device
        dataset = dataset.to(device)
        return evaluate(
            model.built.model, model.built.groups, recipe.tasks, dataset, dataset.splits[split], split
        )


def other_data(model: TrainedModel, path: Path) -> Dataset:
    """All rows of another file as one split, encoded as the run's own rows were.

    Raises:
        UserError: the run's source is no table, or the file lacks columns or labels.
    """
    own = next(iter(model.recipe.data.by_name.values())).elsewhere(str(path))
    if own is None:
        raise UserError(str(path), "only runs on a file can be evaluated on another one", "use --split")
    wanted = wanted_of(model.recipe)
    labels = Wanted(wanted.labels, {c: how for c, how in wanted.extra.items() if how == "numbers"})
    joined = join({"": own.read(model.recipe.seeds.labels, labels)})
    if joined.layout is not None:
        joined = replace(joined, inputs=_recoded(joined.inputs, joined.layout, model))
    everything = {"test": np.arange(joined.n_rows)}
    return assembled(model.recipe, joined, model.header, everything, model.learned)


def _recoded(inputs: np.ndarray, layout: object, model: TrainedModel) -> np.ndarray:
    """The file's own codes of categories as those that the run learned; 0 for values it does not know."""
    from mtl.data.columns import Layout

    known = model.learned.layout
    assert isinstance(layout, Layout) and known is not None
    for i, name in enumerate(layout.categorical):
        position = {value: code for code, value in enumerate(known.values[name], start=1)}
        lookup = np.array([0, *(position.get(value, 0) for value in layout.values[name])], dtype=np.float32)
        column = inputs[:, layout.n_numeric + i]
        column[:] = lookup[column.astype(np.int64)]
    return inputs
