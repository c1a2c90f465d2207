"""GradNorm and DB-MTL against the equations of their papers, by autograd, over 20 steps.

Shapes: N tasks, S of them seen, P shared numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mtl.model.weighting import Weighting
from mtl.recipe.specs import WEIGHTINGS

N, P, STEPS, LR = 3, 5, 20, 0.02


def module_of(kind: str, n: int = N, weights: Sequence[float] | None = None, **options: Any) -> Weighting:
    made = WEIGHTINGS[kind](kind=kind, **options).build(tuple(weights or [1.0] * n), (False,) * n)
    made.prepare(P)
    return made.double()


def problem(chosen: Sequence[int] = (0, 1, 2)) -> tuple[Tensor, Callable[[], Tensor]]:
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(3, P, P, generator=generator, dtype=torch.float64)
    b = torch.randn(3, P, generator=generator, dtype=torch.float64)
    theta = torch.full((P,), 0.2, dtype=torch.float64, requires_grad=True)
    size = torch.tensor([0.1, 1.0, 4.0], dtype=torch.float64)

    def losses() -> Tensor:
        each: Tensor = ((a @ theta - b) ** 2).mean(1) * size + 0.05
        return each[list(chosen)]

    return theta, losses


def rows_of(losses_S: Tensor, theta: Tensor) -> Tensor:
    return torch.stack([torch.autograd.grad(loss, theta, retain_graph=True)[0] for loss in losses_S])


def trained(
    module: Weighting, chosen: Sequence[int] = (0, 1, 2), seen: Callable[[int], Sequence[int]] | None = None
) -> tuple[Tensor, list[Tensor | None]]:
    theta, losses = problem(chosen)
    weights = []
    for step in range(STEPS):
        there = list(seen(step)) if seen else list(range(len(chosen)))
        losses_S = losses()[there]
        seen_N = torch.zeros(len(module.task_weights), dtype=torch.bool)
        seen_N[there] = True
        gradient, own = module.combine(rows_of(losses_S, theta), losses_S.detach(), seen_N)
        weights.append(own)
        with torch.no_grad():
            theta -= LR * gradient
    return theta.detach(), weights


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.5])
def test_gradnorm_is_the_papers_algorithm(alpha: float) -> None:
    """The loss of the gradient lengths is differentiated by autograd, and torch's Adam moves the weights."""
    theta, losses = problem()
    w = torch.ones(N, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([w], lr=0.025)
    first: Tensor | None = None
    for _ in range(STEPS):
        values = losses()
        first = values.detach() if first is None else first
        rows = rows_of(values, theta)
        lengths = torch.stack([(w[t] * rows[t]).norm() for t in range(N)])
        ratios = values.detach() / first
        target = (lengths.mean() * (ratios / ratios.mean()) ** alpha).detach()
        adam.zero_grad()
        (lengths - target).abs().sum().backward()
        gradient = w.detach() @ rows
        adam.step()
        with torch.no_grad():
            w.clamp_(min=1e-3)
            w *= N / w.sum()
            theta -= LR * gradient
    found, weights = trained(module_of("gradnorm", alpha=alpha))
    torch.testing.assert_close(found, theta.detach(), rtol=1e-6, atol=1e-8)
    last = weights[-1]
    assert last is not None
    assert last.sum().item() == pytest.approx(N)
    assert (last - 1).abs().max() > 0.1
    assert last.argmax() == 0  # the task with the shortest gradient


@pytest.mark.parametrize("sigma", [0.0, 0.5])
@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_db_mtl_is_the_papers_algorithm(beta: float, sigma: float) -> None:
    theta, losses = problem()
    average = torch.zeros(N, P, dtype=torch.float64)
    for k in range(1, STEPS + 1):
        rows = rows_of(torch.log(losses() + 1e-8), theta)
        kept = beta / k**sigma
        average = kept * average + (1 - kept) * rows
        longest = max(row.norm() for row in average)
        gradient = longest * sum(row / (row.norm() + 1e-8) for row in average)
        with torch.no_grad():
            theta -= LR * gradient
    found, weights = trained(module_of("db_mtl", beta=beta, sigma=sigma))
    torch.testing.assert_close(found, theta.detach(), rtol=1e-6, atol=1e-8)
    assert all((own is None) == (beta > 0) for own in weights)


@pytest.mark.parametrize("kind", ["gradnorm", "db_mtl"])
def test_an_absent_task_changes_nothing_and_keeps_its_memory(kind: str) -> None:
    three = module_of(kind)
    start = {name: value.clone() for name, value in three.state_dict().items()}
    found, _ = trained(three, seen=lambda _: (0, 1))
    alone, _ = trained(module_of(kind, 2), chosen=(0, 1))
    torch.testing.assert_close(found, alone, rtol=1e-9, atol=1e-12)
    for name, value in three.state_dict().items():
        torch.testing.assert_close(value[2], start[name][2], equal_nan=True)


@pytest.mark.parametrize("kind", ["gradnorm", "db_mtl"])
def test_another_order_of_the_tasks_is_another_order_of_the_weights(kind: str) -> None:
    options = {"beta": 0.0} if kind == "db_mtl" else {}
    found, weights = trained(module_of(kind, weights=[0.5, 1.0, 2.0], **options))
    order = [2, 0, 1]
    other, permuted = trained(module_of(kind, weights=[2.0, 0.5, 1.0], **options), chosen=order)
    torch.testing.assert_close(other, found, rtol=1e-7, atol=1e-9)
    assert weights[-1] is not None
    assert permuted[-1] is not None
    torch.testing.assert_close(permuted[-1], weights[-1][order], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["gradnorm", "db_mtl"])
def test_the_memory_is_all_in_the_checkpoint(kind: str) -> None:
    module = module_of(kind)
    trained(module)
    again = module_of(kind)
    again.load_state_dict(module.state_dict())
    assert torch.equal(trained(module)[0], trained(again)[0])


def test_a_weight_of_gradnorm_stays_positive() -> None:
    module = module_of("gradnorm", lr=5.0)
    _, weights = trained(module)
    for own in weights:
        assert own is not None
        assert (own > 0).all()
        assert torch.isfinite(own).all()
