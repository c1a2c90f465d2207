"""Metrics of a group are torchmetrics' of each task alone.

Shapes: B batch, T tasks of a group, O outputs per task.
"""

import pytest
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from mtl.model.metrics import GroupedConfusion

B, T = 9, 4


def batches(n_classes: int, seen: int, labelled: float) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Three batches; only the first `seen` classes are true or predicted."""
    found = []
    for _ in range(3):
        logits_BTO = torch.randn(B, T, n_classes)
        logits_BTO[..., seen:] = -100
        found.append((logits_BTO, torch.randint(seen, (B, T)), torch.rand(B, T) < labelled))
    found[0][2][0] = True  # at least one label
    return found


@pytest.mark.parametrize("labelled", [1.1, 0.5, 0.1])
@pytest.mark.parametrize(("n_classes", "seen"), [(2, 2), (5, 5), (5, 3), (12, 1)])
def test_metrics_of_a_group_are_torchmetrics_of_each_task(n_classes: int, seen: int, labelled: float) -> None:
    ours = GroupedConfusion(T, n_classes)
    accuracy = [MulticlassAccuracy(n_classes, average="micro") for _ in range(T)]
    macro_f1 = [MulticlassF1Score(n_classes, average="macro") for _ in range(T)]
    for logits_BTO, target_BT, present_BT in batches(n_classes, seen, labelled):
        ours.update(logits_BTO, target_BT, present_BT)
        for t in range(T):
            rows = present_BT[:, t]
            if rows.any():
                accuracy[t].update(logits_BTO[rows, t], target_BT[rows, t])
                macro_f1[t].update(logits_BTO[rows, t], target_BT[rows, t])
    found = ours.compute()
    assert {"accuracy", "macro_f1"} <= set(found)
    for name, theirs in (("accuracy", accuracy), ("macro_f1", macro_f1)):
        expected = torch.stack([metric.compute() for metric in theirs])
        torch.testing.assert_close(found[name].float(), expected)


def test_a_task_without_labels_has_no_value() -> None:
    metric = GroupedConfusion(2, 3)
    present_BT = torch.tensor([[True, False]] * B)
    metric.update(torch.randn(B, 2, 3), torch.zeros(B, 2, dtype=torch.long), present_BT)
    for values in metric.compute().values():
        assert values.isnan().tolist() == [False, True]


def test_rows_are_true_classes_and_columns_predictions() -> None:
    metric = GroupedConfusion(1, 3)
    logits_BTO = torch.eye(3)[[2, 2, 0]].unsqueeze(1)  # predictions 2, 2, 0
    metric.update(logits_BTO, torch.tensor([[1], [1], [0]]), torch.ones(3, 1, dtype=torch.bool))
    assert metric.confusion.tolist() == [[[1, 0, 0], [0, 0, 2], [0, 0, 0]]]


def test_reset_forgets() -> None:
    metric = GroupedConfusion(T, 3)
    first, second, _ = batches(3, 3, 1.1)
    metric.update(*first)
    metric.reset()
    metric.update(*second)
    alone = GroupedConfusion(T, 3)
    alone.update(*second)
    assert torch.equal(metric.confusion, alone.confusion)
    assert metric.confusion.sum() == B * T
