"""What the columns of a table look like, and what they may be for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np

from mtl.data.labels import NO_AND_YES
from mtl.data.table import TableFile
from mtl.data.values import texts
from mtl.errors import UserError, quoted

SEEN_ROWS = 200_000
"""Rows that are looked at."""
MANY = 2000
"""Distinct values from which text is taken to name rows rather than classes."""
FEW = 20
"""Distinct whole numbers that may be classes; values that a column should have."""
LONGEST = 200
"""Characters of a column's name in a recipe."""
MARKERS = ("NA", "N/A", "n/a", "na", "NaN", "nan", "NULL", "null", "None", "none", "-", "?", ".", "missing")
"""What stands for a missing number in a column of text that else holds numbers."""
SCALES = (
    ("very low", "low", "medium", "high", "very high"),
    ("none", "mild", "moderate", "severe", "critical"),
    ("never", "rarely", "sometimes", "often", "always"),
    ("very poor", "poor", "fair", "good", "very good", "excellent"),
    ("strongly disagree", "disagree", "neutral", "agree", "strongly agree"),
    ("xs", "s", "m", "l", "xl", "xxl"),
    ("low", "mid", "high"),
    ("small", "medium", "large"),
)
ORDERED = frozenset(
    ("rating", "stars", "star", "grade", "level", "severity", "stage", "score", "rank", "priority", "risk")
)
COUNTED = frozenset(
    (
        "n",
        "num",
        "number",
        "count",
        "counts",
        "total",
        "age",
        "years",
        "days",
        "visits",
        "amount",
        "price",
        "quantity",
    )
)
"""Words of a column's name by which its whole numbers are grades, or quantities."""

Kind = Literal["multiclass", "binary", "ordinal", "multilabel", "regression"]
Role = Literal["numeric", "categorical", "vector", "image", "id", "none"]


@dataclass
class Look:
    """What was seen of one column.

    Args:
        name: the column.
        type: as the file says it; of a column of lists `texts` or `vector`.
        n: rows looked at.
        missing: of them without a value.
        counts: distinct value -> rows, up to `MANY` + 1 values.
        numbers: rows with a finite number; `numeric`: every value is one, `whole`: a whole one.
        markers: text that may stand for a missing value -> rows.
        lists: rows whose text holds the separator.
        largest: the largest number without its sign.
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
        """Distinct values seen, at most `MANY` + 1."""
        return len(self.counts)

    @property
    def there(self) -> int:
        """Rows with a value."""
        return self.n - self.missing

    @property
    def words(self) -> set[str]:
        """The words of the name: `riskLevel_2` has risk and level."""
        return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", self.name)}

    @property
    def many(self) -> str:
        """How many distinct values there are, in words."""
        return f"more than {MANY}" if self.distinct > MANY else str(self.distinct)


@dataclass(frozen=True)
class Looks:
    """The columns of a table, and the texts that stand for a missing value in it."""

    columns: Mapping[str, Look]
    na_values: tuple[str, ...]


def look(file: TableFile, separator: str = "|") -> Looks:
    """Every column of a table's first rows.

    Raises:
        UserError: the file is not what it should be.
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


def _see(seen: Look, file: TableFile, first: int, array: Any, separator: str) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

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


def _see_list(seen: Look, array: Any) -> None:
    """A column of lists: of texts, or of numbers with their lengths."""
    import pyarrow as pa
    import pyarrow.compute as pc

    seen.numeric = seen.whole = False
    kind = array.type
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(test(kind) for test in tests):
        seen.type = "other"
    elif pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type):
        seen.type = "texts"
    elif pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type):
        seen.type = "vector"
        seen.widths |= set(pc.unique(pc.list_value_length(array).drop_null()).to_pylist())
    else:
        seen.type = "other"


def _see_numbers(seen: Look, distinct: Any, rows: Any) -> None:
    """Whether texts are numbers, by the parser that will read them."""
    import pyarrow as pa
    import pyarrow.compute as pc

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
    """Texts such as `[1, 2.5]` are lists of numbers."""
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


def is_time(seen: Look) -> bool:
    """Whether the values can be read as times: dates in ISO form, or numbers."""
    return seen.type == "time" or (seen.numeric and seen.numbers > 0) or _dates(seen.counts, _iso)


def _dates(values: Iterable[str], test: Any) -> bool:
    some = list(values)[:200]
    return bool(some) and all(test(value) for value in some)


def _iso(text: str) -> bool:
    with suppress(ValueError):
        datetime.fromisoformat(text.strip())
        return True
    return False


def _like_a_date(text: str) -> bool:
    return _iso(text) or re.match(r"\s*\d{1,4}([-/.])\d{1,2}\1\d{1,4}(\D|$)", text) is not None


def guess_kind(seen: Look) -> tuple[Kind, dict[str, Any], str]:
    """The kind of task a label column is for, its options, and why.

    Raises:
        UserError: no kind fits.
    """
    what = f"column {quoted(seen.name)}"
    if not seen.there:
        raise UserError("--targets", f"{what} has no value")
    if seen.type == "texts":
        return "multilabel", {}, "holds lists of labels"
    if seen.type in ("vector", "other", "time"):
        held = {"vector": "lists of numbers", "time": "times"}.get(seen.type, "values that are no labels")
        raise UserError("--targets", f"{what} holds {held}: no kind of task is for it")
    if seen.distinct < 2:
        raise UserError("--targets", f"{what} has one value throughout: nothing to learn")
    if seen.lists > 0.05 * seen.there and not seen.numeric:
        return "multilabel", {}, "texts list several labels, separated by '|'"
    if seen.distinct == 2:
        return _binary(seen)
    if seen.numeric:
        return _numeric_kind(seen)
    order = _scale(seen)
    if order is not None:
        return "ordinal", {"order": order}, "the values have a usual order"
    if seen.distinct > MANY or seen.distinct > 0.5 * seen.there:
        raise UserError(
            "--targets",
            f"{what} holds text with {seen.many} distinct values in {seen.there} rows: no kind of task is for it",
        )
    return "multiclass", {}, f"text with {seen.distinct} distinct values"


def _numeric_kind(seen: Look) -> tuple[Kind, dict[str, Any], str]:
    if not seen.whole:
        return "regression", {}, "numbers"
    values = sorted(seen.counts, key=float)
    span = f"whole numbers {float(values[0]):.0f} to {float(values[-1]):.0f}"
    if seen.distinct <= FEW and seen.words & ORDERED:
        plain = all(_is_whole(value) for value in values)
        why = f"{span}, and the name speaks of an order"
        if plain or all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_ .\-]*", value) for value in values):
            return "ordinal", {} if plain else {"order": values}, why
    if seen.distinct <= FEW and seen.there >= 5 * seen.distinct and not seen.words & COUNTED:
        return (
            "multiclass",
            {},
            f"{seen.distinct} whole numbers; if they are ordered grades, write kind: ordinal; "
            "if they count something, regression",
        )
    return "regression", {}, f"whole numbers with {seen.many} distinct values"


def _is_whole(text: str) -> bool:
    """Whether a table reads the text as a whole number rather than as a name."""
    return re.fullmatch(r"0|-?[1-9][0-9]{0,16}", text) is not None


def _binary(seen: Look) -> tuple[Kind, dict[str, Any], str]:
    values = sorted(seen.counts)
    if {value.lower() for value in values} in [set(pair) for pair in NO_AND_YES]:
        return "binary", {}, f"two values, {values[0]} and {values[1]}"
    if seen.numeric and {float(value) for value in values} in ({0.0, 1.0}, {-1.0, 1.0}):
        yes, why = max(values, key=float), "the larger one"
    else:
        yes, why = min(values, key=lambda value: (seen.counts[value], value)), "the rarer one"
    positive: Any = int(yes) if all(_is_whole(value) for value in values) else yes
    return "binary", {"positive": positive}, f"two values; {why}, {yes}, is taken to be the positive one"


def _scale(seen: Look) -> list[str] | None:
    """The values in their usual order, if they have one."""
    by_lower = {value.lower(): value for value in seen.counts}
    if len(by_lower) < seen.distinct or seen.distinct < 3:
        return None
    for scale in SCALES:
        if set(by_lower) <= set(scale):
            return [by_lower[word] for word in scale if word in by_lower]
    return None


def guess_role(seen: Look) -> tuple[Role, str]:
    """What an input column may be for, and why."""
    unfit = _unfit(seen)
    if unfit is not None:
        return "none", unfit
    if seen.type == "vector":
        return "vector", "lists of numbers"
    if _is_id(seen):
        if seen.distinct >= min(seen.there, MANY):
            return "id", "a different value in each row"
        if seen.distinct > 50:
            return (
                "none",
                "the name is that of an id; --group keeps rows of one value on one side of the split",
            )
        return "categorical", f"{seen.distinct} values"
    if seen.numeric:
        return "numeric", ""
    if all(value.lower().endswith((".png", ".jpg", ".jpeg")) for value in list(seen.counts)[:100]):
        return "image", "paths of images"
    if _dates(seen.counts, _like_a_date):
        return "none", "dates; --time holds out the latest rows"
    if seen.distinct > min(MANY, 0.5 * seen.there, max(FEW, 0.2 * seen.there)):
        return "none", f"text with {seen.many} distinct values in {seen.there} rows"
    return "categorical", f"{seen.distinct} values"


def _unfit(seen: Look) -> str | None:
    """Why a column can be no input."""
    if not seen.name.strip() or len(seen.name) > LONGEST:
        return f"its name has {len(seen.name)} characters, at most {LONGEST}"
    if not seen.there:
        return "no value"
    if seen.type == "texts":
        return "lists of text"
    if seen.type == "time":
        return "times are not read as they are; --time holds out the latest rows"
    if seen.type == "other":
        return "neither numbers nor text"
    if seen.type == "vector":
        if seen.missing:
            return f"{seen.missing} lists are missing"
        return "lists of different lengths" if len(seen.widths) > 1 or 0 in seen.widths else None
    if seen.distinct < 2:
        return "one value throughout"
    if seen.there < FEW and seen.there <= 0.4 * seen.n + 1:
        return f"only {seen.there} values"
    if seen.numeric and seen.largest > float(np.finfo(np.float32).max):
        return "numbers too large for float32"
    return None


def _is_id(seen: Look) -> bool:
    if seen.name.lower() in ("id", "uuid", "guid", "key", "index", "row", "unnamed: 0"):
        return True
    if re.search(r"([_\W]id|[a-z](Id|ID))$", seen.name):
        return True
    return seen.numeric and seen.whole and seen.largest > 2**24 and seen.distinct >= min(seen.there, MANY)
