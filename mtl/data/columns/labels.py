"""Turns raw label values into class numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from mtl.data.columns.spelling import Known, together
from mtl.data.types import Array, Labels, Mask, Names, stable_order
from mtl.errors import UserError, quoted

MAX_CLASSES = 100_000
NO_AND_YES = (
    ("false", "true"),
    ("no", "yes"),
    ("n", "y"),
    ("f", "t"),
    ("0", "1"),
    ("neg", "pos"),
    ("negative", "positive"),
)
"""Pairs of texts; the second text of each pair means yes."""


def narrow(values: Array) -> Array:
    """The same numbers in the smallest type that holds each of them exactly, down to int8 and float32.

    Labels stay in memory for the whole run; ten classes then take one byte per row instead of eight.
    """
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            short = values.astype(np.float32)
        return short if np.array_equal(short, values, equal_nan=True) else values
    if values.dtype.kind not in "iu" or values.size == 0:
        return values
    low, high = int(values.min()), int(values.max())
    for kind in (np.int8, np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return values.astype(kind)
    return values


def class_codes(labels: Labels, lookup: Mapping[int, int], allowed: str) -> Array:
    """(n,) the class of each row; a row without a label gets any class.

    Args:
        labels: (n,) raw values.
        lookup: raw value -> class.
        allowed: the allowed values, as the message describes them.

    Raises:
        UserError: a label has no class; the message names the first such row.
    """
    distinct = np.unique(labels.values)
    classes = narrow(np.array([_class(lookup, value) for value in distinct.tolist()], dtype=np.int64))
    codes = cast(npt.NDArray[np.int64], classes[np.searchsorted(distinct, labels.values)])
    wrong = np.flatnonzero((codes < 0) & labels.present)
    if wrong.size:
        row = int(wrong[0])
        shown = shown_value(labels, row)
        raise UserError(labels.place(row), f"label {shown}, allowed {allowed}", path=("target",))
    return np.maximum(codes, 0, out=codes)


def _class(lookup: Mapping[int, int], value: object) -> int:
    """The class of a raw value; -1 if the value is no whole number or has no class."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return lookup.get(int(value), -1) if isinstance(value, int) else -1


def shown_value(labels: Labels, row: int) -> str:
    """A raw label as the user wrote it."""
    value = labels.values[row].item()
    if labels.text and labels.names is not None and 0 <= value < len(labels.names):
        return quoted(labels.names[value])
    return quoted(value)


def found_classes(labels: Labels) -> tuple[str, ...]:
    """The classes of a column of whole numbers: its distinct values in order, as text.

    Raises:
        UserError: a value is no whole number, or there are too many values.
    """
    values = np.unique(labels.values[labels.present])
    if not _are_whole(values).all():
        row = int(np.flatnonzero(labels.present & ~_are_whole(labels.values))[0])
        raise UserError(
            labels.place(row),
            f"label {shown_value(labels, row)} is not a whole number",
            "use kind: regression for a quantity",
            path=("target",),
        )
    if len(values) > MAX_CLASSES:
        raise UserError("", f"{len(values)} distinct labels; at most {MAX_CLASSES} classes", path=("target",))
    if len(values) < 2:
        what = f"the only class is {quoted(int(values[0]))}" if len(values) else "there is no label at all"
        raise UserError("", f"{what}: nothing to learn", path=("target",))
    return tuple(str(int(value)) for value in values)


def _are_whole(values: Array) -> Mask:
    return np.asarray(np.isfinite(values) & (values == np.floor(values)), dtype=bool)


def by_name(names: Sequence[str], classes: Sequence[str]) -> dict[int, int]:
    """Code -> class, for each text value that is a class."""
    known = Known(classes)
    found = ((code, known.find(name)) for code, name in enumerate(names))
    return {code: position for code, position in found if position is not None}


def whole_numbers(names: Sequence[str]) -> npt.NDArray[np.int64] | None:
    """The values of a label column as whole numbers; None if there are none, or one is something else."""
    if names and all(_whole(name) for name in names):
        return np.array([int(name) for name in names], dtype=np.int64)
    return None


def _whole(name: str) -> bool:
    return name.removeprefix("-").isdecimal() and len(name) < 18 and str(int(name)) == name


def written(value: object) -> str:
    """A label value of a recipe, in the form in which a text column would hold it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def called_together(names: Sequence[Names], text: bool) -> Names:
    """Names of the codes of several sources together: texts in their stable order; else the names that all agree on."""
    if None in names:
        return None
    if text:
        return stable_order(together(own or () for own in names))
    return names[0] if len(set(names)) == 1 else None
