"""Raw label values -> the numbers of their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

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
"""Pairs of texts of which the second means yes."""


def narrow(values: Array) -> Array:
    """The same numbers in the smallest type that holds each of them exactly, down to int8 and float32.

    Rows of labels stay in memory for the whole run: a class of ten takes one byte instead of eight.
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
    """(n,) the class of each row; any class where no label is present.

    Args:
        labels: (n,) raw values.
        lookup: raw value -> class.
        allowed: what the message says of the values that have one.

    Raises:
        UserError: a label that is present has no class; names the first row.
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
    """The class of a raw value; -1 if it is not a whole number or has none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return lookup.get(int(value), -1) if isinstance(value, int) else -1


def shown_value(labels: Labels, row: int) -> str:
    """A raw label as its user wrote it."""
    value = labels.values[row].item()
    if labels.text and labels.names is not None and 0 <= value < len(labels.names):
        return quoted(labels.names[value])
    return quoted(value)


def found_classes(labels: Labels) -> tuple[str, ...]:
    """The classes of a column of whole numbers: its distinct values in order, as text.

    Raises:
        UserError: a value is no whole number, or there are too many.
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
    """Code of a text value -> class, for the values that are classes."""
    position = {name: i for i, name in enumerate(classes)}
    return {code: position[name] for code, name in enumerate(names) if name in position}


def written(value: object) -> str:
    """A label value of a recipe as a text column would hold it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def called_together(names: Sequence[Names], text: bool) -> Names:
    """What the codes of several sources are called: texts in their stable order; else what all agree in."""
    if None in names:
        return None
    if text:
        return stable_order(name for own in names for name in own or ())
    return names[0] if len(set(names)) == 1 else None
