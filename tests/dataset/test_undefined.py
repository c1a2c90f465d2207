"""What each kind says of the metrics that labels cannot define is what its metric gives, whatever is predicted.

Shapes: B batch, O outputs per task.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mtl.data.types import Array
from mtl.dataset.labels import TaskLabels
from mtl.dataset.undefined import notices_on, undefined_metrics
from mtl.recipe.specs import TASKS, TaskSpec
from tests.support.task_samples import OPTIONS, encoded, example, module_of, outputs_of

KINDS = sorted(OPTIONS)
BY_PREDICTIONS = {"precision"}
"""0 / 0 while nothing is predicted yes."""
CONSTANT = {"precision", "f1", "cohen_kappa", "quadratic_kappa", "average_precision", "micro_f1"}
"""Where labels leave these undefined, the formula has one value or none, whatever is predicted: 0, or 1."""


def labels_of(spec: TaskSpec, targets: Array, weight: Array | None = None) -> TaskLabels:
    outputs = outputs_of(spec)
    whole = np.ones(len(targets), dtype=bool)
    return TaskLabels(outputs, targets, whole, weight, spec.constants(encoded(spec), outputs), [])


def targets_alike(spec: TaskSpec, targets: Array) -> dict[str, Array]:
    """Labels of four rows: as the example has them, and all equal to one of them."""
    return {"all": targets, **{f"as in row {i}": np.stack([targets[i]] * 4) for i in range(len(targets))}}


@pytest.mark.parametrize("kind", KINDS)
def test_what_labels_leave_undefined_is_what_the_metric_cannot_give(kind: str) -> None:
    spec = example(kind, metrics=tuple(TASKS[kind].known_metrics)[:1])
    generator = torch.Generator().manual_seed(0)
    tried = 0
    for targets in targets_alike(spec, encoded(spec)).values():
        labels = labels_of(spec, targets)
        module = module_of(spec, spec.n_outputs(labels.outputs), labels.constants)
        undefined = undefined_metrics(spec, labels, np.arange(4))
        assert set(undefined) <= {*spec.known_metrics, "loss", "temperature", "threshold"}
        found: dict[str, set[float | None]] = {name: set() for name in spec.known_metrics}
        for _ in range(50):
            logits = 5 * torch.randn(4, 1, spec.n_outputs(labels.outputs), generator=generator)
            metric = module.metric(frozenset(spec.known_metrics))
            metric.update(logits, torch.from_numpy(targets)[:, None], torch.ones(4, 1, dtype=torch.bool))
            for name, value in metric.compute().items():
                if name in found:
                    found[name].add(None if value.isnan().any() else round(value.item(), 9))
        for name, values in found.items():
            tried += 1
            if name in undefined:
                assert values == {None} or (name in CONSTANT and len(values - {None}) == 1), name
            else:
                assert None not in values or name in BY_PREDICTIONS, name
    assert tried == 5 * len(spec.known_metrics)


BOTH = {"auroc", "average_precision", "balanced_accuracy", "temperature", "threshold"}
CURVES = {"macro_auroc", "macro_average_precision", "threshold"}
KAPPA = {"auroc", "average_precision", "cohen_kappa", "temperature"}
EXPECTED: list[tuple[str, dict[str, Any], list[Any], set[str]]] = [
    ("binary", {}, [1, 1], BOTH | {"specificity"}),
    ("binary", {}, [0, 0], BOTH | {"f1", "precision", "recall"}),
    ("binary", {}, [0, 1], set()),
    ("multiclass", {}, [3, 3], KAPPA),
    ("multiclass", {}, [3, 4], set()),
    ("multiclass", {"class_weights": {"d": 0}}, [3, 3], KAPPA | {"loss"}),
    ("multiclass", {"class_weights": {"d": 0}}, [3, 4], set()),
    ("ordinal", {}, [3, 3], {"quadratic_kappa"}),
    ("regression", {}, [2.5, 2.5], {"r2"}),
    ("regression", {}, [2.5, 2.75], set()),
    ("multilabel", {}, [[1, 0, -1], [1, 0, 1]], CURVES),
    ("multilabel", {}, [[0, 0, -1], [0, 0, 0]], CURVES | {"temperature", "micro_f1"}),
    ("multilabel", {}, [[0, 0, 1], [0, 1, 1]], set()),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options", "targets", "expected"), EXPECTED)
def test_conditions(kind: str, options: dict[str, Any], targets: list[Any], expected: set[str]) -> None:
    spec = example(kind, **options)
    assert set(undefined_metrics(spec, labels_of(spec, np.array(targets)), np.arange(2))) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_without_labels_there_is_nothing(kind: str) -> None:
    spec = example(kind)
    labels = labels_of(spec, encoded(spec))
    found = undefined_metrics(spec, labels, np.arange(0))
    assert {*spec.known_metrics, "loss"} <= set(found)
    assert set(found.values()) == {"no label"}


@pytest.mark.parametrize("kind", KINDS)
def test_without_weight_there_is_no_loss(kind: str) -> None:
    spec = example(kind)
    labels = labels_of(spec, encoded(spec), weight=np.array([0, 0, 1, 0], dtype=np.float32))
    assert "loss" not in undefined_metrics(spec, labels, np.arange(4))
    assert undefined_metrics(spec, labels, np.array([0, 1, 3]))["loss"] == "no row with a positive weight"


def test_tasks_that_lack_the_same_share_a_notice() -> None:
    tasks = {f"t{i}": TASKS["binary"](target="x", metrics=("auroc", "accuracy")) for i in range(9)}
    one_class = {"auroc": "a single class", "recall": "a single class"}
    undefined = {
        "validation": {**dict.fromkeys([f"t{i}" for i in range(8)], one_class), "t8": {}},
        "test": {"t8": dict.fromkeys(("auroc", "accuracy", "loss"), "no label")},
        "train": {"t0": one_class},
    }
    assert list(notices_on(tasks, undefined)) == [
        "tasks 't0', 't1', 't2', 't3', 't4' and 3 more have a single class in validation: "
        "auroc is undefined there, and means over tasks leave them out",
        "task 't8' has no label in test: "
        "auroc, accuracy and loss are undefined there, and means over tasks leave it out",
    ]


def test_a_notice_says_nothing_of_a_mean_that_does_not_lack_it() -> None:
    tasks = {
        "a": TASKS["binary"](target="x", metrics=("accuracy", "auroc"), temperature=True),
        "b": TASKS["multiclass"](target="x", metrics=("accuracy",)),
    }
    undefined = {"validation": {"a": {"auroc": "a single class", "temperature": "a single class"}}}
    assert list(notices_on(tasks, undefined)) == [
        "task 'a' has a single class in validation: auroc is undefined there, and no temperature is fitted"
    ]
