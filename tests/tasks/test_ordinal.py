"""Ordered classes: whose order it is, and that the loss knows it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mtl.data.types import Header, Labels
from mtl.errors import UserError
from mtl.recipe.specs import TASKS, TaskSpec
from tests.support.task_samples import decoded, mean_loss, module_of


def task(**options: Any) -> TaskSpec:
    return TASKS["ordinal"](**{"target": "x", **options})


def encoded(
    spec: TaskSpec, values: Any, names: tuple[str, ...] | None = None, text: bool = False
) -> tuple[tuple[str, ...], Any]:
    header = Header((1,), {"x": names}, text=frozenset({"x"} if text else ()))
    labels = Labels(np.array(values), np.ones(len(values), bool), names, text)
    outputs = spec.outputs(header) or spec.found_outputs(labels)
    return outputs, spec.encode(labels, outputs).tolist()


@pytest.mark.parametrize(
    ("options", "values", "names", "text", "outputs", "codes"),
    [
        ({}, [3, 1, 2, 3], None, False, ("1", "2", "3"), [2, 0, 1, 2]),
        ({}, [10, -2, 9], None, False, ("-2", "9", "10"), [2, 0, 1]),  # by size, not by digits
        ({"order": (3, 2, 1)}, [3, 1], None, False, ("3", "2", "1"), [0, 2]),
        ({"order": (-1, 0, 1)}, [0, -1, 1], None, False, ("-1", "0", "1"), [1, 0, 2]),
        ({"order": ("low", "high")}, [1, 0], None, False, ("low", "high"), [1, 0]),
        ({"order": ("s", "m", "l")}, [0, 1, 2], ("l", "m", "s"), True, ("s", "m", "l"), [2, 1, 0]),
        ({"order": ("<18", "18-", ">3")}, [1, 0, 2], ("18-", "<18", ">3"), True, ("<18", "18-", ">3"), [0, 1, 2]),
        ({}, [1, 0], ("good", "bad"), False, ("good", "bad"), [1, 0]),
        ({"order": ("bad", "good")}, [1, 0], ("good", "bad"), False, ("bad", "good"), [0, 1]),  # by name
        ({"order": ("x", "y")}, [1, 0], ("good", "bad"), False, ("x", "y"), [1, 0]),  # other names: by position
    ],
)  # fmt: skip
def test_the_order_of_classes(
    options: dict[str, Any],
    values: list[int],
    names: Any,
    text: bool,
    outputs: tuple[str, ...],
    codes: list[int],
) -> None:
    assert encoded(task(**options), values, names, text) == (outputs, codes)


def test_as_many_classes_as_the_column_has() -> None:
    with pytest.raises(UserError) as caught:
        encoded(task(order=("a", "b")), [0], ("x", "y", "z"))
    assert str(caught.value) == "order: 2 classes, but column 'x' has 3"


@pytest.mark.parametrize("row", [[0.3], [2.0, -1.0], [-1.0, 0.5, 3.0, -2.0]])
def test_predictions_are_probabilities_of_cumulative_logits(row: list[float]) -> None:
    classes = tuple("abcdefg"[: len(row) + 1])
    cut, above = row[0], [1.0]
    for c, r in enumerate(row):
        cut = r if c == 0 else cut - np.log1p(np.exp(r))
        above.append(1 / (1 + np.exp(-cut)))
    expected = -np.diff([*above, 0.0])
    found = decoded(task(), module_of(task(), len(row), {}), torch.tensor([row]), classes)
    np.testing.assert_allclose([found[f"_p_{name}"][0] for name in classes], expected, rtol=1e-5)
    assert found[""][0] == classes[int(expected.argmax())]
    assert task().n_outputs(classes) == len(row)


def test_a_mistake_by_two_costs_more_than_by_one() -> None:
    """Which a softmax of independent logits does not know: rows sure of class 0 at true class 1, 2, 3."""
    module, target = module_of(task(), 3, {}), torch.arange(4)[:, None]
    losses = [
        mean_loss(module, torch.tensor([[[-4.0, 1.0, 1.0]]]), target[c : c + 1], torch.ones(1, 1)).item()
        for c in range(4)
    ]
    assert losses == sorted(losses)
    assert losses[0] < 0.1 < 3 < losses[1]


@pytest.mark.parametrize(
    ("options", "together"),
    [
        ({"order": ("a", "b", "c")}, True),
        ({"weight": 3.0}, True),
        ({"label_smoothing": 0.1}, False),
        ({"class_weights": "balanced"}, False),
    ],
)
def test_what_splits_a_group(options: dict[str, Any], together: bool) -> None:
    assert (task(**options).group(2) == task().group(2)) is together
    assert task().group(3) != task().group(2)


def test_class_weights_by_name_and_balanced() -> None:
    targets = np.array([0] * 6 + [2] * 2)
    classes = ("low", "mid", "high")
    assert task().constants(targets, classes) == {}
    named = task(class_weights={"high": 5.0}).constants(targets, classes)
    assert named == {"class_weight": (1.0, 1.0, 5.0)}
    balanced = task(class_weights="balanced").constants(targets, classes)
    assert balanced["class_weight"] == pytest.approx((8 / (2 * 6), 0.0, 8 / (2 * 2)))
