"""The training loop does what a plain loop would do, and nothing that is watched changes it (Q4, Q12, Q13).

Shapes: N tasks.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtl.build import build
from mtl.data.rows.order import batches, order
from mtl.dataset.assemble import load_dataset
from mtl.errors import NOT_FINITE, NotFinite, UserError
from mtl.experiment.trial import build_and_try
from mtl.model.layers import derived_seed
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from mtl.training.events import EpochEnded, Evaluated, Stepped
from mtl.training.loop import evaluate_split, fit
from mtl.training.selection import selecting_metric
from mtl.training.step import MAX_SKIPS
from mtl.training.trainer import Trainer
from tests.support.listening import measured_in

BASE: dict[str, Any] = {
    "schema_version": 1,
    "name": "small",
    "seed": 5,
    "data": {
        "source": {
            "kind": "synthetic",
            "tasks": 2,
            "rows": 100,
            "test_rows": 30,
            "features": 8,
            "classes": 3,
        },
    },
    "task_defaults": {"kind": "multiclass"},
    "tasks": {"a": {"target": "task0"}, "b": {"target": "task1"}},
    "model": {
        "backbone": {
            "kind": "layers",
            "stages": [
                {"name": "fc1", "kind": "linear", "features": 6},
                {"name": "fc2", "kind": "linear", "features": 5},
            ],
        },
        "sharing": {"kind": "cross_stitch", "after": ["fc1", "fc2"], "lr_scale": 10},
    },
    "optimizer": {"kind": "adam", "lr": 0.01},
    "train": {"epochs": 3, "batch_size": 32, "device": "cpu"},
}


def toy(**sections: Any) -> Recipe:
    """BASE with `train__epochs=2` set inside and `optimizer={...}` replaced."""
    made: dict[str, Any] = json.loads(json.dumps(BASE))
    for key, value in sections.items():
        *above, last = key.split("__")
        inner = made
        for name in above:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return load_recipe(made)


def trainer_of(
    recipe: Recipe, *, double: bool = False, change: Callable[[Tensor], None] | None = None
) -> Trainer:
    """A trainer as `mtl.run` makes it; `change` may spoil the inputs after they were checked."""
    built, header = build_and_try(recipe)
    dataset = load_dataset(recipe, header)
    built = build(recipe, dataset.header, dataset.learned)
    if change is not None:
        change(dataset.rows.inputs)
    trainer = Trainer.create(recipe, built, dataset)
    if double:
        built.model.double()
        trainer.weighting.double()
        assert built.model.inputs(dataset.rows.inputs).dtype == torch.float64
    return trainer


def trained(recipe: Recipe, **options: Any) -> tuple[Trainer, list[Evaluated | EpochEnded]]:
    trainer = trainer_of(recipe, **options)
    return trainer, list(measured_in(trainer))


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.built.model.state_dict().items()}


def assert_equal(one: Trainer, two: Trainer) -> None:
    """The same bits in every weight and buffer."""
    ours, theirs = weights(one), weights(two)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


# --- equal to a plain loop --------------------------------------------------------------------------------


class Plain(nn.Module):
    """One task's network as anyone would write it."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.fc1, self.bn1 = nn.Linear(8, 6, bias=False), nn.BatchNorm1d(6)
        self.fc2, self.bn2 = nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5)
        self.drop, self.out = nn.Dropout(0.3), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.bn1(self.fc1((x - self.mean) / self.std)))
        h = torch.relu(self.bn2(self.fc2(h)))
        logits: Tensor = self.out(self.drop(h))
        return logits


ONE_TASK: dict[str, Any] = {
    "tasks": {"a": {"target": "task0"}},
    "model__sharing": {"kind": "none"},
    "model__head": {"dropout": 0.3},
}


@pytest.mark.parametrize(
    ("optimizer", "make"),
    [
        ({"kind": "adam", "lr": 0.01}, lambda p: torch.optim.Adam(p, lr=0.01, fused=True)),
        ({"kind": "sgd", "lr": 0.1, "momentum": 0.9},
         lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True)),
    ],
)  # fmt: skip
def test_one_task_is_a_plain_loop_bit_for_bit(optimizer: dict[str, Any], make: Any) -> None:
    recipe = toy(**ONE_TASK, optimizer=optimizer)
    trainer = trainer_of(recipe)
    dataset = trainer.dataset
    mean, std = dataset.learned.mean, dataset.learned.std
    assert mean is not None
    assert std is not None
    (target,) = (t.long() for t in dataset.rows.target.values())
    plain = Plain(torch.from_numpy(mean), torch.from_numpy(std))
    own = list(trainer.built.model.parameters())
    with torch.no_grad():
        for theirs, ours in zip(plain.parameters(), own, strict=True):
            theirs.copy_(ours.view_as(theirs))
    optimizing, step = make(plain.parameters()), 0
    train = torch.from_numpy(dataset.splits["train"])
    for epoch in range(3):
        rows = train[order(len(train), 5, epoch)]
        for batch in rows.split(32):
            torch.manual_seed(derived_seed(5, "step", step))
            logits = plain(dataset.rows.inputs[batch])[:, :, None]  # the kernel for several tasks, with one
            each = nn.functional.cross_entropy(logits, target[batch], reduction="none")
            loss = (each.sum(0) / len(batch)).squeeze()
            optimizing.zero_grad()
            loss.backward()
            optimizing.step()
            step += 1
    list(fit(trainer))
    assert trainer.progress.step == step == 12
    for (name, theirs), ours in zip(plain.named_parameters(), own, strict=True):
        assert torch.equal(theirs, ours.view_as(theirs)), name
    buffers = {name: b for name, b in trainer.built.model.named_buffers() if "running" in name}
    theirs = [plain.bn1.running_mean, plain.bn1.running_var, plain.bn2.running_mean, plain.bn2.running_var]
    assert all(torch.equal(a, b) for a, b in zip(buffers.values(), theirs, strict=True))


@pytest.mark.parametrize("options", [{}, {"train__batch_size": 10, "train__clip_norm": 0.5}])
def test_another_task_leaves_the_others_alone(options: dict[str, Any]) -> None:
    """Q13: sharing none, dropout off, no common clipping that binds."""
    if "train__clip_norm" in options:
        options["train__clip_norm"] = 1e6
    alone = {"model__sharing": {"kind": "none"}, "optimizer": {"kind": "sgd", "lr": 0.1}, **options}
    source = {"kind": "synthetic", "tasks": 3, "rows": 100, "test_rows": 30, "features": 16, "classes": 3}
    two, rows = trained(toy(data__source=source, **alone))
    three, more = trained(
        toy(data__source=source, **alone, tasks={n: {"target": f"task{t}"} for t, n in enumerate("abc")})
    )
    for before, after in zip(rows, more, strict=True):
        for key, value in before.rows[0].items():
            if "/a/" in key or "/b/" in key:
                assert after.rows[0][key] == pytest.approx(value, abs=1e-6), key
    final, finals = evaluate_split(two, "test"), evaluate_split(three, "test")
    for task in "ab":
        assert finals[f"test/{task}/loss"] == pytest.approx(final[f"test/{task}/loss"], abs=1e-6)


@pytest.mark.parametrize("batch_size", [8, 10, 40])  # of the last, the parts have 40, 40 and 20 rows
def test_accumulation_divides_by_the_rows_of_all_parts(batch_size: int) -> None:
    """With batch norm each part keeps its own statistics; the losses of all their rows have one mean."""
    recipe = toy(
        train__accumulate=3, train__batch_size=batch_size, train__max_steps=1, train__epochs=None,
        optimizer={"kind": "sgd", "lr": 1.0}, train__clip_norm=None,
    )  # fmt: skip
    trainer, other = trainer_of(recipe, double=True), trainer_of(recipe, double=True)
    before = {name: p.detach().clone() for name, p in other.built.model.named_parameters()}
    rows = other.dataset.splits["train"]
    shuffled = rows[order(len(rows), recipe.seeds.order, 0)]
    parts = list(batches(shuffled, batch_size, False))[:3]
    n_rows = sum(map(len, parts))
    total = {name: torch.zeros_like(p) for name, p in before.items()}
    other.built.model.train()
    for part in parts:
        other.built.model.zero_grad()
        index = torch.from_numpy(part)
        logits = other.built.model(other.dataset.rows.inputs[index])
        (target,) = (t.long() for t in other.dataset.rows.target.values())
        loss = sum(
            nn.functional.cross_entropy(logits[t], target[index, i], reduction="sum")
            for i, t in enumerate("ab")
        )
        assert isinstance(loss, Tensor)
        loss.backward()
        for name, p in other.built.model.named_parameters():
            assert p.grad is not None
            total[name] += p.grad / n_rows
    list(fit(trainer))
    for name, p in trainer.built.model.named_parameters():
        lr = 10.0 if name.startswith("trunk.stitches") else 1.0
        # logits pass through float32 on their way into the loss
        torch.testing.assert_close(p.detach(), before[name] - lr * total[name], rtol=1e-5, atol=1e-6)


def test_clipping_bounds_the_whole_gradient() -> None:
    recipe = toy(optimizer={"kind": "sgd", "lr": 1.0}, train__clip_norm=0.01, train__max_steps=1,
                 train__epochs=None, model__sharing={"kind": "cross_stitch", "after": ["fc1"]})  # fmt: skip
    trainer = trainer_of(recipe)
    before = {name: p.detach().clone() for name, p in trainer.built.model.named_parameters()}
    list(fit(trainer))
    moved = [(p.detach() - before[name]).flatten() for name, p in trainer.built.model.named_parameters()]
    assert torch.cat(moved).norm().item() == pytest.approx(0.01, rel=1e-4)


def test_a_loose_clip_changes_nothing() -> None:
    assert_equal(trained(toy())[0], trained(toy(train__clip_norm=1e6))[0])


# --- what is watched changes nothing ----------------------------------------------------------------------

WATCHED: dict[str, dict[str, Any]] = {
    "monitor": {"train__monitor": "test"},
    "every-2": {"train__evaluate_every": {"epochs": 2}},
    "each-step": {"train__evaluate_every": {"steps": 1}, "train__monitor": "test"},
    "save-rarely": {"train__checkpoint": {"every": {"epochs": 3}}},
    "loose-stopping": {"train__early_stopping": {"patience": 1000}},
    "plain": {},
}


@pytest.mark.parametrize("watched", WATCHED)
def test_watching_changes_no_bit(watched: str) -> None:
    """Q4, dropout on: the same training rows, evaluated as much as there is to evaluate and not at all."""
    same = {"data__split": {"validation": 0.25}, "model__head": {"dropout": 0.3}}
    never = trainer_of(toy(**same, train__evaluate_every={"epochs": 1000}))
    del never.dataset.splits["validation"]
    list(fit(never))
    watching, epochs = trained(toy(**same, **WATCHED[watched]))
    assert any(row["split"] == "validation" for epoch in epochs for row in epoch.rows)
    assert_equal(never, watching)


def test_evaluation_between_epochs_draws_nothing() -> None:
    recipe = toy(model__head={"dropout": 0.5})
    one, two = trainer_of(recipe), trainer_of(recipe)
    list(fit(one))

    for event in fit(two):
        if isinstance(event, Stepped):
            evaluate_split(two, "test")
            torch.rand(3)
    assert_equal(one, two)


# --- how far, how often -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "steps"),
    [
        ({"epochs": 3}, [4, 4, 4]),
        ({"epochs": 2, "drop_last": True}, [3, 3]),
        ({"epochs": 2, "accumulate": 3}, [2, 2]),
        ({"epochs": 1, "accumulate": 100}, [1]),
        ({"epochs": 2, "batch_size": 33}, [3, 3]),  # a last batch of one row joins the one before
        ({"epochs": 1, "batch_size": 1000}, [1]),
        ({"max_steps": 6}, [4, 2]),
        ({"max_steps": 8}, [4, 4]),
        ({"max_steps": 1}, [1]),
        ({"max_steps": 5, "accumulate": 2}, [2, 2, 1]),
    ],
)
def test_steps_and_progress(train: dict[str, Any], steps: list[int]) -> None:
    recipe = toy(train={"batch_size": 32, "device": "cpu", **train})
    trainer = trainer_of(recipe)
    events = list(fit(trainer))
    seen = [(event.epoch, event.step, event.n_steps) for event in events if isinstance(event, Stepped)]
    epochs = [event for event in events if isinstance(event, EpochEnded)]
    assert seen == [(epoch, step, n) for epoch, n in enumerate(steps) for step in range(1, n + 1)]
    assert [epoch.rows[0]["step"] for epoch in epochs] == [sum(steps[: k + 1]) for k in range(len(steps))]
    assert [epoch.rows[0]["epoch"] for epoch in epochs] == list(range(1, len(steps) + 1))
    assert [epoch.is_last for epoch in epochs] == [False] * (len(steps) - 1) + [True]
    assert (trainer.progress.step, trainer.total_steps) == (sum(steps), sum(steps))


def test_the_learning_rate_follows_the_schedule() -> None:
    recipe = toy(schedule={"kind": "one_cycle"}, optimizer={"kind": "adam", "lr": 0.02})
    trainer = trainer_of(recipe)
    rates = [
        {group["lr_scale"]: group["lr"] for group in trainer.optimizer.param_groups}
        for event in fit(trainer)
        if isinstance(event, Stepped)
    ]
    assert len(rates) == 12
    for step, rate in enumerate(rates):
        factor = recipe.schedule.factor(step, 12)
        assert rate[1.0] == pytest.approx(0.02 * factor, rel=1e-12)
        assert rate[10.0] == pytest.approx(0.2 * factor, rel=1e-12)
    names = [name for g in trainer.optimizer.param_groups if g["lr_scale"] == 10 for name in g["names"]]
    assert names == ["trunk.stitches.fc1.alpha", "trunk.stitches.fc2.alpha"]


@pytest.mark.parametrize("optimizer", [{"kind": "adam", "l2": 5.0}, {"kind": "adamw", "weight_decay": 5.0},
                                       {"kind": "sgd", "l2": 0.5}])  # fmt: skip
def test_only_weights_decay(optimizer: dict[str, Any]) -> None:
    """With no gradient from the loss, decay is all that moves a parameter."""
    recipe = toy(optimizer={"lr": 0.1, **optimizer}, train__max_steps=3, train__epochs=None)
    trainer = trainer_of(recipe)
    trainer.weighting.task_weights.zero_()
    before = {name: p.detach().clone() for name, p in trainer.built.model.named_parameters()}
    list(fit(trainer))
    moved = {n for n, p in trainer.built.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {name for name, p in before.items() if p.ndim > 1 and ".stitches." not in name}
    assert moved
    for name in moved:
        assert trainer.built.model.get_parameter(name).norm() < before[name].norm()


def test_a_batch_without_labels_of_a_task_is_no_fault() -> None:
    """D21: 3 of 100 rows have a label of task b, so most batches have none."""
    source = {
        "kind": "synthetic",
        "tasks": 2,
        "rows": 100,
        "test_rows": 30,
        "features": 8,
        "labelled": [1.0, 0.03],
    }
    recipe = toy(data__source=source, task_defaults={"kind": "multiclass", "missing": "mask"}, seed=1)
    trainer, epochs = trained(recipe)
    assert epochs[-1].rows[0]["train/b/labels"] == 3
    assert all(value is not None for value in epochs[-1].rows[0].values())
    assert all(torch.isfinite(value).all() for value in weights(trainer).values())


def test_bfloat16() -> None:
    full, half = trained(toy())[1], trained(toy(train__precision="bfloat16"))
    assert half[1][-1].rows[0]["train/a/loss"] == pytest.approx(full[-1].rows[0]["train/a/loss"], rel=0.05)
    assert half[1][-1].rows[0] != full[-1].rows[0]
    assert {p.dtype for p in half[0].built.model.parameters()} == {torch.float32}


# --- not finite -------------------------------------------------------------------------------------------


def spoil(*rows: int, value: float = math.inf) -> Callable[[Tensor], None]:
    def change(inputs: Tensor) -> None:
        inputs[list(rows)] = value

    return change


def first_row_of_batch(recipe: Recipe, step: int) -> int:
    """A row that is seen first in this step (of the first epoch)."""
    return int(order(100, recipe.seeds.order, 0)[32 * step])


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_stops(value: float) -> None:
    recipe = toy(schedule={"kind": "constant", "warmup_steps": 8})
    trainer = trainer_of(recipe, change=spoil(first_row_of_batch(recipe, 2), value=value))
    with pytest.raises(NotFinite) as caught:
        list(fit(trainer))
    text = str(caught.value)
    assert text.startswith(
        "task 'a': loss is nan; task 'b': loss is nan at step 2 (epoch 1, lr 0.00375, batch of rows "
    )
    assert "; lower optimizer.lr, set train.clip_norm, or check the inputs" in text
    assert "\n" not in text
    assert caught.value.code == NOT_FINITE
    assert trainer.progress.step == 2
    assert all(torch.isfinite(p).all() for p in trainer.built.model.parameters())


def test_only_the_task_at_fault_is_named() -> None:
    trainer = trainer_of(toy(model__sharing={"kind": "none"}))
    with torch.no_grad():
        trainer.built.model.trunk.get_parameter("towers.stages.fc2.map.weight")[5:] = (
            math.nan
        )  # the second tower's
    with pytest.raises(
        NotFinite, match=r"^task 'b': loss is nan at step 0 \(epoch 1, lr 0\.01, batch of rows \d"
    ):
        list(fit(trainer))


def test_a_gradient_that_is_not_finite_is_found() -> None:
    trainer = trainer_of(toy())
    parameter = next(trainer.built.model.parameters())
    parameter.register_hook(lambda grad: torch.full_like(grad, math.inf))
    with pytest.raises(NotFinite, match=r"the gradient's norm is inf at step 0"):
        list(fit(trainer))


def test_skipping_goes_on_and_counts() -> None:
    recipe = toy(train__on_nonfinite="skip", train__epochs=3)
    row = first_row_of_batch(recipe, 1)
    trainer, epochs = trained(recipe, change=spoil(row))
    assert trainer.progress.skipped == 3  # the row comes once an epoch
    assert trainer.progress.step == 12
    assert all(torch.isfinite(p).all() for p in trainer.built.model.parameters())
    assert all(epoch.rows[0]["train/a/loss"] is not None for epoch in epochs)


def test_a_skipped_step_leaves_no_trace_in_running_statistics() -> None:
    """What a skipped batch left in batch norm would spoil every evaluation from then on."""
    recipe = toy(train__on_nonfinite="skip")
    trainer, _ = trained(recipe, change=spoil(first_row_of_batch(recipe, 1)))
    assert trainer.progress.skipped == 3
    spoiled = [name for name, value in weights(trainer).items() if not torch.isfinite(value).all()]
    assert spoiled == []


def test_skipping_gives_up() -> None:
    recipe = toy(train__on_nonfinite="skip", train__epochs=100)
    trainer = trainer_of(recipe, change=spoil(*range(100)))
    with pytest.raises(NotFinite, match="task 'a': loss is nan"):
        list(fit(trainer))
    assert trainer.progress.skipped == MAX_SKIPS + 1 == 11


def test_a_good_step_starts_the_count_again() -> None:
    recipe = toy(train__on_nonfinite="skip", train__epochs=5, train__batch_size=10)
    bad = [int(order(100, 5, 0)[10 * step]) for step in range(6)]
    trainer, _ = trained(recipe, change=spoil(*bad))
    assert trainer.progress.skipped > MAX_SKIPS


# --- choosing ---------------------------------------------------------------------------------------------


def scripted(monkeypatch: pytest.MonkeyPatch, values: Sequence[float | None]) -> Iterator[Any]:
    """Let validation give these accuracies in turn."""
    given = iter(values)

    def fake(trainer: Trainer, split: str, *_: object) -> dict[str, Any]:
        value = next(given) if split == "validation" else 0.99
        return {f"{split}/a/loss": 1.0, f"{split}/b/loss": 1.0, f"{split}/mean/accuracy": value}

    monkeypatch.setattr("mtl.training.loop.evaluate_split", fake)
    return given


@pytest.mark.parametrize(
    ("values", "best_epoch", "epochs", "stopped"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 6, 6, False),
        ([0.5, 0.4, 0.3, 0.9, 0.9, 0.9], 1, 3, True),
        ([0.5, 0.4, 0.6, 0.5, 0.6, 0.9], 3, 5, True),  # an equal value is no improvement
        ([None, 0.2, 0.1, 0.3, 0.2, 0.1], 4, 6, True),  # F17: NaN is never the best
        ([None, None, 0.2, 0.1, 0.3, 0.2], 5, 6, False),  # no value is no evaluation without a better one
        ([0.5, None, 0.4, None, None, 0.3], 1, 6, True),
        ([0.5, None, 0.6, None, 0.7, 0.8], 6, 6, False),
    ],
)
def test_early_stopping(
    values: list[float | None], best_epoch: int | None, epochs: int, stopped: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    scripted(monkeypatch, values)
    recipe = toy(
        data__split={"validation": 0.25}, train__epochs=6, train__early_stopping={"patience": 2},
        train__monitor="test",
    )  # fmt: skip
    trainer, seen = trained(recipe)
    progress = trainer.progress
    assert (progress.best_epoch, progress.epoch, progress.stopped) == (best_epoch, epochs, stopped)
    assert [epoch.is_last for epoch in seen] == [False] * (epochs - 1) + [True]
    assert progress.best == (values[best_epoch - 1] if best_epoch else None)
    assert progress.best_step == (best_epoch * trainer.steps_per_epoch if best_epoch else None)
    improved = [v is not None and v > max([-1.0, *(w for w in values[:k] if w is not None)])
                for k, v in enumerate(values[:epochs])]  # fmt: skip
    assert [epoch.is_best for epoch in seen] == improved


def test_patience_counts_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [0.5, 0.4, 0.3, 0.2])
    recipe = toy(
        data__split={"validation": 0.25}, train__epochs=20, train__early_stopping={"patience": 2},
        train__evaluate_every={"epochs": 3},
    )  # fmt: skip
    trainer, _ = trained(recipe)
    assert (trainer.progress.best_epoch, trainer.progress.epoch) == (3, 9)


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        ({}, [(1, 4), (2, 8), (3, 12)]),
        ({"epochs": 2}, [(2, 8), (3, 12)]),
        ({"steps": 1}, [(1 + (step - 1) // 4, step) for step in range(1, 13)]),
        ({"steps": 3}, [(1, 3), (2, 6), (3, 9), (3, 12)]),
        ({"steps": 4}, [(1, 4), (2, 8), (3, 12)]),
        ({"steps": 5}, [(2, 5), (3, 10), (3, 12)]),  # and after the last step
        ({"steps": 100}, [(3, 12)]),
    ],
)
def test_when_it_is_evaluated(every: dict[str, int], expected: list[tuple[int, int]]) -> None:
    """(epoch, step) of each evaluation; the training rows are those of whole epochs all the same."""
    recipe = toy(data__split={"validation": 0.25}, train__batch_size=24, train__evaluate_every=every)
    trainer, seen = trained(recipe)
    assert trainer.steps_per_epoch == 4
    rows = [row for event in seen for row in event.rows]
    at = {
        split: [(r["epoch"], r["step"]) for r in rows if r["split"] == split]
        for split in ("train", "validation")
    }
    assert at == {"train": [(1, 4), (2, 8), (3, 12)], "validation": expected}
    assert sum(isinstance(event, EpochEnded) for event in seen) == 3
    assert trainer.progress.evaluated == 12


def test_stopped_early_within_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The epoch is closed where it was left: what it trained is measured, and nothing is evaluated twice."""
    scripted(monkeypatch, [0.5, 0.6, 0.4, 0.3])
    recipe = toy(
        data__split={"validation": 0.25}, train__batch_size=24, train__epochs=20,
        train__early_stopping={"patience": 2}, train__evaluate_every={"steps": 3},
    )  # fmt: skip
    trainer, seen = trained(recipe)
    progress = trainer.progress
    assert (progress.best, progress.best_epoch, progress.best_step) == (0.6, 2, 6)
    assert (progress.step, progress.epoch, progress.step_in_epoch) == (12, 3, 0)
    assert [event.is_best for event in seen] == [True, False, True, False, False, False]
    *_, last = seen
    assert isinstance(last, EpochEnded)
    assert last.is_last
    assert [row["split"] for row in last.rows] == ["train", "validation"]


def test_stopped_early_in_the_midst_of_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [0.5, 0.4])
    recipe = toy(
        data__split={"validation": 0.25}, train__batch_size=24, train__epochs=20,
        train__early_stopping={"patience": 1}, train__evaluate_every={"steps": 3},
    )  # fmt: skip
    trainer, seen = trained(recipe)
    progress = trainer.progress
    assert (progress.step, progress.epoch, progress.step_in_epoch) == (6, 2, 0)
    *_, last = seen
    assert isinstance(last, EpochEnded)
    assert (last.is_last, last.is_best, last.steps) == (True, False, 2)
    assert [(row["split"], row["step"]) for row in last.rows] == [("train", 6)]


def test_without_validation_nothing_is_selected() -> None:
    trainer, epochs = trained(toy(train__monitor="test"))
    assert (trainer.progress.best, trainer.progress.best_step) == (None, None)
    assert not any(epoch.is_best for epoch in epochs)
    assert all(epoch.rows[-1]["split"] == "test" for epoch in epochs)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (None, ("validation/mean/accuracy", True)),
        ("validation/a/loss", ("validation/a/loss", False)),
        ("validation/b/macro_f1", ("validation/b/macro_f1", True)),
        ("validation/mean/accuracy", ("validation/mean/accuracy", True)),
    ],
)
def test_the_selecting_metric(metric: str | None, expected: tuple[str, bool]) -> None:
    stopping = {"patience": 1, **({"metric": metric} if metric else {})}
    recipe = toy(data__split={"validation": 0.25}, train__early_stopping=stopping)
    assert selecting_metric(recipe, {}) == expected
    trainer, _ = trained(recipe)
    assert trainer.progress.best is not None


def headlines_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("mtl.training.selection", "mtl.evaluation.meter"):
        monkeypatch.setattr(f"{module}.mean_metric", lambda tasks: "loss")


def test_the_mean_loss_selects_where_headlines_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    headlines_differ(monkeypatch)
    recipe = toy(
        data__split={"validation": 0.25},
        tasks={"a": {"target": "task0", "weight": 3.0}, "b": {"target": "task1"}},
    )
    trainer, epochs = trained(recipe)
    means = [(3 * e.rows[1]["validation/a/loss"] + e.rows[1]["validation/b/loss"]) / 4 for e in epochs]
    assert trainer.progress.best == pytest.approx(min(means))
    assert trainer.progress.best_epoch == 1 + means.index(min(means))


def test_a_mean_loss_that_is_undefined_is_never_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    headlines_differ(monkeypatch)
    undefined = {"validation/mean/loss": None}
    monkeypatch.setattr("mtl.training.loop.evaluate_split", lambda trainer, split, between: undefined)
    trainer, _ = trained(toy(data__split={"validation": 0.25}))
    assert trainer.progress.best is None


@pytest.mark.parametrize("metric", ["validation/a/accurcy", "validation/mean/loss"])
def test_a_metric_that_is_not_there_is_refused_before_training(metric: str) -> None:
    with pytest.raises(UserError, match=metric.split("/")[-1]):
        trainer_of(toy(data__split={"validation": 0.25}, train__early_stopping={"metric": metric}))


def test_early_stopping_without_validation_is_refused_before_training() -> None:
    with pytest.raises(UserError, match="validation"):
        trainer_of(toy(train__early_stopping={"patience": 1}))


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({}, 100),  # steps of 32, 32, 32 and 4
        ({"batch_size": 33}, 100),  # the last row joins the third batch
        ({"accumulate": 3}, 100),
        ({"drop_last": True}, 96),
        (
            {"batches": {"min_labelled": {"a": 16}}},
            200,
        ),  # of each 32 rows 16 are the epoch's own, but for the last 4
    ],
)
def test_the_rows_of_an_epoch_are_counted_as_they_come(train: dict[str, Any], expected: int) -> None:
    trainer = trainer_of(toy(train={**BASE["train"], **train, "epochs": 2}))
    drawn = [sum(map(len, trainer.sampler.batches(epoch))) for epoch in range(2)]
    ended = [event for event in fit(trainer) if isinstance(event, EpochEnded)]
    assert [event.n_rows for event in ended] == drawn
    assert drawn[0] == pytest.approx(expected, abs=16 if expected == 200 else 0)


def test_rows_of_an_epoch_add_up() -> None:
    """The running train metrics of an epoch with lr ~ 0 are those of the rows, each seen once."""
    recipe = toy(
        optimizer={"kind": "sgd", "lr": 1e-30},
        train__epochs=1,
        model__backbone__norm={"kind": "none"},
        model__backbone__init="he",  # logits far enough apart for no batch size to turn one over
    )
    trainer, epochs = trained(recipe)
    expected = evaluate_split(trainer, "train")
    row = epochs[0].rows[0]
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=1e-5), name
    assert replace(epochs[0], rows=[]).seconds["train"] > 0
