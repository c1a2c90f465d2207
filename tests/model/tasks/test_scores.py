"""Scores of a group of yes-or-no questions are torchmetrics' of each alone.

Shapes: B batch, T tasks of a group, S score bins.
"""

import math

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryAveragePrecision,
    BinaryCalibrationError,
    BinaryF1Score,
    BinaryPrecision,
    BinaryRecall,
    BinarySpecificity,
)

from mtl.model.tasks.scores import N_BINS, GroupedScores, log_odds

B, T = 500, 3


def answers(
    scale: float = 2.0, offset: float = 0.0, n_rows: int = B, labelled: float = 0.6
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits that tell something of the answers, and some answers missing."""
    target_BT = (torch.rand(n_rows, T) < 0.4).long()
    logits_BT = offset + scale * (torch.randn(n_rows, T) + target_BT)
    return logits_BT.unsqueeze(-1), target_BT, torch.rand(n_rows, T) < labelled


def fed(metric: GroupedScores, *parts: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
    for part in parts:
        metric.update(*part)
    values: dict[str, Tensor] = metric.compute()
    return values


@pytest.mark.parametrize(
    ("threshold", "temperature"), [((0.5,) * T, (1.0,) * T), ((0.2, 0.5, 0.9), (0.3, 1.0, 1.5))]
)
def test_scores_are_torchmetrics_of_each_task(
    threshold: tuple[float, ...], temperature: tuple[float, ...]
) -> None:
    logits, target, present = answers()
    metric = GroupedScores(T, torch.tensor(threshold), torch.tensor(temperature))
    parts = [tuple(x[i : i + 100] for x in (logits, target, present)) for i in range(0, B, 100)]
    found = fed(metric, *parts)  # type: ignore[arg-type]
    for t in range(T):
        rows = present[:, t]
        z, truth = logits[rows, t, 0], target[rows, t]
        p = (z / temperature[t]).sigmoid()
        exact = {
            "accuracy": BinaryAccuracy(threshold[t])(p, truth),
            "f1": BinaryF1Score(threshold[t])(p, truth),
            "precision": BinaryPrecision(threshold[t])(p, truth),
            "recall": BinaryRecall(threshold[t])(p, truth),
            "specificity": BinarySpecificity(threshold[t])(p, truth),
            "balanced_accuracy": (
                BinaryRecall(threshold[t])(p, truth) + BinarySpecificity(threshold[t])(p, truth)
            )
            / 2,
            "brier": (p - truth).square().mean(),
            "calibration_error": BinaryCalibrationError(n_bins=15)(p, truth),
        }
        for name, value in exact.items():
            assert found[name][t].item() == pytest.approx(value.item(), abs=1e-5), name
        assert found["auroc"][t].item() == pytest.approx(BinaryAUROC()(z.double(), truth).item(), abs=5e-4)
        assert found["average_precision"][t].item() == pytest.approx(
            BinaryAveragePrecision()(z.double(), truth).item(), abs=4e-3
        )
        assert {*exact, "auroc", "average_precision"} == set(found)


@pytest.mark.parametrize(
    ("scale", "offset", "tolerance"),
    [(0.05, -4.0, 3e-3), (0.5, -8.0, 1e-3), (1.0, 0.0, 5e-4), (30.0, 0.0, 5e-4), (5.0, 200.0, 1e-3)],
)
def test_the_area_is_near_the_exact_one_for_weak_rare_and_overconfident_scores(
    scale: float, offset: float, tolerance: float
) -> None:
    """Mann and Whitney's statistic over all pairs; beyond logits of 17 float32 probabilities would all be 1."""
    logits, target, present = answers(scale, offset, n_rows=2000)
    found = fed(GroupedScores(T), (logits, target, present))
    for t in range(T):
        z, yes = logits[present[:, t], t, 0].double().numpy(), target[present[:, t], t].numpy() == 1
        exact = mannwhitneyu(z[yes], z[~yes]).statistic / (yes.sum() * (~yes).sum())
        assert 0.6 < exact < 0.9
        assert found["auroc"][t].item() == pytest.approx(exact, abs=tolerance)


def test_ties_count_half() -> None:
    logits = torch.zeros(4, 1, 1)
    found = fed(GroupedScores(1), (logits, torch.tensor([[0], [1], [1], [0]]), torch.ones(4, 1).bool()))
    assert found["auroc"].item() == 0.5
    assert found["average_precision"].item() == 0.5  # one threshold: 2 of 4 are yes


def test_scores_beyond_the_last_bin_and_nan_have_a_place() -> None:
    logits = torch.tensor([-math.inf, -1e30, 1e30, math.inf, math.nan]).view(5, 1, 1)
    metric = GroupedScores(1)
    metric.update(logits, torch.tensor([[0], [0], [1], [1], [1]]), torch.ones(5, 1).bool())
    histogram = metric.histogram[0]
    assert histogram[0, 0] == histogram[1, -1] == 2
    assert histogram[1, N_BINS // 2] == 1
    assert histogram.sum() == 5


@pytest.mark.parametrize(
    ("target", "undefined"),
    [
        ([1, 1, 1], {"auroc", "specificity", "balanced_accuracy"}),
        ([0, 0, 0], {"auroc", "average_precision", "recall", "balanced_accuracy"}),
    ],
)
def test_one_answer_alone_leaves_some_undefined(target: list[int], undefined: set[str]) -> None:
    logits = torch.tensor([1.0, 2.0, -1.0]).view(3, 1, 1)
    found = fed(GroupedScores(1), (logits, torch.tensor(target).view(3, 1), torch.ones(3, 1).bool()))
    assert {name for name, value in found.items() if value.isnan()} == undefined


def test_what_is_not_asked_for_is_not_kept() -> None:
    bare = GroupedScores(T, curves=False, calibration=False)
    assert bare.histogram.numel() == 0
    part = answers()
    found, whole = fed(bare, part), fed(GroupedScores(T), part)
    assert set(whole) - set(found) == {"auroc", "average_precision", "calibration_error"}
    assert all(torch.equal(values, whole[name]) for name, values in found.items())


def test_a_group_of_100_takes_as_many_operations_as_a_group_of_2() -> None:
    from torch.profiler import ProfilerActivity, profile

    counts = []
    for n_tasks in (2, 100):
        metric = GroupedScores(n_tasks)
        target = torch.randint(2, (32, n_tasks))
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            metric.update(torch.randn(32, n_tasks, 1), target, torch.ones(32, n_tasks).bool())
        counts.append(sum(event.count for event in seen.key_averages() if event.key.startswith("aten::")))
    assert counts[0] == counts[1] > 20


def test_log_odds_are_exact_where_probabilities_round_to_one() -> None:
    logits = torch.tensor([[[30.0, 0.0, -5.0]], [[1.0, 1.0, 1.0]], [[-80.0, 90.0, 0.0]]])
    p = np.exp(logits.double().numpy() - logits.double().logsumexp(-1, keepdim=True).numpy())
    others = np.stack([p[..., [1, 2]].sum(-1), p[..., [0, 2]].sum(-1), p[..., [0, 1]].sum(-1)], -1)
    expected = torch.from_numpy(np.log(p) - np.log(others))
    assert logits.softmax(-1).max() == 1
    torch.testing.assert_close(log_odds(logits.log_softmax(-1)).double(), expected, rtol=1e-5, atol=1e-5)
