"""Metrics of a group are torchmetrics', or scipy's, of each task alone.

Shapes: B batch, T tasks of a group, O outputs per task, C classes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassAveragePrecision,
    MulticlassCalibrationError,
    MulticlassCohenKappa,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
    MultilabelAUROC,
    MultilabelAveragePrecision,
    MultilabelF1Score,
)

from mtl.model.tasks.losses import cumulative_log_p
from mtl.model.tasks.metrics import GroupedClasses, GroupedLabels, GroupedMoments

B, T = 9, 4
Batches = list[tuple[Tensor, Tensor, Tensor]]
SAME: dict[str, Callable[[int], Metric]] = {
    "accuracy": lambda c: MulticlassAccuracy(c, average="micro"),
    "macro_f1": lambda c: MulticlassF1Score(c, average="macro"),
    "macro_precision": lambda c: MulticlassPrecision(c, average="macro"),
    "macro_recall": lambda c: MulticlassRecall(c, average="macro"),
    "cohen_kappa": lambda c: MulticlassCohenKappa(c),
}
BINNED: dict[str, tuple[Callable[[int], Metric], float]] = {
    "auroc": (lambda c: MulticlassAUROC(c), 5e-4),
    "average_precision": (lambda c: MulticlassAveragePrecision(c), 4e-3),
}
"""The exact metric, and how far the binned one may be from it on some 270 rows."""


def batches(n_classes: int, seen: int, labelled: float) -> Batches:
    """Three batches; only the first `seen` classes are true or predicted."""
    found = []
    for _ in range(3):
        logits_BTO = torch.randn(B, T, n_classes)
        logits_BTO[..., seen:] = -100
        found.append((logits_BTO, torch.randint(seen, (B, T)), torch.rand(B, T) < labelled))
    found[0][2][0] = True  # at least one label
    return found


def learned(n_rows: int, n_classes: int, sharpness: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits that are right more often than not, and a third of the labels missing."""
    target_BT = torch.randint(n_classes, (n_rows, T))
    logits_BTC = torch.randn(n_rows, T, n_classes) * sharpness
    logits_BTC += sharpness * torch.nn.functional.one_hot(target_BT, n_classes)
    return logits_BTC, target_BT, torch.rand(n_rows, T) < 0.67


def fed(metric: Metric, parts: Batches) -> dict[str, Tensor]:
    for part in parts:
        metric.update(*part)
    values: dict[str, Tensor] = metric.compute()
    return values


# -- classes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labelled", [1.1, 0.5, 0.1])
@pytest.mark.parametrize(("n_classes", "seen"), [(2, 2), (5, 5), (5, 3), (12, 1)])
def test_metrics_of_a_group_are_torchmetrics_of_each_task(n_classes: int, seen: int, labelled: float) -> None:
    parts = batches(n_classes, seen, labelled)
    found = fed(GroupedClasses(T, n_classes), parts)
    assert set(found) == {*SAME, "balanced_accuracy"}
    logits, target, there = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    for t in range(T):
        ours, truth = logits[there[:, t], t], target[there[:, t], t]
        for name, make in SAME.items():
            if name == "cohen_kappa" and len({*truth.tolist(), *ours.argmax(-1).tolist()}) == 1:
                assert found[name][t].isnan()  # 0 / 0, which torchmetrics calls 0
                continue
            torch.testing.assert_close(found[name][t].float(), make(n_classes)(ours, truth), msg=name)
        recalls = [(ours[truth == c].argmax(-1) == c).float().mean() for c in truth.unique()]
        torch.testing.assert_close(found["balanced_accuracy"][t].float(), torch.stack(recalls).mean())


@pytest.mark.parametrize("n_classes", [2, 3, 7])
@pytest.mark.parametrize("sharpness", [0.5, 2.0, 12.0])  # with 12, p of the top class rounds to 1 in float32
def test_binned_curves_are_near_the_exact_ones(n_classes: int, sharpness: float) -> None:
    part = learned(400, n_classes, sharpness)
    found = fed(GroupedClasses(T, n_classes, curves=True), [part])
    for t in range(T):
        # in float64: torchmetrics' own softmax in float32 would tie what is not equal
        ours, truth = part[0][part[2][:, t], t].double().softmax(-1), part[1][part[2][:, t], t]
        for name, (make, tolerance) in BINNED.items():
            exact = make(n_classes)(ours, truth).item()
            assert found[name][t].item() == pytest.approx(exact, abs=tolerance), name


def test_calibration_error_is_torchmetrics_of_each_task() -> None:
    part = learned(400, 4)
    found = fed(GroupedClasses(T, 4, calibration=True), [part])
    for t in range(T):
        there = part[2][:, t]
        exact = MulticlassCalibrationError(4, n_bins=15)(part[0][there, t].softmax(-1), part[1][there, t])
        torch.testing.assert_close(found["calibration_error"][t].float(), exact, atol=1e-5, rtol=0)


def test_a_temperature_is_each_tasks_own() -> None:
    """It changes probabilities, and so calibration; what is most probable stays."""
    part = learned(400, 4)
    temperature_T = torch.tensor([0.5, 1.0, 3.0, 8.0])
    options = {"calibration": True, "curves": True}
    found = fed(GroupedClasses(T, 4, temperature_T=temperature_T, **options), [part])
    plain = fed(GroupedClasses(T, 4, **options), [part])
    divided = fed(GroupedClasses(T, 4, **options), [(part[0] / temperature_T[:, None], *part[1:])])
    assert found.keys() == plain.keys() == divided.keys()
    assert torch.equal(found["accuracy"], plain["accuracy"])
    for name, values in found.items():
        torch.testing.assert_close(values, divided[name], msg=name)
    assert found["calibration_error"][1] == plain["calibration_error"][1]
    assert (found["calibration_error"] != plain["calibration_error"]).tolist() == [True, False, True, True]


def test_ordered_classes_have_the_error_in_classes_and_the_quadratic_kappa() -> None:
    n_classes = 5
    part = learned(200, n_classes, 0.7)
    found = fed(GroupedClasses(T, n_classes, ordered=True), [part])
    for t in range(T):
        rows = part[2][:, t]
        ours, truth = part[0][rows, t].argmax(-1), part[1][rows, t]
        assert found["mae"][t] == pytest.approx((ours - truth).abs().double().mean().item())
        exact = MulticlassCohenKappa(n_classes, weights="quadratic")(ours, truth)
        assert found["quadratic_kappa"][t] == pytest.approx(exact.item(), abs=1e-6)


def test_classes_of_cumulative_logits_are_the_most_probable_ones() -> None:
    logits_BTO = torch.randn(50, T, 3) * 3
    predicted_BT = cumulative_log_p(logits_BTO).argmax(-1)
    metric = GroupedClasses(T, 4, log_p=cumulative_log_p, ordered=True, calibration=True)
    found = fed(metric, [(logits_BTO, predicted_BT, torch.ones(50, T, dtype=torch.bool))])
    assert found["accuracy"].tolist() == [1.0] * T
    assert found["mae"].tolist() == [0.0] * T
    # all right: what is missing to 1 in the mean probability of the predicted class, if it is never above
    p_BT = cumulative_log_p(logits_BTO).exp().max(-1).values
    torch.testing.assert_close(found["calibration_error"].float(), 1 - p_BT.mean(0), atol=1e-5, rtol=0)


def test_a_task_without_labels_has_no_value() -> None:
    metric = GroupedClasses(2, 3, ordered=True, curves=True, calibration=True)
    found = fed(
        metric,
        [
            (
                torch.randn(B, 2, 3),
                torch.arange(B)[:, None].expand(B, 2) % 3,
                torch.tensor([[True, False]] * B),
            )
        ],
    )
    assert len(found) == 11
    for name, values in found.items():
        assert values.isnan().tolist() == [False, True], name


def test_a_single_class_leaves_curves_undefined() -> None:
    part = (torch.randn(B, 1, 3), torch.zeros(B, 1, dtype=torch.long), torch.ones(B, 1, dtype=torch.bool))
    found = fed(GroupedClasses(1, 3, curves=True, ordered=True), [part])
    assert found["auroc"].isnan().all()
    assert found["average_precision"].item() == 1  # of the class that is there
    assert not found["balanced_accuracy"].isnan().any()


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int64])
def test_labels_of_any_whole_type(kind: torch.dtype) -> None:
    part = learned(60, 100, 1.0)
    found = fed(GroupedClasses(T, 100), [(part[0], part[1].to(kind), part[2])])
    expected = fed(GroupedClasses(T, 100), [part])
    assert all(torch.equal(values, expected[name]) for name, values in found.items())


def test_memory_grows_with_classes_not_with_their_square() -> None:
    n_classes = 100_000
    metric = GroupedClasses(1, n_classes, ordered=True)
    assert sum(tensor.numel() for tensor in metric.metric_state.values()) < 4 * n_classes
    target = torch.tensor([[7], [99_999], [0]])
    logits = torch.zeros(3, 1, n_classes)
    logits[[0, 1, 2], 0, [7, 99_998, 0]] = 1.0
    found = fed(metric, [(logits, target, torch.ones(3, 1, dtype=torch.bool))])
    assert found["accuracy"].item() == pytest.approx(2 / 3)
    assert found["mae"].item() == pytest.approx(1 / 3)
    # the three rows' kappa by hand, from (i - j)^2 over all pairs of a prediction and a truth
    i, j = np.array([7.0, 99_998, 0]), np.array([7.0, 99_999, 0])
    expected = 1 - 1.0 / (np.square(i[:, None] - j).sum() / 3)
    assert found["quadratic_kappa"].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("make", [
    lambda: GroupedClasses(T, 3, curves=True, calibration=True, ordered=True),
    lambda: GroupedLabels(T, 3),
])  # fmt: skip
def test_reset_forgets(make: Callable[[], Any]) -> None:
    shape = (B, T, 3) if isinstance(make(), GroupedLabels) else (B, T)
    first, second = (
        (torch.randn(B, T, 3), torch.randint(2, shape), torch.ones(B, T, dtype=torch.bool)) for _ in range(2)
    )
    metric = make()
    metric.update(*first)
    metric.reset()
    found, expected = fed(metric, [second]), fed(make(), [second])
    for name, values in found.items():
        torch.testing.assert_close(values, expected[name], equal_nan=True, rtol=0, atol=0)


# -- labels ------------------------------------------------------------------------------------------------


def test_multilabel_metrics_are_torchmetrics_where_all_labels_are_known() -> None:
    O = 5  # noqa: E741 - shape letters
    logits_BTO = torch.randn(300, T, O) * 2
    target_BTO = (logits_BTO + 2 * torch.randn(300, T, O) > 0.5).long()
    present_BT = torch.rand(300, T) < 0.7
    found = fed(GroupedLabels(T, O), [(logits_BTO, target_BTO, present_BT)])
    for t in range(T):
        p, truth = logits_BTO[present_BT[:, t], t].sigmoid(), target_BTO[present_BT[:, t], t]
        expected = {
            "macro_auroc": (MultilabelAUROC(O)(p, truth), 2e-3),
            "macro_average_precision": (MultilabelAveragePrecision(O)(p, truth), 2e-3),
            "macro_f1": (MultilabelF1Score(O)(p, truth), 1e-6),
            "micro_f1": (MultilabelF1Score(O, average="micro")(p, truth), 1e-6),
            "accuracy": (((p >= 0.5) == truth).float().mean(), 1e-6),
        }
        assert {*expected, "calibration_error"} == set(found)
        for name, (value, tolerance) in expected.items():
            assert found[name][t] == pytest.approx(value.item(), abs=tolerance), name


def test_unknown_labels_are_left_out_one_by_one() -> None:
    """Two tasks of two labels, counted by hand."""
    logits = torch.tensor([[[2.0, -2.0], [1.0, 1.0]], [[-1.0, 3.0], [1.0, -1.0]], [[4.0, 4.0], [0.5, 0.5]]])
    target = torch.tensor([[[1, -1], [-1, 1]], [[1, 1], [-1, 0]], [[0, -1], [-1, 1]]])
    present = torch.tensor([[True, True], [True, False], [True, True]])
    found = fed(GroupedLabels(2, 2), [(logits, target, present)])
    # task 0: label 0 has tp 1, fn 1, fp 1; label 1 has tp 1. Task 1: label 1 has tp 2, label 0 is never known.
    assert found["micro_f1"].tolist() == pytest.approx([4 / 6, 1.0])
    assert found["macro_f1"].tolist() == pytest.approx([(0.5 + 1) / 2, 1.0])
    assert found["accuracy"].tolist() == pytest.approx([2 / 4, 1.0])
    # of label 0 of task 0 the yes scores are 2 and -1, the no score is 4; label 1 has no `no`
    assert found["macro_auroc"].isnan().tolist() == [False, True]
    assert found["macro_auroc"][0] == 0


def test_labels_have_thresholds_of_their_own_and_a_task_its_temperature() -> None:
    logits = torch.randn(40, 2, 3)
    target, present = torch.randint(2, (40, 2, 3)), torch.ones(40, 2, dtype=torch.bool)
    threshold_TO, temperature_T = torch.rand(2, 3), torch.tensor([0.5, 4.0])
    found = fed(GroupedLabels(2, 3, threshold_TO, temperature_T), [(logits, target, present)])
    yes = (logits / temperature_T[:, None]).sigmoid() >= threshold_TO
    for t in range(2):
        right = (yes[:, t] == target[:, t]).double().mean().item()
        assert found["accuracy"][t] == pytest.approx(right)


# -- regression --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "std"), [(0.0, 1.0), (1e6, 1e-2), (-3e9, 5.0), (1e-20, 1e-22), (1e15, 1e3), (5e30, 1e30)]
)
def test_moments_are_numpy_in_the_labels_own_unit(mean: float, std: float) -> None:
    """An offset of 1e8 standard deviations costs no digits: float32 would have none left."""
    generator = np.random.default_rng(0)
    y = mean + std * generator.normal(size=(500, 2))
    z = (y - mean) / std + 0.3 * generator.normal(size=(500, 2)) + [0.0, 0.2]
    there = generator.random((500, 2)) < 0.6
    mean_T = torch.tensor([mean] * 2, dtype=torch.float64)
    rest_T = (mean_T - mean_T.float()).float()
    metric = GroupedMoments(2, mean_T.float(), torch.tensor([std] * 2), rest_T)
    for rows in np.array_split(np.arange(500), 7):
        metric.update(
            torch.from_numpy(z[rows]).float().unsqueeze(-1),
            torch.from_numpy(y[rows]),
            torch.from_numpy(there[rows]),
        )
    found = metric.compute()
    for t in range(2):
        truth = (y[there[:, t], t] - mean) / std
        error = z[there[:, t], t].astype(np.float32) - truth
        expected = {
            "rmse": std * np.sqrt(np.square(error).mean()),
            "mse": std**2 * np.square(error).mean(),
            "mae": std * np.abs(error).mean(),
            "bias": std * error.mean(),
            "r2": 1 - np.square(error).sum() / np.square(truth - truth.mean()).sum(),
        }
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert found[name][t].item() == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("n_rows", [1, 5])
def test_r2_of_equal_labels_is_undefined_and_the_errors_are_not(n_rows: int) -> None:
    metric = GroupedMoments(1, torch.tensor([2.0]), torch.tensor([3.0]))
    labels = torch.full((n_rows, 1), 4.7, dtype=torch.float64)
    metric.update(torch.ones(n_rows, 1, 1), labels, torch.ones(n_rows, 1, dtype=torch.bool))
    found = metric.compute()
    assert found["r2"].isnan().all()
    assert found["rmse"].item() == pytest.approx(0.3)  # 2 + 3 * 1 against 4.7
    assert found["bias"].item() == pytest.approx(0.3)


def test_what_stands_in_a_missing_number_does_not_matter() -> None:
    metric = GroupedMoments(2, torch.zeros(2), torch.ones(2))
    labels = torch.tensor([[1.0, float("nan")], [2.0, float("inf")]], dtype=torch.float64)
    metric.update(torch.zeros(2, 2, 1), labels, torch.tensor([[True, False]] * 2))
    found = metric.compute()
    assert found["mae"][0].item() == pytest.approx(1.5)
    assert all(values[1].isnan() for values in found.values())
