"""A table's files -> Columns: labels typed as tasks ask for them, inputs as one matrix."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from mtl.data.columns import Array, Columns, Header, How, Layout, Mask, Rows, Wanted
from mtl.data.labels import narrow
from mtl.data.table import (
    Codes,
    TableFile,
    inexact,
    lists_of_text,
    numbers,
    release_memory,
    texts,
    times,
    vectors,
)
from mtl.data.table_inputs import input_block
from mtl.errors import UserError, did_you_mean, quoted

if TYPE_CHECKING:
    import pyarrow as pa

Image = tuple[str, tuple[int, int] | None, Literal["grey", "rgb"]]
"""A column of image paths, height and width if they are resized, and the mode."""

MAX_VALUES = 100_000
"""Distinct values of a category or class."""


@dataclass
class Column:
    """One label or further column while it is read.

    Args:
        how: how its values are taken.
        n_rows: rows of all files.
        values: (n_rows,) numbers or codes; made at once, for chunks of many columns would leave holes in memory.
        lists: rows of labels, of a column that lists them.
        codes: what the codes stand for.
    """

    name: str
    how: How
    separator: str
    n_rows: int
    values: npt.NDArray[Any] | None = None
    lists: list[list[str] | None] = field(default_factory=list)
    codes: Codes | None = None

    def add(self, file: TableFile, first: int, at: int, array: pa.Array) -> None:
        """Take in one batch: the rows from `first` on of a file, which are those from `at` on of all files."""
        if self.how == "numbers":
            self._put(at, numbers(file, self.name, first, array))
        elif self.how == "times":
            self._put(at, times(file, self.name, first, array))
        elif self.how == "lists" and _lists(array, self.separator):
            self.lists.extend(lists_of_text(file, self.name, first, array, self.separator))
        else:
            self.codes = self.codes or Codes(MAX_VALUES if self.how == "classes" else 1 << 31)
            self._put(at, self.codes.add(texts(file, self.name, first, array)))

    def _put(self, at: int, part: npt.NDArray[Any]) -> None:
        if self.values is None:
            self.values = np.empty(self.n_rows, part.dtype)
        self.values[at : at + len(part)] = part


def _lists(array: pa.Array, separator: str) -> bool:
    """Whether a column of a multilabel task lists labels, rather than being 0 or 1."""
    import pyarrow as pa

    return not (
        pa.types.is_integer(array.type) or pa.types.is_boolean(array.type) or pa.types.is_floating(array.type)
    )


@dataclass(frozen=True)
class TableForm:
    """What a table source says of its files.

    Args:
        files: split -> its file; the rows of the first are for training and whatever is taken from them.
        layout: of the input row; None for images.
        image: the column of image paths, for images.
        root: the folder that image paths are relative to.
        separator: between the labels of a column that lists several.
        settings: everything else that the rows depend on, for the fingerprint.
    """

    files: Mapping[str, TableFile]
    layout: Layout | None
    image: Image | None
    root: Path
    separator: str
    settings: str


def read_table(form: TableForm, wanted: Wanted) -> Columns:
    """Read all rows of a table source.

    Raises:
        UserError: a file is not what it should be, or a column or value is missing or wrong.
    """
    files, _layout = form.files, form.layout
    first = next(iter(files.values()))
    for file in files.values():
        file.check()
        _require(file, first)
    columns = [
        *wanted.labels.items(),
        *((n, how) for n, how in wanted.extra.items() if n not in wanted.labels),
    ]
    for name, _ in columns:
        _known(first, name)
    starts, total = {}, 0
    for split, file in files.items():
        starts[split] = total
        total += file.n_rows
    reading = _Reading(form, [Column(n, how, form.separator, total) for n, how in columns], total)
    for split, file in files.items():
        reading.read(file, starts[split])
    release_memory()
    return reading.finish(wanted, files, starts)


def _require(file: TableFile, like: TableFile) -> None:
    if file.n_rows == 0:
        raise UserError(file.name, "no rows")
    missing = [name for name in like.column_names if name not in file.column_names]
    if missing:
        raise UserError(file.name, f"no column {quoted(missing[0])}, which {like.name} has")


def _known(file: TableFile, name: str) -> None:
    if name not in file.column_names:
        shown = ", ".join(file.column_names[:20])
        raise UserError(
            "",
            f"{file.name}: no column {quoted(name)}{did_you_mean(name, file.column_names)}; columns: {shown}",
        )


class _Reading:
    """All files of a source, read one after the other into one set of columns."""

    def __init__(self, form: TableForm, columns: Sequence[Column], n_rows: int) -> None:
        self.form, self.layout, self.columns = form, form.layout, columns
        layout = form.layout
        self.notices: list[str] = []
        self.warned: set[str] = set()
        self.paths: list[str | None] = []
        width = layout.width if layout is not None else 0
        self.inputs = np.empty((n_rows, width), np.float32)
        self.coders = {name: Codes(MAX_VALUES) for name in (layout.categorical if layout is not None else ())}

    def read(self, file: TableFile, start: int) -> None:
        image = self.form.image
        names = [column.name for column in self.columns]
        inputs = [*self.layout.numeric, *self.layout.vectors, *self.layout.categorical] if self.layout else []
        inputs += [image[0]] if image is not None else []
        for first, batch in file.batches(list(dict.fromkeys([*inputs, *names]))):
            rows = slice(start + first, start + first + batch.num_rows)
            if self.layout is not None:
                input_block(file, batch, first, self.layout, self.coders, self.inputs[rows])
                self._note_inexact(file, first, batch)
            elif image is not None:
                self.paths.extend(texts(file, image[0], first, batch.column(image[0])).to_pylist())
            for column in self.columns:
                column.add(file, first, start + first, batch.column(column.name))

    def _note_inexact(self, file: TableFile, first: int, batch: pa.RecordBatch) -> None:
        """One warning for each column that holds whole numbers too large for float32."""
        assert self.layout is not None
        for name in self.layout.numeric:
            array = batch.column(name)
            if name in self.warned or not _may_be_large(self.inputs, self.layout.numeric.index(name), array):
                continue
            row = inexact(numbers(file, name, first, array))
            if row is not None:
                self.warned.add(name)
                self.notices.append(
                    f"{file.row(first + row)}, column {quoted(name)}: float32 cannot hold this whole number exactly; "
                    "is it an id rather than a quantity?"
                )

    def finish(self, wanted: Wanted, files: Mapping[str, TableFile], starts: Mapping[str, int]) -> Columns:
        place = _places(files, starts)
        labels: dict[str, Array] = {}
        present: dict[str, Mask] = {}
        extra: dict[str, Array] = {}
        names: dict[str, tuple[str, ...] | None] = {}
        extra_names: dict[str, tuple[str, ...]] = {}
        for column in self.columns:
            values, there, called = _finished(column)
            if column.name in wanted.labels:
                labels[column.name], names[column.name] = values, called
                if not there.all():
                    present[column.name] = there
            if column.name in wanted.extra:
                extra[column.name] = values
                if called is not None and wanted.extra[column.name] == "codes":
                    extra_names[column.name] = called
            column.values = None
            column.lists.clear()
        inputs, layout = self._inputs(place)
        every = dict.fromkeys(next(iter(files.values())).column_names)
        header = Header(
            input_shape=inputs.shape[1:],
            labels={**every, **names},
            text=frozenset(name for name, called in names.items() if called is not None),
            layout=layout,
            columns=tuple(every),
        )
        splits: dict[str, Rows] = {}
        if len(files) > 1:
            ends = {split: starts[split] + file.n_rows for split, file in files.items()}
            splits = {split: np.arange(starts[split], ends[split]) for split in files}
        return Columns(
            inputs=inputs,
            labels=labels,
            splits=splits,
            fingerprint=_fingerprint(self.form, wanted),
            present=present,
            header=header,
            extra=extra,
            extra_names=extra_names,
            place=place,
            notices=tuple(self.notices),
        )

    def _inputs(self, place: Callable[[int], str]) -> tuple[Array, Layout | None]:
        if self.form.image is not None:
            from mtl.data.images import read_images

            _, size, mode = self.form.image
            return read_images(self.paths, root=self.form.root, size=size, mode=mode, place=place), None
        assert self.layout is not None
        values = {}
        for i, (name, coder) in enumerate(self.coders.items()):
            ordered, remap = coder.finish()
            values[name] = ordered
            column = self.inputs[:, self.layout.n_numeric + i]
            lookup = np.concatenate([[0], np.asarray(remap, np.float32) + 1]).astype(np.float32)
            column[:] = lookup[column.astype(np.int64)]
        return self.inputs, replace(self.layout, values=values)


def _may_be_large(inputs: Any, position: int, array: pa.Array) -> bool:
    import pyarrow as pa

    if pa.types.is_floating(array.type) or (pa.types.is_integer(array.type) and array.type.bit_width <= 16):
        return False
    with np.errstate(invalid="ignore"):
        return bool(np.nanmax(np.abs(inputs[:, position]), initial=0) >= 2**24) if len(inputs) else False


def _finished(column: Column) -> tuple[Array, Mask, tuple[str, ...] | None]:
    """Values, which of them are there, and what codes are called (None for numbers)."""
    if column.how in ("numbers", "times"):
        assert column.values is not None
        return narrow(column.values), ~np.isnan(column.values), None
    if column.codes is None:
        return _listed(column)
    names, remap = column.codes.finish()
    codes = column.values
    assert codes is not None
    there = codes >= 0
    # the remap has a place for -1 at its end
    number = np.append(np.asarray(remap, np.int64), -1)
    if column.how == "classes" and names and all(_whole(name) for name in names):
        value = np.array([int(name) for name in names] + [0], dtype=np.int64)
        return narrow(value[number])[codes], there, None
    return narrow(number)[codes], there, names


def _whole(name: str) -> bool:
    return name.removeprefix("-").isdecimal() and len(name) < 18 and str(int(name)) == name


def _listed(column: Column) -> tuple[Array, Mask, tuple[str, ...]]:
    """A column that lists labels: (n, L) of 0 and 1, L distinct labels in order."""
    rows = column.lists
    names = sorted({name for row in rows if row is not None for name in row})
    position = {name: i for i, name in enumerate(names)}
    if len(names) > 10_000:
        raise UserError("", f"column {quoted(column.name)} lists {len(names)} distinct labels, at most 10000")
    values = np.zeros((len(rows), len(names)), np.int8)
    for i, row in enumerate(rows):
        if row:
            values[i, [position[name] for name in row]] = 1
    return values, np.array([row is not None for row in rows], dtype=bool), tuple(names)


def _places(files: Mapping[str, TableFile], starts: Mapping[str, int]) -> Callable[[int], str]:
    ordered = sorted(((start, files[split]) for split, start in starts.items()), key=lambda pair: pair[0])

    def place(row: int) -> str:
        start, file = [(s, f) for s, f in ordered if s <= row][-1]
        return file.row(row - start)

    return place


def _fingerprint(form: TableForm, wanted: Wanted) -> str:
    """sha256 over the files' bytes and over which columns are read and how."""
    digest = hashlib.sha256()
    for split, file in form.files.items():
        digest.update(f"{split}={file.sha256()};".encode())
    digest.update(form.settings.encode())
    digest.update(repr((sorted(wanted.labels.items()), sorted(wanted.extra.items()))).encode())
    return digest.hexdigest()


def vector_width(file: TableFile, name: str) -> int:
    """Numbers in the first row of a column of vectors."""
    for first, batch in file.batches([name]):
        if batch.num_rows:
            return int(vectors(file, name, first, batch.column(name).slice(0, 1), None).shape[1])
    raise UserError(file.name, "no rows")


def image_header(file: TableFile, image: Image, root: Path) -> tuple[int, ...]:
    """Shape of the images, from the first of them."""
    from mtl.data.images import image_shape

    column, size, mode = image
    _known(file, column)
    for first, batch in file.batches([column]):
        path = texts(file, column, first, batch.column(column))[0].as_py()
        return image_shape(path, root, size, mode, file.row)
    raise UserError(file.name, "no rows")
