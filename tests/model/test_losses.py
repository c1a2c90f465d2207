"""Losses of a group are those of its tasks, one by one.

Shapes: B batch, T tasks of a group, O outputs per task.
"""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mtl.model.losses import WeightedSum, cross_entropy, masked_mean

B, T, O = 7, 3, 4  # noqa: E741 - shape letters


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Logits, targets and presence; every task has some labels and lacks some."""
    present_BT = torch.rand(B, T) < 0.6
    present_BT[0], present_BT[1] = True, False
    return torch.randn(B, T, O, dtype=torch.float64, requires_grad=True), torch.randint(O, (B, T)), present_BT


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_cross_entropy_of_a_group_is_that_of_each_task_alone(label_smoothing: float) -> None:
    logits_BTO, target_BT, present_BT = batch()
    loss_T = cross_entropy(logits_BTO, target_BT, present_BT, label_smoothing=label_smoothing)
    for t in range(T):
        rows = present_BT[:, t]
        alone = F.cross_entropy(logits_BTO[rows, t], target_BT[rows, t], label_smoothing=label_smoothing)
        torch.testing.assert_close(loss_T[t], alone)
        torch.testing.assert_close(
            *(torch.autograd.grad(x, logits_BTO, retain_graph=True) for x in (loss_T[t], alone))
        )


@pytest.mark.parametrize("value", [0.0, 5.0, float("inf"), float("nan")])
def test_a_task_without_labels_has_loss_and_gradient_of_exactly_0(value: float) -> None:
    loss_BT = torch.rand(B, T)
    loss_BT[:, 1] = value
    loss_BT.requires_grad_()
    present_BT = torch.ones(B, T, dtype=torch.bool)
    present_BT[:, 1] = False
    mean_T = masked_mean(loss_BT, present_BT)
    mean_T.sum().backward()
    assert loss_BT.grad is not None
    assert mean_T[1].item() == 0
    assert loss_BT.grad[:, 1].eq(0).all()
    assert loss_BT.grad[:, [0, 2]].eq(1 / B).all()


def test_a_task_without_labels_leaves_the_others_as_they_are_bit_for_bit() -> None:
    logits_BTO, target_BT, _ = batch()
    everything = torch.ones(B, T, dtype=torch.bool)
    without_1 = everything.clone()
    without_1[:, 1] = False
    losses, gradients = [], []
    for present_BT in (everything, without_1):
        loss_T = cross_entropy(logits_BTO, target_BT, present_BT)
        losses.append(loss_T[[0, 2]])
        gradients.append(torch.autograd.grad(loss_T.sum(), logits_BTO)[0])
    assert torch.equal(*losses)
    assert torch.equal(gradients[0][:, [0, 2]], gradients[1][:, [0, 2]])
    assert gradients[1][:, 1].eq(0).all()
    assert gradients[0][:, 1].ne(0).any()


def test_what_stands_in_a_missing_label_does_not_matter() -> None:
    logits_BTO, target_BT, present_BT = batch()
    other_BT = torch.where(present_BT, target_BT, (target_BT + 1) % O)
    assert not torch.equal(other_BT, target_BT)
    assert torch.equal(
        cross_entropy(logits_BTO, target_BT, present_BT), cross_entropy(logits_BTO, other_BT, present_BT)
    )


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, 0.0, 2.0)])
def test_the_weighted_sum_has_the_weights_as_its_gradient(weights: tuple[float, ...]) -> None:
    losses_N = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    module = WeightedSum(weights)
    total = module(losses_N)
    assert total.item() == sum(w * x for w, x in zip(weights, (1, 2, 4), strict=True))
    (gradient,) = torch.autograd.grad(total, losses_N)
    assert tuple(gradient.tolist()) == weights
    assert dict(module.state_dict()) == {}
    assert repr(module) == f"WeightedSum(weights={list(weights)})"
