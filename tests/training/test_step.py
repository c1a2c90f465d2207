"""One step: what a loss is divided by, parts that count as one batch, and tasks that no row of a step has a label of.

In float64, without batch norm, by SGD without momentum and decay. Shapes: N tasks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtl.build import build
from mtl.data.rows.order import order
from mtl.data.types import Columns, Header, Rows
from mtl.dataset.assemble import Dataset, load_dataset
from mtl.errors import UserError
from mtl.recipe.load import load_recipe
from mtl.recipe.specs import TASKS, WEIGHTINGS
from mtl.sources.synthetic import Synthetic
from mtl.training.backward import totals_of
from mtl.training.loop import fit
from mtl.training.trainer import Trainer

N_TRAIN, N_TEST, N_STEP = 400, 100, 200  # 2% of the rows of a step are four
CLASSES = ("often", "seldom", "rare")
KINDS: dict[str, dict[str, Any]] = {
    "multiclass": {"target": "of_three"},
    "binary": {"target": "yes", "positive": 1},
    "multilabel": {"targets": ("left", "right")},
    "regression": {"target": "amount"},
    "ordinal": {"target": "of_three"},
}
WEIGHTED: dict[str, dict[str, Any]] = {
    "multiclass": {"class_weights": {"rare": 20.0, "seldom": 0.5}},
    "binary": {"positive_weight": 7.0},
    "multilabel": {"positive_weight": "balanced"},
    "ordinal": {"class_weights": "balanced"},
}
TWIN: dict[str, dict[str, Any]] = {
    "multiclass": {"target": "three_too"},
    "binary": {"target": "always", "positive": 1},
    "multilabel": {"targets": ("up", "down")},
    "regression": {"target": "also"},
    "ordinal": {"target": "three_too"},
}
"""Other columns for the same kind; every row has these labels."""


def test_every_kind_is_here() -> None:
    assert {name for name in TASKS.names() if "." not in name} == set(KINDS)


def columns(labelled: float = 1.0) -> Columns:
    """Every label is there in a share of the rows of its own; `weight` is 0 in some rows."""
    draw, n = np.random.default_rng(0), N_TRAIN + N_TEST
    labels = {
        "of_three": np.array([0] * 6 + [1] * 3 + [2])[draw.integers(0, 10, n)],
        "yes": draw.integers(0, 2, n),
        "left": (draw.random(n) < 0.2).astype(np.int64),
        "right": draw.integers(0, 2, n),
        "amount": draw.normal(50, 9, n),
        "always": draw.integers(0, 2, n),
        "also": draw.normal(0, 1, n),
        "three_too": draw.integers(0, 3, n),
        "up": draw.integers(0, 2, n),
        "down": draw.integers(0, 2, n),
    }
    present = {name: np.ones(n, bool) for name in labels}
    if labelled < 1:
        for name in MASKED:
            present[name] = draw.permutation(n) % N_STEP < labelled * N_STEP
    weight = draw.exponential(2, n) * (draw.random(n) < 0.8)
    splits = {"train": np.arange(N_TRAIN), "test": np.arange(N_TRAIN, n)}
    return Columns(
        draw.normal(size=(n, 5)).astype(np.float32), labels, splits, "0" * 64, present=present,
        extra={"weight": weight},
    )  # fmt: skip


HEADER = Header(
    input_shape=(5,),
    labels={
        **dict.fromkeys(("of_three", "three_too"), CLASSES),
        **dict.fromkeys(("yes", "left", "right", "always", "up", "down"), ("no", "yes")),
        **dict.fromkeys(("amount", "also")),
    },
)
MASKED = ("of_three", "yes", "left", "right", "amount")
ALWAYS = {"kind": "multiclass", "target": "always"}


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`given(columns)` makes them the data of every recipe here."""

    def give(own: Columns) -> None:
        monkeypatch.setattr(Synthetic, "header", lambda self: HEADER)
        monkeypatch.setattr(Synthetic, "columns", lambda self, seed: own)

    return give


def task_of(kind: str, *, weighted: bool = False, sampled: bool = False, **options: Any) -> dict[str, Any]:
    own = {"kind": kind, "missing": "mask", **KINDS[kind], **(WEIGHTED[kind] if weighted else {}), **options}
    return {**own, "sample_weight": "weight"} if sampled else own


def values_of(tasks: dict[str, Any], *, parts: int = 1, **sections: Any) -> dict[str, Any]:
    """Recipe of one step on N_STEP rows, in so many parts."""
    return {
        "schema_version": 1,
        "name": "step",
        "data": {"source": {"kind": "synthetic"}},
        "tasks": tasks,
        "model": {
            "towers": "one",
            "backbone": {"kind": "layers", "norm": {"kind": "none"}, "activation": "tanh",
                         "stages": [{"name": "fc1", "kind": "linear", "features": 6}]},
        },
        "optimizer": {"kind": "sgd", "lr": 0.5},
        "train": {"max_steps": 1, "batch_size": N_STEP // parts, "accumulate": parts, "device": "cpu"},
        **sections,
    }  # fmt: skip


def trainer_of(values: dict[str, Any], dataset: Dataset | None = None) -> Trainer:
    recipe = load_recipe(values)
    dataset = dataset or load_dataset(recipe, HEADER)
    built = build(recipe, dataset.header, dataset.learned)
    built.model.double()
    trainer = Trainer.create(recipe, built, dataset)
    trainer.weighting.double()
    return trainer


def group_of(trainer: Trainer, task: str) -> str:
    return trainer.built.model.places[task][0]


def parameters(trainer: Trainer) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in trainer.built.model.named_parameters()}


def moved(trainer: Trainer) -> dict[str, Tensor]:
    """By how much one step moves each parameter."""
    before = parameters(trainer)
    list(fit(trainer))
    assert trainer.progress.step == 1
    return {name: value - before[name] for name, value in parameters(trainer).items()}


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor], rtol: float = 1e-6) -> None:
    """Each parameter to `rtol` of its largest number."""
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=rtol, atol=rtol * value.abs().max().item())


def first_step() -> Rows:
    """The rows of the first step."""
    return order(N_TRAIN, 0, 0)[:N_STEP]


# --- parts that count as one batch --------------------------------------------------------------------------


@pytest.mark.parametrize("labelled", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("sampled", [False, True], ids=["alike", "sampled"])
@pytest.mark.parametrize(
    ("kind", "weighted"), [*((kind, False) for kind in KINDS), *((kind, True) for kind in WEIGHTED)]
)
def test_parts_are_one_batch(kind: str, weighted: bool, sampled: bool, labelled: float, given: Any) -> None:
    own = columns(labelled)
    given(own)
    for name in MASKED:  # the parts have their labels unevenly
        assert len({np.count_nonzero(own.present[name][part]) for part in np.split(first_step(), 4)}) > 1
    tasks = {"its": task_of(kind, weighted=weighted, sampled=sampled), "always": ALWAYS}
    whole = trainer_of(values_of(tasks))
    wanted = moved(whole)
    assert wanted[f"task_modules.{group_of(whole, 'its')}.head.linear.weight"].any()
    for parts in (2, 4):
        assert_close(moved(trainer_of(values_of(tasks, parts=parts), whole.dataset)), wanted)


@pytest.mark.parametrize("weighting", WEIGHTINGS.names())
def test_parts_are_one_batch_under_every_weighting(weighting: str, given: Any) -> None:
    given(columns(1.0 if WEIGHTINGS[weighting].stateful else 0.1))
    tasks = {
        "its": task_of("multiclass", weighted=True, sampled=True),
        "always": ALWAYS,
        "yes": task_of("binary"),
    }
    own: dict[str, Any] = {"weighting": {"kind": weighting}}
    whole = trainer_of(values_of(tasks, **own))
    wanted = moved(whole)
    assert all(value.any() for value in wanted.values())
    memory = {name: value.clone() for name, value in whole.weighting.state_dict().items()}
    for parts in (2, 4):
        if whole.weighting.needs == "totals":  # which no part alone gives
            continue
        trainer = trainer_of(values_of(tasks, parts=parts, **own), whole.dataset)
        assert_close(moved(trainer), wanted)
        assert_close(dict(trainer.weighting.state_dict()), memory)


# --- by what a loss is divided ------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True], ids=["classes_alike", "classes_weighted"])
@pytest.mark.parametrize("sampled", [False, True], ids=["alike", "sampled"])
def test_the_denominator(sampled: bool, weighted: bool, given: Any) -> None:
    """The rows of the step that count, times the mean weight of the training rows that count."""
    own = columns(0.5)
    given(own)
    trainer = trainer_of(
        values_of({"its": task_of("multiclass", weighted=weighted, sampled=sampled), "always": ALWAYS})
    )
    weight = own.present["of_three"] * np.where(sampled, own.extra["weight"], 1.0).astype(np.float32)
    weight = weight * (np.array([1.0, 0.5, 20.0])[own.labels["of_three"]] if weighted else 1.0)
    of_train = weight[:N_TRAIN]
    mean = of_train[of_train > 0].mean()
    counting = np.count_nonzero(weight[first_step()])
    module = trainer.modules[group_of(trainer, "its")]
    assert module.mean_weight.tolist() == pytest.approx([mean], rel=1e-6)
    rows = first_step()
    for cut in ([rows], np.split(rows, 4)):
        totals = totals_of(trainer, [trainer.dataset.rows.targets(part) for part in cut])
        assert totals.counted_N.tolist() == pytest.approx([counting * mean, N_STEP], rel=1e-6)
        assert totals.seen_N.tolist() == [True, True]
    assert (mean != 1) == (sampled or weighted)
    assert mean * counting != pytest.approx(weight[rows].sum(), rel=1e-5) or not (sampled or weighted)


def test_a_positive_weight_is_no_weight_of_a_row(given: Any) -> None:
    """As in torch, whose mean divides by the rows."""
    given(columns())
    trainer = trainer_of(values_of({"its": task_of("binary", weighted=True)}))
    (module,) = trainer.modules.values()
    assert module.mean_weight.tolist() == [1.0]
    batch = trainer.dataset.rows.batch(first_step())
    logits = trainer.built.model(batch.inputs)["its"][:, 0]
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, batch.target["binary_1"][:, 0].double(), pos_weight=torch.tensor(7.0)
    )
    gradient = torch.autograd.grad(wanted, list(trainer.built.model.trunk.parameters()))
    found = moved(trainer)
    for value, (name, _) in zip(gradient, trainer.built.model.trunk.named_parameters(), strict=True):
        torch.testing.assert_close(found[f"trunk.{name}"], -0.5 * value, rtol=1e-5, atol=1e-8)


# --- a task that no row of the step has a label of ----------------------------------------------------------


def unlabelled_in_the_first_step(own: Columns, *names: str) -> Columns:
    """Labels of some columns are in rows of other steps and of the test split only."""
    there = np.ones(N_TRAIN + N_TEST, bool)
    there[first_step()] = False
    present = {**own.present, **dict.fromkeys(names, there)}
    return Columns(own.inputs, own.labels, own.splits, own.fingerprint, present=present, extra=own.extra)


ALONE: dict[str, dict[str, Any]] = {
    "apart": {"towers": "per_task", "sharing": {"kind": "none"}},
    "one_tower": {"towers": "one", "sharing": {"kind": "none"}},
}


def head_of(trainer: Trainer, task: str) -> dict[str, Tensor]:
    """The slices of one task."""
    module = trainer.modules[group_of(trainer, task)]
    t, n = module.tasks.index(task), len(module.tasks)
    return {key: p.detach().chunk(n)[t].clone() for key, p in module.named_parameters()}


def towers_of(trainer: Trainer) -> dict[str, Tensor]:
    """(tower, parameter) -> its slice."""
    trunk = trainer.built.model.trunk
    return {
        f"{tower}: {name}": own.clone()
        for name, p in trunk.named_parameters()
        for tower, own in zip(trunk.copies, p.detach().chunk(len(trunk.copies)), strict=True)
    }


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("why", ["no_label", "weight_0"])
@pytest.mark.parametrize("towers", ALONE)
@pytest.mark.parametrize("kind", KINDS)
def test_a_task_that_is_not_seen_is_as_if_it_were_not_there(
    kind: str, towers: str, why: str, parts: int, given: Any
) -> None:
    """Its head keeps its bits, and all that others have moves as without it, as far as float32 of a loss goes."""
    given(unlabelled_in_the_first_step(columns(), *(MASKED if why == "no_label" else ())))
    options = WEIGHTED.get(kind, {})
    weight = {"weight": 0.0} if why == "weight_0" else {}
    unseen = {"unseen": {"kind": kind, "missing": "mask", **KINDS[kind], **options, **weight}}
    others = {"twin": {"kind": kind, **TWIN[kind], **options}, "always": {**ALWAYS, "weight": 2.0}}
    base = values_of({}, parts=parts)
    model = {**base["model"], **ALONE[towers]}
    both = trainer_of({**base, "model": model, "tasks": unseen | others})
    assert group_of(both, "unseen") == group_of(both, "twin")
    alone = trainer_of({**base, "model": model, "tasks": others})
    head, towers_before = head_of(both, "unseen"), towers_of(both)
    list(fit(both))
    list(fit(alone))
    assert all(torch.equal(value, head[name]) for name, value in head_of(both, "unseen").items())
    for task in others:
        assert_close(head_of(both, task), head_of(alone, task), rtol=1e-7)
    ours, theirs = towers_of(both), towers_of(alone)
    assert_close({name: ours[name] for name in theirs}, theirs, rtol=1e-7)
    own = [name for name in ours if name not in theirs]
    assert len(own) == (len(theirs) // 2 if towers == "apart" else 0)
    assert all(torch.equal(ours[name], towers_before[name]) for name in own)
    assert any(not torch.equal(ours[name], towers_before[name]) for name in theirs)


@pytest.mark.parametrize("weighting", WEIGHTINGS.names())
def test_a_task_that_is_not_seen_has_no_part_in_any_weighting(weighting: str, given: Any) -> None:
    given(unlabelled_in_the_first_step(columns(), "yes"))
    seen = {"always": ALWAYS, "its": task_of("multiclass", weighted=True)}
    own: dict[str, Any] = {"weighting": {"kind": weighting}}
    given_both = values_of({"yes": task_of("binary"), **seen}, **own)
    if WEIGHTINGS[weighting].stateful:
        with pytest.raises(UserError, match=f"{weighting} remembers all tasks together, and task 'yes'"):
            trainer_of(given_both)
        return
    both = trainer_of(given_both)
    alone = trainer_of(values_of(seen, **own))
    head, before = head_of(both, "yes"), towers_of(both)
    rows = [list(fit(trainer))[-1].rows[0] for trainer in (both, alone)]
    assert all(torch.equal(value, head[name]) for name, value in head_of(both, "yes").items())
    assert all(not torch.equal(value, before[name]) for name, value in towers_of(both).items())
    assert "train/yes/loss_weight" not in rows[0]
    if weighting == "rlw":  # three tasks draw other numbers than two
        return
    assert_close(towers_of(both), towers_of(alone))
    for task in seen:
        assert_close(head_of(both, task), head_of(alone, task))
        key = f"train/{task}/loss_weight"
        assert rows[0].get(key) == pytest.approx(rows[1].get(key), rel=1e-6)


# --- the solution does not depend on the batch size ---------------------------------------------------------

RARE: dict[str, tuple[float, dict[str, Any]]] = {
    "class_weights": (0.1, {"kind": "multiclass", "class_weights": {"yes": 20.0}}),
    "sample_weight": (0.2, {"kind": "binary", "sample_weight": "weight"}),
}
"""The learning rate, and the task: two logits go apart twice as fast as one moves."""


@pytest.mark.parametrize("how", RARE)
def test_a_weight_means_the_same_at_every_batch_size(how: str, given: Any) -> None:
    """A tenth of the rows weighs 20 times as much, and inputs say nothing: p(rare) is 20 * 0.1 / (20 * 0.1 + 0.9).

    The rate falls to 0 along a cosine, over more steps where a step sees few rows, so that their noise is averaged.
    """
    (lr, task), n, steps_of = RARE[how], 1020, {512: 300, 64: 300, 8: 1000}
    rare = np.arange(n) % 10 == 0
    splits = {"train": np.arange(1000), "test": np.arange(1000, n)}
    weight = {"weight": np.where(rare, 20.0, 1.0)}
    given(
        Columns(np.ones((n, 5), np.float32), {"yes": rare.astype(np.int64)}, splits, "0" * 64, extra=weight)
    )
    assert rare[:1000].mean() == 0.1
    found = {}
    for batch_size, steps in steps_of.items():
        trainer = trainer_of(
            values_of(
                {"it": {"target": "yes", **task}},
                optimizer={"kind": "sgd", "lr": lr},
                schedule={"kind": "cosine"},
                train={"max_steps": steps, "batch_size": batch_size, "device": "cpu"},
            )
        )
        list(fit(trainer))
        logits = trainer.built.model(trainer.dataset.rows.batch(np.arange(1)).inputs)
        (module,) = trainer.modules.values()
        p = module.predict(logits.groups[group_of(trainer, "it")])["p"]
        found[batch_size] = p.flatten()[-1].item()
    truth = 20 * 0.1 / (20 * 0.1 + 0.9)
    assert truth == pytest.approx(0.690, abs=5e-4)
    assert found == pytest.approx(dict.fromkeys(found, truth), abs=0.01)
    assert max(found.values()) - min(found.values()) < 0.01
