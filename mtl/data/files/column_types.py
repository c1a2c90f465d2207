"""The type of a table's column: text, numbers, lists or times."""

from __future__ import annotations

import pyarrow as pa


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
