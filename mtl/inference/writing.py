"""Writes predictions into a CSV, Parquet or npz file, batch by batch; memory does not grow with the rows."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from mtl.data.columns.unseen import Unseen
from mtl.data.files.column_types import is_bytes, is_list, is_text
from mtl.errors import EnvironmentFault, UserError, quoted
from mtl.inference.keep import beside
from mtl.signals import undoing

if TYPE_CHECKING:
    from mtl.inference.predict import TrainedModel


@dataclass(frozen=True)
class ListTexts:
    """How lists of labels are written as texts.

    Args:
        separator: list column -> the text between two labels; `|` in any other one.
        empty_is_none: the columns in which empty text means that no label applies.
    """

    separator: Mapping[str, str]
    empty_is_none: frozenset[str]


def _lists_of(model: TrainedModel) -> ListTexts:
    tasks = model.recipe.tasks.items()
    separators = {task: model.feed.source.label_separator(spec.target) for task, spec in tasks}
    return ListTexts(separators, frozenset(task for task, spec in tasks if spec.empty_means == "none"))


class Writer(Protocol):
    """Writes columns, one batch after the other."""

    def __init__(self, path: Path, lists: ListTexts) -> None: ...

    def write(self, columns: dict[str, Any]) -> None:
        """Write one batch of columns; every batch has the same columns."""

    def finish(self) -> None:
        """Complete the file."""

    def close(self) -> None:
        """Release everything, whether or not the file is complete."""


def check_output(output: str, data: str) -> Path:
    """The path of the predictions.

    Raises:
        UserError: its name is taken, or has an unknown suffix.
    """
    target = Path(output)
    if target.suffix not in WRITERS:
        raise UserError("--output", f"{quoted(output)} is none of {', '.join(WRITERS)}")
    if target.is_dir():
        raise UserError("--output", f"{quoted(output)} is a directory")
    if target.exists() and Path(data).exists() and target.samefile(data):
        raise UserError("--output", f"{quoted(output)} is the input", "give another name")
    return target


def require_free(target: Path, run: Path, force: bool) -> None:
    """Refuse to write over a file that somebody may need, or into something that is no file.

    Raises:
        UserError: the path is in the run folder, is no regular file, or is there already and `force` is not given.
    """
    shown = quoted(str(target))
    if run.resolve() in target.resolve().parents:
        raise UserError("--output", f"{shown} is in the run folder", "write it elsewhere")
    if os.path.lexists(target):
        if not target.is_file():
            raise UserError("--output", f"{shown} is not a regular file", "give another name")
        if not force:
            raise UserError("--output", f"{shown} is there already", "give another name, or --force")


@undoing()
def write_predictions(
    model: TrainedModel,
    data: str,
    output: str,
    keep: Sequence[str] = (),
    unseen: Mapping[str, Unseen] | None = None,
) -> int:
    """Predict for every row of a file, and return the number of rows; `output` appears only when it is complete.

    In a CSV or npz file a list of labels is one text. An empty list is written as empty text where the task says
    `empty: none`, else as the separator alone, which reads back as a list without labels. A kept column that has the
    name of a prediction is called `<name>_given`.

    Raises:
        UserError: the input has another form than the run's data, or the output's name is taken or has an unknown
            suffix.
        EnvironmentFault: the output cannot be written.
    """
    target = check_output(output, data)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    lists = _lists_of(model)
    n_rows = 0
    writer: Writer | None = None
    try:
        for kept, predictions in model.batches(data, keep, unseen):
            columns = beside(kept, predictions)
            writer = writer or WRITERS[target.suffix](temporary, lists)
            writer.write(columns)
            n_rows += len(next(iter(predictions.values())))
        if writer is None:
            raise UserError(data, "no rows")
        writer.finish()
        os.replace(temporary, target)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise EnvironmentFault(str(target), f"cannot write: {why}") from error
    finally:
        with suppress(OSError):
            if writer is not None:
                writer.close()
        with suppress(OSError):
            temporary.unlink()
    return n_rows


class _Tables:
    """Writes batches as tables into one file; the first batch decides the columns of the writer."""

    def __init__(self, path: Path, lists: ListTexts) -> None:
        self.lists = lists
        self.file: IO[bytes] = path.open("wb")
        self.writer: Any = None

    def finish(self) -> None:
        self.writer.close()
        self.close()

    def close(self) -> None:
        self.file.close()


class _Csv(_Tables):
    def write(self, columns: dict[str, Any]) -> None:
        table = _table(columns, self.lists)
        if self.writer is None:
            header = io.StringIO(newline="")
            csv.writer(header, lineterminator="\n").writerow(table.column_names)
            self.file.write(header.getvalue().encode())
            options = pc.WriteOptions(include_header=False, quoting_style="needed")
            self.writer = pc.CSVWriter(self.file, table.schema, write_options=options)
        self.writer.write_table(table)


class _Parquet(_Tables):
    def write(self, columns: dict[str, Any]) -> None:
        table = _table(columns, None)
        self.writer = self.writer or pq.ParquetWriter(self.file, table.schema)
        self.writer.write_table(table)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.is_open = False  # an open writer would warn that its file is not complete
        super().close()


MOST_OF_NAME = 2**16 - 1 - len(".npy")
"""Bytes of a column's name in a zip archive."""


class _Npz:
    """Appends each column to a file of its own, block after block; the end joins them in an archive."""

    def __init__(self, path: Path, lists: ListTexts) -> None:
        self.path, self.lists = path, lists
        self.folder = Path(mkdtemp(dir=path.parent, prefix=".mtl-predict-"))
        self.blocks: dict[str, Path] = {}

    def write(self, columns: dict[str, Any]) -> None:
        for name, values in columns.items():
            if len(name.encode()) > MOST_OF_NAME:
                what = f"column {quoted(name)} has a name of {len(name.encode())} bytes; an npz holds {MOST_OF_NAME}"
                raise UserError("--output", what, "write .csv or .parquet")
            path = self.blocks.setdefault(name, self.folder / f"{len(self.blocks)}.npy")
            with path.open("ab") as file:
                np.save(file, _array(name, values, self.lists), allow_pickle=False)

    def finish(self) -> None:
        with zipfile.ZipFile(self.path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, path in self.blocks.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    _join_blocks(path, member)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


WRITERS: dict[str, type[Writer]] = {".csv": _Csv, ".parquet": _Parquet, ".npz": _Npz}


def _table(columns: dict[str, Any], lists: ListTexts | None) -> pa.Table:
    """The columns as a table; with `lists`, as a CSV needs it, each list is one text."""
    arrays = {name: _column(values) for name, values in columns.items()}
    if lists is not None:
        arrays = {name: _flat(name, array, lists) for name, array in arrays.items()}
    return pa.table(arrays)


def _column(values: Any) -> pa.Array:
    """Values as an Arrow array, with the same type in every batch."""
    if isinstance(values, list):
        return pa.array([[str(value) for value in row] for row in values], pa.list_(pa.string()))
    if not isinstance(values, np.ndarray):
        return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
    if values.ndim > 1:
        flat = values.reshape(len(values), -1)
        return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
    if values.dtype.kind in "OUS":
        return pa.array(values.astype(str).tolist(), pa.string())
    return pa.array(values)


def _flat(name: str, array: pa.Array, lists: ListTexts) -> pa.Array:
    kind = array.type
    if is_list(kind):
        texts = is_text(kind.value_type)
        return pa.array([_text(name, row, texts, lists) for row in array.to_pylist()], pa.string())
    if pa.types.is_nested(kind) or is_bytes(kind):
        raise UserError("--keep", f"column {quoted(name)} holds {kind} values, which a CSV cannot hold")
    return array


def _text(name: str, row: list[Any] | None, texts: bool, lists: ListTexts) -> str | None:
    """A list as one text: `art|music` for texts, `[1.5, 2.0]` for numbers."""
    if row is None:
        return None
    if not texts:
        return json.dumps(row, default=str)
    separator = lists.separator.get(name, "|")
    if not row:
        return "" if name in lists.empty_is_none else separator
    return separator.join(map(str, row))


def _array(name: str, values: Any, lists: ListTexts) -> np.ndarray[Any, Any]:
    """A column as an array without objects: a missing text becomes "", a missing number NaN."""
    if isinstance(values, np.ndarray):
        return values.astype(str) if values.dtype == object else values
    array = _column(values)
    if pa.types.is_nested(array.type):
        array = _flat(name, array, lists)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    if pa.types.is_null(array.type) or pa.types.is_decimal(array.type):
        array = array.cast(pa.float64())
    found: np.ndarray[Any, Any] = array.to_numpy(zero_copy_only=False)
    if found.dtype == object:
        found = np.array(["" if value is None else str(value) for value in array.to_pylist()], dtype=str)
    return found


def _join_blocks(path: Path, member: IO[bytes]) -> None:
    """Join the blocks of a file, each an .npy of its own, into one .npy, a block at a time."""
    dtypes, n_rows, tail = [], 0, ()
    for block in _blocks(path):
        dtypes.append(block.dtype)
        n_rows += len(block)
        tail = block.shape[1:]
    dtype = np.result_type(*dtypes)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (n_rows, *tail)}
    np.lib.format.write_array_header_2_0(member, header)
    for block in _blocks(path):
        member.write(np.ascontiguousarray(block.astype(dtype)).tobytes())


def _blocks(path: Path) -> Iterator[np.ndarray[Any, Any]]:
    with path.open("rb") as file:
        while file.peek(1):
            yield np.load(file, allow_pickle=False)
