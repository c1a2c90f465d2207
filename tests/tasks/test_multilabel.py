"""Several labels at once: columns or lists, unknown ones, and a weight and threshold for each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mtl.data.types import Header, Labels
from mtl.errors import UserError
from mtl.recipe.specs import TASKS, TaskSpec
from tests.support.task_samples import decoded, mean_loss, module_of

LABELS = ("a", "b", "c")


def task(**options: Any) -> TaskSpec:
    return TASKS["multilabel"](**{"targets": LABELS, **options})


def listed(**options: Any) -> TaskSpec:
    return TASKS["multilabel"](target="tags", **options)


def test_columns_side_by_side_and_what_is_not_known_of_them() -> None:
    values = np.array([[0, 1, 1], [1, 9, 0], [1, 1, 1]])
    present = np.array([[True, True, True], [True, False, True], [False, False, False]])
    header = Header((1,), dict.fromkeys(LABELS))
    assert task().outputs(header) == LABELS
    found = task().encode(Labels(values, present), LABELS)
    assert found.tolist() == [[0, 1, 1], [1, -1, 0], [-1, -1, -1]]


@pytest.mark.parametrize(
    ("names", "fine"),
    [
        (("no", "yes"), True),
        (("FALSE", "TRUE"), True),
        (("n", "y"), True),
        (("no",), True),
        (("yes",), False),  # its code would be 0
        (("Yes", "no"), False),  # likewise
        (("in", "out"), False),
        (("0", "1", "2"), False),
    ],
)
def test_text_columns_are_taken_where_their_codes_are_right(names: tuple[str, ...], fine: bool) -> None:
    header = Header((1,), {"a": None, "b": names, "c": None}, text=frozenset({"b"}))
    if fine:
        assert task().outputs(header) == LABELS
        return
    with pytest.raises(UserError) as caught:
        task().outputs(header)
    shown = ", ".join(map(repr, names))
    assert str(caught.value) == (
        f"targets[1]: column 'b' holds text ({shown}), not 0 and 1; write it as 0 and 1, no and yes, or false and true"
    )


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (None, [[1, 1, 0], [0, 0, 1], [-1, -1, -1]]),
        (("c", "b", "a"), [[0, 1, 1], [1, 0, 0], [-1, -1, -1]]),
        (("a", "b", "c", "new"), [[1, 1, 0, 0], [0, 0, 1, 0], [-1, -1, -1, -1]]),
    ],
)
def test_a_list_column_in_the_tasks_own_order(labels: Any, expected: list[list[int]]) -> None:
    spec = listed(labels=labels)
    values, present = (
        np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0]]),
        np.array([[True] * 3, [True] * 3, [False] * 3]),
    )
    outputs = spec.outputs(Header((1,), {"tags": LABELS}))
    assert outputs == (labels or LABELS)
    assert spec.encode(Labels(values, present, LABELS), outputs or ()).tolist() == expected


def test_what_is_no_list_and_no_0_or_1_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        listed().encode(Labels(np.array([1, 2]), np.array([True, True])), LABELS)
    assert str(caught.value) == "target: column 'tags' holds no lists of labels"
    present = np.array([[True, False, True], [True, True, True]])
    with pytest.raises(UserError) as caught:
        task().encode(Labels(np.array([[0, 7, 1], [1, 1, 3]]), present), LABELS)
    assert str(caught.value) == "row 1: targets: label 3, allowed 0 and 1"
    with pytest.raises(UserError) as caught:
        listed(labels=("a", "b")).encode(
            Labels(np.array([[1, 0, 0], [0, 0, 1]]), np.ones((2, 3), bool), LABELS), ("a", "b")
        )
    assert str(caught.value) == "row 1: target: label 'c', allowed 'a', 'b'"


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (None, None),
        (2.5, (2.5, 2.5, 2.5)),
        ({"b": 4.0, "c": 0.0}, (1.0, 4.0, 0.0)),
        ("balanced", (3.0, 0.5, 1.0)),  # 3 without and 1 with; 1 and 2, one not known; none with
    ],
)
def test_weights_of_labels(weight: Any, expected: tuple[float, ...] | None) -> None:
    targets = np.array([[0, 1, 0], [0, -1, 0], [1, 1, 0], [0, 0, 0]], np.int8)
    found = task(positive_weight=weight, threshold=0.4).constants(targets, LABELS)
    assert found.pop("threshold") == (0.4, 0.4, 0.4)
    assert found == ({} if expected is None else {"positive_weight": expected})


def test_the_loss_of_a_group_is_torchs_of_each_task() -> None:
    spec = task(positive_weight=2.0)
    z, y = torch.randn(30, 2, 3), torch.randint(2, (30, 2, 3))
    weights = [(2.0, 2.0, 2.0), (1.0, 5.0, 0.1)]
    sample = torch.rand(30, 2)
    own = [{"threshold": (0.5,) * 3, "positive_weight": weight} for weight in weights]
    found = mean_loss(module_of(spec, 3, *own), z, y.to(torch.int8), sample)
    for t in range(2):
        each = F.binary_cross_entropy_with_logits(
            z[:, t], y[:, t].float(), pos_weight=torch.tensor(weights[t]), reduction="none"
        )
        torch.testing.assert_close(found[t], (sample[:, t] * each.mean(-1)).sum() / sample[:, t].sum())


def test_a_prediction_lists_the_labels_from_their_thresholds_on() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [-9.0, -9.0, -9.0]])
    plain = {"threshold": (0.5, 0.5, 0.5)}
    found = decoded(task(), module_of(task(), 3, {"threshold": (0.9, 0.5, 0.2)}), logits, LABELS)
    assert found[""] == [["b", "c"], []]  # s(2) = 0.881, s(0) = 0.5, s(-1) = 0.269
    assert decoded(task(), module_of(task(), 3, plain), logits, LABELS)[""] == [["a", "b"], []]
    assert list(found) == ["", "_p_a", "_p_b", "_p_c"]
    np.testing.assert_allclose(found["_p_c"], 1 / (1 + np.exp([1.0, 9.0])), rtol=1e-6)
    hot = decoded(task(), module_of(task(), 3, {**plain, "temperature": (4.0,)}), logits, LABELS)
    np.testing.assert_allclose(hot["_p_a"], 1 / (1 + np.exp([-0.5, 2.25])), rtol=1e-6)


def test_the_likelihood_leaves_out_what_is_not_known() -> None:
    z, y = torch.randn(10, 3), torch.randint(-1, 2, (10, 3))
    known = y >= 0
    each = -torch.where(y == 1, z.sigmoid().log(), (1 - z.sigmoid()).log())[known]
    module = module_of(task(), 3, task().constants(y.numpy(), LABELS))
    found = module.negative_log_likelihood(z, y)
    torch.testing.assert_close(found, each.mean())


@pytest.mark.parametrize(
    ("options", "together"),
    [
        ({"threshold": 0.2}, True),
        ({"fit_threshold": "f1", "temperature": True}, True),
        ({"positive_weight": 3.0}, False),
        ({"label_smoothing": 0.1}, False),
    ],
)
def test_what_splits_a_group(options: dict[str, Any], together: bool) -> None:
    assert (task(**options).group(3) == task().group(3)) is together
    assert task().group(4) != task().group(3)
