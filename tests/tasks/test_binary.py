"""Yes or no: which values mean yes, and what the losses, metrics and predictions make of it."""

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


def task(**options: Any) -> TaskSpec:
    return TASKS["binary"](**{"target": "x", **options})


def encoded(spec: TaskSpec, values: Any, names: tuple[str, ...] | None, text: bool) -> tuple[Any, Any]:
    """The outputs and the targets; the last row has no label."""
    header = Header((1,), {"x": names}, text=frozenset({"x"} if text else ()))
    labels = Labels(np.array(values), np.arange(len(values)) < len(values) - 1, names, text)
    outputs = spec.outputs(header)
    if outputs is None:
        outputs = spec.found_outputs(labels)
    return outputs, spec.encode(labels, outputs)[:-1].tolist()


@pytest.mark.parametrize(
    ("options", "names", "values", "outputs", "codes"),
    [
        # a column of text: codes of its values in order
        ({}, ("no", "yes"), [0, 1, 1, -1], ("no", "yes"), [0, 1, 1]),
        ({}, ("N", "Y"), [0, 1, 1, -1], ("N", "Y"), [0, 1, 1]),
        ({}, ("TRUE", "false"), [0, 1, 1, -1], ("false", "TRUE"), [1, 0, 0]),
        ({}, ("neg", "pos"), [1, 0, 9], ("neg", "pos"), [1, 0]),
        ({}, ("yes",), [0, 0, -1], ("no", "yes"), [1, 1]),
        ({}, ("no",), [0, 0, -1], ("no", "yes"), [0, 0]),
        ({"positive": ">50K"}, ("<=50K", ">50K"), [0, 1, -1], ("<=50K", ">50K"), [0, 1]),
        ({"positive": "<=50K"}, ("<=50K", ">50K"), [0, 1, -1], (">50K", "<=50K"), [1, 0]),
        ({"positive": ("a", "c")}, ("a", "b", "c"), [0, 1, 2, -1], ("no", "yes"), [1, 0, 1]),
        ({"positive": True}, ("false", "true"), [0, 1, -1], ("false", "true"), [0, 1]),
        ({"positive": 3}, ("3", "x"), [0, 1, -1], ("x", "3"), [1, 0]),
    ],
)
def test_which_texts_mean_yes(
    options: dict[str, Any],
    names: tuple[str, ...],
    values: list[int],
    outputs: tuple[str, ...],
    codes: list[int],
) -> None:
    assert encoded(task(**options), values, names, text=True) == (outputs, codes)


@pytest.mark.parametrize(
    ("options", "values", "outputs", "codes"),
    [
        ({}, [0, 1, 1, 7], ("0", "1"), [0, 1, 1]),
        ({}, [0.0, 1.0, float("nan")], ("0", "1"), [0, 1]),
        ({"positive": 2}, [0, 1, 2, 3, 2], ("no", "yes"), [0, 0, 1, 0]),
        ({"positive": (2, "3", -1)}, [0, 2, 3, -1, 2], ("no", "yes"), [0, 1, 1, 1]),
        ({"positive": 1}, [False, True, True], ("no", "yes"), [0, 1]),
    ],
)
def test_which_numbers_mean_yes(
    options: dict[str, Any], values: list[Any], outputs: tuple[str, ...], codes: list[int]
) -> None:
    assert encoded(task(**options), values, None, text=False) == (outputs, codes)


@pytest.mark.parametrize(
    ("positive", "values", "text"),
    [
        ((1, 77), [0, 1, 2, 3, 77], "positive[1]: value 77 is not in column 'x': 0, 1, 2, 3"),
        (77, [0.5, 1.0, float("nan")], "positive: value 77 is not in column 'x': 0.5, 1"),
        ((1, "77"), [0, 1, 0], "positive[1]: value '77' is not in column 'x': 0, 1"),
        ("warm", [0, 1, 0], "positive: value 'warm' is not in column 'x', which holds numbers"),
        (20, [*range(20), 20], "positive: value 20 is not in column 'x': 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..."),
    ],
)
def test_a_number_that_no_row_has_is_refused(positive: Any, values: list[Any], text: str) -> None:
    with pytest.raises(UserError) as caught:
        encoded(task(positive=positive), values, None, text=False)
    assert str(caught.value) == text


def test_a_number_that_other_data_lack_is_no_fault_there() -> None:
    labels = Labels(np.array([0, 1, 1]), np.ones(3, dtype=bool), None, False)
    assert task(positive=(1, 77)).encode(labels, ("no", "yes")).tolist() == [0, 1, 1]


@pytest.mark.parametrize("names", [("YES", "Yes"), ("Yes", "yes"), ("NO", "No", "no"), ("T", "t")])
def test_spellings_of_one_answer_are_not_two(names: tuple[str, ...]) -> None:
    shown = ", ".join(map(repr, names))
    with pytest.raises(UserError) as caught:
        encoded(task(), [0, 1, 0], names, text=True)
    assert str(caught.value) == f"which value of column 'x' means yes: {shown}?; give `positive`"
    assert encoded(task(positive=names[:2]), [0, 1, 0], names, text=True) == (("no", "yes"), [1, 1])


def test_two_spellings_of_yes_are_not_one_of_them() -> None:
    with pytest.raises(UserError) as caught:
        encoded(task(), [1, 2, 0, 0], ("Yes", "no", "yes"), text=True)
    assert str(caught.value) == "row 1: target: label 'yes', allowed 'no' and 'Yes'"


def test_of_named_classes_two_are_enough_and_more_need_to_be_told() -> None:
    assert encoded(task(), [0, 1, 0], ("cat", "dog"), text=False) == (("no", "yes"), [0, 1])
    assert encoded(task(positive=(0, 2)), [0, 1, 2, 0], tuple("abc"), text=False)[1] == [1, 0, 1]
    with pytest.raises(UserError, match="column 'x' has 3 classes; say which are `positive`"):
        encoded(task(), [0], tuple("abc"), text=False)
    with pytest.raises(UserError) as caught:
        encoded(task(positive=(0, 3)), [0], tuple("abc"), text=False)
    assert str(caught.value) == "positive[1]: value 3 is not in column 'x': 0..2"


@pytest.mark.parametrize(
    ("weight", "targets", "expected"),
    [
        (None, [0, 0, 1], None),
        (3.5, [0, 0, 1], 3.5),
        ("balanced", [0] * 9 + [1] * 3, 3.0),
        ("balanced", [0, 1, 1, 1, 1], 0.25),
        ("balanced", [1, 1], 1.0),  # of one answer alone there is nothing to balance
    ],
)
def test_weights_of_yes(weight: Any, targets: list[int], expected: float | None) -> None:
    spec = task(positive_weight=weight, threshold=0.3)
    found = spec.constants(np.array(targets), ("no", "yes"))
    assert found.pop("threshold") == (0.3,)
    assert found == ({} if expected is None else {"positive_weight": (expected,)})


def test_balanced_weights_give_both_answers_the_same_share_of_the_loss() -> None:
    """At z = 0 each row's loss is log 2, so that the loss is the mean weight times log 2."""
    target = np.array([0] * 30 + [1] * 10)
    spec = task(positive_weight="balanced")
    module = module_of(spec, 1, spec.constants(target, ("no", "yes")))
    z = torch.zeros(40, 1, 1, requires_grad=True)
    loss_T = mean_loss(module, z, torch.from_numpy(target)[:, None], torch.ones(40, 1))
    loss_T.backward()
    assert loss_T.item() == pytest.approx((30 + 3 * 10) / 40 * np.log(2))
    assert z.grad is not None
    assert z.grad[:30].sum().item() == pytest.approx(-z.grad[30:].sum().item())


def test_tasks_of_a_group_have_weights_of_their_own() -> None:
    spec = task(positive_weight=2.0)
    z, y = torch.randn(20, 2, 1), torch.randint(2, (20, 2))
    own = [{"threshold": (0.5,), "positive_weight": (weight,)} for weight in (2.0, 9.0)]
    found = mean_loss(module_of(spec, 1, *own), z, y, torch.ones(20, 2))
    for t, weight in enumerate((2.0, 9.0)):
        alone = F.binary_cross_entropy_with_logits(
            z[:, t, 0], y[:, t].float(), pos_weight=torch.tensor(weight)
        )
        torch.testing.assert_close(found[t], alone)


def test_what_splits_a_group() -> None:
    base = task().group(1)
    together: list[dict[str, Any]] = [
        {"positive": 3},
        {"threshold": 0.9},
        {"temperature": True},
        {"fit_threshold": "f1"},
        {"weight": 2.0},
        {"missing": "mask"},
    ]
    assert all(task(**options).group(1) == base for options in together)
    assert task(positive_weight=1.0).group(1) == task(positive_weight="balanced").group(1) != base
    assert task(label_smoothing=0.1).group(1) != base


def test_a_prediction_is_the_answer_and_the_calibrated_probability() -> None:
    logits = torch.tensor([[-3.0], [0.5], [1.0], [4.0]])
    fitted = module_of(task(), 1, {"threshold": (0.6,), "temperature": (2.0,)})
    found = decoded(task(), fitted, logits, ("out", "in"))
    assert set(found) == {"", "_p"}
    np.testing.assert_allclose(found["_p"], 1 / (1 + np.exp(-logits[:, 0].numpy() / 2)), rtol=1e-6)
    assert list(found[""]) == ["out", "out", "in", "in"]  # 1 / (1 + exp(-0.5)) is 0.622
    plain = decoded(task(), module_of(task(), 1, {"threshold": (0.5,)}), logits, ("out", "in"))
    assert list(plain[""]) == ["out", "in", "in", "in"]
