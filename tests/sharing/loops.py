"""A grouped network against plain loops: the same logits, and the same gradients of every slice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mtl.model.stitched import StitchedMultiTower
from tests.sharing.small import Slices, inputs, plain_heads

TASKS = ("a", "b", "c", "d", "e")


def assert_equals_loop(
    model: StitchedMultiTower,
    body: str,
    tasks: Sequence[str],
    slices: Slices,
    readings: Callable[[Tensor], Sequence[Tensor]],
    own: Sequence[tuple[Tensor, Tensor]] = (),
) -> None:
    """Compare logits and gradients in training mode.

    Args:
        model: the network.
        body: `vectors` or `images`.
        tasks: its tasks; the head of task t reads reading t.
        slices: the plain modules that `readings` uses.
        readings: the input -> the readings, by plain loops.
        own: (parameter, plain tensor) whose gradients must be equal too.
    """
    x = inputs(body, rows=7)
    heads = plain_heads(slices, model, tasks)
    expected = [head(h) for head, h in zip(heads, readings(x), strict=True)]
    logits = model.train()(x)
    for task, value in zip(tasks, expected, strict=True):
        torch.testing.assert_close(logits[task], value, rtol=1e-5, atol=1e-6)
    weights = torch.arange(1.0, len(tasks) + 1, dtype=torch.float64)
    torch.stack([w * logits[t].square().sum() for w, t in zip(weights, tasks, strict=True)]).sum().backward()
    torch.stack([w * v.square().sum() for w, v in zip(weights, expected, strict=True)]).sum().backward()
    assert slices.gradients_differ() < 1e-5
    for parameter, plain in own:
        assert parameter.grad is not None
        assert plain.grad is not None
        torch.testing.assert_close(parameter.grad, plain.grad, rtol=1e-5, atol=1e-6)


def copy_of(parameter: nn.Parameter) -> Tensor:
    """A leaf of the same values."""
    return parameter.detach().clone().requires_grad_()
