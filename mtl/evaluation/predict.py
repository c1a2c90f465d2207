"""A trained run as a predictor: raw rows in, classes, values and probabilities out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mtl.build import Built, build
from mtl.data.columns import Array, Header
from mtl.data.learned import Learned, from_record
from mtl.errors import UserError, did_you_mean, quoted
from mtl.evaluation.evaluate import evaluation_mode
from mtl.recipe.load import load_recipe
from mtl.recipe.schema import Recipe
from mtl.recipe.spec import SourceSpec
from mtl.training import checkpoint, devices, state
from mtl.training.runs import RunFolder, recipe_of

if TYPE_CHECKING:
    import pyarrow as pa

    from mtl.data.table import TableFile

BATCH = 4096
"""Rows per forward pass."""

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

    def predict(self, data: Any) -> Predictions:
        """Predictions for all rows at once.

        Args:
            data: an array of raw inputs (n, ...); a path of a CSV, Parquet or npz file; a pyarrow Table; a
                mapping of column -> sequence; or anything with `to_dict(orient="list")`, such as a DataFrame.

        Returns:
            Column -> n values: `<task>` is the class or the value in the label's unit, `<task>_p` the
            probability of yes, `<task>_p_<class>` that of each class or label.

        Raises:
            UserError: a column is missing, or a value is not what its column should hold.
        """
        parts = list(self.batches(data))
        names = parts[0][1] if parts else {}
        joined: Predictions = {}
        for name, first in names.items():
            pieces = [part[name] for _, part in parts]
            joined[name] = (
                [x for piece in pieces for x in piece] if isinstance(first, list) else np.concatenate(pieces)
            )
        return joined

    def batches(self, data: Any, keep: Sequence[str] = ()) -> Iterator[tuple[dict[str, Any], Predictions]]:
        """Predictions batch by batch, with the columns of the input that are carried through."""
        for kept, inputs in _input_batches(self, data, keep):
            yield kept, self._predict(inputs)

    @torch.inference_mode()
    def _predict(self, inputs: Array) -> Predictions:
        device = next(self.built.model.parameters()).device
        with evaluation_mode(self.built.model):
            logits = self.built.model.forward_groups(torch.from_numpy(inputs).to(device))
        columns: Predictions = {}
        for task in self.recipe.tasks:
            group = next(group for group in self.built.groups if task in group.tasks)
            t = group.tasks.index(task)
            spec = self.recipe.tasks[task]
            found = spec.decode(logits[group.name][:, t].float(), group.outputs[t], group.constants_of(t))
            for suffix, values in found.items():
                if task + suffix in columns:
                    raise UserError(
                        "", f"two predictions would be called {quoted(task + suffix)}", "rename a task"
                    )
                columns[task + suffix] = values
        return columns

    def evaluate(
        self, split: str = "test", data: str | os.PathLike[str] | None = None
    ) -> dict[str, float | None]:
        """Metrics on a split of the run's data, or on all rows of another file that has labels.

        Raises:
            UserError: there is no such split, or the file is not like the run's.
        """
        from mtl.evaluation.rescore import rescore

        return rescore(self, split, data)


def load(path: str | os.PathLike[str], device: str = "cpu") -> TrainedModel:
    """A finished run (or one with a checkpoint) as a predictor; its data are not needed.

    Raises:
        UserError: there is no such run, or it has no whole checkpoint.
    """
    folder = RunFolder.open(Path(path))
    recipe = load_recipe(recipe_of(folder))
    if "model" not in folder.record:
        raise UserError(
            str(folder.path), "was made by an earlier mtl that did not record its inputs", "train it again"
        )
    header, learned = from_record(folder.record["model"])
    built = build(recipe, header, learned)
    state.load_weights(built.model, selected_files(folder))
    target = devices.resolve(device)
    return TrainedModel(recipe, built.to(target), header, learned, folder)


def selected_files(folder: RunFolder) -> Mapping[str, bytes]:
    """The checkpoint that the run selected, or its newest."""
    selected = folder.record.get("selected", {}).get("step")
    if selected is None:
        _, files, _ = checkpoint.newest(folder.checkpoints)
        return files
    try:
        return checkpoint.read(folder.checkpoints / f"step-{selected:08d}")
    except checkpoint.Damaged as reason:
        raise UserError(str(folder.path), f"step-{selected:08d} is damaged ({reason})") from None


def _input_batches(
    model: TrainedModel, data: Any, keep: Sequence[str]
) -> Iterator[tuple[dict[str, Any], Array]]:
    """Raw input rows and the columns to carry through, in batches."""
    if isinstance(data, np.ndarray):
        yield from _from_array(model, data, {})
        return
    if isinstance(data, str | os.PathLike):
        path = Path(data)
        if path.suffix in (".npz", ".npy"):
            yield from _from_npz(model, path, keep)
        else:
            yield from _from_table(model, _file_of(model, path), keep)
        return
    yield from _from_table(model, _in_memory(data), keep)


def _in_memory(data: Any) -> TableFile:
    """A table that is in memory already, behind the interface of a file."""
    import pyarrow as pa

    from mtl.data.memory_table import MemoryTable

    if not isinstance(data, pa.Table):
        if not isinstance(data, Mapping):
            to_dict = getattr(data, "to_dict", None)
            if to_dict is None:
                raise UserError(
                    "", f"cannot predict for {quoted(type(data).__name__)}: give an array, a table or a path"
                )
            data = to_dict(orient="list")
        data = pa.table(
            {str(name): pa.array(list(values), from_pandas=True) for name, values in data.items()}
        )
    return MemoryTable(data)


def _source(model: TrainedModel) -> SourceSpec:
    return next(iter(model.recipe.data.by_name.values()))


def _file_of(model: TrainedModel, path: Path) -> TableFile:
    source = _source(model)
    file = source.table(str(path))
    if file is None:
        raise UserError(
            str(path), f"the run was trained on arrays of shape {tuple(model.header.input_shape)}",
            f"give an .npz file with an array {quoted(source.input_array())}",
        )  # fmt: skip
    file.check()
    return file


def _from_array(
    model: TrainedModel, array: Array, kept: Mapping[str, Any]
) -> Iterator[tuple[dict[str, Any], Array]]:
    shape = tuple(model.header.input_shape)
    if array.shape[1:] != shape or (model.learned.layout is not None and model.learned.layout.categorical):
        wanted = f"(n, {', '.join(map(str, shape))})"
        raise UserError("inputs", f"shape {array.shape}, the run takes {wanted}" if array.shape[1:] != shape else
                        "the run reads categories by name: give a table")  # fmt: skip
    for start in range(0, len(array), BATCH):
        part = array[start : start + BATCH]
        part = part.astype(np.float32) if part.dtype == np.float64 else part
        yield (
            {name: values[start : start + BATCH] for name, values in kept.items()},
            np.ascontiguousarray(part),
        )


def _from_npz(model: TrainedModel, path: Path, keep: Sequence[str]) -> Iterator[tuple[dict[str, Any], Array]]:
    from mtl.data.npz import arrays

    inputs = _source(model).input_array()
    found = arrays(path, list(dict.fromkeys([inputs, *keep])))
    yield from _from_array(model, found[inputs], {name: found[name] for name in keep})


def _from_table(
    model: TrainedModel, file: TableFile, keep: Sequence[str]
) -> Iterator[tuple[dict[str, Any], Array]]:
    from mtl.data.table_inputs import Known, input_block

    for name in keep:
        if name not in file.column_names:
            raise UserError(
                file.name,
                f"no column {quoted(name)}{did_you_mean(name, file.column_names)}",
                "--keep names columns of the input",
            )
    layout, image = model.learned.layout, _source(model).image_column()
    if layout is None and image is None:
        raise UserError(
            file.name,
            f"the run was trained on arrays of shape {tuple(model.header.input_shape)}",
            "give an array",
        )
    columns = [*layout.numeric, *layout.vectors, *layout.categorical] if layout is not None else []
    columns += [image[0]] if image is not None else []
    coders = {name: Known(values) for name, values in layout.values.items()} if layout is not None else {}
    for first, whole in file.batches(list(dict.fromkeys([*columns, *keep]))):
        for at in range(0, whole.num_rows, BATCH):
            batch, begin = whole.slice(at, BATCH), first + at
            if layout is not None:
                numbers = np.empty((batch.num_rows, layout.width), np.float32)
                input_block(file, batch, begin, layout, coders, numbers)
                _refuse_missing(file, begin, model.learned, numbers)
                rows: Array = numbers
            else:
                rows = _images(model, file, begin, batch)
            yield {name: batch.column(name) for name in keep}, rows


def _refuse_missing(file: TableFile, first: int, learned: Learned, rows: Array) -> None:
    layout = learned.layout
    assert layout is not None
    if layout.missing == "error" and np.isnan(rows[:, : layout.n_numeric]).any():
        row, i = np.argwhere(np.isnan(rows[:, : layout.n_numeric]))[0]
        raise UserError(
            f"{file.row(first + int(row))}, column {quoted(layout.numeric_name(int(i)))}",
            "the value is missing",
            "the run was trained with inputs.missing: error",
        )


def _images(model: TrainedModel, file: TableFile, first: int, batch: pa.RecordBatch) -> Array:
    from mtl.data.images import read_images
    from mtl.data.table import texts

    image = _source(model).image_column()
    assert image is not None
    column, size, mode = image
    paths = texts(file, column, first, batch.column(column)).to_pylist()
    size = size or (model.header.input_shape[1], model.header.input_shape[2])
    return read_images(
        paths, root=file.path.parent, size=size, mode=mode, place=lambda row: file.row(first + row)
    )
