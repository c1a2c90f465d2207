"""Reads the files of a table into Columns: tasks decide the types of labels, and inputs become one matrix."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from mtl.console import counted
from mtl.data import room
from mtl.data.columns.column import MAX_VALUES, Column, finished
from mtl.data.columns.inputs import input_block
from mtl.data.columns.numbers import inexact_row
from mtl.data.columns.values import Codes, texts, vectors
from mtl.data.files.table import TableFile, release_memory
from mtl.data.learned import Float32
from mtl.data.memory import BYTES_PER_ROW
from mtl.data.types import Array, Columns, Header, Layout, Mask, Rows, Wanted
from mtl.errors import UserError, quoted

if TYPE_CHECKING:
    import pyarrow as pa

Image = tuple[str, tuple[int, int] | None, Literal["grey", "rgb"]]
"""The column of image paths; (height, width) if images are resized, else None; and the mode."""


@dataclass(frozen=True)
class TableForm:
    """The settings by which a table source reads its files.

    Args:
        files: split -> its file. The first file has the training rows, and other splits may be taken from them.
        layout: the layout of the input row; None for images.
        image: the column of image paths; None for other inputs.
        root: the folder from which image paths start.
        separator: the text between the labels of a column that lists several.
        settings: all other settings that the rows depend on, for the fingerprint.
    """

    files: Mapping[str, TableFile]
    layout: Layout | None
    image: Image | None
    root: Path
    separator: str
    settings: str


def _weighs(column: str, wanted: Wanted) -> bool:
    """Whether a column holds weights of rows alone: of the further columns, only these are read as numbers."""
    return wanted.extra.get(column) == "numbers" and column not in wanted.labels


def read_table(form: TableForm, wanted: Wanted) -> Columns:
    """Read all rows of a table source.

    Raises:
        UserError: a file cannot be read as its form says, or a column or value is missing or wrong.
    """
    files = form.files
    first = next(iter(files.values()))
    for file in files.values():
        file.check()
        _require(file, first)
    _require_different(files)
    columns = list(dict.fromkeys([*wanted.labels.items(), *wanted.extra.items()]))
    first.require([name for name, _ in columns])
    starts, total = {}, 0
    for split, file in files.items():
        starts[split] = total
        total += file.n_rows
    read_as = [
        Column(name, how, form.separator, wanted.empty.get(name), total, _weighs(name, wanted))
        for name, how in columns
    ]
    reading = _Reading(form, read_as, total)
    for split, file in files.items():
        reading.read(file, starts[split])
    release_memory()
    return reading.finish(wanted, files, starts)


def _require(file: TableFile, like: TableFile) -> None:
    missing = [name for name in like.column_names if name not in file.column_names]
    if missing:
        raise UserError(file.name, f"no column {quoted(missing[0])}, which {like.name} has")


def _require_different(files: Mapping[str, TableFile]) -> None:
    """Refuse the same file for two splits, because evaluation would then measure the training rows again.

    Raises:
        UserError: two splits have one file, or equal copies of it; of a data set each file counts.
    """
    seen: dict[str, str] = {}
    for split, file in files.items():
        for name, digest in file.digests().items():
            other = seen.setdefault(digest, split)
            if other != split:
                which = "the same file as that" if len(files[other].digests()) == 1 else "one of the files"
                what = f"is {which} of {other}, byte for byte"
                raise UserError(name, what, "give other rows, or leave it out", path=(split,))


BYTES_PER_VALUE = {"numbers": 16, "times": 16}
"""How a column is read -> what one of its values takes while it is encoded; others are codes and take 4."""


LARGER_IMAGES = "set data.in_memory: false, or lower inputs.image.size"


class _Reading:
    """Reads the files of a source, one after the other, into one set of columns."""

    def __init__(self, form: TableForm, columns: Sequence[Column], n_rows: int) -> None:
        self.form, self.layout, self.columns = form, form.layout, columns
        layout = form.layout
        self.notices: list[str] = []
        self.warned: set[str] = set()
        self.paths: list[str | None] = []
        width = layout.width if layout is not None else 0
        name = next(iter(form.files.values())).name
        taken = 4 * width + sum(BYTES_PER_VALUE.get(column.how, 4) for column in columns) + BYTES_PER_ROW
        others = f" and {counted(len(columns), 'other column')}" if columns else ""
        what = f"{counted(n_rows, 'row')} of {counted(width, 'input')}{others}"
        room.require(n_rows * taken, name, what, "set data.in_memory: false, or read fewer rows")
        self.inputs: Float32 = room.zeros((n_rows, width), np.float32)
        categorical = layout.categorical if layout is not None else ()
        self.coders = {name: Codes(name, MAX_VALUES) for name in categorical}

    def read(self, file: TableFile, start: int) -> None:
        """Read one file; its first row is row `start` of all files."""
        image = self.form.image
        names = [column.name for column in self.columns]
        lists = [column.name for column in self.columns if column.how == "lists"]
        inputs = self.layout.columns if self.layout is not None else []
        inputs += [image[0]] if image is not None else []
        for first, batch in file.batches(list(dict.fromkeys([*inputs, *names])), empty=lists):
            rows = slice(start + first, start + first + batch.num_rows)
            if self.layout is not None:
                input_block(file, batch, first, self.layout, self.coders, self.inputs[rows])
                self._note_inexact(file, first, batch, self.inputs[rows])
            elif image is not None:
                self.paths.extend(texts(file, image[0], first, batch.column(image[0])).to_pylist())
            for column in self.columns:
                array = batch.column(column.name)
                if column.name in lists and column.how != "lists":
                    array = file.without_empty(column.name, array)
                column.add(file, first, start + first, array)

    def _note_inexact(self, file: TableFile, first: int, batch: pa.RecordBatch, out: Float32) -> None:
        """Warn once of each column that holds whole numbers too large for float32."""
        assert self.layout is not None
        for i, name in enumerate(self.layout.numeric):
            if name in self.warned or not (np.abs(out[:, i]) >= 2**24).any():
                continue
            row = inexact_row(file, name, first, batch.column(name))
            if row is not None:
                self.warned.add(name)
                self.notices.append(
                    f"{file.where(name, first + row)}: float32 cannot hold this whole number exactly; "
                    "is it an id rather than a quantity?"
                )

    def finish(self, wanted: Wanted, files: Mapping[str, TableFile], starts: Mapping[str, int]) -> Columns:
        """The columns of all files that were read."""
        place = _places(files, starts)
        labels: dict[str, Array] = {}
        present: dict[str, Mask] = {}
        extra: dict[str, Array] = {}
        names: dict[str, tuple[str, ...] | None] = {}
        extra_names: dict[str, tuple[str, ...]] = {}
        for column in self.columns:
            values, there, called = finished(column)
            if wanted.labels.get(column.name) == column.how:
                labels[column.name], names[column.name] = room.kept(values), called
                if not there.all():
                    present[column.name] = room.kept(there)
            if wanted.extra.get(column.name) == column.how:
                extra[column.name] = room.kept(values)
                if called is not None:
                    extra_names[column.name] = called
            column.values = None  # frees memory for the next column
            column.listed.clear()
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
            fingerprint=_fingerprint(self.form, wanted, inputs if self.form.image is not None else None),
            present=present,
            header=header,
            extra=extra,
            extra_names=extra_names,
            place=place,
            notices=tuple(self.notices),
        )

    def _inputs(self, place: Callable[[int], str]) -> tuple[Array, Layout | None]:
        if self.form.image is not None:
            from mtl.data.files.images import read_images

            _, size, mode = self.form.image
            root, file = self.form.root, next(iter(self.form.files.values()))
            first = _first_image(file, self.form.image, root) if size is None else None
            return read_images(
                self.paths, root=root, size=size, mode=mode, place=place, first=first, todo=LARGER_IMAGES
            ), None
        assert self.layout is not None
        values = {}
        for i, (name, coder) in enumerate(self.coders.items()):
            ordered, remap = coder.finish()
            values[name] = ordered
            column = self.inputs[:, self.layout.n_numeric + i]
            lookup = np.concatenate([[0], np.asarray(remap, np.float32) + 1]).astype(np.float32)
            column[:] = lookup[column.astype(np.int64)]
        return self.inputs, replace(self.layout, values=values)


def _places(files: Mapping[str, TableFile], starts: Mapping[str, int]) -> Callable[[int], str]:
    ordered = sorted(((start, files[split]) for split, start in starts.items()), key=lambda pair: pair[0])

    def place(row: int) -> str:
        start, file = [(s, f) for s, f in ordered if s <= row][-1]
        return file.row(row - start)

    return place


def _fingerprint(form: TableForm, wanted: Wanted, images: Array | None) -> str:
    """sha256 over the bytes of the files, over the columns that are read and their types, and over pixels of images."""
    digest = hashlib.sha256()
    for split, file in form.files.items():
        digest.update(f"{split}={file.sha256()};".encode())
    digest.update(form.settings.encode())
    asked = [sorted(part.items()) for part in (wanted.labels, wanted.extra, wanted.empty)]
    digest.update(repr(asked).encode())
    if images is not None:
        digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


def vector_width(file: TableFile, name: str) -> int:
    """The length of the first row's vector in a column of vectors."""

    def find() -> int:
        return int(vectors(file, name, 0, file.first_row([name]).column(name), None).shape[1])

    return file.once(("width", name), find)


def image_header(file: TableFile, image: Image, root: Path) -> tuple[int, ...]:
    """(C, H, W) of all images; the first image decides H and W unless the recipe gives them."""
    column, size, mode = image
    if size is None:
        return _first_image(file, image, root).shape
    _first_path(file, column)
    return (1 if mode == "grey" else 3, *size)


def _first_image(file: TableFile, image: Image, root: Path) -> npt.NDArray[np.uint8]:
    """The image of the first row; it is decoded once, both for the header and for the rows."""
    from mtl.data.files.images import first_image

    column, _, mode = image
    return file.once(
        ("first image", column, mode),
        lambda: first_image(_first_path(file, column), root, mode, file.row(0)),
    )


def _first_path(file: TableFile, column: str) -> str | None:
    path: str | None = texts(file, column, 0, file.first_row([column]).column(column))[0].as_py()
    return path
