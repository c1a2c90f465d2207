"""Tasks of one kind and options are computed together, and each as if it were alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics import Metric

from mtl.build import build
from mtl.data.learned import Learned
from mtl.experiment.trial import build_and_try
from mtl.model.layers import GroupedLinear
from mtl.model.tasks.heads import GroupedHead
from mtl.model.tasks.kinds import YesNo
from mtl.model.tasks.module import TaskModule
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from mtl.recipe.specs import TASKS, TaskSpec
from mtl.task_groups import task_groups
from mtl.tasks import Binary
from mtl.training.selection import selecting_metric
from tests.support.task_samples import OPTIONS, example, mean_loss, module_of

KINDS = sorted(TASKS.names())
BACKBONE = {"kind": "layers", "stages": [{"name": "fc", "kind": "linear", "features": 6}]}


def recipe(tasks: Mapping[str, Any], **changed: Any) -> Recipe:
    values: dict[str, Any] = {
        "schema_version": 1,
        "name": "groups",
        "data": {"source": {"kind": "synthetic", "tasks": 100, "rows": 40, "test_rows": 10, "features": 8, "latent": 1},
                 "split": {"validation": 0.25}},
        "tasks": dict(tasks),
        "model": {"towers": "one", "backbone": BACKBONE},
        "optimizer": {"kind": "sgd", "lr": 0.1},
        "train": {"epochs": 1},
    }  # fmt: skip
    return load_recipe({**values, **changed})


def groups_of(tasks: Mapping[str, Any], **changed: Any) -> dict[str, tuple[str, ...]]:
    built, _ = build_and_try(recipe(tasks, **changed))
    return {group.name: group.tasks for group in built.groups}


def test_100_binary_tasks_are_one_head_one_loss_and_one_metric() -> None:
    few = {f"t{t}": {"kind": "binary", "target": f"task{t}"} for t in range(2)}
    many = {f"t{t}": {"kind": "binary", "target": f"task{t}"} for t in range(100)}
    counts = []
    for tasks in (few, many):
        built = build_and_try(recipe(tasks))[0]
        (group,) = built.groups
        assert group.tasks == tuple(tasks)
        heads = [module for module in built.model.modules() if isinstance(module, GroupedHead)]
        assert len(heads) == 1
        assert sum(isinstance(module, GroupedLinear) for module in heads[0].modules()) == 1
        counts.append(len(list(built.model.modules())))
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("option", "groups"),
    [
        ({}, 1),
        ({"threshold": 0.3, "temperature": True, "fit_threshold": "f1"}, 1),
        ({"weight": 3.0, "missing": "mask", "metrics": ["f1"], "positive": 1}, 1),
        ({"label_smoothing": 0.1}, 2),
        ({"positive_weight": 2.0}, 2),
        ({"head": {"hidden": [3]}}, 2),
        ({"head": {"dropout": 0.2}}, 2),
    ],
)
def test_an_option_splits_a_group_where_the_computation_differs(option: dict[str, Any], groups: int) -> None:
    tasks = {f"t{t}": {"kind": "binary", "target": f"task{t}"} for t in range(4)}
    tasks["t2"] = {**tasks["t2"], **option}
    found = groups_of(tasks)
    assert len(found) == groups
    assert sorted(task for group in found.values() for task in group) == sorted(tasks)
    if groups == 2:
        assert found == {"binary_1": ("t0", "t1", "t3"), "binary_1_2": ("t2",)}


def test_tasks_of_one_tower_lie_side_by_side_with_what_belongs_to_them() -> None:
    """Heads then read slices of the readings; the order of results is the recipe's, whatever the groups are."""
    tasks = {f"t{t}": {"kind": "binary", "target": f"task{t}"} for t in range(4)}
    towers = {"late": ["t3", "t1"], "early": ["t0", "t2"]}
    one = recipe(tasks, model={"towers": towers, "backbone": BACKBONE})
    learned = Learned(
        outputs={task: ("no", f"yes to {task}") for task in tasks},
        constants={task: {"threshold": (0.1 * t,)} for t, task in enumerate(tasks)},
    ).decided({"t2": {"temperature": (3.0,)}})
    (group,) = task_groups(one, learned)
    assert group.tasks == ("t1", "t3", "t0", "t2")
    assert group.towers == ("late", "late", "early", "early")
    assert [names[1] for names in group.outputs] == [f"yes to {task}" for task in group.tasks]
    assert group.constants["threshold"].tolist() == pytest.approx([0.1, 0.3, 0.0, 0.2])
    assert group.constants["temperature"].tolist() == [1.0, 1.0, 1.0, 3.0]  # 1 until one is fitted


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_in_a_group_is_as_it_is_alone(kind: str) -> None:
    """Loss, gradient and every metric, with constants, labels and weights of its own."""
    n_rows, n_tasks = 60, 3
    spec = example(kind)
    outputs = tuple("abcd") if kind in ("multiclass", "ordinal", "multilabel") else tuple("ab")
    outputs = ("value",) if kind == "regression" else outputs
    n_outputs = spec.n_outputs(outputs)
    generator = np.random.default_rng(0)
    logits = torch.from_numpy(generator.normal(size=(n_rows, n_tasks, n_outputs))).float().requires_grad_()
    if kind == "regression":
        target = torch.from_numpy(
            generator.normal(size=(n_rows, n_tasks)) * [1.0, 50.0, 1e-3] + [0.0, 1e6, 5.0]
        )
    else:
        shape = (n_rows, n_tasks, 4) if kind == "multilabel" else (n_rows, n_tasks)
        high = 2 if kind in ("binary", "multilabel") else len(outputs)
        target = torch.from_numpy(generator.integers(-1 if kind == "multilabel" else 0, high, size=shape))
    present = torch.from_numpy(generator.random((n_rows, n_tasks)) < 0.7)
    weight = present * torch.from_numpy(generator.random((n_rows, n_tasks))).float()
    own = [spec.constants(target[:, t][present[:, t]].numpy(), outputs) for t in range(n_tasks)]
    if kind in ("binary", "multilabel"):
        own = [
            {**c, "threshold": (x,) * len(c["threshold"])} for c, x in zip(own, (0.3, 0.5, 0.6), strict=True)
        ]
    if "temperature" in type(spec).model_fields:
        own = [{**c, "temperature": (x,)} for c, x in zip(own, (0.5, 1.0, 3.0), strict=True)]

    def computed(tasks: slice) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        module = module_of(spec, n_outputs, *own[tasks])
        loss = mean_loss(module, logits[:, tasks], target[:, tasks], weight[:, tasks])
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        metric = module.metric(frozenset(spec.known_metrics))
        for rows in torch.arange(n_rows).split(17):
            metric.update(logits.detach()[rows, tasks], target[rows, tasks], present[rows, tasks])
        return (
            loss,
            gradient[:, tasks],
            {name: metric.compute()[name].reshape(-1) for name in spec.known_metrics},
        )

    loss, gradient, metrics = computed(slice(0, n_tasks))
    for t in range(n_tasks):
        alone = computed(slice(t, t + 1))
        torch.testing.assert_close(loss[t : t + 1], alone[0])
        torch.testing.assert_close(gradient[:, t : t + 1], alone[1])
        for name, values in metrics.items():
            torch.testing.assert_close(values[t : t + 1], alone[2][name], msg=name)
            assert not values[t].isnan(), name


def test_every_kind_was_among_them() -> None:
    assert set(KINDS) == set(OPTIONS)
    assert len(KINDS) >= 9


class Focused(YesNo):
    def row_loss(self, logits_BTO: Tensor, target: Tensor) -> Tensor:
        return super().row_loss(2 * logits_BTO, target)


class Focal(Binary):
    """A loss of its own under the group key of the kind it comes from."""

    reference: ClassVar[str] = "Lin et al. 2017, arXiv:1708.02002"

    def build(self, head: GroupedHead, constants: Mapping[str, Tensor]) -> TaskModule:
        return Focused(head, constants)


class Counting(YesNo):
    def metric(self, names: frozenset[str]) -> Metric:
        return super().metric(names)


class Counted(Binary):
    """Likewise with metrics of its own."""

    reference: ClassVar[str] = "ours"

    def build(self, head: GroupedHead, constants: Mapping[str, Tensor]) -> TaskModule:
        return Counting(head, constants)


class Plain(Binary):
    """Nothing of its own but a default."""

    reference: ClassVar[str] = "ours"

    threshold: float = 0.9


def test_a_subclass_with_its_own_loss_or_metrics_is_a_group_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    members = dict(TASKS._members)
    try:
        for name, member in (("focal", Focal), ("counted", Counted), ("plain", Plain)):
            TASKS.register(name)(member)
        kinds = ("binary", "focal", "counted", "plain")
        built, _ = build_and_try(recipe({kind: {"kind": kind, "target": "task0"} for kind in kinds}))
    finally:
        TASKS._members = members
    modules = {module.tasks: type(module) for module in built.model.modules_of_tasks().values()}
    assert modules == {("binary", "plain"): YesNo, ("counted",): Counting, ("focal",): Focused}


@pytest.mark.parametrize("towers", ["one", "per_task"])
def test_own_heads_are_as_deep_as_they_say(towers: str) -> None:
    tasks = {
        "a": {"kind": "binary", "target": "task0", "head": {"hidden": [5, 4], "dropout": 0.25}},
        "b": {"kind": "binary", "target": "task1"},
    }
    one = recipe(tasks, model={"towers": towers, "head": {"dropout": 0.5}, "backbone": BACKBONE})
    built = build(one, build_and_try(one)[1])
    deep, flat = (module.head for module in built.model.modules_of_tasks().values())
    assert [layer[0].weight.shape[-2:] for layer in deep.hidden] == [(5, 6), (4, 5)]
    assert [dropout.p for dropout in deep.modules() if isinstance(dropout, torch.nn.Dropout)] == [0.25] * 3
    assert len(flat.hidden) == 0
    assert flat.dropout is None
    assert built.model.dropout.p == 0.5
    assert built.model(torch.randn(3, 8))["a"].shape == (3, 1)


def test_the_head_of_a_task_starts_the_same_whoever_else_is_there() -> None:
    head = {"head": {"hidden": [5]}}
    found = []
    for others in (0, 3):
        tasks = {"a": {"kind": "binary", "target": "task0", **head}}
        tasks |= {f"t{t}": {"kind": "binary", "target": f"task{t}", **head} for t in range(others)}
        one = recipe(tasks)
        built = build(one, build_and_try(one)[1])
        found.append(built.model.eval()(torch.linspace(-1, 1, 16).view(2, 8))["a"])
    torch.testing.assert_close(found[0], found[1])


# -- what stands for a task --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_headline_is_the_first_metric_and_has_a_direction(kind: str) -> None:
    spec = example(kind)
    assert spec.metric_names == spec.default_metrics
    assert spec.headline == spec.default_metrics[0]
    assert spec.higher_is_better is True  # of every kind's default
    lower = [name for name, higher in spec.known_metrics.items() if not higher and name != "bias"]
    assert lower, "every kind measures an error too"
    for name in lower:
        chosen = example(kind, metrics=(name, spec.default_metrics[0], name))
        assert chosen.metric_names == (name, spec.default_metrics[0])
        assert (chosen.headline, chosen.higher_is_better) == (name, False)


@pytest.mark.parametrize(
    ("metric", "task", "higher"),
    [
        ("validation/r/r2", {"kind": "regression"}, True),
        ("validation/r/mae", {"kind": "regression"}, False),  # whatever the headline's direction is
        ("validation/r/rmse", {"kind": "regression", "metrics": ["r2", "rmse"]}, False),
        ("validation/r/r2", {"kind": "regression", "metrics": ["rmse", "r2"]}, True),
        ("validation/r/loss", {"kind": "regression"}, False),
        (
            "validation/r/calibration_error",
            {"kind": "binary", "metrics": ["auroc", "calibration_error"]},
            False,
        ),
        ("validation/mean/mae", {"kind": "regression", "metrics": ["mae"]}, False),
    ],
)
def test_the_metric_that_selects_has_its_own_direction(
    metric: str, task: dict[str, Any], higher: bool
) -> None:
    train = {"epochs": 1, "early_stopping": {"metric": metric}}
    one = recipe({"r": {"target": "task0", **task}}, train=train)
    assert selecting_metric(one, {}) == (metric, higher)


def test_without_one_named_the_common_headline_selects_with_its_direction() -> None:
    two = {"a": {"kind": "regression", "target": "task0"}, "b": {"kind": "regression", "target": "task1"}}
    assert selecting_metric(recipe(two), {}) == ("validation/mean/r2", True)
    errors = {name: {**task, "metrics": ["rmse"]} for name, task in two.items()}
    assert selecting_metric(recipe(errors), {}) == ("validation/mean/rmse", False)
    assert selecting_metric(recipe({**two, "b": {"kind": "binary", "target": "task1"}}), {}) == (
        "validation/mean/loss",
        False,
    )


def test_each_kind_says_what_it_reads() -> None:
    reads: dict[str, list[str]] = {}
    for kind in KINDS:
        member: type[TaskSpec] = TASKS[kind]
        reads.setdefault(member.reads, []).append(kind)
    assert reads["numbers"] == ["regression"]
    assert reads["lists"] == ["multilabel"]
