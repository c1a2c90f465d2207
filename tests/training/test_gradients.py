"""Gradients of tasks by the features that they share.

Shapes: N tasks, S of them seen in a step, P features of a batch.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mtl.errors import UserError
from mtl.experiment.run import prepare
from mtl.recipe.specs import SHARING
from mtl.training.gradients import SharedFeatures
from mtl.training.step import train_step
from mtl.training.trainer import Trainer
from tests.support.recipes import classes, linear, recipe

GENERATED = {"kind": "synthetic", "tasks": 3, "rows": 200, "test_rows": 60, "features": 8, "classes": 2}
APART = ("film", "lora", "mtan", "none", "soft")
"""Schemes whose towers read no activation together."""
TOGETHER = sorted(set(SHARING.names()) - set(APART))
ON_FEATURES = {"kind": "upgrad", "grads_on": "features"}


def made(sharing: dict[str, Any], weighting: dict[str, Any], **changes: Any) -> Trainer:
    given: dict[str, Any] = {
        "data__source": GENERATED, "tasks": classes("abc"), "weighting": weighting,
        "model__backbone__stages": linear(8, 4), "model__sharing": sharing,
        "optimizer": {"kind": "sgd", "lr": 1e-3},
    }  # fmt: skip
    return prepare(recipe(**(given | changes)))[0]


def sharing_of(kind: str) -> dict[str, Any]:
    return {"kind": kind, **SHARING[kind].example}


def gradients(trainer: Trainer) -> dict[str, Tensor]:
    """The gradients of one step, in training mode."""
    trainer.built.model.train()
    train_step(trainer, [trainer.dataset.splits["train"][:50].copy()], trainer.new_meter())
    named = trainer.built.model.named_parameters()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in named}


class Fixed:
    """In place of `combine`: the sum of the tasks' gradients times these weights."""

    def __init__(self, *weights: float) -> None:
        self.weights, self.widths = torch.tensor(weights), list[int]()

    def __call__(self, jacobian_SP: Tensor, losses_S: Tensor, seen_N: Tensor) -> tuple[Tensor, Tensor]:
        self.widths.append(jacobian_SP.shape[1])
        weights_S = self.weights[seen_N]
        return weights_S @ jacobian_SP, weights_S


@pytest.mark.parametrize("towers", ["per_task", {"one": ["a", "c"], "two": ["b"]}], ids=["apart", "in_pairs"])
@pytest.mark.parametrize("kind", [*TOGETHER, "none with one tower"])
def test_weights_of_one_give_the_gradient_of_the_sum(
    kind: str, towers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = kind.startswith("none")
    sharing = sharing_of("none" if one else kind)
    changes = {"model__towers": "one" if one else towers}
    wanted = gradients(made(sharing, {"kind": "sum"}, **changes))
    trainer = made(sharing, ON_FEATURES, **changes)
    monkeypatch.setattr(trainer.weighting, "combine", fixed := Fixed(1.0, 1.0, 1.0))
    found = gradients(trainer)
    assert len(fixed.widths) == 1
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", ["cross_stitch", "mmoe", "dselect_k"])
def test_only_what_lies_before_the_features_takes_the_combined_gradient(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With weights 2, 0 and 0 the first layer learns from the first task alone, twice; heads from their own."""
    first = {"a": 2.0, "b": 0.0, "c": 0.0}
    sharing = sharing_of(kind)
    trainer = made(sharing, ON_FEATURES)
    monkeypatch.setattr(trainer.weighting, "combine", Fixed(*first.values()))
    found = gradients(trainer)
    tasks = {task: own | {"weight": first[task]} for task, own in classes("abc").items()}
    of_first = gradients(made(sharing, {"kind": "sum"}, tasks=tasks))
    of_sum = gradients(made(sharing, {"kind": "sum"}))
    (first_layer,) = (name for name in found if name.endswith("stages.fc1.map.weight"))
    torch.testing.assert_close(found[first_layer], of_first[first_layer], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found[first_layer], of_sum[first_layer], rtol=1e-2)
    for name in found:
        if name.startswith("task_modules"):
            torch.testing.assert_close(found[name], of_sum[name], rtol=1e-4, atol=1e-6, msg=name)


def test_own_experts_take_the_gradient_of_their_own_task(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = made({"kind": "cgc", "own": 1, "shared": 1}, ON_FEATURES)
    fixed = Fixed(2.0, 0.0, 0.0)
    monkeypatch.setattr(trainer.weighting, "combine", fixed)
    found = gradients(trainer)
    of_sum = gradients(made({"kind": "cgc", "own": 1, "shared": 1}, {"kind": "sum"}))
    (name,) = (name for name in found if name.endswith("fc1.map.weight"))
    ours, wanted = (
        found[name].chunk(4),
        of_sum[name].chunk(4),
    )  # own experts of a, b and c, then the shared one
    for own in range(3):
        torch.testing.assert_close(ours[own], wanted[own], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(ours[3], wanted[3], rtol=1e-2)
    assert fixed.widths == [50 * 4]  # four features of the shared expert


def test_a_step_of_two_batches_gives_the_gradients_of_each_half(monkeypatch: pytest.MonkeyPatch) -> None:
    one_tower: dict[str, Any] = {"model__towers": "one"}
    wanted: list[Tensor] = []
    for half in (slice(0, 25), slice(25, 50)):
        trainer = made(sharing_of("none"), {"kind": "sum"}, **one_tower)
        trainer.built.model.train()
        train_step(trainer, [trainer.dataset.splits["train"][half].copy()], trainer.new_meter())
        wanted += [
            torch.cat(
                [p.grad.flatten() for p in trainer.built.model.trunk.parameters() if p.grad is not None]
            )
        ]
    trainer = made(sharing_of("none"), {"kind": "modo"}, **one_tower)
    given: list[Tensor] = []

    def combine(jacobian: Tensor, losses_S: Tensor, seen_N: Tensor) -> tuple[Tensor, Tensor]:
        given.append(jacobian)
        return jacobian.mean(0).sum(0), torch.ones(3)

    monkeypatch.setattr(trainer.weighting, "combine", combine)
    found = gradients(trainer)
    (jacobian,) = given
    assert jacobian.shape[:2] == (2, 3)
    for rows, gradient in zip(jacobian, wanted, strict=True):
        torch.testing.assert_close(rows.sum(0), gradient, rtol=1e-4, atol=1e-6)
    trunk = torch.cat([gradient.flatten() for name, gradient in found.items() if name.startswith("trunk.")])
    torch.testing.assert_close(trunk, (wanted[0] + wanted[1]) / 2, rtol=1e-4, atol=1e-6)


def test_a_step_of_few_rows_is_one_batch_and_takes_the_sum() -> None:
    wanted = made(sharing_of("none"), {"kind": "sum"}, model__towers="one")
    found = made(sharing_of("none"), {"kind": "sdmgrad"}, model__towers="one")
    for trainer in (wanted, found):
        trainer.built.model.train()
        train_step(trainer, [trainer.dataset.splits["train"][:5].copy()], trainer.new_meter())
    for ours, theirs in zip(found.built.model.parameters(), wanted.built.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


class Unbatchable(torch.autograd.Function):
    """The identity, whose backward pass reads numbers out of the tensor."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return torch.tensor(gradients[0].tolist())


@pytest.mark.parametrize("weighting", [{"kind": "upgrad"}, ON_FEATURES], ids=["slices", "features"])
def test_a_pass_for_all_losses_gives_the_numbers_of_one_for_each(
    weighting: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for how in ("at once", "one by one", "not batched"):
        trainer = made(sharing_of("cross_stitch"), weighting)
        assert trainer.shared is not None
        assert trainer.shared.at_once
        trainer.shared.at_once = how != "one by one"
        if how == "not batched":
            monkeypatch.setattr(
                trainer.built.model.trunk, "forward", behind(trainer.built.model.trunk.forward)
            )
        found.append(gradients(trainer))
        assert trainer.shared.at_once == (how == "at once")
    for other in found[1:]:
        for name in found[0]:  # a processor may round batched products otherwise
            torch.testing.assert_close(other[name], found[0][name], rtol=1e-4, atol=1e-6, msg=name)


def behind(forward: Any) -> Any:
    return lambda x: Unbatchable.apply(forward(x))


@pytest.mark.parametrize("kind", APART)
def test_towers_that_read_nothing_together_are_refused(kind: str) -> None:
    with pytest.raises(UserError, match="grads_on: no two tasks read the same features"):
        made(sharing_of(kind), ON_FEATURES)


def test_a_step_needs_all_its_rows_at_once() -> None:
    with pytest.raises(
        UserError, match="accumulate: weighting upgrad with grads_on: features needs the whole step"
    ):
        made(sharing_of("cross_stitch"), ON_FEATURES, train__accumulate=2)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("excess_mtl", "keeps a number for each shared parameter"),
        ("db_mtl", "keeps an average of each shared parameter's gradients unless beta is 0"),
        ("modo", "compares batches, whose features differ"),
    ],
)
def test_what_needs_the_same_numbers_in_each_step_is_refused(kind: str, why: str) -> None:
    with pytest.raises(UserError, match=f"grads_on: {kind} {why}; use grads_on: shared"):
        made(sharing_of("cross_stitch"), {"kind": kind, "grads_on": "features"})


def test_dual_balancing_without_its_average_works_on_features() -> None:
    without = {"kind": "db_mtl", "beta": 0.0, "grads_on": "features"}
    assert isinstance(made(sharing_of("cross_stitch"), without).shared, SharedFeatures)
