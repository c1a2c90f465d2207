"""A tower written out layer by layer: each stage's shape, norm and activation.

What does not fit is refused in tests/experiment/test_trial.py.
"""

from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from mtl.backbones.layers import Activation, activation_module
from mtl.recipe.specs import BACKBONES

B, K = 3, 2
STAGES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    # a stage after a convolution to (3, 7, 6), and the shape it should give
    "conv": ({"kind": "conv", "channels": 5, "kernel": 3}, (5, 7, 6)),
    "even kernel": ({"kind": "conv", "channels": 5, "kernel": 4}, (5, 8, 7)),
    "stride": ({"kind": "conv", "channels": 5, "kernel": 3, "stride": 2}, (5, 4, 3)),
    "no padding": ({"kind": "conv", "channels": 5, "kernel": 3, "padding": 0}, (5, 5, 4)),
    "as large as the map": ({"kind": "conv", "channels": 1, "kernel": 6, "padding": 0}, (1, 2, 1)),
    "max_pool": ({"kind": "max_pool", "size": 2}, (3, 3, 3)),
    "max_pool of all": ({"kind": "max_pool", "size": 6}, (3, 1, 1)),
    "avg_pool": ({"kind": "avg_pool", "size": 3}, (3, 2, 2)),
    "global_avg_pool": ({"kind": "global_avg_pool"}, (3,)),
    "dropout": ({"kind": "dropout", "p": 0.5}, (3, 7, 6)),
    "linear": ({"kind": "linear", "features": 4}, (4,)),
}
FIRST = {"name": "first", "kind": "conv", "channels": 3, "kernel": 3}


def build(*stages: dict[str, Any], **options: Any) -> list[tuple[str, nn.Module, tuple[int, ...]]]:
    """Two towers of these stages on (1, 7, 6) images."""
    return BACKBONES["layers"].model_validate({"stages": stages, **options}).build(K, (1, 7, 6))


@pytest.mark.parametrize(("stage", "shape"), STAGES.values(), ids=STAGES)
def test_a_stage_gives_the_shape_it_says(stage: dict[str, Any], shape: tuple[int, ...]) -> None:
    (_, first, first_shape), (name, second, second_shape) = build(FIRST, {"name": "it", **stage})
    assert (name, first_shape, second_shape) == ("it", (3, 7, 6), shape)
    y = second(first(torch.randn(B, 1, 7, 6)))
    assert y.shape == (B, K * shape[0], *shape[1:])


def test_pools_are_of_squares_and_drop_the_rest() -> None:
    x = torch.randn(B, K * 3, 7, 6)
    for kind, function in (("max_pool", F.max_pool2d), ("avg_pool", F.avg_pool2d)):
        _, (_, pool, _) = build(FIRST, {"name": "it", "kind": kind, "size": 3})
        assert torch.equal(pool(x), function(x[:, :, :6], 3))


def test_a_global_mean_is_over_positions() -> None:
    _, (_, pool, _) = build(FIRST, {"name": "it", "kind": "global_avg_pool"})
    x = torch.randn(B, K * 3, 7, 6)
    torch.testing.assert_close(pool(x), x.mean((2, 3)))


ACTIVATIONS = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def test_every_activation_is_compared() -> None:
    assert set(ACTIVATIONS) | {"none"} == set(get_args(Activation))
    assert activation_module("none") is None


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_torchs(name: Any) -> None:
    module = activation_module(name)
    assert module is not None
    x = torch.linspace(-3, 3, 13)
    torch.testing.assert_close(module(x), ACTIVATIONS[name](x))


@pytest.mark.parametrize("kind", ["conv", "linear"])
@pytest.mark.parametrize("activation", ["tanh", "none"])
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_a_stage_with_weights_is_map_norm_activation(norm: str, activation: str, kind: str) -> None:
    stage: dict[str, Any] = {
        "conv": {**FIRST, "kernel": 1},
        "linear": {"name": "first", "kind": "linear", "features": 3},
    }[kind]
    ((_, module, _),) = build(stage, norm={"kind": norm, "eps": 1e-3, "momentum": 0.5}, activation=activation)
    parts = dict(module.named_children())
    assert parts["map"].bias is None
    expected = ["flatten"] * (kind == "linear") + ["map"] + ["norm"] * (norm != "none")
    assert list(parts) == expected + ["activation"] * (activation != "none")
    if norm != "none":
        assert parts["norm"].eps == 1e-3
    if norm == "batch":
        assert parts["norm"].momentum == 0.5
    nn.init.normal_(parts["map"].weight)
    module.eval()
    y = x = torch.randn(B, 1, 7, 6)
    for name in ("flatten", "map", "norm", "activation"):
        y = parts[name](y) if name in parts else y
    assert torch.equal(module(x), y)


@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_a_stage_may_have_its_own_norm_and_activation(kind: str) -> None:
    stage = {"conv": FIRST, "linear": {"name": "first", "kind": "linear", "features": 3}}[kind]
    own = {**stage, "norm": {"kind": "layer", "eps": 0.1}, "activation": "tanh"}
    ((_, module, _),) = build(own, norm={"kind": "batch"}, activation="relu")
    parts = dict(module.named_children())
    assert isinstance(parts["norm"], nn.GroupNorm)
    assert parts["norm"].eps == 0.1
    assert isinstance(parts["activation"], nn.Tanh)


def test_stage_names_are_in_order() -> None:
    spec = BACKBONES["layers"].model_validate({"stages": (FIRST, {"name": "a", "kind": "dropout", "p": 0.1})})
    assert spec.stage_names() == ("first", "a")


@pytest.mark.parametrize(
    ("stages", "text"),
    [
        ((), "at least 1 item"),
        (({**FIRST, "name": "1st"},), "pattern"),
        (({**FIRST, "name": "a.b"},), "pattern"),
        (({**FIRST, "kernel": 0},), "greater than or equal to 1"),
        (({**FIRST, "chanels": 3},), r"unknown key 'chanels' for conv \(did you mean 'channels'\?\)"),
        (({**FIRST, "kind": "convolution"},), "unknown stage 'convolution'; known: avg_pool, conv, dropout"),
        ((FIRST, {"name": "d", "kind": "dropout", "p": 1.0}), "less than 1"),
        ((FIRST, FIRST), "stage 'first' is given twice"),
    ],
)
def test_a_wrong_stage_is_refused(stages: tuple[dict[str, Any], ...], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        build(*stages)
