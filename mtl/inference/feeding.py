"""Feeds a trained model: arrays, tables and files become raw input rows, a batch at a time."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from mtl.data.columns.unseen import Unseen, trackers
from mtl.data.files.remote.fetch import local
from mtl.data.files.table import Table, TableFile
from mtl.data.learned import Learned
from mtl.data.types import Array, Header, Layout
from mtl.errors import UserError, did_you_mean, quoted, without_paths
from mtl.inference.keep import kept_columns
from mtl.recipe.specs import SourceSpec

if TYPE_CHECKING:
    import pyarrow as pa

Float32 = npt.NDArray[np.float32]
Image = tuple[str, tuple[int, int] | None, Literal["grey", "rgb"]]
Batch = tuple[dict[str, Any], Float32]
"""Columns to keep in the output, and raw input rows."""

ROWS = 4096
"""Most rows of a forward pass."""
NUMBERS, PIXELS = 1 << 22, 1 << 20
"""Most input numbers of a forward pass: of plain rows, and of images, which have larger activations."""


@dataclass(frozen=True)
class Feed:
    """Turns data into the raw rows that a model takes.

    Args:
        source: the source of the run's own data; new data have its form.
        header: the header of the run's data, with the shape of one row.
        learned: the columns of a table and the values of its categories.
    """

    source: SourceSpec
    header: Header
    learned: Learned

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one row."""
        return tuple(self.header.input_shape)

    @property
    def rows(self) -> int:
        """The number of rows in one batch."""
        most = NUMBERS if len(self.shape) == 1 else PIXELS
        return max(1, min(ROWS, most // max(1, math.prod(self.shape))))

    def unseen(self) -> dict[str, Unseen]:
        """A count for each categorical column of the values that were not seen in training."""
        layout = self.learned.layout
        return {} if layout is None else trackers(layout.values)

    def batches(
        self, data: Any, keep: Sequence[str] = (), unseen: Mapping[str, Unseen] | None = None
    ) -> Iterator[Batch]:
        """Raw rows of a path, a table or an array; each batch comes with its values of the `keep` columns.

        Args:
            data: the path, table or array.
            keep: columns of a table; each text is one, or several with commas between them.
            unseen: for each categorical column, the count of values that were not seen in training.

        Raises:
            UserError: a column or array is missing, has another shape, or holds a wrong value.
        """
        if isinstance(data, str | os.PathLike):
            path = local(data)
            if path.suffix == ".npz" and not self._holds_columns(path):
                return self._npz(path, keep)
            return self._table(self._file(path), keep, unseen)
        if hasattr(data, "detach"):  # a torch tensor
            data = data.detach().cpu().numpy()
        return (
            self._array(data)
            if isinstance(data, np.ndarray)
            else self._table(self.source.in_memory(arrow_table(data)), keep, unseen)
        )

    def _file(self, path: Path) -> TableFile:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        with without_paths():
            file = self.source.table(str(path)) or TableFile(path, delimiter=delimiter)
            file.check()
        return file

    def _holds_columns(self, path: Path) -> bool:
        """Whether an .npz file has arrays that are columns of the run's table, rather than one array of inputs."""
        from mtl.data.files.npz import archive

        layout = self.learned.layout
        with without_paths():
            return layout is not None and not archive(path).members.keys().isdisjoint(layout.columns)

    def _array(self, array: Array) -> Iterator[Batch]:
        self._check_shape(array.shape)
        for start in range(0, len(array), self.rows):
            yield {}, self._numbers(array[start : start + self.rows], start)

    def _npz(self, path: Path, keep: Sequence[str]) -> Iterator[Batch]:
        from mtl.data.files.npz import archive
        from mtl.data.files.npz_stream import stream

        name, start = self.source.input_array(), 0
        with without_paths():
            file = archive(path)
            known = file.headers
        if name in known:
            self._check_shape(known[name][0], path.name)
        keep = kept_columns(keep, known)
        for arrays in stream(file, list(dict.fromkeys([name, *keep])), self.rows):
            yield {n: arrays[n] for n in keep}, self._numbers(arrays[name], start, path.name)
            start += len(arrays[name])

    def _check_shape(self, shape: tuple[int, ...], place: str = "inputs") -> None:
        layout = self.learned.layout
        if layout is not None and layout.categorical:
            raise UserError(place, "the run reads categories by name", "give a table")
        if len(shape) < 1 or tuple(shape[1:]) != self.shape:
            wanted = f"(n, {', '.join(map(str, self.shape))})"
            raise UserError(place, f"shape {tuple(shape)}, the run takes {wanted}")

    def _numbers(self, part: Array, start: int, place: str = "inputs") -> Float32:
        """float32 rows of an array; other shapes and values than in training are refused."""
        if part.dtype.kind not in "fiub":
            raise UserError(place, f"holds {part.dtype} values, not numbers")
        with np.errstate(over="ignore"):
            rows = np.array(part, dtype=np.float32)  # a copy: torch takes no read-only memory
        layout = self.learned.layout
        may_lack = layout is not None and layout.missing != "error"
        wrong = np.isinf(rows) if may_lack else ~np.isfinite(rows)
        if wrong.any():
            at = tuple(np.argwhere(wrong)[0])
            what = "the value is missing" if np.isnan(rows[at]) else f"{part[at]} is not a finite float32"
            raise UserError(f"{place}:row {start + int(at[0])}", what, "remove the row or fill the value")
        return rows

    def _table(
        self, file: Table, keep: Sequence[str], unseen: Mapping[str, Unseen] | None
    ) -> Iterator[Batch]:
        keep = kept_columns(keep, file.column_names)
        for name in keep:
            if name not in file.column_names:
                near = did_you_mean(name, file.column_names)
                raise UserError(
                    file.name, f"no column {quoted(name)}{near}", "--keep names columns of the input"
                )
        reader = self._reader(file, unseen)
        for first, whole in file.batches(list(dict.fromkeys([*reader.columns, *keep]))):
            for at in range(0, whole.num_rows, self.rows):
                batch = whole.slice(at, self.rows)
                yield {name: batch.column(name) for name in keep}, reader.rows(batch, first + at)

    def _reader(
        self, file: Table, unseen: Mapping[str, Unseen] | None
    ) -> _TableRows | _ImageRows | _VectorRows:
        image, vector = self.source.image_column(), self.source.input_array()
        if self.learned.layout is not None:
            return _TableRows(file, self.learned.layout, self.unseen() if unseen is None else unseen)
        if image is not None:
            return _ImageRows(file, self.shape, image)
        if len(self.shape) > 1 or vector not in file.column_names:
            raise UserError(
                file.name, f"the run was trained on arrays of shape {self.shape}",
                f"give an array, or an .npz file with one called {quoted(vector)}",
            )  # fmt: skip
        return _VectorRows(file, self.shape[0], vector)


class _TableRows:
    """Turns batches of a table into raw rows, with the run's own codes of categories."""

    def __init__(self, file: Table, layout: Layout, unseen: Mapping[str, Unseen]) -> None:
        from mtl.data.columns.inputs import KnownCodes

        self.file, self.layout, self.columns = file, layout, layout.columns
        self.coders = {name: KnownCodes(values, unseen[name]) for name, values in layout.values.items()}

    def rows(self, batch: pa.RecordBatch, first: int) -> Float32:
        """(n, layout.width) the raw rows of a batch; its first row is row `first` of the table."""
        from mtl.data.columns.inputs import input_block

        rows = np.empty((batch.num_rows, self.layout.width), np.float32)
        input_block(self.file, batch, first, self.layout, self.coders, rows)
        lacking = np.isnan(rows[:, : self.layout.n_numeric])
        if self.layout.missing == "error" and lacking.any():
            row, i = np.argwhere(lacking)[0]
            raise UserError(
                f"{self.file.row(first + int(row))}, column {quoted(self.layout.numeric_name(int(i)))}",
                "the value is missing",
                "the run was trained with inputs.missing: error",
            )
        return rows


class _ImageRows:
    """Reads the images that a batch of a table names; their paths start from the table's folder."""

    def __init__(self, file: Table, shape: tuple[int, ...], image: Image) -> None:
        self.file, self.shape, self.image = file, shape, image
        self.columns = [image[0]]

    def rows(self, batch: pa.RecordBatch, first: int) -> Float32:
        """(n, C, H, W) the images of a batch; its first row is row `first` of the table."""
        from mtl.data.columns.values import texts
        from mtl.data.files.images import read_images

        column, size, mode = self.image
        images = read_images(
            texts(self.file, column, first, batch.column(column)).to_pylist(),
            root=self.file.folder,
            size=size,
            mode=mode,
            place=lambda row: self.file.row(first + row),
        )
        if images.shape[1:] != self.shape:
            shown = [" x ".join(map(str, shape[1:])) for shape in (images.shape[1:], self.shape)]
            raise UserError(self.file.row(first), f"the image is {shown[0]}, the run takes {shown[1]}")
        return images.astype(np.float32)


class _VectorRows:
    """Reads a column of lists of numbers, for a run that was trained on an array of the same name."""

    def __init__(self, file: Table, width: int, column: str) -> None:
        self.file, self.width, self.columns = file, width, [column]

    def rows(self, batch: pa.RecordBatch, first: int) -> Float32:
        """(n, ...) the numbers of a batch; its first row is row `first` of the table."""
        from mtl.data.columns.values import vectors

        return vectors(self.file, self.columns[0], first, batch.column(self.columns[0]), self.width)


def arrow_table(data: Any) -> pa.Table:
    """The rows of a table in memory.

    Args:
        data: a pyarrow Table; a mapping of column -> sequence; or a data frame, known by
            `__arrow_c_stream__` or by `to_dict(orient="list")`.

    Raises:
        UserError: the data are none of these, or a column has values of several types.
    """
    import pyarrow as pa

    try:
        if isinstance(data, pa.Table):
            return data
        if hasattr(data, "__arrow_c_stream__"):
            return pa.table(data)
        if not isinstance(data, Mapping):
            to_dict = getattr(data, "to_dict", None)
            if to_dict is None:
                kind = quoted(type(data).__name__)
                raise UserError("", f"cannot predict for {kind}: give an array, a table or a path")
            data = to_dict(orient="list")
        return pa.table({str(name): _column(str(name), values) for name, values in data.items()})
    except (pa.ArrowException, TypeError) as error:
        raise UserError("table", f"cannot be read ({str(error).splitlines()[0][:100]})") from None


def _column(name: str, values: Any) -> pa.Array:
    import pyarrow as pa

    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    plain = isinstance(values, np.ndarray) and values.ndim == 1
    try:
        return pa.array(values if plain else list(values), from_pandas=True)
    except (pa.ArrowException, TypeError) as error:
        reason = str(error).splitlines()[0][:100]
        raise UserError(
            f"table, column {quoted(name)}", f"is no sequence of values of one kind ({reason})"
        ) from None
