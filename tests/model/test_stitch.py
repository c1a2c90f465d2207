"""The cross-stitch unit against its equation, y_i = sum_j alpha[i, j] * x_j.

Shapes: B batch, K towers, C channels, H W positions, D units of one tower.
"""

import math

import pytest
import torch
from torch import Tensor

from mtl.model.stitch import GRANULARITIES, CrossStitch, convex

SHAPES = {"image": (3, 2, 4), "vector": (5,)}
B = 4


def unit(n_towers: int, shape: tuple[int, ...], granularity: str, start: float = 0.9) -> CrossStitch:
    return CrossStitch(n_towers, shape, granularity=granularity, start=start).double()


def with_alpha(unit: CrossStitch, alpha: Tensor) -> CrossStitch:
    assert unit.alpha.shape == alpha.shape
    with torch.no_grad():
        unit.alpha.copy_(alpha)
    return unit


def with_random_alpha(unit: CrossStitch) -> CrossStitch:
    return with_alpha(unit, torch.randn_like(unit.alpha))


def activation(n_towers: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(B, n_towers * shape[0], *shape[1:], dtype=torch.float64)


def apart(x: Tensor, n_towers: int) -> tuple[Tensor, ...]:
    """One activation per tower."""
    return x.chunk(n_towers, dim=1)


def by_the_equation(unit: CrossStitch, x: Tensor) -> Tensor:
    """The definition, written out tower by tower."""
    K = unit.n_towers
    x_K = apart(x, K)
    out = []
    for i in range(K):
        y_i = torch.zeros_like(x_K[i])
        for j in range(K):
            if unit.granularity == "scalar":
                y_i += unit.alpha[i, j] * x_K[j]
            elif unit.granularity == "channel":
                y_i += unit.alpha[:, i, j].view(-1, *[1] * (x.ndim - 2)) * x_K[j]
            else:
                D = unit.n_units
                block_DD = unit.alpha[i * D : (i + 1) * D, j * D : (j + 1) * D]
                y_i += (x_K[j].flatten(1) @ block_DD.T).view_as(y_i)
        out.append(y_i)
    return torch.cat(out, dim=1)


ALPHAS_AND_OUTPUTS = {
    # towers hold (1, 2) and (10, 20)
    "scalar": ([[0.9, 0.2], [0.5, -1.0]], [2.9, 5.8, -9.5, -19.0]),
    "channel": ([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]], [21.0, 130.0, 43.0, 174.0]),
    "dense": (
        [[1.0, 0.0, 0.0, 0.5], [0.0, 0.0, 1.0, 0.0], [0.0, 3.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]],
        [11.0, 10.0, 6.0, 33.0],
    ),
}


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("ones", [(), (1, 1)])
def test_alpha_i_j_is_the_weight_of_tower_j_in_tower_i(granularity: str, ones: tuple[int, ...]) -> None:
    alpha, expected = ALPHAS_AND_OUTPUTS[granularity]
    stitch = with_alpha(unit(2, (2, *ones), granularity), torch.tensor(alpha, dtype=torch.float64))
    y = stitch(torch.tensor([[1.0, 2.0, 10.0, 20.0]], dtype=torch.float64).view(1, 4, *ones))
    torch.testing.assert_close(y.flatten(), torch.tensor(expected, dtype=torch.float64))
    assert y.shape == (1, 4, *ones)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("n_towers", [1, 2, 3, 7])
def test_the_unit_computes_its_equation(n_towers: int, granularity: str, shape: tuple[int, ...]) -> None:
    stitch = with_random_alpha(unit(n_towers, shape, granularity))
    x = activation(n_towers, shape)
    torch.testing.assert_close(stitch(x), by_the_equation(stitch, x))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_relabelling_towers_relabels_outputs(granularity: str, shape: tuple[int, ...]) -> None:
    order = [2, 0, 1]
    stitch = with_random_alpha(unit(3, shape, granularity))
    alpha = stitch.alpha.detach()
    if granularity == "dense":
        D = stitch.n_units
        relabelled = alpha.view(3, D, 3, D)[order][:, :, order].reshape(3 * D, 3 * D)
    else:
        relabelled = alpha[..., order, :][..., order]
    x = activation(3, shape)
    x_relabelled = torch.cat([apart(x, 3)[k] for k in order], dim=1)
    y_relabelled = torch.cat([apart(stitch(x), 3)[k] for k in order], dim=1)
    torch.testing.assert_close(
        with_alpha(unit(3, shape, granularity), relabelled)(x_relabelled), y_relabelled, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_rows_that_sum_to_one_keep_equal_inputs_equal(granularity: str, shape: tuple[int, ...]) -> None:
    alpha_33 = torch.randn(3, 3, dtype=torch.float64)
    alpha_33 += (1 - alpha_33.sum(1, keepdim=True)) / 3
    stitch = unit(3, shape, granularity)
    forms = {
        "scalar": alpha_33,
        "channel": alpha_33.repeat(shape[0], 1, 1),
        "dense": torch.kron(alpha_33, torch.eye(stitch.n_units, dtype=torch.float64)),
    }
    x = torch.cat([activation(1, shape)] * 3, dim=1)
    torch.testing.assert_close(with_alpha(stitch, forms[granularity])(x), x)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("granularity", ["channel", "dense"])
def test_a_finer_unit_with_equal_parts_is_the_scalar_one(granularity: str, shape: tuple[int, ...]) -> None:
    scalar, fine = with_random_alpha(unit(3, shape, "scalar")), unit(3, shape, granularity)
    alpha = scalar.alpha.detach()
    eye = torch.eye(math.prod(shape), dtype=torch.float64)
    with_alpha(fine, alpha.repeat(shape[0], 1, 1) if granularity == "channel" else torch.kron(alpha, eye))
    x = activation(3, shape)
    torch.testing.assert_close(fine(x), scalar(x))
    torch.testing.assert_close(fine.sharing_matrix(), alpha)


def loss_of(y: Tensor) -> Tensor:
    """Any scalar of which no two entries have the same derivative."""
    weight = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)
    return (weight * y + (y * weight).tanh() ** 2).sum()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_gradient_of_alpha_i_j_is_dy_i_times_x_j(granularity: str, shape: tuple[int, ...]) -> None:
    K = 2
    stitch = with_random_alpha(unit(K, shape, granularity))
    x = activation(K, shape)
    y = stitch(x)
    (gradient,) = torch.autograd.grad(loss_of(y), stitch.alpha)
    y_leaf = y.detach().requires_grad_()
    (dy,) = torch.autograd.grad(loss_of(y_leaf), y_leaf)
    dy_K, x_K = apart(dy, K), apart(x, K)
    if granularity == "dense":
        product = dy.flatten(1).T @ x.flatten(1)
    else:
        # over rows and positions; for `scalar` over channels too
        kept = 1 if granularity == "channel" else None
        axes = [axis for axis in range(x.ndim) if axis != kept]
        product = torch.stack(
            [torch.stack([(dy_K[i] * x_K[j]).sum(axes) for j in range(K)], -1) for i in range(K)], -2
        )
    torch.testing.assert_close(gradient, product)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_gradient_of_alpha_is_the_slope_of_the_loss(granularity: str, shape: tuple[int, ...]) -> None:
    stitch = with_random_alpha(unit(2, shape, granularity))
    x = activation(2, shape)
    loss_of(stitch(x)).backward()
    assert stitch.alpha.grad is not None
    step = 1e-5
    entries = torch.randperm(stitch.alpha.numel())[:20]
    flat = stitch.alpha.detach().view(-1)
    for entry in entries.tolist():
        sides = []
        for sign in (1, -1):
            flat[entry] += sign * step
            sides.append(loss_of(stitch(x)).item())
            flat[entry] -= sign * step
        slope = (sides[0] - sides[1]) / (2 * step)
        assert stitch.alpha.grad.view(-1)[entry].item() == pytest.approx(slope, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("diagonal", [1.0, 0.9, 0.25])
@pytest.mark.parametrize("n_towers", [1, 2, 4])
def test_the_convex_start_has_rows_that_sum_to_one(n_towers: int, diagonal: float) -> None:
    alpha = convex(n_towers, diagonal)
    torch.testing.assert_close(alpha.sum(1), torch.ones(n_towers))
    assert alpha.diagonal().tolist() == pytest.approx([diagonal if n_towers > 1 else 1.0] * n_towers)
    off = alpha[~torch.eye(n_towers, dtype=torch.bool)]
    assert off.tolist() == pytest.approx([(1 - diagonal) / max(n_towers - 1, 1)] * len(off))


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_every_granularity_starts_as_the_scalar_unit(granularity: str) -> None:
    stitch = unit(3, (4, 2, 2), granularity, start=0.7)
    x = activation(3, (4, 2, 2))
    torch.testing.assert_close(stitch(x), unit(3, (4, 2, 2), "scalar", start=0.7)(x))
    torch.testing.assert_close(stitch.sharing_matrix(), convex(3, 0.7).double())


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_sharing_matrix_is_a_copy_without_a_graph(granularity: str) -> None:
    stitch = unit(2, (3,), granularity)
    before = stitch.alpha.detach().clone()
    matrix = stitch.sharing_matrix()
    assert not matrix.requires_grad
    matrix.zero_()
    assert torch.equal(stitch.alpha, before)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_slice_of_alpha_along_the_axis_of_rows_makes_one_tower_alone(
    granularity: str, shape: tuple[int, ...]
) -> None:
    stitch = with_random_alpha(unit(3, shape, granularity))
    axis, x = stitch.rows_of("alpha"), activation(3, shape)
    before = stitch(x)
    for k in range(3):
        with torch.no_grad():
            stitch.alpha.chunk(3, axis)[k].add_(1.0)
        moved = [not torch.equal(a, b) for a, b in zip(apart(before, 3), apart(stitch(x), 3), strict=True)]
        assert moved == [i == k for i in range(3)]
        before = stitch(x)


@pytest.mark.parametrize(
    ("granularity", "alpha"), [("scalar", (3, 3)), ("channel", (5, 3, 3)), ("dense", (60, 60))]
)
def test_alpha_has_the_shape_of_its_granularity(granularity: str, alpha: tuple[int, ...]) -> None:
    assert unit(3, (5, 2, 2), granularity).alpha.shape == alpha


def test_an_unknown_granularity_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^granularity is one of scalar, channel, dense, got 'pixel'$"):
        CrossStitch(2, (3,), granularity="pixel")


@pytest.mark.parametrize("granularity", ["scalar", "channel"])
def test_the_memory_layout_goes_through(granularity: str) -> None:
    stitch = unit(2, (3, 4, 4), granularity)
    x = activation(2, (3, 4, 4))
    last = stitch(x.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert stitch(x).is_contiguous()
    torch.testing.assert_close(last, stitch(x))


def test_a_unit_shows_what_it_is() -> None:
    assert repr(unit(2, (3,), "channel")) == "CrossStitch(n_towers=2, granularity=channel, start=0.9)"


@pytest.mark.parametrize("granularity", ["scalar", "channel"])
@pytest.mark.parametrize("n_towers", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("shape", [(4, 3, 5), (4,)])
def test_every_way_to_mix_gives_the_sum_of_the_equation(
    granularity: str, n_towers: int, shape: tuple[int, ...]
) -> None:
    """Few towers and many, images in both layouts and vectors: values, and gradients of x and alpha."""
    generator = torch.Generator().manual_seed(0)
    unit = CrossStitch(n_towers, shape, granularity=granularity).double()
    with torch.no_grad():
        unit.alpha.copy_(torch.randn(unit.alpha.shape, generator=generator))
    x = torch.randn(3, n_towers * 4, *shape[1:], generator=generator, dtype=torch.float64)
    cotangent = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    alpha_CKK = unit.alpha.detach().expand(4, n_towers, n_towers).clone().requires_grad_()
    towers = x.clone().requires_grad_()
    parts = towers.unflatten(1, (n_towers, 4))
    expected = torch.stack(
        [
            torch.stack(
                [sum(alpha_CKK[c, i, j] * parts[:, j, c] for j in range(n_towers)) for c in range(4)], 1
            )
            for i in range(n_towers)
        ],
        1,
    ).flatten(1, 2)
    expected.backward(cotangent)
    assert alpha_CKK.grad is not None
    of_alpha = alpha_CKK.grad.sum(0) if granularity == "scalar" else alpha_CKK.grad
    for layout in (torch.contiguous_format, torch.channels_last) if len(shape) == 3 else (None,):
        own = x.clone() if layout is None else x.clone().contiguous(memory_format=layout)
        own.requires_grad_()
        unit.alpha.grad = None
        y = unit(own)
        y.backward(cotangent)
        assert layout is None or y.is_contiguous(memory_format=layout)
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(own.grad, towers.grad)
        torch.testing.assert_close(unit.alpha.grad, of_alpha)


def test_images_are_mixed_in_half_precision_as_in_single() -> None:
    unit, x = CrossStitch(2, (4, 3, 5)), torch.randn(2, 8, 3, 5).to(memory_format=torch.channels_last)
    half = x.to(torch.bfloat16).requires_grad_()
    y = unit(half)
    y.sum().backward()
    assert y.dtype == torch.bfloat16
    assert unit.alpha.grad is not None
    assert unit.alpha.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), unit(x), rtol=0.02, atol=0.02)


def test_each_tasks_gradient_of_a_channel_stitch_comes_in_one_pass() -> None:
    unit, x = CrossStitch(2, (4,), granularity="channel"), torch.randn(3, 8)
    outputs = unit(x).unflatten(1, (2, 4)).sum((0, 2))
    (together,) = torch.autograd.grad(
        outputs, [unit.alpha], torch.eye(2), is_grads_batched=True, retain_graph=True
    )
    for k in range(2):
        (alone,) = torch.autograd.grad(outputs[k], [unit.alpha], retain_graph=True)
        torch.testing.assert_close(together[k], alone)
