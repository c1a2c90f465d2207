"""Reads the values of a table's columns as texts, vectors or lists, and turns texts into codes."""

from __future__ import annotations

import json
import re
from contextlib import suppress

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mtl.console import counted
from mtl.data.columns.spelling import merged
from mtl.data.files.column_types import is_bytes, is_list, is_text, type_name
from mtl.data.files.formats.csv_structure import FIELD_LIMIT
from mtl.data.files.table import Table
from mtl.data.types import Empty, stable_order
from mtl.errors import UserError, quoted


def plain(file: Table, column: str, first: int, array: pa.Array) -> pa.Array:
    """The same values in fewer types: no dictionaries, text and bytes as string, half floats as float32.

    Raises:
        UserError: a text is not UTF-8; the message names its row.
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_float16(array.type):
        return array.cast(pa.float32())
    if is_bytes(array.type) or (is_text(array.type) and not pa.types.is_string(array.type)):
        return file.as_text(column, first, array)
    return array


def texts(file: Table, column: str, first: int, array: pa.Array) -> pa.StringArray:
    """(n,) values as text: 7 and 7.0 become `7`, true becomes `true`; null and NaN become null.

    Raises:
        UserError: the column holds lists or other compound values, or a text is too long or not UTF-8.
    """
    array = plain(file, column, first, array)
    kind = array.type
    if pa.types.is_string(kind):
        _require_short(file, column, first, array)
        return array
    if type_name(kind) in ("list", "other"):
        raise UserError(file.where(column, first), f"holds {shown(kind)} values, not single ones")
    if pa.types.is_decimal(kind):
        return pc.replace_substring_regex(array.cast(pa.string()), r"\.0+$", "")
    if not pa.types.is_floating(kind):
        return array.cast(pa.string())
    array = pc.if_else(pc.is_nan(array), None, array)
    whole = pc.and_(pc.equal(array, pc.floor(array)), pc.less(pc.abs(array), 2.0**53))
    return pc.coalesce(
        pc.if_else(whole, array, None).cast(pa.int64()).cast(pa.string()), array.cast(pa.string())
    )


def _require_short(file: Table, column: str, first: int, array: pa.StringArray) -> None:
    # a text has no more characters than bytes, and bytes are counted in a fifth of the time
    if (pc.max(pc.binary_length(array)).as_py() or 0) <= FIELD_LIMIT:
        return
    lengths = pc.utf8_length(array)
    longest = pc.max(lengths).as_py()
    if longest > FIELD_LIMIT:
        k = pc.index(lengths, longest).as_py()
        raise UserError(file.where(column, first + k), f"holds {longest} characters, at most {FIELD_LIMIT}")


def vectors(
    file: Table, column: str, first: int, array: pa.Array, width: int | None
) -> npt.NDArray[np.float32]:
    """(n, width) numbers of a column of lists, or of texts such as `[1, 2.5]`.

    If `width` is None, the first row decides it.

    Raises:
        UserError: a row is missing, has another length, or holds something else than finite numbers.
    """
    array = plain(file, column, first, array)
    if pa.types.is_string(array.type):
        rows = [_listed(file, column, first + k, v) for k, v in enumerate(array.to_pylist())]
        array = pa.array(rows, pa.list_(pa.float64()))
    kind = array.type
    inner = type_name(kind.value_type) if is_list(kind) else ""
    if inner not in ("integer", "boolean", "number"):
        held = f"lists of {shown(kind.value_type)}" if is_list(kind) else shown(kind)
        raise UserError(file.where(column, first), f"holds {held} values, not lists of numbers")
    if array.null_count:
        k = pc.index(pc.is_null(array), True).as_py()
        raise UserError(file.where(column, first + k), "the vector is missing", "remove the row or fill it")
    lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
    if width is None:
        width = int(lengths[0])
    wrong = np.flatnonzero((lengths != width) | (lengths == 0))
    if wrong.size:
        k = int(wrong[0])
        what = (
            f"the vector has {counted(int(lengths[k]), 'number')}, the first one {width}"
            if width
            else "the vector is empty"
        )
        raise UserError(file.where(column, first + k), what)
    flat = array.flatten()
    values = pc.cast(flat, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        out: npt.NDArray[np.float32] = values.reshape(len(array), width).astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(out).all(axis=1))
    if wrong.size:
        k = int(wrong[0])
        lacking = flat.slice(k * width, width).null_count
        what = "is missing" if lacking else "is not finite in float32"
        raise UserError(file.where(column, first + k), f"the vector holds a number that {what}")
    return out


def _listed(file: Table, column: str, row: int, text: str | None) -> list[float] | None:
    if text is None:
        return None
    with suppress(ValueError, RecursionError, OverflowError):
        values = json.loads(text)
        if isinstance(values, list) and all(isinstance(v, int | float) for v in values):
            return [float(v) for v in values]
    raise UserError(file.where(column, row), f"{quoted(text)} is not a list of numbers such as [1, 2.5]")


def lists_of_text(
    file: Table, column: str, first: int, array: pa.Array, separator: str, empty: Empty | None = None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64], pa.StringArray]:
    """The labels that each of n rows lists.

    Args:
        file: the table.
        column: the name of the column.
        first: the number of the first of these rows in the file.
        array: the n values: lists, or texts of labels with a separator between them.
        separator: the text between two labels.
        empty: what an empty text means; a list of no labels always means that none applies.

    Returns:
        (n,) whether the row has a value; (m,) the row of each label, counted from 0; and the m labels, none empty.

    Raises:
        UserError: a text is empty, and `empty` does not say what that means.
    """
    array = plain(file, column, first, array)
    if not is_list(array.type):
        written = texts(file, column, first, array)
        blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(written), ""), False)
        if empty != "none" and pc.any(blank).as_py():
            if empty is None:
                raise UserError(
                    file.where(column, first + pc.index(blank, True).as_py()),
                    "the cell is empty, which may mean that no label applies or that the labels are missing",
                    "write `empty: none` or `empty: missing` in the task of this column",
                )
            written = pc.if_else(blank, None, written)
        array = pc.split_pattern(written, separator)
    there = array.is_valid().to_numpy(zero_copy_only=False)
    rows = pc.list_parent_indices(array)
    labels = pc.utf8_trim_whitespace(texts(file, column, first, array.flatten()))
    kept = pc.fill_null(pc.not_equal(labels, ""), False)
    return there, rows.filter(kept).to_numpy(zero_copy_only=False), labels.filter(kept)


def shown(kind: pa.DataType) -> str:
    """The type of a column in words; names of fields in it are left out, because they come from the user."""
    if is_text(kind):
        return "text"
    name = type_name(kind)
    return name if name in ("integer", "boolean", "number") else re.split(r"\W", str(kind))[0]


class Codes:
    """Turns texts into whole numbers, batch by batch.

    Args:
        column: the column's name in messages.
        limit: the most distinct values.
    """

    def __init__(self, column: str, limit: int) -> None:
        self.column, self.limit = column, limit
        self.values: dict[str, int] = {}

    def add(self, array: pa.StringArray) -> npt.NDArray[np.int32]:
        """(n,) codes in the order of first appearance; -1 for null.

        Raises:
            UserError: there are more than `limit` distinct values.
        """
        encoded = array.dictionary_encode()
        values = self.values
        lookup = np.array(
            [values.setdefault(value, len(values)) for value in encoded.dictionary.to_pylist()] + [-1],
            dtype=np.int32,
        )
        if len(values) > self.limit:
            raise UserError(
                "",
                f"column {quoted(self.column)} has more than {self.limit} distinct values",
                "is it an id, a number or free text?",
            )
        codes: npt.NDArray[np.int32] = lookup[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
        return codes

    def finish(self) -> tuple[tuple[str, ...], npt.NDArray[np.int32]]:
        """The values in their one spelling and stable order, and the new code of each old code."""
        spelled = merged(self.values)
        ordered = stable_order(spelled.values())
        position = {value: i for i, value in enumerate(ordered)}
        return ordered, np.array([position[spelled[value]] for value in self.values], dtype=np.int32)
