"""The plain sum of the losses, with the weights that the tasks give."""

from collections.abc import Sequence

import pytest
import torch

from mtl.model.weighting import Weighting
from mtl.recipe.specs import WEIGHTINGS


def built(weights: tuple[float, ...]) -> Weighting:
    return WEIGHTINGS["sum"]().build(weights, (False,) * len(weights))


def seen(*these: bool) -> torch.Tensor:
    return torch.tensor(these)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0, 1.0), (0.5, 0.0, 2.0)])
def test_the_sum_is_that_of_weight_times_loss(weights: tuple[float, ...]) -> None:
    losses_N = torch.rand(len(weights))
    expected = sum(w * x for w, x in zip(weights, losses_N.tolist(), strict=True))
    assert built(weights)(losses_N, seen(*[True] * len(weights))).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("these", "expected"),
    [((True, True, True), [1.0, 0.25, 0.0]), ((False, True, True), [0.0, 0.25, 0.0])],
)
def test_a_weight_scales_the_gradient_of_its_task_alone(
    these: Sequence[bool], expected: Sequence[float]
) -> None:
    losses_N = torch.rand(3, requires_grad=True)
    built((1.0, 0.25, 0.0))(losses_N, seen(*these)).backward()
    assert losses_N.grad is not None
    assert losses_N.grad.tolist() == expected


def test_it_learns_nothing() -> None:
    module = built((1.0, 1.0))
    assert list(module.parameters()) == []
    assert dict(module.state_dict()) == {}
