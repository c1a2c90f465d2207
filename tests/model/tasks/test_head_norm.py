"""The norm of a head takes its statistics from the rows that have the task's label.

Shapes: B batch, T tasks, W features or outputs of one task.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mtl.model.tasks.heads import GroupedHead
from mtl.model.tasks.norm import LabelledBatchNorm, head_norm

B, T, W = 12, 3, 2
LABELLED = (5, 12, 8)
"""Rows with a label of each task."""


def present_of(counts: tuple[int, ...], seed: int = 0) -> Tensor:
    """(B, T) where task t has `counts[t]` labels on rows drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(B, generator=generator) for _ in counts]
    return torch.stack([order < n for order, n in zip(orders, counts, strict=True)], dim=1)


def norm_of(debias: bool = False, momentum: float = 0.25) -> LabelledBatchNorm:
    norm = LabelledBatchNorm(T, W, eps=1e-3, momentum=momentum, debias=debias)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, T * W))
        norm.bias.copy_(torch.linspace(-1, 1, T * W))
    return norm


def plain_of(norm: LabelledBatchNorm, t: int) -> nn.BatchNorm1d:
    """torch's batch norm of task t alone."""
    plain = nn.BatchNorm1d(W, eps=norm.eps, momentum=norm.momentum)
    own = slice(t * W, (t + 1) * W)
    plain.load_state_dict(
        {
            "weight": norm.weight[own],
            "bias": norm.bias[own],
            "running_mean": torch.zeros(W),
            "running_var": torch.ones(W),
        },
        strict=False,
    )
    return plain


def test_each_task_has_what_batch_norm_of_its_labelled_rows_alone_gives() -> None:
    """Outputs, gradients of the inputs and running statistics, over several batches."""
    norm = norm_of()
    plain = [plain_of(norm, t) for t in range(T)]
    for step in range(4):
        present = present_of(LABELLED, step)
        x = (torch.randn(B, T * W) * 3 + 1).requires_grad_()
        y = norm(x, present).unflatten(1, (T, W))
        weight = torch.randn(B, T, W)
        (torch.where(present.unsqueeze(2), y, 0) * weight).sum().backward()
        for t in range(T):
            here = present[:, t]
            own = x.detach()[here, t * W : (t + 1) * W].requires_grad_()
            expected = plain[t](own)
            torch.testing.assert_close(y[here, t], expected, rtol=1e-5, atol=1e-5)
            (expected * weight[here, t]).sum().backward()
            assert x.grad is not None
            torch.testing.assert_close(x.grad[here, t * W : (t + 1) * W], own.grad, rtol=1e-4, atol=1e-5)
            assert not x.grad[~here, t * W : (t + 1) * W].any()
    for t in range(T):
        for name in ("running_mean", "running_var"):
            mine = getattr(norm, name).view(T, W)[t]
            torch.testing.assert_close(mine, getattr(plain[t], name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("debias", [False, True])
def test_with_all_labels_it_is_batch_norm(debias: bool) -> None:
    """Told that all rows have labels, it gives what it gives when nothing is told, statistics included."""
    told, untold = norm_of(debias), norm_of(debias)
    everything = torch.ones(B, T, dtype=torch.bool)
    for _ in range(3):
        x = torch.randn(B, T * W)
        torch.testing.assert_close(told(x, everything), untold(x), rtol=1e-5, atol=1e-5)
    for name, value in untold.state_dict().items():
        torch.testing.assert_close(told.state_dict()[name], value, rtol=1e-5, atol=1e-5)
    told.eval(), untold.eval()
    x = torch.randn(B, T * W)
    torch.testing.assert_close(told(x, present_of(LABELLED)), untold(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("debias", [False, True])
@pytest.mark.parametrize("n_labelled", [0, 1])
def test_a_task_with_fewer_than_two_labels_is_normalized_as_in_evaluation(
    n_labelled: int, debias: bool
) -> None:
    norm = norm_of(debias)
    norm(torch.randn(B, T * W) + 3, present_of(LABELLED))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    x = torch.randn(B, T * W)
    y = norm(x, present_of((n_labelled, 12, 8)))
    after = norm.state_dict()
    for name in ("running_mean", "running_var"):
        same = (before[name] == after[name]).view(T, W).all(1)
        assert same.tolist() == [True, False, False]
    assert (after["num_batches_tracked"] - before["num_batches_tracked"]).tolist() == [0, 1, 1]
    norm.load_state_dict(before)
    norm.eval()
    torch.testing.assert_close(y[:, :W], norm(x)[:, :W], rtol=1e-5, atol=1e-5)


def test_running_statistics_of_a_task_forget_their_start_at_its_own_first_labels() -> None:
    """A task that is absent from the first batches starts its moving average when it comes."""
    norm, x = norm_of(debias=True, momentum=0.01), torch.randn(B, T * W) * 2 + 5
    for _ in range(3):
        norm(torch.randn(B, T * W), present_of((0, 12, 8)))
    present = present_of((6, 12, 8))
    norm(x, present)
    own = x[present[:, 0], :W]
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean[:W], own.mean(0))
    torch.testing.assert_close(norm.running_var[:W], own.var(0))


def test_a_row_without_a_label_may_hold_anything() -> None:
    norm, present = norm_of(), present_of(LABELLED)
    x = torch.randn(B, T * W)
    wild = torch.where(present.repeat_interleave(W, 1), x, torch.inf)
    a, b = norm_of()(x, present), norm(wild, present)
    shown = present.repeat_interleave(W, 1)
    assert torch.equal(a[shown], b[shown])
    assert all(torch.isfinite(value).all() for value in norm.state_dict().values())


def test_a_head_gives_its_hidden_layers_and_its_outputs_the_labels() -> None:
    """Both norms see the labelled rows only: the logits of these rows do not depend on the other rows."""

    def head() -> GroupedHead:
        torch.manual_seed(0)
        hidden = [(4, head_norm("batch", T, 4, eps=1e-3, momentum=0.1))]
        made = GroupedHead(
            ["a", "b", "c"],
            [0, 0, 0],
            1,
            5,
            W,
            head_norm("batch", T, W, eps=1e-3, momentum=0.1),
            hidden=hidden,
        )
        for parameter in made.parameters():
            nn.init.normal_(parameter)
        return made

    present = present_of((5, 5, 5))
    present[:, 1:] = present[:, :1]
    x = torch.randn(B, 1, 5)
    other = torch.where(present[:, :1, None], x, torch.randn(B, 1, 5) * 10)
    here = present[:, 0]
    a, b = head()(x, present), head()(other, present)
    torch.testing.assert_close(a[here], b[here])
    assert not torch.allclose(head()(x)[here], head()(other)[here])  # without being told, they do


@pytest.mark.parametrize(("kind", "expected"), [("layer", nn.GroupNorm), ("none", type(None))])
def test_other_kinds_of_norm_need_no_labels(kind: str, expected: type) -> None:
    assert isinstance(head_norm(kind, T, W, eps=1e-5, momentum=0.1), expected)
