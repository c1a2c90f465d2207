"""Losses of a group are those of its tasks, one by one.

Shapes: B batch, T tasks of a group, O outputs per task.
"""

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mtl.model.tasks.losses import (
    binary_cross_entropy,
    cross_entropy,
    cumulative_log_p,
    cumulative_loss,
    multilabel_loss,
    regression_loss,
    weighted_sum,
)

B, T, O = 7, 3, 4  # noqa: E741 - shape letters


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Logits, targets and presence; every task has some labels and lacks some."""
    present_BT = torch.rand(B, T) < 0.6
    present_BT[0], present_BT[1] = True, False
    return torch.randn(B, T, O, dtype=torch.float64, requires_grad=True), torch.randint(O, (B, T)), present_BT


def mean(loss_BT: Tensor, weight_BT: Tensor) -> Tensor:
    """(T,) the weighted mean over rows: the sum by the sum of the weights."""
    return weighted_sum(loss_BT, weight_BT) / weight_BT.sum(0)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_cross_entropy_of_a_group_is_that_of_each_task_alone(label_smoothing: float) -> None:
    logits_BTO, target_BT, present_BT = batch()
    loss_T = mean(cross_entropy(logits_BTO, target_BT, label_smoothing), present_BT.double())
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
    weight_BT = torch.full((B, T), 0.25)
    weight_BT[:, 1] = 0.0
    sum_T = weighted_sum(loss_BT, weight_BT)
    sum_T.sum().backward()
    assert loss_BT.grad is not None
    assert sum_T[1].item() == 0
    assert loss_BT.grad[:, 1].eq(0).all()
    assert loss_BT.grad[:, [0, 2]].eq(0.25).all()


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_row_of_weight_0_is_left_out_whatever_its_loss(value: float) -> None:
    loss_BT, weight_BT = torch.rand(B, T), torch.rand(B, T)
    expected = (loss_BT[1:] * weight_BT[1:]).sum(0)
    loss_BT[0], weight_BT[0] = value, 0.0
    torch.testing.assert_close(weighted_sum(loss_BT, weight_BT), expected)
    weight_BT[0, 1] = 1e-6  # a row that counts is not
    assert weighted_sum(loss_BT, weight_BT).isfinite().tolist() == [True, False, True]


def test_a_task_without_labels_leaves_the_others_as_they_are_bit_for_bit() -> None:
    logits_BTO, target_BT, _ = batch()
    everything = torch.ones(B, T, dtype=torch.bool)
    without_1 = everything.clone()
    without_1[:, 1] = False
    losses, gradients = [], []
    for present_BT in (everything, without_1):
        loss_T = weighted_sum(cross_entropy(logits_BTO, target_BT), present_BT.double())
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
    weight_BT = present_BT.double()
    found, other = (weighted_sum(cross_entropy(logits_BTO, y), weight_BT) for y in (target_BT, other_BT))
    assert torch.equal(found, other)


# -- weights, smoothing, and the other kinds ---------------------------------------------------------------


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_binary_cross_entropy_is_the_equation(label_smoothing: float, weighted: bool) -> None:
    logits_BTO, target_BT, present_BT = batch()
    z_BT, target_BT = logits_BTO[..., 0], target_BT % 2
    w_T = torch.tensor([0.5, 1.0, 30.0], dtype=torch.float64) if weighted else torch.ones(T)
    weight_BT = present_BT * torch.rand(B, T, dtype=torch.float64)
    loss_BT = binary_cross_entropy(z_BT, target_BT, label_smoothing, w_T if weighted else None)
    loss_T = mean(loss_BT, weight_BT)
    for t in range(T):
        total, weights = 0.0, 0.0
        for b in range(B):
            s = 1 / (1 + math.exp(-z_BT[b, t].item()))
            y = abs(target_BT[b, t].item() - label_smoothing / 2)
            loss = -w_T[t].item() * y * math.log(s) - (1 - y) * math.log(1 - s)
            total, weights = total + weight_BT[b, t].item() * loss, weights + weight_BT[b, t].item()
        assert loss_T[t].item() == pytest.approx(total / weights)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_the_multilabel_loss_is_the_mean_over_known_labels_then_over_rows(label_smoothing: float) -> None:
    logits_BTO, _, present_BT = batch()
    target_BTO = torch.randint(-1, 2, (B, T, O))
    target_BTO[0, 0] = -1  # a row that is there without a known label counts as 0
    w_TO = torch.rand(T, O, dtype=torch.float64) * 5
    loss_T = mean(multilabel_loss(logits_BTO, target_BTO, label_smoothing, w_TO), present_BT.double())
    for t in range(T):
        rows = []
        for b in range(B):
            known = target_BTO[b, t] >= 0
            if present_BT[b, t]:
                y = (target_BTO[b, t, known] - label_smoothing / 2).abs()
                s = logits_BTO[b, t, known].sigmoid()
                each = -w_TO[t, known] * y * s.log() - (1 - y) * (1 - s).log()
                rows.append(each.mean() if known.any() else torch.tensor(0.0, dtype=torch.float64))
        torch.testing.assert_close(loss_T[t], torch.stack(rows).mean())
    loss_T.sum().backward()
    assert logits_BTO.grad is not None
    known_BTO = (target_BTO >= 0) & present_BT.unsqueeze(-1)
    assert torch.equal(logits_BTO.grad != 0, known_BTO)


@pytest.mark.parametrize(
    ("kind", "delta", "alone"),
    [
        ("mse", 1.0, lambda r: r.square()),
        ("mae", 1.0, lambda r: r.abs()),
        ("huber", 1.0, lambda r: torch.where(r.abs() <= 1, r.square() / 2, r.abs() - 0.5)),
        ("huber", 0.3, lambda r: torch.where(r.abs() <= 0.3, r.square() / 2, 0.3 * (r.abs() - 0.15))),
    ],
)
def test_regression_losses_are_their_equations(
    kind: str, delta: float, alone: Callable[[Tensor], Tensor]
) -> None:
    z_BT, y_BT = torch.randn(B, T, dtype=torch.float64), torch.randn(B, T, dtype=torch.float64)
    weight_BT = torch.rand(B, T, dtype=torch.float64)
    expected = (weight_BT * alone(z_BT - y_BT)).sum(0) / weight_BT.sum(0)
    torch.testing.assert_close(mean(regression_loss(z_BT, y_BT, kind, delta), weight_BT), expected)


# -- ordered classes ---------------------------------------------------------------------------------------


def cuts(r: Tensor) -> Tensor:
    """The cumulative logits that head outputs mean."""
    return torch.cat([r[..., :1], r[..., :1] - F.softplus(r[..., 1:]).cumsum(-1)], -1)


@pytest.mark.parametrize("n_classes", [2, 3, 8])
def test_probabilities_of_ordered_classes_are_differences_of_the_cumulative_ones(n_classes: int) -> None:
    r = torch.randn(50, n_classes - 1, dtype=torch.float64) * 2
    above = torch.cat([torch.ones(50, 1), cuts(r).sigmoid(), torch.zeros(50, 1)], -1)
    assert (above[:, 1:] < above[:, :-1]).all()
    p = cumulative_log_p(r).exp()
    torch.testing.assert_close(p, above[:, :-1] - above[:, 1:])
    torch.testing.assert_close(p.sum(-1), torch.ones(50, dtype=torch.float64))


@pytest.mark.parametrize(
    "r", [[-40.0, -90.0, 3.0], [60.0, 60.0, 60.0], [80.0, -80.0, -80.0], [-300.0, 0.0, 0.0]]
)
def test_extreme_ordered_logits_keep_exact_logarithms_and_finite_gradients(r: list[float]) -> None:
    """Against 400 digits; differences of sigmoids in float32 would be 0, and their logarithm infinite."""
    head = torch.tensor(r, requires_grad=True)
    log_p = cumulative_log_p(head)
    with localcontext() as context:
        context.prec = 400
        first, *rest = map(Decimal, r)
        z = [first]
        for value in rest:
            z.append(z[-1] - (1 + value.exp()).ln())
        above = [Decimal(1), *(1 / (1 + (-x).exp()) for x in z), Decimal(0)]
        expected = [float((a - b).ln()) for a, b in pairwise(above)]
    # float32 holds a cut of 60 to 4e-6, and the logarithm of a rest of 1e-26 to that times its own size
    assert log_p.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)
    for c in range(4):
        (gradient,) = torch.autograd.grad(log_p[c], head, retain_graph=True)
        assert gradient.isfinite().all()
        assert gradient.ne(0).any() or log_p[c] > -1e-6


def test_the_gradient_of_ordered_classes_is_numerically_right() -> None:
    r = torch.randn(6, T, 3, dtype=torch.float64, requires_grad=True)
    target_BT, weight_BT = torch.randint(4, (6, T)), torch.rand(6, T, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: mean(cumulative_loss(x, target_BT), weight_BT), r)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_the_loss_of_ordered_classes_is_smoothed_as_cross_entropy(label_smoothing: float) -> None:
    logits_BTO, target_BT, _ = batch()
    found = cumulative_loss(logits_BTO, target_BT, label_smoothing)
    # log probabilities are logits of a softmax that leaves them as they are
    expected = cross_entropy(cumulative_log_p(logits_BTO), target_BT, label_smoothing)
    torch.testing.assert_close(found, expected)
