"""Debiased batch norm is batch norm with running statistics that hold no part of their start.

Shapes: B batch, C channels, H W positions.
"""

import pytest
import torch
from torch import nn

from mtl.model.layers import DebiasedBatchNorm1d, DebiasedBatchNorm2d, grouped_norm

PAIRS = {
    1: (DebiasedBatchNorm1d, nn.BatchNorm1d, (5, 3)),
    2: (DebiasedBatchNorm2d, nn.BatchNorm2d, (4, 3, 2, 2)),
}
MOMENTA = (0.01, 0.1, 0.5, 1.0)


@pytest.mark.parametrize("momentum", MOMENTA)
@pytest.mark.parametrize("spatial", [1, 2])
def test_running_statistics_are_a_debiased_moving_average(spatial: int, momentum: float) -> None:
    """r_t = sum_s m (1 - m)^(t - s) x_s / (1 - (1 - m)^t), in float64, after each of 40 batches."""
    debiased, _, shape = PAIRS[spatial]
    norm = debiased(3, momentum=momentum).double()
    over = [axis for axis in range(len(shape)) if axis != 1]
    mean_C, var_C = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for t in range(1, 41):
        x = torch.randn(shape, dtype=torch.float64) * 3 + 2
        norm(x)
        mean_C = (1 - momentum) * mean_C + momentum * x.mean(over)
        var_C = (1 - momentum) * var_C + momentum * x.var(over, correction=1)
        correction = 1 - (1 - momentum) ** t
        torch.testing.assert_close(norm.running_mean, mean_C / correction, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(norm.running_var, var_C / correction, rtol=1e-7, atol=1e-9)
    assert norm.momentum == momentum


@pytest.mark.parametrize("spatial", [1, 2])
def test_one_batch_is_all_it_knows(spatial: int) -> None:
    debiased, _, shape = PAIRS[spatial]
    norm, x = debiased(3, momentum=0.001), torch.randn(shape) + 5
    trained = norm(x)
    over = [axis for axis in range(len(shape)) if axis != 1]
    torch.testing.assert_close(norm.running_mean, x.mean(over))
    torch.testing.assert_close(norm.running_var, x.var(over))
    n = x.numel() / 3
    norm.eval()
    # evaluation divides by the unbiased deviation, training by the biased one
    torch.testing.assert_close(norm(x), trained * ((n - 1) / n) ** 0.5, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spatial", [1, 2])
def test_training_is_that_of_plain_batch_norm(spatial: int) -> None:
    debiased, plain, shape = PAIRS[spatial]
    own, other = debiased(3, momentum=0.1), plain(3, momentum=0.1)
    for module in (own, other):
        nn.init.constant_(module.weight, 1.5)
    for _ in range(5):
        x = torch.randn(shape)
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        outputs = [module(i) for module, i in zip((own, other), inputs, strict=True)]
        assert torch.equal(*outputs)
        for output in outputs:
            output.square().sum().backward()
        assert torch.equal(inputs[0].grad, inputs[1].grad)
    assert torch.equal(own.weight.grad, other.weight.grad)
    assert not torch.allclose(own.running_mean, other.running_mean)


@pytest.mark.parametrize("momentum", [0.1, 0.5])
def test_settled_is_the_same_within_rounding(momentum: float) -> None:
    """The short cut is taken once the correction is below rounding, and it changes nothing."""
    norm, mean_C, t = DebiasedBatchNorm1d(3, momentum=momentum), torch.zeros(3, dtype=torch.float64), 0
    plain_after_settling = 0
    while plain_after_settling < 20:
        plain_after_settling += norm.settled
        x, t = torch.randn(6, 3), t + 1
        norm(x)
        mean_C = (1 - momentum) * mean_C + momentum * x.double().mean(0)
        expected = (mean_C / (1 - (1 - momentum) ** t)).float()
        torch.testing.assert_close(norm.running_mean, expected, rtol=0, atol=1e-6)
    first = next(s for s in range(1, 10_000) if (1 - momentum) ** s < 1e-8)
    assert t == first + 20
    assert int(norm.num_batches_tracked) == t


@pytest.mark.parametrize("at", [3, 200])
def test_survives_a_state_dict(at: int) -> None:
    """At batch 3 it is not settled, at 200 it is; a copy that was loaded goes on with the same bits."""
    one, two = DebiasedBatchNorm1d(3, momentum=0.1), DebiasedBatchNorm1d(3, momentum=0.1)
    for _ in range(at):
        one(torch.randn(6, 3))
    assert one.settled == (at == 200)
    two.load_state_dict(one.state_dict())
    for _ in range(5):
        x = torch.randn(6, 3)
        one(x)
        two(x)
    assert one.state_dict().keys() == nn.BatchNorm1d(3).state_dict().keys()
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name


def test_momentum_is_put_back_after_an_error() -> None:
    norm = DebiasedBatchNorm1d(3, momentum=0.25)
    with pytest.raises(ValueError, match="expected 2D or 3D input"):
        norm(torch.randn(2, 3, 4, 4))
    assert norm.momentum == 0.25


def test_evaluation_changes_nothing() -> None:
    norm = DebiasedBatchNorm1d(3, momentum=0.1)
    norm(torch.randn(6, 3))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    norm.eval()
    norm(torch.randn(6, 3))
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


def test_on_meta() -> None:
    with torch.device("meta"):
        norm = DebiasedBatchNorm2d(3, momentum=0.1)
        assert norm(torch.empty(2, 3, 4, 4)).shape == (2, 3, 4, 4)


@pytest.mark.parametrize("spatial", [False, True])
def test_the_recipe_chooses_it(spatial: bool) -> None:
    options = {"spatial": spatial, "eps": 1e-5, "momentum": 0.1}
    assert "Debiased" in type(grouped_norm("batch", 2, 3, **options, debias=True)).__name__
    assert "Debiased" not in type(grouped_norm("batch", 2, 3, **options)).__name__
    assert isinstance(grouped_norm("layer", 2, 3, **options, debias=True), nn.GroupNorm)
