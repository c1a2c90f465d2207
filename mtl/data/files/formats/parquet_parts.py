"""Reads the Parquet files of a data set as the rows of one table."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import pyarrow as pa

from mtl.data.files.column_types import first_bad, is_bytes, is_text, shown_type, type_name
from mtl.data.files.formats.parquet import Parquet
from mtl.data.files.parts import Part, Parts
from mtl.errors import UserError, quoted


@dataclass(frozen=True)
class _Whole:
    """What the footers of all files say together.

    Args:
        schema: the columns of the files, then those of their folders.
        starts: the row that each file begins with, and at the end the number of rows.
    """

    schema: pa.Schema
    starts: tuple[int, ...]


class ParquetParts:
    """The files of a data set, one after the other; the folders of a file give it further columns, which are text.

    All files have the same columns, in any order. A column may be of several types of numbers, or of text in several
    forms, as pyarrow unifies them; its values then have the wider type.

    Args:
        parts: the files.
        name: the name of the data set in messages.
    """

    first_row: ClassVar[int] = 0
    finds_missing: ClassVar[bool] = False

    def __init__(self, parts: Parts, name: str) -> None:
        self.parts, self.name = parts, name

    @property
    def column_names(self) -> tuple[str, ...]:
        """The columns of the first file, then those of its folders."""
        return tuple(self._whole.schema.names)

    @property
    def types(self) -> Mapping[str, str]:
        """Column -> the name of its type."""
        return {field.name: type_name(field.type) for field in self._whole.schema}

    @property
    def n_rows(self) -> int:
        """The number of rows of all files, from their footers."""
        return self._whole.starts[-1]

    def row(self, i: int) -> str:
        """The file that holds row i, and the place of the row in it."""
        starts = self._whole.starts
        at = min(bisect_right(starts, i) - 1, len(self.parts.files) - 1)
        return f"{self.parts.files[at].shown}:row {i - starts[at]}"

    def digests(self) -> dict[str, str]:
        """The name in messages of each file that has rows -> sha256 of its bytes."""
        starts = self._whole.starts
        return {
            part.shown: self.parts.digests[part.name]
            for i, part in enumerate(self.parts.files)
            if starts[i] < starts[i + 1]
        }

    def check(self) -> None:
        """Refuse a data set without rows, or whose files disagree."""
        if self.n_rows == 0:
            raise UserError(self.name, "no rows")

    def first(self, columns: Sequence[str], missing: Sequence[str]) -> pa.RecordBatch | None:
        """The first row of the given columns; no other row is decoded."""
        starts = self._whole.starts
        for i, part in enumerate(self.parts.files):
            if starts[i] < starts[i + 1]:
                with self.parts.opened(part) as file:
                    own = [name for name in columns if name not in dict(part.keys)]
                    batch = Parquet(file, part.shown).first(own, missing)
                    return None if batch is None else self._as_whole(part, batch, columns, 0)
        return None

    def batches(self, columns: Sequence[str], missing: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of the given columns. Of a file, no more is decoded at once than of a Parquet file alone."""
        for part in self.parts.files:
            own, first = [name for name in columns if name not in dict(part.keys)], 0
            with self.parts.opened(part) as file:
                for batch in Parquet(file, part.shown).batches(own, missing):
                    yield self._as_whole(part, batch, columns, first)
                    first += batch.num_rows

    @property
    def _whole(self) -> _Whole:
        return self.parts.once("whole", self._read_footers)

    def _read_footers(self) -> _Whole:
        first, merged, counts = self.parts.files[0], None, []
        for part in self.parts.files:
            with self.parts.opened(part) as file:
                own = Parquet(file, part.shown)
                schema = _plain(own.schema)
                counts.append(own.n_rows)
            if merged is None:
                merged = schema
            _require_like_the_first(part, schema, first, merged)
            merged = _merged(merged, schema, part, first)
        assert merged is not None
        given = [pa.field(key, pa.string()) for key, _ in first.keys]
        return _Whole(pa.schema([*merged, *given]), (0, *accumulate(counts)))

    def _as_whole(
        self, part: Part, batch: pa.RecordBatch, columns: Sequence[str], first: int
    ) -> pa.RecordBatch:
        """The batch in the types of the whole, with the columns that the folders give; it begins at row `first`."""
        keys, arrays = dict(part.keys), []
        for name in columns:
            if name in keys:
                arrays.append(pa.repeat(pa.scalar(keys[name], pa.string()), batch.num_rows))
            else:
                kind = self._whole.schema.field(name).type
                arrays.append(_cast(batch.column(name), kind, part, name, first))
        return pa.RecordBatch.from_arrays(arrays, list(columns))


def _plain(schema: pa.Schema) -> pa.Schema:
    """The schema without metadata, and with the types of the values that dictionaries stand for."""
    kinds = [f.type.value_type if pa.types.is_dictionary(f.type) else f.type for f in schema]
    return pa.schema(list(zip(schema.names, kinds, strict=True)))


def _require_like_the_first(part: Part, schema: pa.Schema, first: Part, like: pa.Schema) -> None:
    """Refuse a file with other columns than the first one, in itself or by its folders.

    Raises:
        UserError: a column is missing, is there in addition, or is given by the folders too.
    """
    for name, _ in part.keys:
        if name in schema.names:
            what = f"column {quoted(name)} is in the file and in the name of its folder"
            raise UserError(part.shown, what, "rename one of the two")
    keys, known = [name for name, _ in part.keys], [name for name, _ in first.keys]
    if len(set(keys)) < len(keys):
        raise UserError(part.shown, f"two of its folders give a column {quoted(_twice(keys))}")
    own, there = {*schema.names, *keys}, {*like.names, *known}
    for lacking, of, other in ((there - own, part, first), (own - there, first, part)):
        if lacking:
            what = f"no column {quoted(min(lacking))}, which {other.shown} has"
            raise UserError(of.shown, what, "the files of a data set have the same columns")
    if set(keys) != set(known):
        name = min(set(keys) ^ set(known))
        what = f"column {quoted(name)} is in the files here, and in the name of a folder there: {first.shown}"
        raise UserError(part.shown, what)


def _twice(names: Sequence[str]) -> str:
    return next(name for i, name in enumerate(names) if name in names[:i])


def _merged(merged: pa.Schema, schema: pa.Schema, part: Part, first: Part) -> pa.Schema:
    """The types that hold the values of both.

    Raises:
        UserError: a column has types that no type holds together.
    """
    if schema.equals(merged):
        return merged
    kinds = []
    for name in merged.names:
        both = merged.field(name).type, schema.field(name).type
        try:
            kinds.append((name, both[0] if both[0] == both[1] else _wider(*both)))
        except pa.ArrowException:
            here, there = (shown_type(kind) for kind in reversed(both))
            what = f"column {quoted(name)} is of type {here}, in {first.shown} of type {there}"
            raise UserError(part.shown, what, "write all files with the same types") from None
    return pa.schema(kinds)


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds the values of both.

    Raises:
        ArrowException: there is none.
    """
    both = one, other
    if any(map(is_text, both)) and any(map(is_bytes, both)):
        return pa.string()  # some programs write text as bytes
    decimals = [pa.types.is_decimal(kind) for kind in both]
    if any(decimals) and not all(decimals) and {type_name(kind) for kind in both} <= {"integer", "number"}:
        return pa.float64()  # pyarrow finds a decimal that holds no int64
    schemas = [pa.schema([("", kind)]) for kind in both]
    wider = pa.unify_schemas(schemas, promote_options="permissive").field("").type
    for kind in both:
        pa.array([], kind).cast(wider)
    return wider


def _cast(array: pa.Array, kind: pa.DataType, part: Part, name: str, first: int) -> pa.Array:
    """The values in another type; texts of a dictionary are not copied to their rows.

    Raises:
        UserError: the type cannot hold a value; the message names its row.
    """
    if pa.types.is_dictionary(array.type):
        if is_text(array.type.value_type):
            return pa.DictionaryArray.from_arrays(array.indices, array.dictionary.cast(kind))
        array = array.dictionary_decode()
    if array.type == kind:
        return array
    try:
        return array.cast(kind)
    except pa.ArrowInvalid:
        row = first + first_bad(array, lambda values: values.cast(kind))
        what = f"cannot be held as {shown_type(kind)}, which the column is in other files"
        raise UserError(f"{part.shown}:row {row}, column {quoted(name)}", what) from None
