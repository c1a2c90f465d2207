"""Four labelled rows for every registered task: what the tests of the family and the golden numbers share."""

from typing import Any

import numpy as np

from mtl.data.types import Array, Header, Labels
from mtl.recipe.specs import TASKS, TaskSpec

OPTIONS: dict[str, dict[str, Any]] = {
    "multiclass": {"target": "label"},
    "binary": {"target": "label", "positive": (5, 7, 9)},
    "multilabel": {"targets": ("a", "b", "c")},
    "regression": {"target": "amount"},
    "ordinal": {"target": "label"},
    "fashion.garment": {},
    "fashion.audience": {},
    "faces.gender": {},
    "faces.young": {},
}
"""One minimal example of each: a new task needs a new line here."""

HEADER = Header(
    input_shape=(1, 8, 8),
    labels={
        "label": tuple("abcdefghij"),
        "gender": ("female", "male"),
        "young": ("no", "yes"),
        "amount": None,
        "a": None,
        "b": None,
        "c": None,
    },
)
RAW: dict[str, Array] = {
    "label": np.array([0, 9, 5, 3]),
    "gender": np.array([0, 1, 1, 0]),
    "young": np.array([1, 0, 1, 0]),
    "amount": np.array([1.5, -2.0, 10.0, 4.0]),
    "a": np.array([0, 1, 1, 0]),
    "b": np.array([1, 1, 0, 0]),
    "c": np.array([0, 0, 0, 1]),
}


def example(kind: str, **options: Any) -> TaskSpec:
    return TASKS[kind](**{**OPTIONS[kind], **options})


def labels_of(spec: TaskSpec, present: Array | None = None) -> Labels:
    """The rows that a task learns from."""
    columns = [RAW[name] for name in spec.target_columns()]
    values = columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
    there = np.ones(values.shape, bool) if present is None else present
    return Labels(values, there, HEADER.labels[spec.target_columns()[0]])


def outputs_of(spec: TaskSpec) -> tuple[str, ...]:
    return spec.outputs(HEADER) or spec.found_outputs(labels_of(spec))


def encoded(spec: TaskSpec) -> Array:
    return spec.encode(labels_of(spec), outputs_of(spec))
