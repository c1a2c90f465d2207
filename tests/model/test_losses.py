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

from mtl.model.losses import (
    WeightedSum,
    binary_cross_entropy,
    cross_entropy,
    cumulative_log_p,
    cumulative_loss,
    masked_mean,
    multilabel_loss,
    regression_loss,
)

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


# -- weights, smoothing, and the other kinds ---------------------------------------------------------------


def test_class_weights_and_sample_weights_are_those_of_torch_on_each_task() -> None:
    logits_BTO, target_BT, present_BT = batch()
    class_weight_TO = torch.tensor(
        [[1.0, 2.0, 0.0, 4.0], [1, 1, 1, 1], [0.1, 9.0, 3.0, 1.0]], dtype=torch.float64
    )
    loss_T = cross_entropy(logits_BTO, target_BT, present_BT.double(), class_weight_TO=class_weight_TO)
    for t in range(T):
        rows = present_BT[:, t]
        alone = F.cross_entropy(logits_BTO[rows, t], target_BT[rows, t], weight=class_weight_TO[t])
        torch.testing.assert_close(loss_T[t], alone)
    weight_BT = torch.rand(B, T, dtype=torch.float64) * present_BT
    loss_T = cross_entropy(logits_BTO, target_BT, weight_BT, class_weight_TO=class_weight_TO)
    for t in range(T):
        w = weight_BT[:, t] * class_weight_TO[t][target_BT[:, t]]
        each = -logits_BTO[:, t].log_softmax(-1).gather(-1, target_BT[:, t : t + 1])[:, 0]
        torch.testing.assert_close(loss_T[t], (w * each).sum() / w.sum())


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_binary_cross_entropy_is_the_equation(label_smoothing: float, weighted: bool) -> None:
    logits_BTO, target_BT, present_BT = batch()
    z_BT, target_BT = logits_BTO[..., 0], target_BT % 2
    w_T = torch.tensor([0.5, 1.0, 30.0], dtype=torch.float64) if weighted else torch.ones(T)
    weight_BT = present_BT * torch.rand(B, T, dtype=torch.float64)
    loss_T = binary_cross_entropy(
        z_BT,
        target_BT,
        weight_BT,
        label_smoothing=label_smoothing,
        positive_weight_T=w_T if weighted else None,
    )
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
    loss_T = multilabel_loss(
        logits_BTO,
        target_BTO,
        present_BT.double(),
        label_smoothing=label_smoothing,
        positive_weight_TO=w_TO,
    )
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
    torch.testing.assert_close(regression_loss(z_BT, y_BT, weight_BT, kind, delta), expected)


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
    assert torch.autograd.gradcheck(lambda x: cumulative_loss(x, target_BT, weight_BT), r)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_the_loss_of_ordered_classes_is_weighted_and_smoothed_as_cross_entropy(
    label_smoothing: float,
) -> None:
    logits_BTO, target_BT, present_BT = batch()
    class_weight_TC = torch.rand(T, O + 1, dtype=torch.float64) * 3
    given = (target_BT, present_BT.double())
    found = cumulative_loss(
        logits_BTO, *given, label_smoothing=label_smoothing, class_weight_TC=class_weight_TC
    )
    # log probabilities are logits of a softmax that leaves them as they are
    as_logits = cumulative_log_p(logits_BTO)
    expected = cross_entropy(
        as_logits, *given, label_smoothing=label_smoothing, class_weight_TO=class_weight_TC
    )
    torch.testing.assert_close(found, expected)
