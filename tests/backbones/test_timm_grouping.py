"""K towers of timm as one grouped module equal K networks of timm, each with its tower's weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtl.model.towers import SeparateTowers
from mtl.recipe.specs import BACKBONES
from tests.support.optional import needs_timm

pytestmark = needs_timm

B, K, SHAPE = 3, 2, (2, 32, 32)
WHOLE = "every stage"
NETWORKS: dict[str, str | set[str]] = {
    # the stages that are grouped; the others are separate
    "test_resnet": WHOLE,  # as resnet18
    "test_byobnet": WHOLE,
    "test_efficientnet": WHOLE,  # depthwise convolutions
    "test_efficientnet_gn": WHOLE,  # group norms
    "mobilenetv3_small_050": WHOLE,  # gates for channels, and a convolution behind the pool
    "tf_mobilenetv3_small_minimal_100": WHOLE,  # padding that depends on the size
    "regnety_002": WHOLE,  # convolutions of several groups
    "test_convnext": set(),  # norms over channels
    "dla46x_c": {"stem", "level0", "level1", "pool"},  # activations side by side
}
FURTHER: dict[str, str | set[str]] = {
    "resnet18": WHOLE,
    "resnet10t": WHOLE,
    "seresnet18": WHOLE,
    "convnext_atto": set(),
    "densenet121": {"stem", "pool", *(f"features_transition{i}" for i in (1, 2, 3))},
    "ecaresnet26t": {"stem", "pool"},  # a convolution along the channels
}
EXACT = {"rtol": 1e-6, "atol": 1e-6}
"""In double precision; norms over three values make the differences of 1e-16 in their inputs larger."""


def spec(name: str, **options: Any) -> Any:
    return BACKBONES["timm"].model_validate({"name": name, **options})


def of_tower(module: nn.Module, k: int) -> dict[str, Tensor]:
    """The weights and statistics of tower k in a stage for K towers."""
    if isinstance(module, SeparateTowers):
        return dict(module.towers[k].state_dict())
    return {
        name: tensor.unflatten(0, (K, -1))[k] if tensor.ndim else tensor
        for name, tensor in module.state_dict().items()
    }


def alone(name: str, stages: list[tuple[str, nn.Module, Any]], k: int) -> list[nn.Module]:
    """The stages of tower k in a network of timm that has its weights and nothing of mtl."""
    from mtl.backbones.timm.network import chain_of, cut, make

    own = cut(make(name, SHAPE[0]).double(), chain_of(name).stages)
    for stage, module, _ in stages:
        own[stage].load_state_dict(of_tower(module, k))
    return list(own.values())


def randomize(module: nn.Module) -> None:
    """Random weights, and statistics of norms, that differ from tower to tower; activations keep their size."""
    for tensor in module.state_dict().values():
        if tensor.ndim == 1:
            tensor.copy_(torch.rand_like(tensor) + 0.5)
        elif tensor.ndim:
            tensor.copy_(torch.randn_like(tensor) / tensor[0].numel() ** 0.5)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", NETWORKS)
def test_towers_together_are_networks_of_timm(name: str, training: bool) -> None:
    torch.manual_seed(0)
    stages = spec(name).build(K, SHAPE)
    for _, module, _ in stages:
        randomize(module.double())
    towers = [alone(name, stages, k) for k in range(K)]
    for module in [module for _, module, _ in stages] + [module for own in towers for module in own]:
        module.train(training)
    x = torch.randn(B, *SHAPE, dtype=torch.float64, requires_grad=True)
    h, each = x, [x] * K
    for i, (stage, module, shape) in enumerate(stages):
        h, each = module(h), [own[i](part) for own, part in zip(towers, each, strict=True)]
        assert h.shape == (B, K * shape[0], *shape[1:]), stage
        torch.testing.assert_close(h, torch.cat(each, 1), **EXACT, msg=lambda m, s=stage: f"{s}: {m}")
    (together,) = torch.autograd.grad(h.square().mean(), x, retain_graph=True)
    (apart,) = torch.autograd.grad(torch.cat(each, 1).square().mean(), x, retain_graph=True)
    torch.testing.assert_close(together, apart, **EXACT)
    assert together.abs().max() > 0
    h.square().mean().backward()
    torch.cat(each, 1).square().mean().backward()
    for i, (_, module, _) in enumerate(stages):
        for k, own in enumerate(towers):
            torch.testing.assert_close(gradients(module, k), gradients(own[i]), **EXACT)
            torch.testing.assert_close(of_tower(module, k), dict(own[i].state_dict()), **EXACT)


def gradients(module: nn.Module, k: int | None = None) -> dict[str, Tensor]:
    """Parameter -> its gradient, or that of tower k's slice."""
    if k is not None and isinstance(module, SeparateTowers):
        module, k = module.towers[k], None
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return found if k is None else {name: grad.unflatten(0, (K, -1))[k] for name, grad in found.items()}


@pytest.mark.parametrize(("name", "expected"), [*NETWORKS.items(), *FURTHER.items()])
def test_stages_are_grouped_where_the_architecture_allows(name: str, expected: str | set[str]) -> None:
    with torch.device("meta"):
        stages = spec(name).build(K, SHAPE)
    grouped = {stage for stage, module, _ in stages if not isinstance(module, SeparateTowers)}
    assert grouped == ({stage for stage, _, _ in stages} if expected == WHOLE else expected)
    assert len(stages) > 2


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_each_tower_may_read_an_input_of_its_own(name: str) -> None:
    torch.manual_seed(0)
    (_, shared, _), *_ = spec(name).build(K, SHAPE)
    (_, own, _), *_ = spec(name).build(K, SHAPE, shared_input=False)
    own.load_state_dict(shared.state_dict())
    x = torch.randn(B, *SHAPE)
    torch.testing.assert_close(own.eval()(torch.cat([x] * K, 1)), shared.eval()(x), rtol=1e-5, atol=1e-5)


def test_an_input_that_is_read_in_more_than_one_way_is_copied_for_each_tower() -> None:
    from mtl.backbones.timm.grouping import for_towers

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv(x)

    stage = nn.Sequential(Residual())
    module = for_towers(stage, K, shared_input=True)
    assert not isinstance(module, SeparateTowers)
    x = torch.randn(B, *SHAPE)
    torch.testing.assert_close(module(x), torch.cat([stage(x)] * K, 1), rtol=1e-5, atol=1e-5)


OPERATIONS = {
    "a weight of its own": (lambda self, x: x * self.scale, False),
    "channels side by side": (lambda self, x: torch.cat([x, x], 1), False),
    "a part of the channels": (lambda self, x: x[:, :1], False),
    "a mean over channels": (lambda self, x: x * x.mean(1, keepdim=True), False),
    "a mean over positions": (lambda self, x: x * x.mean((2, 3), keepdim=True), True),
    "flattened": (lambda self, x: x.flatten(1), True),
    "flattened by torch": (lambda self, x: torch.flatten(x, 1), True),
    "flattened from the rows": (lambda self, x: torch.flatten(x), False),
    "positions flattened": (lambda self, x: x.flatten(2), False),
    "a branch on a number": (lambda self, x: x if x.sum() > 0 else -x, False),
}


@pytest.mark.parametrize(("forward", "grouped"), OPERATIONS.values(), ids=OPERATIONS)
def test_what_mixes_channels_is_never_grouped(forward: Any, grouped: bool) -> None:
    from mtl.backbones.timm.grouping import for_towers

    made = type("Made", (nn.Module,), {"forward": forward})()
    made.scale = nn.Parameter(torch.ones(2, 1, 1))
    stage = nn.Sequential(nn.Conv2d(2, 2, 1), made)
    module = for_towers(stage, K, shared_input=True)
    assert isinstance(module, SeparateTowers) is not grouped
    if grouped:
        x = torch.randn(B, *SHAPE)
        torch.testing.assert_close(module(x), torch.cat([stage(x)] * K, 1), rtol=1e-5, atol=1e-5)
