"""Looks at the first rows of a table: the types, values and gaps of its columns."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mtl.data.columns.values import texts
from mtl.data.files.column_types import is_list, is_text
from mtl.data.files.table import TableFile
from mtl.errors import UserError

SEEN_ROWS = 200_000
"""Most rows that are read."""
MANY = 2000
"""Text with more distinct values names rows rather than classes."""
MARKERS = ("NA", "N/A", "n/a", "na", "NaN", "nan", "NULL", "null", "None", "none", "-", "?", ".", "missing")
"""Texts that mean a missing number in a column whose other texts are numbers."""


@dataclass
class Look:
    """What the first rows show of one column.

    Args:
        name: the column.
        type: the type according to the file; for a column of lists, `texts` or `vector`.
        n: rows that were read.
        missing: rows without a value.
        counts: distinct value -> rows, up to `MANY` + 1 values.
        numbers: rows with a finite number.
        numeric: whether every value is a finite number.
        whole: whether every value is a whole number.
        markers: text that may mean a missing value -> rows.
        lists: rows whose text holds the separator.
        largest: the largest absolute value of a number.
        widths: lengths of lists of numbers.
    """

    name: str
    type: str
    n: int = 0
    missing: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    numbers: int = 0
    numeric: bool = True
    whole: bool = True
    markers: dict[str, int] = field(default_factory=dict)
    lists: int = 0
    largest: float = 0.0
    widths: set[int] = field(default_factory=set)

    @property
    def distinct(self) -> int:
        """The number of distinct values that were seen, at most `MANY` + 1."""
        return len(self.counts)

    @property
    def there(self) -> int:
        """The number of rows with a value."""
        return self.n - self.missing

    @property
    def words(self) -> set[str]:
        """The words in the column's name: `riskLevel_2` holds risk and level."""
        return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", self.name)}

    @property
    def many(self) -> str:
        """The number of distinct values, in words."""
        return f"more than {MANY}" if self.distinct > MANY else str(self.distinct)


@dataclass(frozen=True)
class Looks:
    """The columns of a table, and the texts that mean a missing value in it."""

    columns: Mapping[str, Look]
    na_values: tuple[str, ...]


def look(file: TableFile, separator: str = "|") -> Looks:
    """Look at every column of a table's first rows.

    Raises:
        UserError: the file has a fault.
    """
    file.check()
    if file.n_rows == 0:
        raise UserError(file.name, "no rows")
    looks = {name: Look(name, file.types[name]) for name in file.column_names}
    for first, batch in file.batches(file.column_names):
        for name, seen in looks.items():
            _see(seen, file, first, batch.column(name), separator)
        if first + batch.num_rows >= SEEN_ROWS:
            break
    found: set[str] = set()
    for seen in looks.values():
        if seen.numeric and seen.markers and not seen.numbers:
            seen.numeric = seen.whole = False
        elif seen.numeric:
            found |= set(seen.markers)
        if seen.type == "text" and not seen.numeric:
            _see_vectors(seen)
    for seen in looks.values():
        for marker in found & set(seen.markers):
            seen.missing += seen.markers[marker]
            seen.counts.pop(marker, None)
    return Looks(looks, tuple(sorted(found)))


def _see(seen: Look, file: TableFile, first: int, array: pa.Array, separator: str) -> None:
    seen.n += len(array)
    seen.missing += array.null_count
    if pa.types.is_nested(array.type) or pa.types.is_binary(array.type):
        _see_list(seen, array)
        return
    values = pc.value_counts(texts(file, seen.name, first, array).drop_null())
    distinct, rows = values.field(0), values.field(1)
    if not len(distinct):
        return
    marked = pc.is_in(distinct, pa.array(MARKERS))
    for value, count in zip(
        distinct.filter(marked).to_pylist(), rows.filter(marked).to_pylist(), strict=True
    ):
        seen.markers[value] = seen.markers.get(value, 0) + count
    if seen.numeric:
        _see_numbers(seen, distinct.filter(pc.invert(marked)), rows.filter(pc.invert(marked)))
    listed = pc.match_substring(distinct, separator)
    seen.lists += pc.sum(rows.filter(listed)).as_py() or 0
    if seen.distinct <= MANY:
        for value, count in zip(distinct.to_pylist(), rows.to_pylist(), strict=True):
            if value in seen.counts or seen.distinct <= MANY:
                seen.counts[value] = seen.counts.get(value, 0) + count


def _see_list(seen: Look, array: pa.Array) -> None:
    """Record a column of lists: either lists of texts, or lists of numbers with their lengths."""
    seen.numeric = seen.whole = False
    kind = array.type
    if not is_list(kind):
        seen.type = "other"
    elif is_text(kind.value_type):
        seen.type = "texts"
    elif pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type):
        seen.type = "vector"
        seen.widths |= set(pc.unique(pc.list_value_length(array).drop_null()).to_pylist())
    else:
        seen.type = "other"


def _see_numbers(seen: Look, distinct: pa.Array, rows: pa.Array) -> None:
    """Record whether texts are numbers, according to the parser that will read them."""
    try:
        cast = pc.cast(pc.utf8_trim_whitespace(distinct), pa.float64())
    except pa.ArrowInvalid:
        seen.numeric = seen.whole = False
        return
    values = np.abs(cast.to_numpy(zero_copy_only=False))
    if not np.isfinite(values).all():
        seen.numeric = seen.whole = False
        return
    seen.numbers += int(pc.sum(rows).as_py() or 0)
    seen.whole = seen.whole and bool((values == np.floor(values)).all())
    seen.largest = max(seen.largest, float(values.max(initial=0)))


def _see_vectors(seen: Look) -> None:
    """Record texts such as `[1, 2.5]` as lists of numbers."""
    widths: set[int] = set()
    for text in seen.counts:
        if not text.startswith("["):
            return
        with suppress(ValueError, RecursionError):
            values = json.loads(text)
            if isinstance(values, list) and all(type(value) in (int, float) for value in values):
                widths.add(len(values))
                continue
        return
    if widths:
        seen.type, seen.widths = "vector", widths
