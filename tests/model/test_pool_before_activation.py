"""A max pool in front of the ReLU gives the same bits, and stays behind it where the stage's output is read."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from mtl.backbones.layers import Layers
from mtl.model.towers import Towers

NAMES = ("conv1", "pool1", "conv2", "pool2")


def towers(activation: str = "relu", norm: str = "batch") -> Towers:
    stages = [
        {"name": "conv1", "kind": "conv", "channels": 3, "kernel": 3},
        {"name": "pool1", "kind": "max_pool", "size": 2},
        {"name": "conv2", "kind": "conv", "channels": 2, "kernel": 3},
        {"name": "pool2", "kind": "max_pool", "size": 2},
    ]
    spec = Layers(kind="layers", stages=tuple(stages), activation=activation, norm={"kind": norm})
    torch.manual_seed(0)
    built = spec.build(2, (1, 9, 8))
    own = Towers(("a", "b"), [(n, m) for n, m, _ in built], {n: s for n, _, s in built})
    for parameter in own.parameters():
        nn.init.normal_(parameter)
    return own.to(memory_format=torch.channels_last)


def results(module: Towers, x: Tensor) -> list[Tensor]:
    module.train()
    x = x.clone().requires_grad_()
    y = module(x)
    y.backward(torch.arange(y.numel(), dtype=y.dtype).view(y.shape))
    assert x.grad is not None
    return [
        y.detach(),
        x.grad,
        *(p.grad for p in module.parameters() if p.grad is not None),
        *module.buffers(),
    ]


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_values_and_gradients_are_the_same_bits(norm: str) -> None:
    plain = towers(norm=norm)
    pooled = copy.deepcopy(plain)
    pooled.pool_before_activation()
    assert [type(stage).__name__ for stage in pooled.stages.values()] == ["Sequential"] * 4
    assert list(plain.state_dict()) == list(pooled.state_dict())
    x = torch.randn(
        5, 1, 9, 8, generator=torch.Generator().manual_seed(1)
    ).round()  # windows with equal values
    for first, second in zip(results(plain, x), results(pooled, x), strict=True):
        assert torch.equal(first, second)


def order(own: Towers) -> list[str]:
    found = [type(module).__name__ for module in own.modules()]
    return [name for name in found if name in {"ReLU", "LeakyReLU", "GELU", "MaxPool2d"}]


def test_a_stage_that_others_read_keeps_its_activation() -> None:
    own = towers()
    own.pool_before_activation(apart={"conv1"})
    assert order(own) == ["ReLU", "MaxPool2d", "MaxPool2d", "ReLU"]


@pytest.mark.parametrize("activation", ["leaky_relu", "gelu"])
def test_other_activations_stay_where_they_are(activation: str) -> None:
    own = towers(activation)
    before = order(own)
    own.pool_before_activation()
    assert order(own) == before
