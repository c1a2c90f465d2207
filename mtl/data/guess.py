"""What the columns of a table look like, and what they may be for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from mtl.data.table import TableFile, texts
from mtl.errors import UserError

SEEN_ROWS = 200_000
"""Rows that are looked at."""
MANY = 2000
"""Distinct values from which text is taken to name rows rather than classes."""
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
ORDERED_NAMES = (
    "rating",
    "stars",
    "grade",
    "level",
    "severity",
    "stage",
    "score",
    "rank",
    "priority",
    "risk",
)

Kind = Literal["multiclass", "binary", "ordinal", "multilabel", "regression"]


@dataclass
class Look:
    """What was seen of one column.

    Args:
        name: the column.
        type: as the file says it.
        n: rows looked at.
        missing: of them without a value.
        counts: distinct value -> rows, up to `MANY` + 1 values.
        numeric: whether every value is a number; `whole`: a whole one.
        lists: rows whose text holds the separator.
    """

    name: str
    type: str
    n: int = 0
    missing: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    numeric: bool = True
    whole: bool = True
    lists: int = 0
    largest: float = 0.0

    @property
    def distinct(self) -> int:
        """Distinct values seen, at most `MANY` + 1."""
        return len(self.counts)


def look(file: TableFile, separator: str = "|") -> dict[str, Look]:
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
    return looks


def _see(seen: Look, file: TableFile, first: int, array: Any, separator: str) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    seen.n += len(array)
    seen.missing += array.null_count
    if (
        pa.types.is_list(array.type)
        or pa.types.is_fixed_size_list(array.type)
        or pa.types.is_large_list(array.type)
    ):
        inner = array.type.value_type
        seen.type = "texts" if pa.types.is_string(inner) or pa.types.is_large_string(inner) else "vector"
        seen.numeric = False
        return
    text = texts(file, seen.name, first, array).drop_null()
    values = pc.value_counts(text)
    for value, count in zip(values.field(0).to_pylist(), values.field(1).to_pylist(), strict=True):
        if value in seen.counts or seen.distinct <= MANY:
            seen.counts[value] = seen.counts.get(value, 0) + count
        seen.lists += count if separator in value else 0
        _see_number(seen, value)


def _see_number(seen: Look, value: str) -> None:
    if not seen.numeric:
        return
    try:
        number = float(value)
    except ValueError:
        seen.numeric = seen.whole = False
        return
    seen.whole = seen.whole and number.is_integer() if np.isfinite(number) else False
    seen.numeric = bool(np.isfinite(number))
    seen.largest = max(seen.largest, abs(number))


def guess_kind(seen: Look) -> tuple[Kind, dict[str, Any], str]:
    """The kind of task a label column is for, its options, and why."""
    if seen.type == "texts":
        return "multilabel", {}, "holds lists of labels"
    if seen.lists > 0.05 * max(1, seen.n - seen.missing) and not seen.numeric:
        return "multilabel", {}, "texts list several labels, separated by '|'"
    if seen.distinct == 2:
        return _binary(seen)
    if not seen.numeric:
        order = _scale(seen)
        if order is not None:
            return "ordinal", {"order": order}, "the values have a usual order"
        return "multiclass", {}, f"text with {seen.distinct} distinct values"
    if seen.whole and 3 <= seen.distinct <= 20:
        values = sorted(int(float(v)) for v in seen.counts)
        if any(word in seen.name.lower() for word in ORDERED_NAMES):
            return (
                "ordinal",
                {},
                f"whole numbers {values[0]} to {values[-1]}, and the name speaks of an order",
            )
        return (
            "multiclass",
            {},
            f"{seen.distinct} whole numbers; if they are ordered grades, write kind: ordinal",
        )
    return (
        "regression",
        {},
        "numbers" if not seen.whole else f"whole numbers with {_many(seen)} distinct values",
    )


def _many(seen: Look) -> str:
    return f"more than {MANY}" if seen.distinct > MANY else str(seen.distinct)


def _binary(seen: Look) -> tuple[Kind, dict[str, Any], str]:
    values = sorted(seen.counts)
    for pair in (
        ("0", "1"),
        ("no", "yes"),
        ("false", "true"),
        ("n", "y"),
        ("f", "t"),
        ("neg", "pos"),
        ("negative", "positive"),
    ):
        if {value.lower() for value in values} == set(pair):
            return "binary", {}, f"two values, {values[0]} and {values[1]}"
    rarer = min(values, key=lambda value: (seen.counts[value], value))
    positive: Any = int(float(rarer)) if seen.numeric and seen.whole else rarer
    return (
        "binary",
        {"positive": positive},
        f"two values; the rarer one, {rarer}, is taken to be the positive one",
    )


def _scale(seen: Look) -> list[str] | None:
    """The values in their usual order, if they have one."""
    by_lower = {value.lower(): value for value in seen.counts}
    if len(by_lower) < seen.distinct or seen.distinct < 3:
        return None
    for scale in SCALES:
        if set(by_lower) <= set(scale):
            return [by_lower[word] for word in scale if word in by_lower]
    return None


Role = Literal["numeric", "categorical", "vector", "image", "id", "none"]


def guess_role(seen: Look) -> tuple[Role, str]:
    """What an input column may be for, and why."""
    if seen.type == "vector":
        return "vector", "lists of numbers"
    if seen.type in ("texts", "time"):
        return "none", "dates are not read as they are" if seen.type == "time" else "lists of text"
    there = seen.n - seen.missing
    if there == 0 or seen.distinct < 2:
        return "none", "no value" if there == 0 else "one value throughout"
    named_id = seen.name.lower() in ("id", "uuid", "key", "index") or seen.name.lower().endswith("_id")
    if named_id and seen.distinct >= min(there, MANY):
        return "id", "a different value in each row"
    if seen.numeric:
        return "numeric", ""
    if all(value.lower().endswith((".png", ".jpg", ".jpeg")) for value in list(seen.counts)[:100]):
        return "image", "paths of images"
    if seen.distinct > MANY or seen.distinct > 0.5 * there:
        return "none", f"text with {_many(seen)} distinct values"
    return "categorical", f"{seen.distinct} values"
