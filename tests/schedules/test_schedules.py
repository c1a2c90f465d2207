"""Factors are pure functions of the step, equal to torch's schedulers step by step."""

import math
import warnings
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from mtl.errors import UserError
from mtl.recipe.specs import SCHEDULES, ScheduleSpec


def schedule(kind: str, **options: Any) -> ScheduleSpec:
    return SCHEDULES[kind](**options)


def factors(spec: ScheduleSpec, total: int) -> list[float]:
    return [spec.factor(step, total) for step in range(total)]


def sgd() -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def rates_of(optimizer: torch.optim.Optimizer, scheduler: LRScheduler, total: int) -> list[float]:
    """torch's learning rate at each step; the base rate is 1."""
    rates = []
    for step in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < total - 1:
            scheduler.step()
    return rates


@pytest.mark.parametrize("min_factor", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("total", [1, 2, 7, 100])
def test_cosine_is_torchs(total: int, min_factor: float) -> None:
    optimizer = sgd()
    expected = rates_of(optimizer, CosineAnnealingLR(optimizer, total, eta_min=min_factor), total)
    assert factors(schedule("cosine", min_factor=min_factor), total) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "options", [{}, {"rise": 0.5, "start_div": 10.0, "final_div": 100.0}, {"rise": 0.25}]
)
@pytest.mark.parametrize("total", [5, 10, 33, 200])
def test_one_cycle_is_torchs(total: int, options: dict[str, float]) -> None:
    spec = schedule("one_cycle", **options)
    optimizer = sgd()
    scheduler = OneCycleLR(
        optimizer,
        max_lr=1.0,
        total_steps=total,
        pct_start=options.get("rise", 0.3),
        div_factor=options.get("start_div", 25.0),
        final_div_factor=options.get("final_div", 1e4),
        three_phase=False,
        cycle_momentum=False,
    )
    assert factors(spec, total) == pytest.approx(rates_of(optimizer, scheduler, total), rel=1e-9, abs=1e-9)


def test_one_cycle_goes_up_to_1_and_down_to_its_last_factor() -> None:
    found = factors(schedule("one_cycle", rise=0.5, start_div=4.0, final_div=8.0), 20)
    top = found.index(max(found))
    assert found[0] == pytest.approx(1 / 4)
    assert found[top] == pytest.approx(1)
    assert found[-1] == pytest.approx(1 / 32)
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)


@pytest.mark.parametrize(
    ("at", "total", "passed"),
    [
        ((0.5,), 10, [0] * 5 + [1] * 5),
        ((0.5, 0.75), 8, [0] * 4 + [1] * 2 + [2] * 2),
        ((0.25, 0.25), 4, [0] + [2] * 3),
        ((0.0, 1.0), 3, [1, 1, 1]),
        ((0.3,), 3, [0, 1, 1]),  # 0.9 of a step: the next one
    ],
)
def test_step_multiplies_at_each_milestone(at: tuple[float, ...], total: int, passed: list[int]) -> None:
    expected = [0.1**n for n in passed]
    assert factors(schedule("step", at=at, gamma=0.1), total) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("hundredths", range(1, 100))
def test_a_milestone_that_is_a_whole_step_is_at_that_step(hundredths: int) -> None:
    spec = schedule("step", at=(hundredths / 100,), gamma=0.5)
    assert factors(spec, 100).count(1.0) == hundredths


@pytest.mark.parametrize("at", [(1.5,), (-0.1,), (0.5, 50.0), ()])
def test_milestones_are_fractions(at: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="at"):
        schedule("step", at=at)


WARMED_UP = [name for name in SCHEDULES.names() if "warmup_steps" in SCHEDULES[name].model_fields]


@pytest.mark.parametrize("kind", WARMED_UP)
@pytest.mark.parametrize(("warmup", "total"), [(1, 2), (4, 10), (9, 10)])
def test_a_warm_up_is_linear_and_then_the_schedule_begins(kind: str, warmup: int, total: int) -> None:
    found = factors(schedule(kind, warmup_steps=warmup), total)
    assert found[:warmup] == pytest.approx([(step + 1) / warmup for step in range(warmup)])
    assert found[warmup:] == factors(schedule(kind), total - warmup)


@pytest.mark.parametrize("kind", WARMED_UP)
@pytest.mark.parametrize(("warmup", "total"), [(10, 10), (11, 10), (2, 2)])
def test_a_warm_up_as_long_as_the_run_is_refused(kind: str, warmup: int, total: int) -> None:
    spec = schedule(kind, warmup_steps=warmup)
    with pytest.raises(UserError) as caught:
        spec.check(total)
    assert str(caught.value) == f"warmup_steps: {warmup} warm-up steps, but the run has {total} steps"
    spec.check(warmup + 1)


@pytest.mark.parametrize("kind", WARMED_UP)
def test_a_single_step_is_one_step(kind: str) -> None:
    with pytest.raises(UserError) as caught:
        schedule(kind, warmup_steps=1).check(1)
    assert str(caught.value) == "warmup_steps: 1 warm-up step, but the run has 1 step"


@pytest.mark.parametrize("kind", SCHEDULES.names())
@pytest.mark.parametrize("total", [1, 2, 3, 50])
def test_every_factor_is_in_0_to_1_and_the_same_each_time(kind: str, total: int) -> None:
    spec = schedule(kind)
    spec.check(total)
    found = factors(spec, total)
    assert all(math.isfinite(factor) and 0 <= factor <= 1 + 1e-12 for factor in found)
    assert found[::-1] == [spec.factor(step, total) for step in reversed(range(total))]


def test_torchs_schedulers_are_stepped_as_they_should_be() -> None:
    """The comparison itself: torch warns when a scheduler is stepped before its optimizer."""
    optimizer = sgd()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rates_of(optimizer, CosineAnnealingLR(optimizer, 2), 2) == pytest.approx([1.0, 0.5])
