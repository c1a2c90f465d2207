"""Combined gradients are those of TorchJD's own classes, called by hand over 20 steps.

Shapes: N tasks, S of them seen, P shared numbers.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torchjd import aggregation

from mtl.model.weighting import Weighting
from mtl.recipe.specs import WEIGHTINGS
from mtl.weightings.aggregators.spec import Aggregator

N, P, STEPS = 3, 7, 20
KINDS = tuple(kind for kind in WEIGHTINGS.names() if issubclass(WEIGHTINGS[kind], Aggregator))
RANDOM = {"pcgrad", "gradvac", "graddrop"}
STATEFUL = {kind for kind in KINDS if WEIGHTINGS[kind].stateful}
BATCHES = {"modo": 2, "sdmgrad": 3}


class ByBatches:
    """TorchJD's weights by the products of two batches, on the mean of both or on a third one, as its examples show."""

    def __init__(self, weighting: Any) -> None:
        self.weighting = weighting

    def __call__(self, rows: Tensor) -> Tensor:
        weights = self.weighting(rows[0] @ rows[1].T)
        gradient: Tensor = weights @ (rows[2] if len(rows) == 3 else (rows[0] + rows[1]) / 2)
        return gradient


ORACLES: dict[str, Any] = {
    "mgda": lambda w: aggregation.MGDA(),
    "pcgrad": lambda w: aggregation.PCGrad(),
    "gradvac": lambda w: aggregation.GradVac(),
    "cagrad": lambda w: aggregation.CAGrad(c=0.5),
    "graddrop": lambda w: aggregation.GradDrop(),
    "imtl_g": lambda w: aggregation.IMTLG(),
    "nash_mtl": lambda w: aggregation.NashMTL(n_tasks=N),
    "aligned_mtl": lambda w: aggregation.AlignedMTL(pref_vector=w),
    "fairgrad": lambda w: aggregation.FairGrad(alpha=2.0),
    "config": lambda w: aggregation.ConFIG(pref_vector=w),
    "dualproj": lambda w: aggregation.DualProj(pref_vector=w),
    "pcd": lambda w: aggregation.PCD(),
    "excess_mtl": lambda w: aggregation.ExcessMTL(),
    "modo": lambda w: ByBatches(aggregation.MoDoWeighting()),
    "sdmgrad": lambda w: ByBatches(aggregation.SDMGradWeighting()),
}
"""TorchJD's aggregators, with the preference vector `w` where they take one."""
FACTOR = {"mgda": N, "cagrad": N, "imtl_g": N, "excess_mtl": N, "modo": N, "sdmgrad": N}
"""The gradient of a mean is multiplied by the number of tasks."""


def module_of(kind: str, weights: tuple[float, ...] = (1.0,) * N, **options: Any) -> Weighting:
    made = WEIGHTINGS[kind](kind=kind, **options).build(weights, (False,) * len(weights))
    made.prepare(P)
    return made


def jacobian(step: int, kind: str = "") -> Tensor:
    """Three gradients of different lengths; the first two conflict in about half of the steps.

    For a kind that compares batches they are those of each batch, (batches, N, P).
    """
    generator = torch.Generator().manual_seed(step)
    shape = (BATCHES[kind], N, P) if kind in BATCHES else (N, P)
    return torch.randn(shape, generator=generator) * torch.tensor([[0.3], [1.0], [2.0]])


def applied(rows: Tensor) -> Tensor:
    """The gradients (N, P) to which the weights apply."""
    return rows if rows.ndim == 2 else rows.mean(0) if len(rows) == 2 else rows[2]


def combined(
    module: Weighting, step: int, seen: tuple[int, ...] = tuple(range(N)), kind: str = ""
) -> tuple[Tensor, Tensor | None]:
    torch.manual_seed(step)
    seen_N = torch.zeros(len(module.task_weights), dtype=torch.bool)
    seen_N[list(seen)] = True
    return module.combine(jacobian(step, kind)[..., list(seen), :], torch.ones(len(seen)), seen_N)


def quietly(oracle: Any, rows: Tensor) -> Tensor:
    """TorchJD's gradient, without cvxpy's remark on the speed of nash_mtl."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gradient: Tensor = oracle(rows)
    return gradient


def test_every_aggregator_has_an_oracle() -> None:
    assert set(ORACLES) == set(KINDS)
    assert len(KINDS) == 15


@pytest.mark.parametrize("kind", KINDS)
def test_twenty_steps_are_those_of_torchjd(kind: str) -> None:
    module, oracle = module_of(kind), ORACLES[kind](torch.ones(N))
    for step in range(STEPS):
        gradient, weights = combined(module, step, kind=kind)
        torch.manual_seed(step)
        wanted = FACTOR.get(kind, 1) * quietly(oracle, jacobian(step, kind))
        torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-5)
        if weights is not None:
            torch.testing.assert_close(
                weights @ applied(jacobian(step, kind)), gradient, rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize("kind", KINDS)
def test_task_weights_are_a_preference_or_scale_the_gradients(kind: str) -> None:
    w = torch.tensor([0.5, 1.0, 2.0])
    gradient, weights = combined(module_of(kind, (0.5, 1.0, 2.0)), 3, kind=kind)
    torch.manual_seed(3)
    takes_preference = WEIGHTINGS[kind].preference
    rows = jacobian(3, kind) if takes_preference else w[:, None] * jacobian(3, kind)
    wanted = FACTOR.get(kind, 1) * quietly(ORACLES[kind](w), rows)
    torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-5)
    if weights is not None:
        torch.testing.assert_close(weights @ applied(jacobian(3, kind)), gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - STATEFUL))
def test_an_absent_task_is_left_out(kind: str) -> None:
    """With two of three tasks, the gradient is that of two tasks alone, not that of two and a row of zeros."""
    three, two = module_of(kind), module_of(kind, (1.0, 1.0))
    for step in range(5):
        gradient, weights = combined(three, step, (0, 2))
        torch.manual_seed(step)
        alone, own = two.combine(jacobian(step)[[0, 2]], torch.ones(2), torch.ones(2, dtype=torch.bool))
        torch.testing.assert_close(gradient, alone)
        assert weights is None or own is None or torch.equal(weights, own)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - RANDOM - {"pcd"}))
def test_another_order_of_the_tasks_gives_the_same_gradient(kind: str) -> None:
    """The first task of pcd is its main one, and the others draw an order."""
    order = [2, 0, 1]
    module, other = module_of(kind), module_of(kind)
    everybody = torch.ones(N, dtype=torch.bool)
    for step in range(5):
        gradient, weights = module.combine(jacobian(step, kind), torch.ones(N), everybody)
        again, permuted = other.combine(jacobian(step, kind)[..., order, :], torch.ones(N), everybody)
        torch.testing.assert_close(again, gradient, rtol=1e-3, atol=1e-4)
        if weights is not None and permuted is not None:
            torch.testing.assert_close(permuted, weights[order], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_memory_is_all_in_the_checkpoint(kind: str) -> None:
    """A new module with the state of one that has worked goes on with the same bits."""
    module = module_of(kind)
    for step in range(8):
        combined(module, step, kind=kind)
    again = module_of(kind)
    again.load_state_dict(module.state_dict())
    assert bool(module.state_dict()) == (kind in STATEFUL)
    for step in range(8, 14):
        assert torch.equal(combined(module, step, kind=kind)[0], combined(again, step, kind=kind)[0])


@pytest.mark.parametrize("kind", sorted(STATEFUL))
def test_the_memory_matters(kind: str) -> None:
    """A module without the memory gives other numbers; nash_mtl starts its search from it and may end the same."""
    module, fresh = module_of(kind), module_of(kind)
    for step in range(8):
        combined(module, step, kind=kind)
    same = [
        torch.equal(combined(module, step, kind=kind)[0], combined(fresh, step, kind=kind)[0])
        for step in range(8, 14)
    ]
    assert not all(same) or kind == "nash_mtl"


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_that_are_not_finite_pass_through(kind: str) -> None:
    """The step is not taken then, and a solver must not fail before it is known."""
    module = module_of(kind)
    rows = jacobian(0, kind)
    rows[..., 1, 2] = torch.nan
    gradient, _ = module.combine(rows, torch.ones(N), torch.ones(N, dtype=torch.bool))
    assert not torch.isfinite(gradient).all()


def test_excess_mtl_warms_up() -> None:
    module, oracle = module_of("excess_mtl", n_warmup_steps=3), aggregation.ExcessMTL(n_warmup_steps=3)
    for step in range(8):
        gradient, weights = combined(module, step)
        torch.testing.assert_close(gradient, N * oracle(jacobian(step)), rtol=1e-5, atol=1e-5)
        assert weights is not None
        assert (weights == 1).all() == (step < 3)
