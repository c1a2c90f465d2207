"""Links observe and cut what targets take from sources: by hand, by a plain loop, and by setting alpha to 0.

Shapes: B batch, K towers, C channels, S sources.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtl.model.links import GateLinks, Links, Masking, MaskLinks, Mixture, UnitLinks
from mtl.model.stitch import GRANULARITIES, CrossStitch

TOWERS = ("one", "two", "three")
every_granularity = pytest.mark.parametrize("granularity", GRANULARITIES)
every_shape = pytest.mark.parametrize("shape", [(4,), (2, 3, 3)], ids=["vectors", "images"])


def stitch(granularity: str, shape: tuple[int, ...], n_towers: int = 3) -> CrossStitch:
    unit = CrossStitch(n_towers, shape, granularity=granularity).double()
    nn.init.normal_(unit.alpha)
    return unit


def activations(shape: tuple[int, ...], n_towers: int = 3, rows: int = 5) -> Tensor:
    """(B, K*C, ...), where the towers differ in scale."""
    x_BKC = torch.randn(rows, n_towers, *shape, dtype=torch.float64)
    x_BKC *= torch.tensor([1.0, 10.0, 0.1][:n_towers], dtype=torch.float64).view(1, -1, *(1,) * len(shape))
    return x_BKC.flatten(1, 2)


def taken(unit: CrossStitch, x: Tensor, i: int, j: int) -> Tensor:
    """What tower i takes from tower j, by a loop over channels or a block of alpha."""
    x_BKC = x.unflatten(1, (unit.n_towers, unit.width))
    if unit.granularity == "scalar":
        return unit.alpha[i, j] * x_BKC[:, j]
    if unit.granularity == "channel":
        return torch.stack([unit.alpha[c, i, j] * x_BKC[:, j, c] for c in range(unit.width)], 1)
    n = unit.n_units
    return x_BKC[:, j].flatten(1) @ unit.alpha[i * n : (i + 1) * n, j * n : (j + 1) * n].T


def observed(links: Links, *calls: tuple[Any, ...]) -> tuple[Tensor, Tensor | None]:
    with links.observed() as seen:
        for given in calls:
            links.module(*given)
    return links.shares(seen), links.spread(seen)


# -- cross-stitch --------------------------------------------------------------------------------------------


def test_shares_by_hand() -> None:
    """alpha = [[0.9, 0.1], [-0.5, 0.5]]; rms(x_1) = 1 and rms(x_2) = 3: the scale of x counts as that of alpha does."""
    unit = CrossStitch(2, (2,)).double()
    with torch.no_grad():
        unit.alpha.copy_(torch.tensor([[0.9, 0.1], [-0.5, 0.5]]))
    x = torch.tensor([[1.0, -1.0, 3.0, 3.0], [-1.0, 1.0, -3.0, 3.0]], dtype=torch.float64)
    shares, spread = observed(UnitLinks(unit, ("a", "b"), apart=True), (x,))
    torch.testing.assert_close(
        shares, torch.tensor([[0.9 / 1.2, 0.3 / 1.2], [0.25, 0.75]], dtype=torch.float64)
    )
    assert spread is None


@every_shape
@every_granularity
@torch.no_grad()
def test_shares_by_a_loop(granularity: str, shape: tuple[int, ...]) -> None:
    unit, x, y = stitch(granularity, shape), activations(shape), activations(shape, rows=2)
    found, _ = observed(UnitLinks(unit, TOWERS, apart=True), (x,), (y,))
    whole = torch.cat([x, y])
    rms = [[taken(unit, whole, i, j).square().mean().sqrt().item() for j in range(3)] for i in range(3)]
    for i in range(3):
        assert found[i].tolist() == pytest.approx([own / sum(rms[i]) for own in rms[i]])


@every_shape
def test_the_share_of_a_scalar_is_alpha_times_the_rms(shape: tuple[int, ...]) -> None:
    unit, x = stitch("scalar", shape), activations(shape)
    found, _ = observed(UnitLinks(unit, TOWERS, apart=True), (x,))
    sizes = unit.alpha.abs() * x.unflatten(1, (3, -1)).transpose(0, 1).flatten(1).square().mean(1).sqrt()
    torch.testing.assert_close(found, (sizes / sizes.sum(1, keepdim=True)).detach())


@every_shape
@every_granularity
@torch.no_grad()
def test_identity_takes_everything_from_itself_and_a_cut_changes_no_bit(
    granularity: str, shape: tuple[int, ...]
) -> None:
    unit = CrossStitch(3, shape, granularity=granularity, start=1.0)
    x = activations(shape).float()
    if len(shape) == 3:
        x = x.contiguous(memory_format=torch.channels_last)
    links = UnitLinks(unit, TOWERS, apart=True)
    found, _ = observed(links, (x,))
    assert torch.equal(found, torch.eye(3, dtype=torch.float64))
    before = unit(x)
    with links.cut(links.pairs()):
        after = unit(x)
    assert torch.equal(before, after)
    assert before.stride() == after.stride()


@every_shape
@every_granularity
@pytest.mark.parametrize("pairs", [[(0, 1)], [(2, 0), (1, 0)], [(0, 1), (0, 2), (1, 2)]])
@torch.no_grad()
def test_a_cut_sets_alpha_to_zero(
    granularity: str, shape: tuple[int, ...], pairs: list[tuple[int, int]]
) -> None:
    unit, x = stitch(granularity, shape), activations(shape)
    with UnitLinks(unit, TOWERS, apart=True).cut(pairs):
        found = unit(x)
    n = unit.n_units
    for i, j in pairs:
        if granularity == "dense":
            unit.alpha[i * n : (i + 1) * n, j * n : (j + 1) * n] = 0
        else:
            unit.alpha[..., i, j] = 0
    torch.testing.assert_close(found, unit(x), rtol=0, atol=1e-12)


def test_a_tower_cannot_lose_itself() -> None:
    links = UnitLinks(stitch("scalar", (4,)), TOWERS, apart=True)
    assert links.pairs() == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]


def test_a_unit_that_is_not_linear_is_taken_as_it_is() -> None:
    """c_ij = y_i(x) - y_i(x with x_j = 0): a target takes nothing from a source that its unit ignores."""

    class Largest(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x_BKC = x.unflatten(1, (2, 1))
            return torch.stack([x_BKC.max(1).values, x_BKC[:, 1]], 1).flatten(1)

    x = torch.tensor([[3.0, 2.0], [1.0, 4.0]])
    found, _ = observed(UnitLinks(Largest(), ("a", "b"), apart=True), (x,))
    lost = [math.sqrt((3 - 2) ** 2), math.sqrt((4 - 1) ** 2)]
    assert found[0].tolist() == pytest.approx([lost[0] / sum(lost), lost[1] / sum(lost)])
    assert found[1].tolist() == [0.0, 1.0]


def test_nothing_is_taken_of_nothing() -> None:
    found, _ = observed(UnitLinks(CrossStitch(2, (3,)), ("a", "b"), apart=True), (torch.zeros(4, 6),))
    assert torch.equal(found, torch.zeros(2, 2, dtype=torch.float64))


# -- gates ---------------------------------------------------------------------------------------------------

WEIGHTS = torch.tensor([[[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]], [[0.6, 0.3, 0.1], [0.0, 0.0, 1.0]]])
"""(B, T, S) of two rows, two targets and three sources."""


def gates() -> GateLinks:
    return GateLinks(Mixture(), ("a", "b"), ("e1", "e2", "e3"), apart=True)


def test_shares_of_gates_are_their_means_and_spreads() -> None:
    shares, spread = observed(
        gates(), (WEIGHTS[:1], torch.zeros(1, 3, 4)), (WEIGHTS[1:], torch.zeros(1, 3, 4))
    )
    assert shares[0].tolist() == pytest.approx([0.4, 0.3, 0.3])
    assert shares[1].tolist() == pytest.approx([0.5, 0.0, 0.5])
    assert spread is not None
    assert spread[0].tolist() == pytest.approx([0.2, 0.0, 0.2], abs=1e-6)
    assert spread[1].tolist() == pytest.approx([0.5, 0.0, 0.5])


def test_a_cut_gate_gives_its_weight_to_the_others() -> None:
    """Rows keep their sum; where nothing is left, the target gets 0; a target without a cut keeps every bit."""
    links, x = gates(), torch.randn(2, 3, 4)
    with links.cut([(0, 2), (1, 0)]):
        found = links.module(WEIGHTS, x)
    scaled = torch.tensor([[[0.4, 0.6, 0.0], [0.0, 0.0, 0.0]], [[2 / 3, 1 / 3, 0.0], [0.0, 0.0, 1.0]]])
    torch.testing.assert_close(found, torch.einsum("bts,bsc->btc", scaled, x))
    with links.cut([(0, 1)]):
        found = links.module(WEIGHTS, x)
    assert torch.equal(found[:, 1], links.module(WEIGHTS, x)[:, 1])
    assert len(links.pairs()) == 6


def test_the_mixture_is_the_sum_over_sources() -> None:
    x = torch.randn(2, 3, 4, 2, 2)
    expected = sum(WEIGHTS[:, :, s].view(2, 2, 1, 1, 1) * x[:, s].unsqueeze(1) for s in range(3))
    torch.testing.assert_close(Mixture()(WEIGHTS, x), expected)


def test_masks_have_one_source_and_no_cut() -> None:
    masks = torch.rand(4, 2, 3, 2, 2)
    links = MaskLinks(Masking(), ("a", "b"), ("shared",), apart=True)
    shares, spread = observed(links, (masks, torch.randn(4, 3, 2, 2)))
    rows = masks.flatten(2).mean(2).double()
    torch.testing.assert_close(shares[:, 0], rows.mean(0))
    assert spread is not None
    torch.testing.assert_close(spread[:, 0], rows.std(0, correction=0))
    assert links.pairs() == []


# -- what they leave behind ----------------------------------------------------------------------------------


@pytest.mark.parametrize("links", [UnitLinks(CrossStitch(2, (2,)), ("a", "b"), apart=True), gates()])
def test_no_hook_stays_even_after_an_error(links: Links) -> None:
    def fail(context: AbstractContextManager[object]) -> None:
        with context:
            assert links.module._forward_hooks or links.module._forward_pre_hooks
            raise KeyError

    for context in (links.observed(), links.cut([(0, 1)])):
        with pytest.raises(KeyError):
            fail(context)
        assert not links.module._forward_hooks
        assert not links.module._forward_pre_hooks


def test_the_base_promises_nothing() -> None:
    links = Links(nn.Identity(), ("a",), ("a", "b"), apart=False)
    assert links.pairs() == [(0, 1)]
    for call in (links.observed, lambda: links.cut([]), lambda: links.shares(None)):  # type: ignore[arg-type]
        with pytest.raises(NotImplementedError):
            call()
