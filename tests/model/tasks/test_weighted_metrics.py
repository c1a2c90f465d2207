"""Metrics with weights of rows are scikit-learn's with `sample_weight`, for each metric of each shipped kind.

Shapes: B batch, T tasks of a group, O outputs per task, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor
from torchmetrics import Metric

from mtl.model.tasks.losses import cumulative_log_p
from mtl.model.tasks.metrics import GroupedClasses, GroupedLabels, GroupedMoments
from mtl.model.tasks.scores import GroupedScores, _score_bins, hold_weights, log_odds
from mtl.recipe.specs import TASKS

B, T, C, O = 300, 3, 4, 3  # noqa: E741
Array = npt.NDArray[Any]
Rows = tuple[Array, Array, Array]
"""Logits (B, O), targets and weights (B,) of one task."""


def weights() -> Tensor:
    """(B, T) some rows of which do not count; they are so small that their sums are below 1 for some classes."""
    weight_BT = 0.01 * torch.rand(B, T, dtype=torch.float64) ** 3
    return torch.where(torch.rand(B, T) < 0.2, 0.0, weight_BT)


def values_of(metric: Metric, logits: Tensor, target: Tensor, weight_BT: Tensor) -> dict[str, Tensor]:
    hold_weights(metric, torch.float64)
    for rows in torch.arange(B).split(70):
        metric.update(logits[rows], target[rows], weight_BT[rows])
    found: dict[str, Tensor] = metric.compute()
    return found


def compare(found: dict[str, Tensor], expected: dict[str, float], kind: str, t: int, own: str = "") -> None:
    assert set(expected) == set(TASKS[kind].weighted_metrics) == set(TASKS[kind].known_metrics)
    for name, value in expected.items():
        assert found[name][t].item() == pytest.approx(value, abs=1e-5), name


def binned(scores: Array) -> Array:
    return _score_bins(torch.from_numpy(scores)).numpy()


def calibration_error(p: Array, hit: Array, weight: Array) -> float:
    """Guo et al. 2017, with weighted rows."""
    bins = np.minimum((p.astype(np.float32) * 15).astype(int), 14)
    gaps = [abs((weight * (p - hit))[bins == g].sum()) for g in range(15)]
    return float(sum(gaps) / weight.sum())


def test_binary() -> None:
    target = (torch.rand(B, T) < 0.3).long()
    logits = 2 * torch.randn(B, T, 1) + target.unsqueeze(-1)
    weight = weights()
    threshold = torch.tensor([0.5, 0.3, 0.6])
    found = values_of(GroupedScores(T, threshold), logits, target, weight)
    for t in range(T):
        z, y, w = logits[:, t, 0].numpy(), target[:, t].numpy(), weight[:, t].numpy()
        p = torch.from_numpy(z).sigmoid().numpy()
        yes = p >= threshold[t].numpy()
        expected = {
            "auroc": sk.roc_auc_score(y, binned(z), sample_weight=w),
            "average_precision": sk.average_precision_score(y, binned(z), sample_weight=w),
            "accuracy": sk.accuracy_score(y, yes, sample_weight=w),
            "balanced_accuracy": sk.balanced_accuracy_score(y, yes, sample_weight=w),
            "f1": sk.f1_score(y, yes, sample_weight=w),
            "precision": sk.precision_score(y, yes, sample_weight=w),
            "recall": sk.recall_score(y, yes, sample_weight=w),
            "specificity": sk.recall_score(1 - y, ~yes, sample_weight=w),
            "brier": sk.brier_score_loss(y, p, sample_weight=w),
            "calibration_error": calibration_error(p, y, w),
        }
        compare(found, expected, "binary", t)


def classes_of(log_p: Tensor, target: Array, w: Array) -> dict[str, float]:
    said = log_p.argmax(-1).numpy()
    p = log_p.softmax(-1)
    odds = log_odds(log_p.log_softmax(-1)).numpy()
    counted = w > 0  # scikit-learn also has classes of rows without weight in its means
    y, s, v = target[counted], said[counted], w[counted]

    def over_classes(score: Callable[..., float]) -> float:
        each = [score(target == c, binned(odds[:, c]), sample_weight=w) for c in range(C)]
        return float(np.mean(each))

    return {
        "accuracy": sk.accuracy_score(y, s, sample_weight=v),
        "balanced_accuracy": sk.balanced_accuracy_score(y, s, sample_weight=v),
        "macro_f1": sk.f1_score(y, s, sample_weight=v, average="macro"),
        "macro_precision": sk.precision_score(y, s, sample_weight=v, average="macro", zero_division=0),
        "macro_recall": sk.recall_score(y, s, sample_weight=v, average="macro", zero_division=0),
        "cohen_kappa": sk.cohen_kappa_score(y, s, sample_weight=v),
        "auroc": over_classes(sk.roc_auc_score),
        "average_precision": over_classes(sk.average_precision_score),
        "calibration_error": calibration_error(p.max(-1).values.numpy(), said == target, w),
        "mae": sk.mean_absolute_error(y, s, sample_weight=v),
        "quadratic_kappa": sk.cohen_kappa_score(y, s, sample_weight=v, weights="quadratic"),
    }


@pytest.mark.parametrize("kind", ["multiclass", "ordinal"])
def test_classes(kind: str) -> None:
    target = torch.randint(C, (B, T))
    weight = weights()
    if kind == "multiclass":
        logits = torch.randn(B, T, C) + 2 * torch.nn.functional.one_hot(target, C)
        metric, log_p = GroupedClasses(T, C, curves=True, calibration=True), logits
    else:
        logits = torch.randn(B, T, C - 1) + (target - 1).unsqueeze(-1)
        metric = GroupedClasses(T, C, log_p=cumulative_log_p, ordered=True, calibration=True)
        log_p = cumulative_log_p(logits)
    found = values_of(metric, logits, target, weight)
    for t in range(T):
        expected = classes_of(log_p[:, t], target[:, t].numpy(), weight[:, t].numpy())
        known = TASKS[kind].known_metrics
        compare(found, {name: value for name, value in expected.items() if name in known}, kind, t)


def test_multilabel() -> None:
    """A row's weight is that of each of its known labels."""
    target = (torch.rand(B, T, O) < 0.4).long()
    logits = torch.randn(B, T, O) + 2 * target
    target[torch.rand(B, T, O) < 0.2] = -1
    weight = weights()
    found = values_of(GroupedLabels(T, O), logits, target, weight)
    for t in range(T):
        each: dict[str, list[float]] = {name: [] for name in ("auroc", "ap", "f1", "error")}
        flat: list[Rows] = []
        for o in range(O):
            known = (target[:, t, o] >= 0).numpy()
            z, y, w = (
                logits[:, t, o].numpy()[known],
                target[:, t, o].numpy()[known],
                weight[:, t].numpy()[known],
            )
            p = torch.from_numpy(z).sigmoid().numpy()
            each["auroc"].append(sk.roc_auc_score(y, binned(z), sample_weight=w))
            each["ap"].append(sk.average_precision_score(y, binned(z), sample_weight=w))
            each["f1"].append(sk.f1_score(y, p >= 0.5, sample_weight=w))
            each["error"].append(calibration_error(p, y, w))
            flat.append((p >= 0.5, y, w))
        said, y, w = (np.concatenate(parts) for parts in zip(*flat, strict=True))
        expected = {
            "macro_auroc": float(np.mean(each["auroc"])),
            "macro_average_precision": float(np.mean(each["ap"])),
            "macro_f1": float(np.mean(each["f1"])),
            "micro_f1": sk.f1_score(y, said, sample_weight=w),
            "accuracy": sk.accuracy_score(y, said, sample_weight=w),
            "calibration_error": float(np.mean(each["error"])),
        }
        compare(found, expected, "multilabel", t)


def test_regression() -> None:
    mean, std = torch.tensor([0.0, 5.0, -2.0]), torch.tensor([1.0, 2.0, 0.5])
    target = mean + std * torch.randn(B, T, dtype=torch.float64)
    logits = ((target - mean) / std + 0.5 * torch.randn(B, T)).float().unsqueeze(-1)
    weight = weights()
    found = values_of(GroupedMoments(T, mean, std), logits, target, weight)
    for t in range(T):
        y, w = target[:, t].numpy(), weight[:, t].numpy()
        said = (mean[t] + std[t] * logits[:, t, 0].double()).numpy()
        expected = {
            "rmse": sk.root_mean_squared_error(y, said, sample_weight=w),
            "mse": sk.mean_squared_error(y, said, sample_weight=w),
            "mae": sk.mean_absolute_error(y, said, sample_weight=w),
            "bias": float(np.average(said - y, weights=w)),
            "r2": sk.r2_score(y, said, sample_weight=w),
        }
        compare(found, expected, "regression", t)


METRICS: dict[str, Callable[[], Metric]] = {
    "scores": lambda: GroupedScores(T),
    "classes": lambda: GroupedClasses(T, 2, curves=True, calibration=True, ordered=True),
    "moments": lambda: GroupedMoments(T, torch.zeros(T), torch.ones(T)),
}


@pytest.mark.parametrize("name", METRICS)
def test_weights_of_one_and_of_nought_are_labels_that_are_there_or_not(name: str) -> None:
    logits, target = torch.randn(B, T, 2 if name == "classes" else 1), torch.randint(2, (B, T))
    present = torch.rand(B, T) < 0.6
    plain = METRICS[name]()
    plain.update(logits, target, present)
    weighted = values_of(METRICS[name](), logits, target, present.double())
    expected = plain.compute()
    assert set(weighted) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(weighted[key], value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", METRICS)
def test_a_weight_of_two_is_a_row_twice(name: str) -> None:
    logits, target = torch.randn(B, T, 2 if name == "classes" else 1), torch.randint(2, (B, T))
    twice = values_of(METRICS[name](), logits, target, torch.full((B, T), 2.0, dtype=torch.float64))
    plain = METRICS[name]()
    for _ in range(2):
        plain.update(logits, target, torch.ones(B, T, dtype=torch.bool))
    for key, value in plain.compute().items():
        torch.testing.assert_close(twice[key], value, rtol=1e-6, atol=1e-7)
