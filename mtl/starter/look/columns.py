"""Looks at the first rows of a table: the types, values and gaps of its columns."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from mtl.data.columns.values import texts
from mtl.data.files.column_types import is_list, is_text
from mtl.data.files.formats.csv import Csv
from mtl.data.files.formats.form import ColumnForm
from mtl.data.files.table import TableFile
from mtl.starter.look.mixtures import mixture_of
from mtl.starter.look.parsed import Parsed, forms_of
from mtl.starter.words import IDS, UNNAMED

AT_ONCE = 2048
"""Fewest rows that are looked at together."""
SEEN_ROWS = 200_000
"""Most rows that are read."""
MANY = 2000
"""Text with more distinct values names rows rather than classes."""
ID = re.compile(r"([_\W][iI][dD]|[a-z](Id|ID))$")


@dataclass
class Look:
    """What the first rows show of one column.

    Args:
        name: the column.
        type: the type according to the file; for a column of lists, `texts` or `vector`.
        n: rows that were read.
        missing: rows without a value.
        typed: whether the file itself tells a row without a value from an empty text, as Parquet does.
        counts: distinct value -> rows, up to `MANY` + 1 values; those that mean a missing value are not among them.
        parsed: what its texts are if they are read as numbers or dates; None if they are neither.
        form: how its texts are to be read.
        lists: rows whose text holds the separator.
        widths: lengths of lists of numbers.
        nothing: rows that list no label.
        doubt: why its texts could be read in another way.
        padded: whether its numbers have leading zeros, as codes have.
        again: whether a value comes again, in a column of more than `MANY` values that may be an id.
        mixture: what stands in a column of text that is mostly numbers; "" in any other column.
        infinite_row: the place of an infinite number in a column whose type is a number; "" if there is none.
    """

    name: str
    type: str
    n: int = 0
    missing: int = 0
    typed: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    parsed: Parsed | None = None
    form: ColumnForm = ColumnForm()  # noqa: RUF009 - it is frozen
    lists: int = 0
    widths: set[int] = field(default_factory=set)
    nothing: int = 0
    doubt: str = ""
    padded: bool = False
    again: bool = False
    mixture: str = ""
    infinite_row: str = ""

    @property
    def numeric(self) -> bool:
        """Whether the column holds finite numbers, apart from texts that mean a missing value."""
        return self.parsed is not None and not self.parsed.dates and self.parsed.good > 0

    @property
    def dates(self) -> bool:
        """Whether the column holds dates."""
        return self.type == "time" or (self.parsed is not None and self.parsed.dates)

    @property
    def whole(self) -> bool:
        """Whether every number is a whole number."""
        return self.parsed is not None and self.numeric and self.parsed.whole

    @property
    def largest(self) -> float:
        """The largest absolute value of a number."""
        return self.parsed.largest if self.parsed is not None else 0.0

    @property
    def distinct(self) -> int:
        """The number of distinct values that were seen, at most `MANY` + 1."""
        return len(self.counts)

    @property
    def there(self) -> int:
        """The number of rows with a value."""
        return self.n - self.missing

    @property
    def blank(self) -> int:
        """The number of rows without a value, or with nothing but spaces."""
        return self.missing + sum(rows for value, rows in self.counts.items() if not value.strip())

    @property
    def called_id(self) -> bool:
        """Whether the name is that of an id, such as `id`, `user_id` and `userId`, or that of row numbers."""
        return self.name.strip().lower() in IDS | UNNAMED or ID.search(self.name) is not None

    @property
    def all_different(self) -> bool:
        """Whether no value comes again; of columns of many values, only those that may be ids are counted."""
        return not self.again if self.distinct > MANY else self.distinct == self.there

    @property
    def flag(self) -> bool:
        """Whether the cells hold one value or none, such as `x` where something is so."""
        single = self.type in ("text", "number", "integer", "boolean") and not self.dates
        return single and self.distinct == 1 and self.missing > 0

    @property
    def words(self) -> set[str]:
        """The words in the column's name: `riskLevel_2` holds risk and level."""
        return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", self.name)}

    @property
    def many(self) -> str:
        """The number of distinct values, in words."""
        return f"more than {MANY}" if self.distinct > MANY else str(self.distinct)


def look(file: TableFile, separator: str = "|") -> dict[str, Look]:
    """Look at every column of a table's first rows.

    A first pass collects the distinct values, by which the form of each column is chosen. A second pass counts what
    does not fit, in the columns that are not plain text.

    Args:
        file: the table; it has no forms of columns, so that its texts are those of the file.
        separator: the text between the labels of a column that lists several.

    Raises:
        UserError: the file has a fault.
    """
    file.check()
    typed = not isinstance(file.form, Csv)
    looks = {name: Look(name, file.types[name], typed=typed) for name in file.column_names}
    for first, batch in first_rows(file, file.column_names, SEEN_ROWS):
        for name, seen in looks.items():
            _see(seen, file, first, batch.column(name), separator)
    texts_of = {name: seen.counts for name, seen in looks.items() if seen.type == "text"}
    found = forms_of(texts_of, getattr(file.form, "delimiter", ""))
    found |= {
        n: (Parsed(ColumnForm()), "") for n, seen in looks.items() if seen.type in ("number", "integer")
    }
    for name, (parsed, doubt) in found.items():
        looks[name].parsed, looks[name].form, looks[name].doubt = parsed, parsed.form, doubt
    for first, batch in first_rows(file, list(found), SEEN_ROWS):
        for name, (parsed, _) in found.items():
            parsed.add(texts(file, name, first, batch.column(name)), first)
    for seen in looks.values():
        _settle(seen, file)
    _see_mixtures(looks, file)
    _see_again(looks, file)
    return looks


def first_rows(file: TableFile, columns: Sequence[str], most: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The first rows of some columns, at most about `most`; each batch comes with the number of its first row.

    A wide CSV comes in batches of few rows. They are put together, since each batch costs a call for each column.
    """
    if not columns:
        return
    waiting: list[pa.RecordBatch] = []
    begin = 0
    for first, batch in file.batches(columns):
        waiting.append(batch)
        end = first + batch.num_rows
        if end - begin >= AT_ONCE or end >= min(most, file.n_rows):
            yield begin, pa.concat_batches(waiting)
            waiting, begin = [], end
        if end >= most:
            break


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
    listed = pc.match_substring(distinct, separator)
    seen.lists += pc.sum(rows.filter(listed)).as_py() or 0
    if seen.distinct <= MANY:
        for value, count in zip(distinct.to_pylist(), rows.to_pylist(), strict=True):
            if value in seen.counts or seen.distinct <= MANY:
                seen.counts[value] = seen.counts.get(value, 0) + count


def _see_list(seen: Look, array: pa.Array) -> None:
    """Record a column of lists: either lists of texts, or lists of numbers with their lengths."""
    kind = array.type
    if not is_list(kind):
        seen.type = "other"
    elif is_text(kind.value_type):
        seen.type = "texts"
        seen.nothing += pc.sum(pc.equal(pc.list_value_length(array), 0)).as_py() or 0
    elif pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type):
        seen.type = "vector"
        seen.widths |= set(pc.unique(pc.list_value_length(array).drop_null()).to_pylist())
    else:
        seen.type = "other"


def _settle(seen: Look, file: TableFile) -> None:
    """Decide whether a column is read as numbers or dates, and which of its texts mean a missing value then."""
    parsed = seen.parsed
    if parsed is not None and parsed.odd and seen.type != "text":
        seen.infinite_row = file.row(min(odd.first for odd in parsed.odd.values()))
    elif parsed is not None and not parsed.holds():
        seen.padded = parsed.padded
        seen.parsed, seen.form, seen.doubt = None, ColumnForm(), ""
    elif parsed is not None:
        seen.missing += sum(odd.rows for odd in parsed.odd.values())
        seen.counts = {value: rows for value, rows in seen.counts.items() if value not in parsed.odd}
        if parsed.odd:
            seen.form = parsed.form_with_missing()
    if seen.type == "text" and seen.parsed is None:
        _see_vectors(seen)


def _see_mixtures(looks: Mapping[str, Look], file: TableFile) -> None:
    """Record what stands in columns of text that are mostly numbers; those of many values are counted anew."""
    mixed = [
        seen
        for seen in looks.values()
        if seen.type == "text" and seen.parsed is None and not seen.padded and mixture_of(seen.counts)
    ]
    counts = {seen.name: Counter(seen.counts if seen.distinct <= MANY else ()) for seen in mixed}
    many = [seen.name for seen in mixed if seen.distinct > MANY]
    for first, batch in first_rows(file, many, SEEN_ROWS):
        for name in many:
            counts[name].update(texts(file, name, first, batch.column(name)).drop_null().to_pylist())
    for seen in mixed:
        seen.mixture = mixture_of(counts[seen.name])


def _see_again(looks: Mapping[str, Look], file: TableFile) -> None:
    """Record whether values come again in columns that may be ids and have too many values to be kept."""
    many = [
        seen.name
        for seen in looks.values()
        if seen.distinct > MANY and (seen.called_id or (seen.whole and seen.largest > 2**24))
    ]
    parts: dict[str, list[pa.Array]] = {name: [] for name in many}
    for first, batch in first_rows(file, many, SEEN_ROWS):
        for name in many:
            parts[name].append(texts(file, name, first, batch.column(name)).drop_null())
    for name in many:
        values = pa.chunked_array(parts.pop(name))
        looks[name].again = pc.count_distinct(values).as_py() < len(values)


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
