"""Weightings of losses against TorchJD over 20 steps, and with tasks that are absent or in another order.

Shapes: N tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torchjd import scalarization

from mtl.model.weighting import Weighting
from mtl.recipe.specs import WEIGHTINGS
from mtl.training.weighting_contract import check_objective

STEPS, EPOCH, LR = 20, 5, 0.05
RANDOM = {"rlw"}
"""Weightings that draw: another order of the tasks gives them other numbers."""
KINDS = tuple(kind for kind in WEIGHTINGS.names() if WEIGHTINGS[kind].needs != "gradients")


def module_of(kind: str, n: int, weights: Sequence[float] | None = None, **options: Any) -> Weighting:
    spec = WEIGHTINGS[kind](kind=kind, **options)
    return spec.build(tuple(weights or [1.0] * n), (False,) * n).double()


def problem(order: Sequence[int] = (0, 1, 2)) -> tuple[Tensor, Callable[[], Tensor]]:
    """Four numbers, and the losses of some of three tasks at them, each of its own size and minimum."""
    generator = torch.Generator().manual_seed(7)
    a_NPP = torch.randn(3, 4, 4, generator=generator, dtype=torch.float64)
    b_NP = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    size_N = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    theta = torch.full((4,), 0.3, dtype=torch.float64, requires_grad=True)
    chosen = list(order)

    def losses() -> Tensor:
        each_N = ((a_NPP @ theta - b_NP) ** 2).mean(1) * size_N + 0.01
        return each_N[chosen]

    return theta, losses


def trained(
    weighting: Weighting,
    order: Sequence[int] = (0, 1, 2),
    seen: Callable[[int], Sequence[bool]] | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """The numbers after 20 steps of plain gradient descent, weights included, and the weights of each step."""
    theta, losses_of = problem(order)
    own, taken = list(weighting.parameters()), []
    sums = torch.zeros(len(order), dtype=torch.float64)
    counts = torch.zeros(len(order))
    for step in range(STEPS):
        torch.manual_seed(step)
        seen_N = torch.tensor(seen(step) if seen else [True] * len(order))
        losses_N = losses_of()
        weights_N, gradients = weighting.derivatives(losses_N, seen_N)
        (gradient,) = torch.autograd.grad(losses_N, theta, weights_N)
        with torch.no_grad():
            theta -= LR * gradient
            for parameter, change in zip(own, gradients, strict=True):
                assert change is not None
                parameter -= torch.where(seen_N, LR * change, 0.0)
        weighting.after_step(losses_N.detach(), seen_N, lambda: losses_of().detach())
        sums, counts = sums + torch.where(seen_N, losses_N.detach(), 0.0), counts + seen_N
        if step % EPOCH == EPOCH - 1:
            weighting.after_epoch(sums / counts.clamp(min=1), counts > 0)
            sums, counts = torch.zeros_like(sums), torch.zeros_like(counts)
        taken.append(weights_N)
    return theta.detach(), taken


def by_torchjd(scalarizer: Any, factor: float = 1.0) -> Tensor:
    """The numbers after 20 steps with a scalarizer of TorchJD, whose gradient is multiplied by `factor`."""
    theta, losses_of = problem()
    scalarizer = scalarizer.double()
    own = [] if isinstance(scalarizer, scalarization.FAMO) else list(scalarizer.parameters())
    for step in range(STEPS):
        torch.manual_seed(step)
        gradients = torch.autograd.grad(scalarizer(losses_of()), [theta, *own])
        with torch.no_grad():
            theta -= LR * factor * gradients[0]
            for parameter, change in zip(own, gradients[1:], strict=True):
                parameter -= LR * change
        if isinstance(scalarizer, scalarization.FAMO):
            scalarizer.update(losses_of().detach())
        if isinstance(scalarizer, scalarization.DWA) and step % EPOCH == EPOCH - 1:
            scalarizer.step()
    return theta.detach()


ORACLES: dict[str, tuple[Callable[[], Any], float, dict[str, Any]]] = {
    "sum": (scalarization.Sum, 1, {}),
    "constant": (scalarization.Sum, 1, {}),
    "gls": (scalarization.GeometricMean, 1, {}),
    "uncertainty": (lambda: scalarization.UW(3), 1, {}),
    "imtl_l": (lambda: scalarization.IMTLL(3), 1, {}),
    "dwa": (lambda: scalarization.DWA(2.0), 1, {}),
    "stch": (lambda: scalarization.STCH(0.2), 9, {"mu": 0.2}),  # n^2: its preferences sum to one
    "famo": (lambda: scalarization.FAMO(3), 3, {}),  # n: its weights sum to one
}


def test_all_but_the_random_one_have_an_oracle() -> None:
    assert set(ORACLES) == set(KINDS) - RANDOM


@pytest.mark.parametrize("kind", ORACLES)
def test_twenty_steps_are_those_of_torchjd(kind: str) -> None:
    oracle, factor, options = ORACLES[kind]
    theta, weights = trained(module_of(kind, 3, **options))
    torch.testing.assert_close(theta, by_torchjd(oracle(), factor), rtol=1e-5, atol=1e-6)
    start, _ = problem()
    assert (theta - start.detach()).abs().max() > 0.01  # something was learned
    assert len(weights) == STEPS


def test_the_preferences_of_constant_are_torchjds_up_to_their_sum() -> None:
    weights = torch.tensor([0.5, 1.0, 4.5], dtype=torch.float64)
    oracle = scalarization.Constant(weights / weights.sum())
    theta, _ = trained(module_of("constant", 3, weights.tolist()))
    torch.testing.assert_close(theta, by_torchjd(oracle, factor=3), rtol=1e-5, atol=1e-6)


def test_random_weights_are_a_softmax_of_normal_numbers() -> None:
    """Their mean is 1, their sum the number of seen tasks, and log w_1 - log w_2 has variance 2."""
    weighting, losses_N = module_of("rlw", 3), torch.ones(3, dtype=torch.float64)
    torch.manual_seed(0)
    all_seen = torch.ones(3, dtype=torch.bool)
    drawn = torch.stack([weighting.derivatives(losses_N, all_seen)[0] for _ in range(4000)])
    torch.testing.assert_close(drawn.sum(1), torch.full((4000,), 3.0, dtype=torch.float64))
    assert (drawn.mean(0) - 1).abs().max() < 0.06
    assert (drawn[:, 0].log() - drawn[:, 1].log()).var().item() == pytest.approx(2, abs=0.2)
    two = weighting.derivatives(losses_N, torch.tensor([True, False, True]))[0]
    assert two[1] == 0
    assert two.sum().item() == pytest.approx(2)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - RANDOM))
def test_another_order_of_the_tasks_is_another_order_of_the_weights(kind: str) -> None:
    task_weights = [0.5, 1.0, 2.0]
    order = [2, 0, 1]
    theta, weights = trained(module_of(kind, 3, task_weights))
    other, permuted = trained(module_of(kind, 3, [task_weights[i] for i in order]), order)
    torch.testing.assert_close(other, theta, rtol=1e-8, atol=1e-10)
    for own, its in zip(weights, permuted, strict=True):
        torch.testing.assert_close(its, own[order], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - RANDOM))
def test_a_task_without_labels_changes_nothing_for_the_others(kind: str) -> None:
    """With a third task that is never seen, the others have the weights that two tasks have, and it keeps its state."""
    weighting = module_of(kind, 3)
    start = {name: value.clone() for name, value in weighting.state_dict().items()}
    theta, weights = trained(weighting, seen=lambda _: [True, True, False])
    alone, two = trained(module_of(kind, 2), order=(0, 1))
    torch.testing.assert_close(theta, alone, rtol=1e-10, atol=1e-12)
    for three, pair in zip(weights, two, strict=True):
        torch.testing.assert_close(three[:2], pair, rtol=1e-10, atol=1e-12)
        assert three[2] == 0
    for name, value in weighting.state_dict().items():
        assert torch.equal(value[2], start[name][2]), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_that_comes_and_goes_keeps_its_memory(kind: str) -> None:
    """What is kept for it does not move while it is away, whatever its loss would be."""
    weighting = module_of(kind, 3)
    before: dict[str, Tensor] = {}

    def seen(step: int) -> list[bool]:
        if step == 10:
            before.update({name: value.clone() for name, value in weighting.state_dict().items()})
        return [True, True, step < 10]

    _, weights = trained(weighting, seen=seen)
    for name, value in weighting.state_dict().items():
        assert torch.equal(value[2], before[name][2]), name
    assert all(torch.isfinite(step).all() for step in weights)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_sees_no_task_has_no_weights_and_no_nan(kind: str) -> None:
    weighting, nobody = module_of(kind, 3), torch.zeros(3, dtype=torch.bool)
    weights, own = weighting.derivatives(torch.ones(3, dtype=torch.float64), nobody)
    assert weights.tolist() == [0, 0, 0]
    assert all(change is None or torch.isfinite(change).all() for change in own)


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_is_all_in_the_checkpoint(kind: str) -> None:
    """A new module with the state of one that has worked gives the same weights."""
    weighting = module_of(kind, 3)
    trained(weighting)
    again = module_of(kind, 3)
    again.load_state_dict(weighting.state_dict())
    (_, first), (_, second) = trained(weighting), trained(again)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_says_it_needs_is_what_it_needs(kind: str) -> None:
    losses_N = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)
    check_objective(module_of(kind, 3), losses_N, torch.ones(3, dtype=torch.bool))


def test_dwa_weighs_the_task_whose_loss_falls_slowly() -> None:
    weighting, everybody = module_of("dwa", 2), torch.ones(2, dtype=torch.bool)
    for losses in ([4.0, 4.0], [1.0, 3.0]):
        weighting.after_epoch(torch.tensor(losses, dtype=torch.float64), everybody)
    weights, _ = weighting.derivatives(torch.ones(2, dtype=torch.float64), everybody)
    wanted = 2 * torch.softmax(torch.tensor([0.25, 0.75], dtype=torch.float64) / 2, 0)
    torch.testing.assert_close(weights, wanted)


def test_dwa_gives_a_task_weight_one_until_it_was_seen_in_two_epochs() -> None:
    weighting = module_of("dwa", 3)
    late = torch.tensor([True, True, False])
    for seen, losses in ((late, [4.0, 4.0, 0]), (late, [1.0, 3.0, 0]), (torch.ones(3) > 0, [1.0, 3.0, 5.0])):
        weighting.after_epoch(torch.tensor(losses, dtype=torch.float64), seen)
    weights, _ = weighting.derivatives(torch.ones(3, dtype=torch.float64), torch.ones(3, dtype=torch.bool))
    assert weights.tolist() == pytest.approx([1.0, 1.0, 1.0])
    weighting.after_epoch(torch.tensor([1.0, 3.0, 2.5], dtype=torch.float64), torch.ones(3, dtype=torch.bool))
    weights, _ = weighting.derivatives(torch.ones(3, dtype=torch.float64), torch.ones(3, dtype=torch.bool))
    assert weights.sum().item() == pytest.approx(3)
    assert weights[2] < weights[0]
