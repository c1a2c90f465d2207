"""Reads the values of a table's columns as numbers, texts, vectors or lists."""

from __future__ import annotations

import json
import re
from contextlib import suppress

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mtl.data.files.column_types import is_bytes, is_list, is_text, type_name
from mtl.data.files.csv_structure import FIELD_LIMIT
from mtl.data.files.table import TableFile, first_bad
from mtl.data.types import stable_order
from mtl.errors import UserError, quoted

MISSING = "if it stands for a missing value, add it to na_values"
EXACT = 2.0**53
"""float64 holds every whole number up to this one, but not the next."""
WHOLE = re.compile(r"[+-]?\d{1,400}", re.ASCII)


def plain(file: TableFile, column: str, first: int, array: pa.Array) -> pa.Array:
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


def numbers(
    file: TableFile, column: str, first: int, array: pa.Array, todo: str = MISSING
) -> npt.NDArray[np.float64]:
    """(n,) numbers; NaN for a missing one, 0 and 1 for truth values. `todo` is the advice on a text.

    Raises:
        UserError: a value is not a finite number; the message names its row.
    """
    array = plain(file, column, first, array)
    kind = array.type
    text = pa.types.is_string(kind)
    if pa.types.is_null(kind):
        return np.full(len(array), np.nan)
    if not text and type_name(kind) not in ("integer", "boolean", "number"):
        raise UserError(file.where(column, first), f"holds {shown(kind)} values, not numbers")
    if pa.types.is_floating(kind):
        array = pc.if_else(pc.is_nan(array), None, array)
    source = pc.utf8_trim_whitespace(array) if text else array

    def as_numbers(part: pa.Array) -> pa.Array:
        return pc.cast(part, pa.float64(), safe=False)

    try:
        cast = as_numbers(source)
    except pa.ArrowInvalid:
        k = first_bad(source, as_numbers)
        value = quoted(array[k].as_py())
        raise UserError(file.where(column, first + k), f"{value} is not a number", todo) from None
    values: npt.NDArray[np.float64] = cast.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    there = cast.is_valid().to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(~np.isfinite(values) & there)
    if wrong.size:
        k = int(wrong[0])
        what = f"{quoted(array[k].as_py())} is not a finite number"
        raise UserError(file.where(column, first + k), what, MISSING if text else "")
    return values


def inexact_row(file: TableFile, column: str, first: int, array: pa.Array) -> int | None:
    """The first row, counted from `first`, whose whole number float32 cannot hold exactly; it may be an id."""
    values = numbers(file, column, first, array)
    if type_name(array.type) == "number":
        return inexact(values, EXACT)  # a larger number is a quantity, not an id
    row = inexact(values)
    rounded = np.flatnonzero(np.abs(values[:row]) >= EXACT)
    written = texts(file, column, first, array.take(pa.array(rounded))).to_pylist()
    for k, text in zip(rounded.tolist(), written, strict=True):
        digits = text.strip()
        if WHOLE.fullmatch(digits) and int(digits) != int(np.float32(values[k])):
            return int(k)
    return row


def inexact(values: npt.NDArray[np.float64], largest: float = np.inf) -> int | None:
    """The position of the first whole number up to `largest` that float32 cannot hold exactly, or None."""
    with np.errstate(over="ignore", invalid="ignore"):
        size = np.abs(values)
        wrong = (size > 2**24) & (size <= largest) & (values == np.floor(values))
        wrong &= values.astype(np.float32) != values
    return int(np.argmax(wrong)) if wrong.any() else None


def texts(file: TableFile, column: str, first: int, array: pa.Array) -> pa.StringArray:
    """(n,) values as text: 7 and 7.0 become `7`, true becomes `true`; null and NaN become null.

    Raises:
        UserError: the column holds lists or other compound values, or a text is too long or not UTF-8.
    """
    array = plain(file, column, first, array)
    kind = array.type
    if pa.types.is_string(kind):
        longest = pc.max(pc.utf8_length(array)).as_py() or 0
        if longest > FIELD_LIMIT:
            k = pc.index(pc.utf8_length(array), longest).as_py()
            raise UserError(
                file.where(column, first + k), f"holds {longest} characters, at most {FIELD_LIMIT}"
            )
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


def vectors(
    file: TableFile, column: str, first: int, array: pa.Array, width: int | None
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
            f"the vector has {lengths[k]} numbers, the first one {width}" if width else "the vector is empty"
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


def _listed(file: TableFile, column: str, row: int, text: str | None) -> list[float] | None:
    if text is None:
        return None
    with suppress(ValueError, RecursionError, OverflowError):
        values = json.loads(text)
        if isinstance(values, list) and all(isinstance(v, int | float) for v in values):
            return [float(v) for v in values]
    raise UserError(file.where(column, row), f"{quoted(text)} is not a list of numbers such as [1, 2.5]")


def lists_of_text(
    file: TableFile, column: str, first: int, array: pa.Array, separator: str
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64], pa.StringArray]:
    """The labels that each of n rows lists.

    Returns:
        (n,) whether the row has a value; (m,) the row of each label, counted from 0; and the m labels, none empty.
    """
    array = plain(file, column, first, array)
    if not is_list(array.type):
        array = pc.split_pattern(texts(file, column, first, array), separator)
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
        """The values in their stable order, and the new code of each old code."""
        ordered = stable_order(self.values)
        position = {value: i for i, value in enumerate(ordered)}
        return ordered, np.array([position[value] for value in self.values], dtype=np.int32)
