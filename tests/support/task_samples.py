"""Four labelled rows for every registered task, and its module: what the tests of the family share.

Shapes: B batch, T tasks of a group, O outputs per task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mtl.data.types import Array, Header, Labels
from mtl.model.tasks.heads import GroupedHead
from mtl.model.tasks.module import TaskModule
from mtl.recipe.specs import TASKS, TaskSpec

if TYPE_CHECKING:
    from mtl.recipe.specs import Decoded

OPTIONS: dict[str, dict[str, Any]] = {kind: dict(TASKS[kind].example) for kind in TASKS.names()}
"""The example of each task."""

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
    there = np.ones(values.shape, bool) if present is None else present.astype(bool)
    return Labels(values, there, HEADER.labels[spec.target_columns()[0]])


def outputs_of(spec: TaskSpec) -> tuple[str, ...]:
    return spec.outputs(HEADER) or spec.found_outputs(labels_of(spec))


def encoded(spec: TaskSpec) -> Array:
    return spec.encode(labels_of(spec), outputs_of(spec))


def module_of(spec: TaskSpec, n_outputs: int, *constants: Mapping[str, tuple[float, ...]]) -> TaskModule:
    """The module of one task for each of `constants`, `t0`, `t1` and so on; all read one tower of five features."""
    first = {name: (value,) for name, value in spec.fitted.items()}
    own = [{**first, **each} for each in constants]
    stacked = {name: torch.tensor([each[name] for each in own]).squeeze(-1) for name in own[0]}
    head = GroupedHead([f"t{t}" for t in range(len(own))], [0] * len(own), 1, 5, n_outputs)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    return spec.build(head, stacked)


def mean_loss(module: TaskModule, logits_BTO: Tensor, target: Tensor, weight_BT: Tensor) -> Tensor:
    """(T,) the weighted mean over rows, as an evaluation gives it; 0 for a task that no row counts for."""
    sum_T, weight_T = module.loss(logits_BTO, target, weight_BT)
    return sum_T / torch.where(weight_T > 0, weight_T, 1.0)


def decoded(spec: TaskSpec, module: TaskModule, logits_BO: Tensor, outputs: tuple[str, ...]) -> Decoded:
    """The columns of predictions of a group's only task."""
    predicted = module.predict(logits_BO.unsqueeze(1))
    return spec.decode({name: values[:, 0].numpy() for name, values in predicted.items()}, outputs)
