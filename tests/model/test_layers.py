"""Grouped layers are K layers side by side; initial weights have the published spread.

Shapes: B batch, K towers, C channels, H W positions.
"""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtl.model.layers import (
    GroupedLinear,
    derived_seed,
    drawn_from,
    grouped_conv,
    grouped_norm,
    init_weight,
    init_weights,
)

B = 5


def filled(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module.double()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shared_input", [True, False])
@pytest.mark.parametrize("n_towers", [1, 2, 3, 7])
def test_tower_k_of_a_linear_map_owns_the_kth_slice(n_towers: int, shared_input: bool, bias: bool) -> None:
    module = filled(GroupedLinear(n_towers, 4, 3, shared_input=shared_input, bias=bias))
    x = torch.randn(B, 4 if shared_input else n_towers * 4, dtype=torch.float64)
    parts = [x] * n_towers if shared_input else x.chunk(n_towers, 1)
    biases = [None] * n_towers if module.bias is None else module.bias.chunk(n_towers)
    own = [F.linear(*args) for args in zip(parts, module.weight.chunk(n_towers), biases, strict=True)]
    torch.testing.assert_close(module(x), torch.cat(own, 1))


@pytest.mark.parametrize(
    "options", [{"kernel": 3, "stride": 1, "padding": 1}, {"kernel": 2, "stride": 2, "padding": 0}]
)
@pytest.mark.parametrize("shared_input", [True, False])
@pytest.mark.parametrize("n_towers", [1, 2, 7])
def test_tower_k_of_a_convolution_owns_the_kth_slice(
    n_towers: int, shared_input: bool, options: dict[str, int]
) -> None:
    conv = filled(grouped_conv(n_towers, 2, 3, shared_input=shared_input, **options))
    x = torch.randn(B, 2 if shared_input else n_towers * 2, 6, 6, dtype=torch.float64)
    parts = [x] * n_towers if shared_input else x.chunk(n_towers, 1)
    own = [
        F.conv2d(part, weight, stride=options["stride"], padding=options["padding"])
        for part, weight in zip(parts, conv.weight.chunk(n_towers), strict=True)
    ]
    torch.testing.assert_close(conv(x), torch.cat(own, 1))


@pytest.mark.parametrize("positions", [(), (4, 3)])
@pytest.mark.parametrize("n_towers", [1, 2, 3])
def test_a_batch_norm_has_statistics_per_channel(n_towers: int, positions: tuple[int, ...]) -> None:
    norm = grouped_norm("batch", n_towers, 2, spatial=bool(positions), eps=1e-3, momentum=0.25)
    assert norm is not None
    x = 3 + 2 * torch.randn(B, n_towers * 2, *positions)
    axes = (0, *range(2, x.ndim))
    mean = x.mean(axes, keepdim=True)
    var = x.var(axes, unbiased=False, keepdim=True)
    torch.testing.assert_close(norm(x), (x - mean) / (var + 1e-3).sqrt(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_mean, 0.25 * mean.flatten())


@pytest.mark.parametrize("positions", [(), (4, 3)])
@pytest.mark.parametrize("n_towers", [1, 2, 3])
def test_a_layer_norm_is_over_one_row_of_one_tower(n_towers: int, positions: tuple[int, ...]) -> None:
    norm = grouped_norm("layer", n_towers, 4, spatial=bool(positions), eps=1e-3, momentum=0.1)
    assert norm is not None
    x = 3 + 2 * torch.randn(B, n_towers * 4, *positions)
    own = [F.layer_norm(part, (4, *positions), eps=1e-3) for part in x.chunk(n_towers, 1)]
    torch.testing.assert_close(norm(x), torch.cat(own, 1), rtol=1e-4, atol=1e-5)


def test_no_norm_is_no_module() -> None:
    assert grouped_norm("none", 2, 3, spatial=True, eps=1e-5, momentum=0.1) is None


SHAPES = {"linear": (300, 200), "conv": (64, 32, 3, 3)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_he_weights_have_variance_2_over_fan_in_and_are_cut_at_two_deviations(shape: tuple[int, ...]) -> None:
    weight = torch.empty(shape)
    init_weight(weight, "he", 11)
    fan_in, _ = nn.init._calculate_fan_in_and_fan_out(weight)
    deviation = math.sqrt(2 / fan_in)
    assert weight.var().item() == pytest.approx(2 / fan_in, rel=0.03)
    assert abs(weight.mean().item()) < 0.02 * deviation
    cut = 2 * deviation / 0.87962566  # of the normal before it is cut
    assert 0.99 * cut < weight.abs().max().item() <= cut * (1 + 1e-6)


def test_the_cut_deviation_is_that_of_a_normal_cut_at_2() -> None:
    density, inside = math.exp(-2) / math.sqrt(2 * math.pi), math.erf(2 / math.sqrt(2))
    weight = torch.empty(1000, 1000)
    init_weight(weight, "he", 0)
    expected = math.sqrt(1 - 4 * density / inside)  # variance of a truncated normal: 1 - 2 a phi(a) / Z
    assert 2 * math.sqrt(2 / 1000) / weight.abs().max().item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_xavier_weights_fill_their_bounds_evenly(shape: tuple[int, ...]) -> None:
    weight = torch.empty(shape)
    init_weight(weight, "xavier", 11)
    bound = math.sqrt(6 / sum(nn.init._calculate_fan_in_and_fan_out(weight)))
    assert 0.999 * bound < weight.abs().max().item() <= bound
    assert weight.var().item() == pytest.approx(bound**2 / 3, rel=0.03)


def test_an_unknown_init_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^unknown init 'ones'$"):
        init_weight(torch.empty(2, 2), "ones", 0)


def start(names: tuple[str, ...], *key: object) -> tuple[torch.Tensor, ...]:
    module = GroupedLinear(len(names), 4, 3)
    init_weights(module, names, "he", *key)
    return module.weight.detach().chunk(len(names))


def test_a_slice_depends_on_its_own_name_and_key_alone() -> None:
    a, b, c = start(("a", "b", "c"), 0, "fc")
    assert torch.equal(b, start(("b",), 0, "fc")[0])
    assert torch.equal(a, start(("c", "a"), 0, "fc")[1])
    others = [b, c, start(("a",), 1, "fc")[0], start(("a",), 0, "fc2")[0]]
    assert not any(torch.equal(a, other) for other in others)


def test_initial_weights_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    start(("a", "b"), 0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_scales_and_biases_keep_the_start_of_their_modules() -> None:
    module = nn.Sequential(GroupedLinear(2, 4, 3, bias=True), nn.BatchNorm1d(6))
    init_weights(module, ("a", "b"), "he", 0)
    assert module[0].bias.abs().max() == 0
    assert module[1].weight.eq(1).all()
    assert module[1].bias.eq(0).all()


def test_a_derived_seed_depends_on_every_part_and_fits_in_63_bits() -> None:
    seeds = [
        derived_seed(*parts) for parts in ((0, "a", "b"), (0, "ab"), (0, "b", "a"), (1, "a", "b"), (0, "a"))
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(0, "a", "b") == derived_seed("0", "a", "b") == seeds[0]


def test_a_linear_map_shows_its_sizes() -> None:
    assert repr(GroupedLinear(2, 4, 3)) == "GroupedLinear(n_towers=2, 4 -> 3 each)"
    assert (
        repr(GroupedLinear(2, 4, 3, shared_input=True))
        == "GroupedLinear(n_towers=2, 4 -> 3 each, shared_input=True)"
    )


@pytest.mark.parametrize("spatial", [True, False])
@pytest.mark.parametrize("momentum", [0.1, 0.01, 1.0])
def test_debiased_running_statistics_hold_no_part_of_their_start(spatial: bool, momentum: float) -> None:
    options: dict[str, Any] = {"spatial": spatial, "eps": 1e-5, "momentum": momentum}
    norm = grouped_norm("batch", 2, 3, debias=True, **options)
    plain = grouped_norm("batch", 2, 3, debias=False, **options)
    assert isinstance(norm, nn.BatchNorm2d if spatial else nn.BatchNorm1d)
    assert plain is not None
    means, variances, shares = [], [], []
    for step in range(5):
        x = step + (1 + step) * torch.randn(B, 6, *((4, 4) if spatial else ()))
        axes = (0, *range(2, x.ndim))
        assert torch.equal(norm(x), plain(x))  # in training they are the same
        means.append(x.mean(axes))
        variances.append(x.var(axes))
        shares = [share * (1 - momentum) for share in shares] + [momentum]
        total = sum(shares)
        for found, seen in ((norm.running_mean, means), (norm.running_var, variances)):
            expected = sum(share / total * value for share, value in zip(shares, seen, strict=True))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert norm.momentum == momentum


def test_debiased_statistics_become_those_of_plain_batch_norm() -> None:
    norm, plain = (
        grouped_norm("batch", 1, 2, spatial=False, eps=1e-5, momentum=0.5, debias=debias)
        for debias in (True, False)
    )
    assert norm is not None
    assert plain is not None
    for _ in range(60):
        x = torch.randn(B, 2)
        norm(x), plain(x)
    torch.testing.assert_close(norm.running_mean, plain.running_mean, rtol=1e-6, atol=1e-7)
    norm.eval()
    before = norm.running_mean.clone()
    norm(torch.randn(B, 2))
    assert torch.equal(norm.running_mean, before)


def test_what_is_drawn_inside_depends_on_the_parts_alone() -> None:
    before = torch.get_rng_state()
    with drawn_from(0, "backbone"):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    with drawn_from(0, "backbone"):
        assert torch.equal(torch.rand(3), first)
    with drawn_from(1, "backbone"):
        assert not torch.equal(torch.rand(3), first)


def test_a_large_map_is_the_small_ones_product_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3 * 4, generator=generator, dtype=torch.float64)
    cotangent = torch.randn(5, 3 * 2, generator=generator, dtype=torch.float64)
    module, found = filled(GroupedLinear(3, 4, 2, bias=True)).double(), []
    for large in (1, 1 << 16):
        monkeypatch.setattr("mtl.model.layers.LARGE_MAP", large)
        module.zero_grad()
        own = x.clone().requires_grad_()
        y = module(own)
        y.backward(cotangent)
        assert y.is_contiguous()
        assert module.weight.grad is not None
        found.append((y.detach(), own.grad, module.weight.grad))
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second)
