"""Writers of predictions as CSV, Parquet or npz, batch by batch; memory does not grow with the rows."""

from __future__ import annotations

import csv
import io
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv as pc
import pyarrow.parquet as pq

from mtl.data.files.column_types import is_bytes, is_list, is_text
from mtl.errors import UserError, quoted

FORMULA = r"^[=+\-@\t\r]"
"""What a spreadsheet takes for the begin of a formula. Source: OWASP, "CSV Injection"."""
NUMBER = r"^[+-]?[0-9]+([.,][0-9]+)?([eE][+-]?[0-9]+)?$"


@dataclass(frozen=True)
class Texts:
    """How texts are written.

    Args:
        separator: list column -> the text between two labels; `|` in any other one.
        empty_is_none: the columns in which empty text means that no label applies.
        spreadsheet_safe: whether a CSV has an apostrophe in front of a text that a spreadsheet would run.
    """

    separator: Mapping[str, str]
    empty_is_none: frozenset[str]
    spreadsheet_safe: bool = False


class Writer(Protocol):
    """Writes columns, one batch after the other."""

    def __init__(self, path: Path, texts: Texts) -> None: ...

    def write(self, columns: dict[str, Any]) -> None:
        """Write one batch of columns; every batch has the same columns."""

    def finish(self) -> None:
        """Complete the file."""

    def close(self) -> None:
        """Release everything, whether or not the file is complete."""


class _Tables:
    """Writes batches as tables into one file; the first batch decides the columns of the writer."""

    def __init__(self, path: Path, texts: Texts) -> None:
        self.texts = texts
        self.file: IO[bytes] = path.open("wb")
        self.writer: Any = None

    def finish(self) -> None:
        self.writer.close()
        self.close()

    def close(self) -> None:
        self.file.close()


class _Csv(_Tables):
    def write(self, columns: dict[str, Any]) -> None:
        table = _table(columns, self.texts)
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

    def __init__(self, path: Path, texts: Texts) -> None:
        self.path, self.texts = path, texts
        self.folder = Path(mkdtemp(dir=path.parent, prefix=".mtl-predict-"))
        self.blocks: dict[str, Path] = {}

    def write(self, columns: dict[str, Any]) -> None:
        for name, values in columns.items():
            if len(name.encode()) > MOST_OF_NAME:
                what = f"column {quoted(name)} has a name of {len(name.encode())} bytes; an npz holds {MOST_OF_NAME}"
                raise UserError("--output", what, "write .csv or .parquet")
            path = self.blocks.setdefault(name, self.folder / f"{len(self.blocks)}.npy")
            with path.open("ab") as file:
                np.save(file, _array(name, values, self.texts), allow_pickle=False)

    def finish(self) -> None:
        with zipfile.ZipFile(self.path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, path in self.blocks.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    _join_blocks(path, member)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


WRITERS: dict[str, type[Writer]] = {".csv": _Csv, ".parquet": _Parquet, ".npz": _Npz}


def _table(columns: dict[str, Any], texts: Texts | None) -> pa.Table:
    """The columns as a table; with `texts`, as a CSV needs it, each list is one text."""
    arrays = {name: _column(values) for name, values in columns.items()}
    if texts is not None:
        arrays = {name: _flat(name, array, texts) for name, array in arrays.items()}
        if texts.spreadsheet_safe:
            names = _harmless(pa.array(arrays, pa.string())).to_pylist()
            return pa.Table.from_arrays([_harmless(array) for array in arrays.values()], names)
    return pa.table(arrays)


def _harmless(array: pa.Array) -> pa.Array:
    """A column of texts of which a spreadsheet runs none; numbers and other columns stay as they are."""
    if not is_text(array.type):
        return array
    runs, is_number = (pyarrow.compute.match_substring_regex(array, form) for form in (FORMULA, NUMBER))
    quoted_texts = pyarrow.compute.binary_join_element_wise("'", array, "")
    return pyarrow.compute.if_else(pyarrow.compute.and_not(runs, is_number), quoted_texts, array)


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


def _flat(name: str, array: pa.Array, texts: Texts) -> pa.Array:
    kind = array.type
    if is_list(kind):
        of_texts = is_text(kind.value_type)
        return pa.array([_text(name, row, of_texts, texts) for row in array.to_pylist()], pa.string())
    if pa.types.is_nested(kind) or is_bytes(kind):
        raise UserError("--keep", f"column {quoted(name)} holds {kind} values, which a CSV cannot hold")
    return array


def _text(name: str, row: list[Any] | None, of_texts: bool, texts: Texts) -> str | None:
    """A list as one text: `art|music` for texts, `[1.5, 2.0]` for numbers."""
    if row is None:
        return None
    if not of_texts:
        return json.dumps(row, default=str)
    separator = texts.separator.get(name, "|")
    if not row:
        return "" if name in texts.empty_is_none else separator
    return separator.join(map(str, row))


def _array(name: str, values: Any, texts: Texts) -> np.ndarray[Any, Any]:
    """A column as an array without objects: a missing text becomes "", a missing number NaN."""
    if isinstance(values, np.ndarray):
        return values.astype(str) if values.dtype == object else values
    array = _column(values)
    if pa.types.is_nested(array.type):
        array = _flat(name, array, texts)
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
