"""CSV and Parquet files as batches of columns, and their values as numbers, texts, vectors, lists or times."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mtl.data.csv_check import FIELD_LIMIT, Checked, check_csv, file_sha256, read_header
from mtl.errors import UserError, did_you_mean, quoted

TEXT_SUFFIXES, PARQUET_SUFFIXES = (".csv", ".tsv", ".txt"), (".parquet", ".pq")
BLOCK = 16 << 20
"""Bytes of a CSV that are parsed at once."""
PARQUET_ROWS = 16_384
"""Rows of a Parquet file that are decoded at once."""
PARQUET_BUFFER = 1 << 17
"""Bytes of each column of a Parquet file that are read at once."""


class TableFile:
    """One CSV or Parquet file.

    Args:
        path: the file.
        name: what messages call it; default: the file's name.
        delimiter: between the fields of a CSV.
        na_values: texts of a CSV that mean a missing value.

    Raises:
        UserError: there is no such file, or its suffix is unknown.
    """

    def __init__(
        self, path: Path, *, name: str | None = None, delimiter: str = ",", na_values: Sequence[str] = ("",)
    ) -> None:
        self.path, self.name = path, name or path.name
        self.delimiter, self.na_values = delimiter, tuple(na_values)
        if path.suffix not in (*TEXT_SUFFIXES, *PARQUET_SUFFIXES):
            known = ", ".join((*TEXT_SUFFIXES, *PARQUET_SUFFIXES))
            raise UserError(
                str(path), f"a table is one of {known}, not {quoted(path.suffix)}", path=("path",)
            )
        _require_file(path)
        self.is_parquet = path.suffix in PARQUET_SUFFIXES
        self._checked: Checked | None = None

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """The columns, from the file's header."""
        if self.is_parquet:
            names = tuple(self._parquet().schema_arrow.names)
            twice = [name for i, name in enumerate(names) if name in names[:i]]
            if twice:
                raise UserError(self.name, f"column {quoted(twice[0])} appears twice", "rename one of them")
            return names
        return read_header(self.path, self.name, self.delimiter)

    @cached_property
    def types(self) -> Mapping[str, str]:
        """Column -> text, number, integer, boolean, list or time; a CSV's are all text."""
        if not self.is_parquet:
            return dict.fromkeys(self.column_names, "text")
        schema = self._parquet().schema_arrow
        return {name: _type_name(schema.field(name).type) for name in self.column_names}

    @cached_property
    def n_rows(self) -> int:
        """Rows without the header; of a CSV this reads it once."""
        if self.is_parquet:
            return int(self._parquet().metadata.num_rows)
        self.check()
        assert self._checked is not None
        return self._checked.n_rows

    def check(self) -> None:
        """Refuse a file that is not sound, as `check_csv` does; once.

        Raises:
            UserError: what is wrong, with the row.
        """
        if self.is_parquet:
            if self.column_names and self._parquet().metadata.num_rows == 0:
                raise UserError(self.name, "no rows")
        elif self._checked is None:
            self._checked = check_csv(self.path, self.name, self.delimiter)

    @cached_property
    def _digest(self) -> str:
        return self._checked.sha256 if self._checked is not None else file_sha256(self.path)

    def sha256(self) -> str:
        """sha256 of the file's bytes, in hex."""
        return self._digest

    def row(self, i: int) -> str:
        """What row i, counted from 0, is called: a CSV's header is row 1."""
        return f"{self.name}:row {i if self.is_parquet else i + 2}"

    def require(self, columns: Sequence[str]) -> None:
        """Raises:
        UserError: the file lacks one of these columns.
        """
        for name in columns:
            if name not in self.column_names:
                shown = ", ".join(self.column_names[:20]) + (", ..." if len(self.column_names) > 20 else "")
                near = did_you_mean(name, self.column_names)
                raise UserError(self.name, f"no column {quoted(name)}{near}; columns: {shown}")

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The rows of some columns in the file's order, with the number of each batch's first row.

        A CSV's values are text, null where one of `na_values` stands.
        """
        self.require(columns)
        reader = self._parquet_batches(columns) if self.is_parquet else self._csv_batches(columns)
        first = 0
        for batch in reader:
            yield first, batch
            first += batch.num_rows

    def _parquet(self) -> Any:
        import pyarrow.parquet as pq

        try:
            # through a small buffer: else the whole file, as it is read on, stays in memory
            return pq.ParquetFile(self.path, pre_buffer=False, buffer_size=PARQUET_BUFFER)
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0][:100]
            raise UserError(self.name, f"is not a Parquet file ({reason})") from None

    def _parquet_batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._parquet().iter_batches(PARQUET_ROWS, columns=list(columns), use_threads=False)
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0][:100]
            raise UserError(self.name, f"cannot be read to its end ({reason})") from None

    def _csv_batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow.csv as pv

        self.check()
        try:
            yield from pv.open_csv(
                self.path,
                read_options=pv.ReadOptions(use_threads=False, block_size=BLOCK),
                parse_options=pv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
                convert_options=pv.ConvertOptions(
                    column_types=dict.fromkeys(self.column_names, pa.string()),
                    include_columns=list(columns),
                    null_values=list(self.na_values),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=True,
                ),
            )
        except pa.ArrowInvalid as error:
            raise UserError(
                self.name, f"cannot be read as CSV ({str(error).splitlines()[0][:100]})"
            ) from None


def release_memory() -> None:
    """Give back what pyarrow keeps for the next file: 76 MB after one of 2 million rows and 50 columns."""
    pa.default_memory_pool().release_unused()


def _require_file(path: Path) -> None:
    try:
        with path.open("rb"):
            return
    except FileNotFoundError:
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        what = f"no such file{did_you_mean(path.name, beside)}"
    except IsADirectoryError:
        what = "is a directory"
    except PermissionError:
        what = "permission denied"
    except (OSError, ValueError) as error:
        what = f"cannot be opened: {error}"
    raise UserError(str(path), what, path=("path",))


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _type_name(kind: pa.DataType) -> str:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = {
        "integer": pa.types.is_integer,
        "boolean": pa.types.is_boolean,
        "number": lambda k: pa.types.is_floating(k) or pa.types.is_decimal(k),
        "list": _is_list,
        "time": _is_time,
    }
    return next((name for name, test in tests.items() if test(kind)), "text")


def _plain(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _where(file: TableFile, column: str, row: int) -> str:
    return f"{file.row(row)}, column {quoted(column)}"


def numbers(file: TableFile, column: str, first: int, array: pa.Array) -> npt.NDArray[np.float64]:
    """(n,) numbers, NaN where one is missing; truth values count as 0 and 1.

    Raises:
        UserError: a value is not a finite number; names its row.
    """
    array = _plain(array)
    kind = array.type
    if _is_list(kind) or _is_time(kind) or pa.types.is_struct(kind):
        raise UserError(_where(file, column, first), f"holds {_type_name(kind)} values, not numbers")
    if pa.types.is_null(kind):
        return np.full(len(array), np.nan)
    if pa.types.is_floating(kind):
        array = pc.if_else(pc.is_nan(array), None, array)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    try:
        cast = pc.cast(pc.utf8_trim_whitespace(array) if text else array, pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise _not_a_number(file, column, first, array) from None
    values: npt.NDArray[np.float64] = cast.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    there = ~np.asarray(pc.is_null(cast).to_numpy(zero_copy_only=False))
    wrong = np.flatnonzero(~np.isfinite(values) & there)
    if wrong.size:
        k = int(wrong[0])
        raise UserError(_where(file, column, first + k), f"{quoted(array[k].as_py())} is not a finite number")
    return values


def _not_a_number(file: TableFile, column: str, first: int, array: pa.Array) -> UserError:
    for k, value in enumerate(array.to_pylist()):
        try:
            if value is not None:
                pc.cast(pa.scalar(str(value).strip()), pa.float64())
        except pa.ArrowInvalid:
            return UserError(
                _where(file, column, first + k), f"{quoted(value)} is not a number",
                "if it stands for a missing value, add it to na_values",
            )  # fmt: skip
    return UserError(_where(file, column, first), f"holds {array.type} values, not numbers")


def inexact(values: npt.NDArray[np.float64]) -> int | None:
    """The first whole number that float32 cannot hold exactly, or None."""
    with np.errstate(over="ignore", invalid="ignore"):
        wrong = (
            (np.abs(values) > 2**24) & (values == np.floor(values)) & (values.astype(np.float32) != values)
        )
    return int(np.argmax(wrong)) if wrong.any() else None


def texts(file: TableFile, column: str, first: int, array: pa.Array) -> pa.StringArray:
    """(n,) values as text: 7 and 7.0 as `7`, true as `true`; null stays null.

    Raises:
        UserError: the column holds lists, or a text is too long.
    """
    array = _plain(array)
    kind = array.type
    if _is_list(kind) or pa.types.is_struct(kind):
        raise UserError(_where(file, column, first), f"holds {_type_name(kind)} values, not single ones")
    if pa.types.is_floating(kind):
        array = pc.if_else(pc.is_nan(array), None, array)
        whole = pc.all(pc.equal(array, pc.floor(array))).as_py()
        largest = pc.max(pc.abs(array)).as_py()
        if whole is not False and (largest is None or largest < 2**53):
            array = pc.cast(array, pa.int64())
    text = array if pa.types.is_string(kind) else pc.cast(array, pa.string())
    if pa.types.is_string(kind) and len(text):
        longest = pc.max(pc.utf8_length(text)).as_py() or 0
        if longest > FIELD_LIMIT:
            k = pc.index(pc.utf8_length(text), longest).as_py()
            raise UserError(
                _where(file, column, first + k), f"holds {longest} characters, at most {FIELD_LIMIT}"
            )
    return text


def vectors(
    file: TableFile, column: str, first: int, array: pa.Array, width: int | None
) -> npt.NDArray[np.float32]:
    """(n, width) numbers of a list column, or of texts such as `[1, 2.5]`; the width of the first row if None.

    Raises:
        UserError: a row has another length, is missing, or holds something else than finite numbers.
    """
    array = _plain(array)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        array = pa.array([_listed(file, column, first + k, v) for k, v in enumerate(array.to_pylist())])
    if not _is_list(array.type):
        raise UserError(
            _where(file, column, first), f"holds {_type_name(array.type)} values, not lists of numbers"
        )
    if array.null_count:
        k = pc.index(pc.is_null(array), True).as_py()
        raise UserError(_where(file, column, first + k), "the vector is missing", "remove the row or fill it")
    lengths = (
        np.full(len(array), array.type.list_size)
        if pa.types.is_fixed_size_list(array.type)
        else pc.list_value_length(array).to_numpy(zero_copy_only=False)
    )
    width = int(lengths[0]) if width is None else width
    wrong = np.flatnonzero(lengths != width)
    if wrong.size:
        k = int(wrong[0])
        raise UserError(
            _where(file, column, first + k), f"the vector has {lengths[k]} numbers, the first one {width}"
        )
    flat = array.flatten()
    try:
        values = pc.cast(flat, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise UserError(_where(file, column, first), "the list holds something else than numbers") from None
    with np.errstate(over="ignore"):
        rows: npt.NDArray[np.float32] = values.reshape(len(array), width).astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if wrong.size:
        raise UserError(
            _where(file, column, first + int(wrong[0])), "the vector holds a number that is not finite"
        )
    return rows


def _listed(file: TableFile, column: str, row: int, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or not all(isinstance(v, int | float) for v in values):
        raise UserError(
            _where(file, column, row), f"{quoted(text)} is not a list of numbers such as [1, 2.5]"
        )
    return [float(v) for v in values]


def lists_of_text(
    file: TableFile, column: str, first: int, array: pa.Array, separator: str
) -> list[list[str] | None]:
    """(n,) the labels that each row lists, None where the value is missing."""
    array = _plain(array)
    if _is_list(array.type):
        return [None if row is None else [str(v) for v in row if v is not None] for row in array.to_pylist()]
    values = texts(file, column, first, array).to_pylist()
    return [
        None if value is None else [part.strip() for part in value.split(separator) if part.strip()]
        for value in values
    ]


def times(file: TableFile, column: str, first: int, array: pa.Array) -> npt.NDArray[np.float64]:
    """(n,) seconds since 1970 (UTC unless a zone is named), or numbers as they are; NaN where one is missing.

    Raises:
        UserError: a value is no number, date or time; names its row.
    """
    array = _plain(array)
    if _is_time(array.type):
        return _seconds(pc.cast(array, pa.timestamp("us"), safe=False))
    if not pa.types.is_string(array.type):
        return numbers(file, column, first, array)
    with suppress(UserError):
        return numbers(file, column, first, array)
    for zone in (None, "UTC"):
        with suppress(pa.ArrowInvalid):
            return _seconds(pc.cast(array, pa.timestamp("us", zone)))
    values = np.full(len(array), np.nan)
    for k, text in enumerate(array.to_pylist()):
        if text is None:
            continue
        try:
            moment = datetime.fromisoformat(text.strip())
        except ValueError:
            raise UserError(
                _where(file, column, first + k),
                f"{quoted(text)} is no date such as 2024-03-01 or 2024-03-01T12:00:00",
            ) from None
        values[k] = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    return values


def _seconds(array: pa.Array) -> npt.NDArray[np.float64]:
    there = ~np.asarray(pc.is_null(array).to_numpy(zero_copy_only=False))
    micro = pc.cast(array, pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return np.where(there, micro / 1e6, np.nan)


class Codes:
    """Texts -> whole numbers, batch by batch.

    Args:
        limit: most distinct values.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.values: dict[str, int] = {}

    def add(self, array: pa.StringArray) -> npt.NDArray[np.int32]:
        """(n,) codes in the order of first appearance, -1 for null.

        Raises:
            UserError: there are more distinct values than allowed.
        """
        encoded = array.dictionary_encode()
        values = self.values
        lookup = np.array(
            [values.setdefault(value, len(values)) for value in encoded.dictionary.to_pylist()] + [-1],
            dtype=np.int32,
        )
        if len(values) > self.limit:
            raise UserError(
                "", f"more than {self.limit} distinct values", "is the column an id, a number or free text?"
            )
        codes: npt.NDArray[np.int32] = lookup[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
        return codes

    def finish(self) -> tuple[tuple[str, ...], npt.NDArray[np.int32]]:
        """The values in their stable order, and the new code of each old one.

        The order is numerical where all values are whole numbers, and that of code points elsewhere.
        """
        found = list(self.values)
        whole = all(v.removeprefix("-").isdecimal() and v.isascii() for v in found)
        ordered = sorted(found, key=lambda v: (int(v), v)) if whole else sorted(found)
        position = {value: i for i, value in enumerate(ordered)}
        return tuple(ordered), np.array([position[value] for value in found], dtype=np.int32)
