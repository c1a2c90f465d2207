"""The objective of a step, and the weights that it gives the losses.

Shapes: N tasks.
"""

import pytest
import torch
from torch import Tensor, nn

from mtl.model.weighting import WeightedSum, Weighting

ALL = torch.ones(3, dtype=torch.bool)


class Learned(Weighting):
    """sum_t exp(-s_t) loss_t + s_t over the seen tasks, s learned (Kendall et al. 2018, arXiv:1705.07115)."""

    def __init__(self) -> None:
        super().__init__((1.0, 1.0, 1.0))
        self.s = nn.Parameter(torch.tensor([0.0, 1.0, -1.0]))

    def forward(self, losses_N: Tensor, seen_N: Tensor) -> Tensor:
        return torch.where(seen_N, losses_N * (-self.s).exp() + self.s, 0.0).sum()


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, 0.0, 2.0)])
def test_the_weighted_sum_has_the_weights_as_its_gradient(weights: tuple[float, ...]) -> None:
    losses_N = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    module = WeightedSum(weights)
    total = module(losses_N, ALL)
    assert total.item() == sum(w * x for w, x in zip(weights, (1, 2, 4), strict=True))
    (gradient,) = torch.autograd.grad(total, losses_N)
    assert tuple(gradient.tolist()) == weights
    assert dict(module.state_dict()) == {}
    assert repr(module) == f"WeightedSum(weights={list(weights)})"


@pytest.mark.parametrize("value", [0.0, 5.0, float("inf"), float("nan")])
def test_a_task_that_is_not_seen_has_no_part_whatever_its_loss(value: float) -> None:
    module, seen_N = WeightedSum((1.0, 3.0, 0.5)), torch.tensor([True, False, True])
    losses_N = torch.tensor([1.0, value, 4.0], requires_grad=True)
    total = module(losses_N, seen_N)
    assert total.item() == 3.0
    (gradient,) = torch.autograd.grad(total, losses_N)
    assert gradient.tolist() == [1.0, 0.0, 0.5]
    assert module.derivatives(losses_N.detach(), seen_N)[0].tolist() == [1.0, 0.0, 0.5]


def test_the_weights_of_the_losses_are_the_derivatives_of_the_objective() -> None:
    module, losses_N = Learned(), torch.tensor([1.0, 2.0, 4.0])
    weights_N, own = module.derivatives(losses_N, ALL)
    torch.testing.assert_close(weights_N, (-module.s.detach()).exp())
    assert own[0] is not None
    torch.testing.assert_close(own[0], 1 - losses_N * (-module.s.detach()).exp())
    weights_N, own = module.derivatives(losses_N, torch.tensor([True, False, True]))
    assert weights_N[1] == 0
    assert own[0] is not None
    assert own[0][1] == 0
    assert module.s.grad is None  # whoever asks puts it there


def test_the_graph_of_the_losses_is_left_alone() -> None:
    parameter = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    losses_N = parameter * 3
    weights_N, _ = Learned().derivatives(losses_N, ALL)
    assert not weights_N.requires_grad
    losses_N.backward(weights_N)
    assert parameter.grad is not None
    torch.testing.assert_close(parameter.grad, 3 * weights_N)


def test_an_objective_without_losses_gives_them_no_weight() -> None:
    class Prior(Learned):
        def forward(self, losses_N: Tensor, seen_N: Tensor) -> Tensor:
            return self.s.square().sum()

    weights_N, own = Prior().derivatives(torch.ones(3), ALL)
    assert weights_N.tolist() == [0.0, 0.0, 0.0]
    assert own[0] is not None
    assert own[0].tolist() == [0.0, 2.0, -2.0]


def test_an_objective_that_forgets_who_is_seen_gives_others_no_weight_all_the_same() -> None:
    class Forgetful(Learned):
        def forward(self, losses_N: Tensor, seen_N: Tensor) -> Tensor:
            return losses_N.sum()

    weights_N, _ = Forgetful().derivatives(torch.ones(3), torch.tensor([True, False, True]))
    assert weights_N.tolist() == [1.0, 0.0, 1.0]


def test_what_a_weighting_is_without_saying_more() -> None:
    module = Weighting((1.0, 0.25))
    assert module.needs == "losses"
    assert module.task_weights.tolist() == [1.0, 0.25]
    assert module.to("meta").task_weights.is_meta
    assert dict(module.state_dict()) == {}  # the recipe has the weights
    module.after_epoch(torch.ones(2), torch.ones(2, dtype=torch.bool))
    with pytest.raises(NotImplementedError):
        module(torch.ones(2), torch.ones(2, dtype=torch.bool))
    with pytest.raises(NotImplementedError):
        module.combine(torch.ones(2, 3), torch.ones(2), torch.ones(2, dtype=torch.bool))
