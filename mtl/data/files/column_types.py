"""The type of a table's column: text, numbers, lists or times."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from mtl.console import on_one_line

COPIED = 1 << 28
"""Bytes that a column of a batch may take when each row gets a copy of its text."""


def is_text(kind: pa.DataType) -> bool:
    """Whether values are text in any of Arrow's forms."""
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in tests)


def is_bytes(kind: pa.DataType) -> bool:
    """Whether values are bytes; some programs write text as bytes."""
    tests = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_fixed_size_binary,
        pa.types.is_binary_view,
    )
    return any(test(kind) for test in tests)


def is_list(kind: pa.DataType) -> bool:
    """Whether values are lists in any of Arrow's forms."""
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def type_name(kind: pa.DataType) -> str:
    """The name of a column's type in messages."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = {
        "text": lambda k: is_text(k) or is_bytes(k) or pa.types.is_time(k) or pa.types.is_null(k),
        "integer": pa.types.is_integer,
        "boolean": pa.types.is_boolean,
        "number": lambda k: pa.types.is_floating(k) or pa.types.is_decimal(k),
        "list": is_list,
        "time": lambda k: pa.types.is_timestamp(k) or pa.types.is_date(k),
    }
    return next((name for name, test in tests.items() if test(kind)), "other")


def shown_type(kind: pa.DataType) -> str:
    """pyarrow's own name of a type in messages; names of fields, which a file gives, are printable and cut."""
    return on_one_line(str(kind))[:60]


def long_entry(array: pa.DictionaryArray, most: int) -> tuple[int, int] | None:
    """The first row with a text of more than `most` characters, and how many it has; None if there is none.

    No text is copied to the rows that have it. A column whose rows together take less than `COPIED` bytes passes.
    """
    entries = array.dictionary
    if not is_text(entries.type):
        return None
    sizes = pc.binary_length(entries)
    if (pc.max(sizes).as_py() or 0) * len(array) < COPIED or (pc.max(sizes).as_py() or 0) <= most:
        return None
    rows = pc.take(pc.utf8_length(entries), array.indices)
    k = pc.index(pc.greater(rows, most), True).as_py()
    return None if k < 0 else (k, rows[k].as_py())


def first_bad(array: pa.Array, read: Callable[[pa.Array], object]) -> int:
    """The position of the first value for which `read` fails, found by halving."""
    low, high = 0, len(array)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            read(array.slice(low, middle - low))
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return low
