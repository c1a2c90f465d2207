"""Optimizers are torch.optim's, with decay on weights alone."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from mtl.recipe.specs import OPTIMIZERS

OPTIONS: dict[str, list[tuple[dict[str, Any], type[torch.optim.Optimizer], dict[str, Any]]]] = {
    "adam": [
        ({}, torch.optim.Adam, {}),
        ({"l2": 0.1}, torch.optim.Adam, {"weight_decay": 0.1}),
        ({"betas": (0.5, 0.9), "eps": 1e-3}, torch.optim.Adam, {"betas": (0.5, 0.9), "eps": 1e-3}),
    ],
    "adamw": [
        ({}, torch.optim.AdamW, {"weight_decay": 0.01}),
        ({"weight_decay": 0.5}, torch.optim.AdamW, {"weight_decay": 0.5}),
        (
            {"betas": (0.5, 0.9), "eps": 1e-3},
            torch.optim.AdamW,
            {"betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.01},
        ),
    ],
    "sgd": [
        ({}, torch.optim.SGD, {}),
        ({"l2": 0.1, "momentum": 0.9}, torch.optim.SGD, {"weight_decay": 0.1, "momentum": 0.9}),
        ({"momentum": 0.5, "nesterov": True}, torch.optim.SGD, {"momentum": 0.5, "nesterov": True}),
    ],
}
CASES = [(kind, *case) for kind, cases in OPTIONS.items() for case in cases]
DECAY = {"adam": "l2", "adamw": "weight_decay", "sgd": "l2"}


def test_the_optimizers_of_torch_are_compared() -> None:
    assert set(OPTIONS) == set(DECAY) <= set(OPTIMIZERS.names())


def parameters() -> tuple[nn.Parameter, nn.Parameter]:
    """A weight, which decays, and a scale, which does not."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    scale = torch.rand(4, generator=generator, dtype=torch.float64)
    return nn.Parameter(weight), nn.Parameter(1 + scale)


def grouped(weight: Tensor, scale: Tensor, lr: float) -> list[dict[str, Any]]:
    """As build.parameter_groups gives them."""
    return [
        {"params": [weight], "names": ["weight"], "decay": True, "lr_scale": 1.0, "lr": lr},
        {"params": [scale], "names": ["scale"], "decay": False, "lr_scale": 2.0, "lr": 2 * lr},
    ]


def three_steps(optimizer: torch.optim.Optimizer, weight: Tensor, scale: Tensor) -> None:
    for step in range(3):
        optimizer.zero_grad()
        x = torch.linspace(-1, 1 + step, 3, dtype=torch.float64)
        ((weight @ x) * scale).sin().sum().backward()
        optimizer.step()


@pytest.mark.parametrize(("kind", "ours", "theirs", "options"), CASES)
def test_three_steps_are_torchs(
    kind: str, ours: dict[str, Any], theirs: type[torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    weight, scale = parameters()
    three_steps(OPTIMIZERS[kind](lr=0.05, **ours).build(grouped(weight, scale, 0.05)), weight, scale)
    expected_weight, expected_scale = parameters()
    groups = [
        {"params": [expected_weight], "lr": 0.05},
        {"params": [expected_scale], "lr": 0.1, "weight_decay": 0.0},
    ]
    three_steps(theirs(groups, lr=0.05, **options), expected_weight, expected_scale)
    torch.testing.assert_close(weight, expected_weight, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(scale, expected_scale, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", sorted(OPTIONS))
def test_decay_moves_weights_and_nothing_else(kind: str) -> None:
    weight, scale = parameters()
    before_weight, before_scale = weight.detach().clone(), scale.detach().clone()
    optimizer = OPTIMIZERS[kind](lr=0.05, **{DECAY[kind]: 0.1}).build(grouped(weight, scale, 0.05))
    weight.grad, scale.grad = torch.zeros_like(weight), torch.zeros_like(scale)
    optimizer.step()
    assert torch.equal(scale, before_scale)
    assert (weight.abs() < before_weight.abs()).all()


@pytest.mark.parametrize("kind", sorted(OPTIONS))
def test_without_decay_a_zero_gradient_moves_nothing(kind: str) -> None:
    weight, scale = parameters()
    before = weight.detach().clone()
    optimizer = OPTIMIZERS[kind](lr=0.05, **{DECAY[kind]: 0.0}).build(grouped(weight, scale, 0.05))
    weight.grad, scale.grad = torch.zeros_like(weight), torch.zeros_like(scale)
    optimizer.step()
    assert torch.equal(weight, before)


def first_step_of_decay(kind: str, **options: float) -> tuple[Tensor, Tensor]:
    """The weight before and after a step with no gradient but the decay's."""
    weight, scale = parameters()
    before = weight.detach().clone()
    optimizer = OPTIMIZERS[kind](lr=0.05, **options).build(grouped(weight, scale, 0.05))
    weight.grad, scale.grad = torch.zeros_like(weight), torch.zeros_like(scale)
    optimizer.step()
    return before, weight.detach()


def test_adamw_decay_is_decoupled() -> None:
    before, after = first_step_of_decay("adamw", weight_decay=0.1)
    torch.testing.assert_close(after, before * (1 - 0.05 * 0.1), rtol=1e-12, atol=0)


def test_adam_l2_is_coupled() -> None:
    """It goes through Adam's scaling: the first step is lr, whatever the size of l2."""
    before, after = first_step_of_decay("adam", l2=0.1)
    torch.testing.assert_close(after, before - 0.05 * before.sign(), rtol=1e-5, atol=1e-6)


def test_sgd_l2_is_the_gradient_of_half_the_square() -> None:
    before, after = first_step_of_decay("sgd", l2=0.1)
    torch.testing.assert_close(after, before - 0.05 * 0.1 * before, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", sorted(OPTIONS))
def test_groups_keep_their_names_and_rates(kind: str) -> None:
    groups = OPTIMIZERS[kind](lr=0.05).build(grouped(*parameters(), 0.05)).param_groups
    assert [(group["names"], group["lr"], group["lr_scale"]) for group in groups] == [
        (["weight"], 0.05, 1.0),
        (["scale"], 0.1, 2.0),
    ]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("sgd", {"nesterov": True}),  # torch: needs a momentum
        ("adam", {"betas": (1.0, 0.9)}),
        ("adam", {"betas": (0.9, 1.0)}),
        ("adamw", {"betas": (-0.1, 0.9)}),
    ],
)
def test_what_torch_would_refuse_is_refused_in_the_recipe(kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        OPTIMIZERS[kind](lr=0.1, **options)
