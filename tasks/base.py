"""Types and functions that several kinds of tasks share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BeforeValidator, Discriminator, Field, Tag

from mtl.data.columns.labels import by_name, written
from mtl.data.columns.spelling import Known, number
from mtl.data.types import no_column
from mtl.errors import KeyPath, UserError, did_you_mean, quoted
from mtl.recipe.specs import TaskSpec, fault

if TYPE_CHECKING:
    from mtl.data.types import Array, Header, Labels, Mask
    from mtl.recipe.specs import Decoded


def label_value(value: object) -> object:
    """The value unchanged, if it is a whole number, text or true/false.

    Raises:
        PydanticCustomError: it is something else.
    """
    if not isinstance(value, bool | int | str):
        raise fault(f"a label value is a whole number, text or true/false, got {quoted(value)}")
    return value


def _class_name(value: object) -> object:
    return written(value) if isinstance(value, bool | int) else value


LabelValue = Annotated[bool | int | Annotated[str, Field(max_length=1000)], BeforeValidator(label_value)]
ClassName = Annotated[
    str,
    Field(min_length=1, max_length=200),
    BeforeValidator(_class_name, json_schema_input_type=bool | int | str),
]
"""Any text of a label column, such as `>50K`; a whole number or true/false stands for its text."""
ClassNames = Annotated[tuple[ClassName, ...], Field(min_length=2, max_length=100_000)]
SINGLE_CLASS = "a single class"
Weight = Annotated[float, Field(ge=0, le=1e6)]
ClassWeights = Annotated[
    Annotated[Literal["balanced"], Tag("<word>")] | Annotated[dict[str, Weight], Tag("<mapping>")],
    Discriminator(lambda value: "<mapping>" if isinstance(value, dict) else "<word>"),
]


def listed(names: Sequence[object], most: int = 10) -> str:
    """The first `most` names, quoted and separated by commas, for a message."""
    return ", ".join(map(quoted, names[:most])) + (", ..." if len(names) > most else "")


def refuse_twice(names: Sequence[str], *path: str) -> None:
    """Require that all names differ.

    Raises:
        UserError: a name is given twice; the path is relative to the task.
    """
    seen: set[str] = set()
    for i, name in enumerate(names):
        if name in seen:
            raise UserError("", f"{quoted(name)} is given twice", path=(*path, i))
        seen.add(name)


def whole_number(value: object) -> int | None:
    """The whole number that a label value stands for; None if it is other text or has more than 18 digits."""
    if isinstance(value, int):
        return int(value)
    spelled = number(str(value)) or ""
    digits = spelled.removeprefix("-")
    return int(spelled) if digits.isdigit() and len(digits) <= 18 else None


def number_in_column(value: object, column: str, path: KeyPath) -> int:
    """The whole number that a label value stands for in a column of numbers.

    Raises:
        UserError: the value is other text; `path` is the key that gave it.
    """
    number = whole_number(value)
    if number is None:
        what = f"value {quoted(value)} is not in column {quoted(column)}, which holds numbers"
        raise UserError("", what, path=path)
    return number


def named_labels(
    task: TaskSpec, column: str, header: Header, *path: str | int
) -> tuple[tuple[str, ...] | None, bool]:
    """The class names of a label column, or None, and whether these names are the values of the column.

    Raises:
        UserError: the column does not exist; the path of the error is `path`, or `target` without one.
    """
    if column not in header.labels:
        raise UserError("", no_column(column, header.known, "label column"), path=path or ("target",))
    return header.labels[column], column in header.text


def class_lookup(labels: Labels, outputs: Sequence[str]) -> dict[int, int]:
    """Raw value -> class, by name if the column or the classes have names, otherwise by position."""
    if labels.names is not None:
        if labels.text or set(labels.names) == set(outputs):
            return by_name(labels.names, outputs)
        return {i: i for i in range(len(outputs))}
    numbers = [whole_number(output) for output in outputs]
    return {i if number is None or None in numbers else number: i for i, number in enumerate(numbers)}


def allowed_values(lookup: Mapping[int, int], labels: Labels, outputs: Sequence[str]) -> str:
    """The raw values that have a class, as text for a message."""
    if not labels.text and list(lookup) == list(range(len(outputs))):
        return f"0..{len(outputs) - 1}"
    return listed(outputs)


def _balanced_weights(targets: Array, n_classes: int) -> tuple[float, ...]:
    """n / (C * count of the class), as in scikit-learn; C counts the classes that have rows, all others weigh 0.

    Source: King and Zeng 2001, "Logistic regression in rare events data".
    """
    counts = np.bincount(targets.astype(np.int64), minlength=n_classes)[:n_classes]
    present = np.count_nonzero(counts)
    return tuple(len(targets) / (present * c) if c else 0.0 for c in counts.tolist())


def _weights_by_name(
    given: Mapping[str, float], names: Sequence[str], what: str, key: str
) -> tuple[float, ...]:
    """The weight of each class or label, by default 1.

    Raises:
        UserError: a weight is given for an unknown name.
    """
    known = Known(names)
    unknown = [name for name in given if known.find(name) is None]
    if unknown:
        near = did_you_mean(unknown[0], names)
        raise UserError(
            "", f"no {what} {quoted(unknown[0])}{near}; known: {listed(names)}", path=(key, unknown[0])
        )
    weights = [1.0] * len(names)
    for name, weight in given.items():
        weights[known.position_of(name)] = weight
    return tuple(weights)


def class_weights(
    given: Mapping[str, float] | str | None, targets: Array, classes: Sequence[str]
) -> dict[str, tuple[float, ...]]:
    """`class_weight` -> the weight of each class in the loss; empty if `given` is None."""
    if given is None:
        return {}
    if isinstance(given, str):
        return {"class_weight": _balanced_weights(targets, len(classes))}
    return {"class_weight": _weights_by_name(given, classes, "class", "class_weights")}


def positive_weights(
    given: Mapping[str, float] | float | str | None, targets: Array, labels: Sequence[str]
) -> dict[str, tuple[float, ...]]:
    """`positive_weight` -> for each label the weight of its positive rows in the loss; empty if `given` is None.

    Args:
        given: a number, or label -> number, or `balanced`: rows without / rows with the label, 1 if either is 0.
        targets: (n,) for one answer, or (n, O); -1 marks an unknown one.
        labels: the O labels.
    """
    target_NO = targets.reshape(len(targets), -1)
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {"positive_weight": _weights_by_name(given, labels, "label", "positive_weight")}
    if not isinstance(given, str):
        return {"positive_weight": (given,) * target_NO.shape[1]}
    yes, no = (target_NO == 1).sum(axis=0), (target_NO == 0).sum(axis=0)
    both = (yes > 0) & (no > 0)
    return {"positive_weight": tuple(np.where(both, no / np.maximum(yes, 1), 1.0).tolist())}


def of_a_single_class(targets: Array, names: Iterable[str]) -> dict[str, str]:
    """Each of the names -> "a single class", if all targets (n,) are equal; else nothing."""
    return dict.fromkeys(names, SINGLE_CLASS) if (targets == targets[0]).all() else {}


def weighing_classes(targets: Array, constants: Mapping[str, Sequence[float]]) -> Mask:
    """(n,) whether the weight of each row's class in the loss is positive."""
    if "class_weight" not in constants:
        return np.ones(len(targets), dtype=bool)
    return np.asarray(np.asarray(constants["class_weight"])[targets.astype(np.int64)] > 0, dtype=bool)


def class_columns(predicted: Mapping[str, Array], classes: Sequence[str]) -> Decoded:
    """The most probable class of each row, and the probability of each class."""
    return {"": class_values(classes)[predicted["class"]], **probability_columns(predicted["p"], classes)}


def class_values(classes: Sequence[str]) -> Array:
    """The classes in the type of their labels: whole numbers or truth values if all are, else texts."""
    numbers = [whole_number(name) for name in classes]
    if None not in numbers:
        return np.array(numbers, dtype=np.int64)
    truths = {"false": False, "true": True}
    if all(name in truths for name in classes):
        return np.array([truths[name] for name in classes])
    return np.array(classes, dtype=object)


def probability_columns(p_BO: Array, names: Sequence[str]) -> dict[str, Array]:
    """Column name -> the probability of one class or label."""
    return {f"_p_{name}": p_BO[:, o] for o, name in enumerate(names)}
