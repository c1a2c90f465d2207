"""The plain sum of the losses, with the weights that the tasks give."""

import pytest
import torch

from mtl.recipe.specs import WEIGHTINGS


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0, 1.0), (0.5, 0.0, 2.0)])
def test_the_sum_is_that_of_weight_times_loss(weights: tuple[float, ...]) -> None:
    losses_N = torch.rand(len(weights))
    expected = sum(w * x for w, x in zip(weights, losses_N.tolist(), strict=True))
    assert WEIGHTINGS["sum"]().build(weights)(losses_N).item() == pytest.approx(expected)


def test_a_weight_scales_the_gradient_of_its_task_alone() -> None:
    losses_N = torch.rand(3, requires_grad=True)
    WEIGHTINGS["sum"]().build((1.0, 0.25, 0.0))(losses_N).backward()
    assert losses_N.grad is not None
    assert losses_N.grad.tolist() == [1.0, 0.25, 0.0]


def test_it_learns_nothing() -> None:
    module = WEIGHTINGS["sum"]().build((1.0, 1.0))
    assert list(module.parameters()) == []
