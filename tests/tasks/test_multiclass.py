"""One of several classes: outputs, targets, loss. tests/experiment/test_trial.py refuses what does not fit."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from mtl.data.types import Array, Header, Labels
from mtl.errors import UserError
from mtl.recipe.specs import TASKS, TaskSpec
from tests.support.task_samples import decoded, mean_loss, module_of

HEADER = Header(input_shape=(4,), labels={"named": ("a", "b", "c"), "raw": None})
GROUPS = {"odd": (1, 3), "even": (2, 0)}


def encoded(spec: TaskSpec, raw: Array, present: Array | None = None) -> Array:
    there = np.ones(len(raw), bool) if present is None else present
    labels = Labels(raw, there, HEADER.labels[spec.target])
    return spec.encode(labels, spec.outputs(HEADER) or spec.found_outputs(labels))


def task(**options: Any) -> TaskSpec:
    return TASKS["multiclass"](**{"target": "named", **options})


@pytest.mark.parametrize(
    ("options", "outputs"),
    [
        ({}, ("a", "b", "c")),
        ({"classes": 3}, ("a", "b", "c")),  # a number says how many, the column how they are called
        ({"classes": ("x", "y", "z")}, ("x", "y", "z")),
        ({"groups": {"one": (2,), "two": (0, 1)}}, ("one", "two")),
        ({"target": "raw", "classes": 2}, ("0", "1")),
        ({"target": "raw", "classes": ("x", "y")}, ("x", "y")),
        ({"target": "raw", "groups": GROUPS}, ("odd", "even")),
    ],
)
def test_outputs_are_the_names_of_the_classes(options: dict[str, Any], outputs: tuple[str, ...]) -> None:
    assert task(**options).outputs(HEADER) == outputs


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int32])
@pytest.mark.parametrize(
    ("options", "raw", "codes"),
    [
        ({}, [0, 2, 1, 2], [0, 2, 1, 2]),
        ({"target": "raw", "groups": GROUPS}, [0, 1, 2, 3], [1, 0, 1, 0]),
        ({"target": "raw", "groups": {"far": (200,), "near": (7,)}}, [7, 200, 7, 7], [1, 0, 1, 1]),
    ],
)
def test_raw_values_become_the_numbers_of_their_classes(
    options: dict[str, Any], raw: list[int], codes: list[int], dtype: Any
) -> None:
    found = encoded(task(**options), np.array(raw, dtype))
    assert found.tolist() == codes
    assert found.dtype.kind == "i"


@pytest.mark.parametrize("options", [{}, {"target": "raw", "groups": {"b": (5, 6), "a": (3,)}}])
def test_a_missing_label_becomes_some_class(options: dict[str, Any]) -> None:
    spec = task(**options)
    raw = np.array([next(iter(options["groups"]["b"])) if options else 1, -1, 99])
    found = encoded(spec, raw, np.array([True, False, False]))
    assert found.min() >= 0
    assert found.max() < len(spec.outputs(HEADER))


@pytest.mark.parametrize(
    ("options", "raw", "text"),
    [
        ({}, [0, 1, 3, 9], "row 2: target: label 3, allowed 0..2"),
        ({}, [0, -1], "row 1: target: label -1, allowed 0..2"),
        ({"target": "raw", "groups": GROUPS}, [4], "row 0: target: label 4, allowed what stands in `groups`"),
        ({}, [0.0, 1.5], "row 1: target: label 1.5, allowed 0..2"),
    ],
)
def test_the_first_row_with_another_label_is_named(
    options: dict[str, Any], raw: list[float], text: str
) -> None:
    with pytest.raises(UserError) as caught:
        encoded(task(**options), np.array(raw))
    assert str(caught.value) == text


@pytest.mark.parametrize(
    "options",
    [
        {"classes": 1},
        {"classes": ("a",)},
        {"classes": "ab"},
        {"groups": {"all": (0, 1, 2)}},
        {"groups": {"a": (), "b": (1,)}},
        {"label_smoothing": 1.0},
        {"weight": -1.0},
        {"missing": "drop"},
    ],
)
def test_values_out_of_bounds_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        task(**options)


@pytest.mark.parametrize(
    ("options", "together"),
    [({"weight": 2.0}, True), ({"missing": "mask"}, True), ({"label_smoothing": 0.1}, False)],
)
def test_tasks_that_need_the_same_are_one_group(options: dict[str, Any], together: bool) -> None:
    assert (task().group(3) == task(**options).group(3)) is together
    assert task().group(3) != task().group(2)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_loss_and_metrics_of_a_group_are_those_of_its_tasks(label_smoothing: float) -> None:
    spec = task(label_smoothing=label_smoothing)
    B, T, O = 12, 3, 4  # noqa: E741 - shape letters
    logits_BTO, target_BT = torch.randn(B, T, O), torch.randint(O, (B, T))
    present_BT = torch.rand(B, T) < 0.7
    module = module_of(spec, O, {}, {}, {})
    loss_T = mean_loss(module, logits_BTO, target_BT, present_BT.float())
    metric = module.metric(frozenset())
    metric.update(logits_BTO, target_BT, present_BT)
    found = metric.compute()
    assert spec.headline in found
    for t in range(T):
        logits, target = logits_BTO[present_BT[:, t], t], target_BT[present_BT[:, t], t]
        torch.testing.assert_close(
            loss_T[t], F.cross_entropy(logits, target, label_smoothing=label_smoothing)
        )
        accuracy = MulticlassAccuracy(O, average="micro")(logits, target)
        macro_f1 = MulticlassF1Score(O, average="macro")(logits, target)
        torch.testing.assert_close(found["accuracy"][t].float(), accuracy)
        torch.testing.assert_close(found["macro_f1"][t].float(), macro_f1)


# -- names, weights, predictions ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "values", "names", "text", "outputs", "codes"),
    [
        ({"classes": (1, 2, 3)}, [3, 1], None, False, ("1", "2", "3"), [2, 0]),  # whole numbers are values
        ({"classes": ("x", "y")}, [1, 0], None, False, ("x", "y"), [1, 0]),  # other names: by position
        ({"classes": ("b", "a")}, [1, 0], ("a", "b"), False, ("b", "a"), [0, 1]),  # the column's own, reordered
        ({"classes": ("<=50K", ">50K")}, [0, 1], ("<=50K", ">50K"), True, ("<=50K", ">50K"), [0, 1]),
        ({"classes": ("z", "a", "b")}, [0, 1], ("a", "b"), True, ("z", "a", "b"), [1, 2]),
        ({}, [7, -3, 7], None, False, ("-3", "7"), [1, 0, 1]),
        ({"groups": {"low": ("a", "c"), "high": ("b",)}}, [0, 1, 2], tuple("abc"), True, ("low", "high"), [0, 1, 0]),
        ({"groups": {"even": ("0", 2), "odd": (1,)}}, [0, 1, 2], None, False, ("even", "odd"), [0, 1, 0]),
        ({"groups": {"t": (True,), "f": (False,)}}, [0, 1], ("false", "true"), True, ("t", "f"), [1, 0]),
    ],
)  # fmt: skip
def test_classes_by_value_by_name_and_by_position(
    options: dict[str, Any],
    values: list[int],
    names: Any,
    text: bool,
    outputs: tuple[str, ...],
    codes: list[int],
) -> None:
    spec = task(target="x", **options)
    labels = Labels(np.array(values), np.ones(len(values), bool), names, text)
    found = spec.outputs(
        Header((1,), {"x": names}, text=frozenset({"x"} if text else ()))
    ) or spec.found_outputs(labels)
    assert found == outputs
    assert spec.encode(labels, found).tolist() == codes


def test_balanced_weights_are_n_over_classes_times_count() -> None:
    targets = np.array([0] * 6 + [1] * 3 + [3] * 1)
    found = task(class_weights="balanced").constants(targets, ("a", "b", "c", "d"))
    assert found["class_weight"] == pytest.approx((10 / 18, 10 / 9, 0.0, 10 / 3))
    # each class then has the same share of the whole: at equal logits all losses are log 4
    weights = np.array(found["class_weight"])[targets]
    assert [weights[targets == c].sum() for c in (0, 1, 3)] == pytest.approx([10 / 3] * 3)


def test_weights_by_name_and_a_near_miss() -> None:
    targets = np.array([0, 1, 2])
    assert task().constants(targets, ("cat", "dog")) == {}
    found = task(class_weights={"dog": 3.0}).constants(targets, ("cat", "dog", "cow"))
    assert found == {"class_weight": (1.0, 3.0, 1.0)}
    with pytest.raises(UserError) as caught:
        task(class_weights={"dgo": 3.0}).constants(targets, ("cat", "dog"))
    assert str(caught.value) == "class_weights.dgo: no class 'dgo' (did you mean 'dog'?); known: 'cat', 'dog'"


def test_tasks_of_a_group_have_class_weights_of_their_own() -> None:
    spec = task(class_weights="balanced")
    logits, target = torch.randn(20, 2, 3), torch.randint(3, (20, 2))
    weights = [(1.0, 2.0, 3.0), (5.0, 0.5, 0.0)]
    module = module_of(spec, 3, *({"class_weight": own} for own in weights))
    found = mean_loss(module, logits, target, torch.ones(20, 2))
    for t in range(2):
        alone = F.cross_entropy(logits[:, t], target[:, t], weight=torch.tensor(weights[t]))
        torch.testing.assert_close(found[t], alone)


def test_a_prediction_is_the_class_and_calibrated_probabilities() -> None:
    logits = torch.tensor([[1.0, 3.0, 0.0], [2.0, -1.0, 0.0]])
    found = decoded(task(), module_of(task(), 3, {"temperature": (2.0,)}), logits, ("a", "b", "c"))
    powers = np.exp(logits.numpy() / 2)
    expected = powers / powers.sum(1, keepdims=True)
    assert list(found[""]) == ["b", "a"]
    np.testing.assert_allclose(np.stack([found[f"_p_{c}"] for c in "abc"], 1), expected, rtol=1e-6)


def test_text_of_a_users_is_quoted_in_messages() -> None:
    spec = task(target="x", groups={"one": ("a\x1b[31m", "b"), "two": ("b",)})
    with pytest.raises(UserError) as caught:
        spec.outputs(Header((1,), {"x": None}))
    assert str(caught.value) == "groups.two[0]: value 'b' is in group 'one' already"
    spec = task(target="x", groups={"one": ("a",), "two": ("b",)})
    with pytest.raises(UserError) as caught:
        spec.outputs(Header((1,), {"x": ("a", "b", "c\n")}, text=frozenset({"x"})))
    assert str(caught.value).isprintable()
    assert "values 'c\\n' of column 'x' are in no group" in str(caught.value)
