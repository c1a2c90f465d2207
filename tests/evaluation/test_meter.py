"""The meter agrees with torchmetrics and plain means, however rows are cut into batches.

Shapes: B batch, T tasks of a group, O outputs per task.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from mtl.dataset.batch import Targets
from mtl.evaluation import meter as module
from mtl.evaluation.meter import Meter
from mtl.model.tasks.module import TaskModule
from mtl.recipe.specs import TASKS, TaskSpec, mean_metric
from mtl.tasks import Multiclass
from tests.support.task_samples import module_of

CPU = torch.device("cpu")
N, T, O = 157, 3, 4  # noqa: E741


def specs(missing: str = "mask", n: int = T) -> dict[str, TaskSpec]:
    return {f"t{t}": Multiclass(target="x", missing=missing) for t in range(n)}


def group_of(tasks: Sequence[str], n_outputs: int, name: str = "g") -> dict[str, TaskModule]:
    """One task group by its name."""
    module = module_of(Multiclass(target="x"), n_outputs, *[{}] * len(tasks))
    module.head.tasks = tuple(tasks)
    return {name: module}


def targets_of(target: Tensor, present_BT: Tensor, name: str = "g") -> Targets:
    return Targets({name: target}, {name: present_BT}, {name: present_BT.float()})


def data(present: float = 0.6) -> tuple[Tensor, Tensor, Tensor]:
    mask_BT = torch.rand(N, T) < present
    return torch.randn(N, T, O), torch.randint(O, (N, T)), mask_BT


def fed(meter: Meter, tensors: tuple[Tensor, Tensor, Tensor], sizes: Sequence[int], name: str = "g") -> Meter:
    for logits, target, present in zip(*(t.split(list(sizes)) for t in tensors), strict=True):
        found = meter.modules[name].loss(logits, target, present.float())
        meter.update(name, logits, targets_of(target, present, name), *found)
    return meter


@pytest.mark.parametrize("present", [1.0, 0.6, 0.05])
def test_agrees_with_torchmetrics_and_plain_means(present: float) -> None:
    tensors = data(present)
    meter = fed(Meter(group_of(list(specs()), O), specs(), CPU), tensors, [50, 50, 50, 7])
    values = meter.values("test")
    logits, target, mask = tensors
    accuracies = []
    for t in range(T):
        rows = mask[:, t]
        ours, truth = logits[rows, t], target[rows, t]
        accuracies.append(MulticlassAccuracy(O, average="micro")(ours, truth).item())
        f1 = MulticlassF1Score(O, average="macro")(ours, truth).item()
        loss = torch.nn.functional.cross_entropy(ours.double(), truth).item()
        assert values[f"test/t{t}/accuracy"] == pytest.approx(accuracies[-1], abs=1e-6)
        assert values[f"test/t{t}/macro_f1"] == pytest.approx(f1, abs=1e-6)
        assert values[f"test/t{t}/loss"] == pytest.approx(loss, rel=1e-5)
        assert values[f"test/t{t}/labels"] == int(rows.sum())
    assert values["test/mean/accuracy"] == pytest.approx(sum(accuracies) / T, abs=1e-6)
    names = [
        name
        for t in range(T)
        for name in (f"test/t{t}/{m}" for m in ("loss", "accuracy", "macro_f1", "labels"))
    ]
    assert list(values) == [*names, "test/mean/accuracy"]


def test_batch_boundaries_do_not_matter() -> None:
    tensors = data()
    whole = fed(Meter(group_of(list(specs()), O), specs(), CPU), tensors, [N]).values("x")
    for sizes in ([1] * N, [156, 1], [1, 156], [50, 50, 57]):
        parts = fed(Meter(group_of(list(specs()), O), specs(), CPU), tensors, sizes).values("x")
        assert parts.keys() == whole.keys()
        for name, value in whole.items():
            if name.endswith("/loss"):
                assert parts[name] == pytest.approx(value, rel=1e-5)
            else:
                assert parts[name] == value, name


def test_labels_are_counted_only_where_some_may_be_missing() -> None:
    values = fed(Meter(group_of(list(specs()), O), specs("error"), CPU), data(1.0), [N]).values("x")
    assert not [name for name in values if name.endswith("/labels")]


def test_a_task_without_labels_is_undefined_and_so_is_the_mean() -> None:
    logits, target, mask = data()
    mask[:, 1] = False
    values = fed(Meter(group_of(list(specs()), O), specs(), CPU), (logits, target, mask), [100, 57]).values(
        "x"
    )
    for metric in ("loss", "accuracy", "macro_f1"):
        assert values[f"x/t1/{metric}"] is None
        assert isinstance(values[f"x/t0/{metric}"], float)
    assert values["x/t1/labels"] == 0
    assert values["x/mean/accuracy"] is None


def test_nothing_seen_is_undefined_and_no_warning() -> None:
    values = Meter(group_of(list(specs()), O), specs(), CPU).values("x")
    assert {name: v for name, v in values.items() if v is not None} == {f"x/t{t}/labels": 0 for t in range(T)}


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_none(loss: float) -> None:
    logits, target, mask = data(1.0)
    meter = Meter(group_of(list(specs()), O), specs(), CPU)
    meter.update("g", logits, targets_of(target, mask), torch.tensor([1.0, loss, 2.0]), torch.ones(T))
    values = meter.values("x")
    assert [values[f"x/t{t}/loss"] for t in range(T)] == [1.0, None, 2.0]


def test_one_task_in_a_group_and_the_order_of_results() -> None:
    """Groups come in the order of their first tasks; results in the order of the recipe."""
    groups = group_of(["t0", "t2"], O, "four") | group_of(["t1"], 2, "two")
    meter = Meter(groups, specs(), CPU)
    logits, target, mask = data(1.0)
    fed(meter, (logits[:, :2], target[:, :2], mask[:, :2]), [N], "four")
    fed(meter, (logits[:, :1, :2], target[:, :1] % 2, mask[:, :1]), [N], "two")
    values = meter.values("x")
    assert list(dict.fromkeys(name.split("/")[1] for name in values)) == ["t0", "t1", "t2", "mean"]
    right = (logits[:, 0, :2].argmax(-1) == target[:, 0] % 2).double().mean().item()
    assert values["x/t1/accuracy"] == pytest.approx(right)


def test_values_can_be_asked_twice_and_updates_keep_no_graph() -> None:
    logits, target, mask = data()
    logits.requires_grad_()
    meter = fed(Meter(group_of(list(specs()), O), specs(), CPU), (logits, target, mask), [N])
    assert meter.values("x") == meter.values("x")
    assert not meter.loss_sum["g"].requires_grad


@pytest.mark.parametrize(
    ("headlines", "expected"),
    [(["accuracy"], "accuracy"), (["accuracy", "accuracy"], "accuracy"), (["accuracy", "r2"], "loss")],
)
def test_the_mean_is_of_the_headline_or_where_they_differ_of_the_loss(
    headlines: list[str], expected: str
) -> None:
    tasks: Any = {
        f"t{i}": SimpleNamespace(
            headline=h, metric_names=("accuracy",), missing="error", weight=1.0, metrics_weighted=False
        )
        for i, h in enumerate(headlines)
    }
    assert mean_metric(tasks) == expected
    n = len(tasks)
    meter = Meter(group_of(list(tasks), O), tasks, CPU)
    logits, target, mask = data(1.0)
    fed(meter, (logits[:, :n], target[:, :n], mask[:, :n]), [N])
    means = [name for name in meter.values("x") if "/mean/" in name]
    assert means == [f"x/mean/{expected}"]


@pytest.mark.parametrize(
    ("losses", "weights", "expected"),
    [
        ([0.5, 0.25], [2.0, 1.0], 1.25 / 3),
        ([0.5, 0.25], [0.0, 3.0], 0.25),
        ([None, 0.25], [0.0, 1.0], 0.25),  # what does not count may be undefined
        ([None, 0.25], [1.0, 1.0], None),
        ([0.5, 0.25], [0.0, 0.0], None),
    ],
)
def test_the_mean_loss_is_weighted_as_in_training(
    losses: list[float | None], weights: list[float], expected: float | None
) -> None:
    class Given(Meter):
        def _count(self, name: str) -> None:
            pass

    tasks: Any = {
        f"t{i}": SimpleNamespace(
            headline=f"metric{i}",
            metric_names=("accuracy",),
            missing="error",
            weight=weight,
            metrics_weighted=False,
        )
        for i, weight in enumerate(weights)
    }
    meter = Given(group_of(list(tasks), O), tasks, CPU)
    meter.loss_sum["g"] = torch.tensor([float("nan") if loss is None else loss for loss in losses])
    meter.weight["g"] = torch.ones(len(losses))
    assert meter.values("x")["x/mean/loss"] == pytest.approx(expected)


def test_many_rows_keep_the_mean_loss() -> None:
    """A million rows in 500s; each batch's sum is exact, so that only the sum of these can lose digits."""
    meter = Meter(group_of(["t0"], O), specs(n=1), CPU)
    losses = torch.rand(2000, 1) * 3
    logits, target = torch.zeros(500, 1, O), torch.zeros(500, 1, dtype=torch.long)
    for loss in losses:
        targets = targets_of(target, torch.ones(500, 1, dtype=torch.bool))
        meter.update("g", logits, targets, loss * 500, torch.full((1,), 500.0))
    assert meter.values("x")["x/t0/loss"] == pytest.approx(losses.double().mean().item(), rel=1e-5)


# -- weights, predictions that are NaN, memory -------------------------------------------------------------


def test_weighted_losses_have_the_mean_over_rows_however_they_are_cut() -> None:
    losses, weights = torch.rand(N, T, dtype=torch.float64), torch.rand(N, T, dtype=torch.float64) ** 4
    logits, target, mask = data(1.0)
    expected = (losses * weights).sum(0) / weights.sum(0)
    for sizes in ([N], [1] * N, [3, 100, 54]):
        meter, at = Meter(group_of(list(specs()), O), specs(), CPU), 0
        for size in sizes:
            rows = slice(at, at + size)
            sum_T, weight_T = (losses[rows] * weights[rows]).sum(0), weights[rows].sum(0)
            meter.update("g", logits[rows], targets_of(target[rows], mask[rows]), sum_T, weight_T)
            at += size
        values = meter.values("x")
        assert [values[f"x/t{t}/loss"] for t in range(T)] == pytest.approx(expected.tolist(), rel=1e-5)
        assert values["x/t0/labels"] == N  # rows, not weights


def test_without_weight_the_loss_is_undefined_and_the_metrics_are_not() -> None:
    logits, target, mask = data(1.0)
    meter = Meter(group_of(list(specs()), O), specs(), CPU)
    meter.update("g", logits, targets_of(target, mask), torch.zeros(T), torch.zeros(T))
    values = meter.values("x")
    assert values["x/t0/loss"] is None
    assert isinstance(values["x/t0/accuracy"], float)


@pytest.mark.parametrize("kind", ["multiclass", "binary", "regression", "ordinal", "multilabel"])
def test_predictions_that_are_nan_have_no_metric(kind: str) -> None:
    """NaN is never a good value: an argmax of NaN would be class 0 and right for a share of the rows."""
    options: dict[str, Any] = {"targets": ("p", "q", "r")} if kind == "multilabel" else {"target": "x"}
    spec = TASKS[kind](**options)
    tasks = {"good": spec, "broken": spec}
    outputs = ("value",) if kind == "regression" else ("0", "1", "2")
    train = np.array([[0, 1, 1], [1, 0, 0]])
    own = spec.constants(train if kind == "multilabel" else train[:, 0], outputs)
    broken = module_of(spec, spec.n_outputs(outputs), own, own)
    broken.head.tasks = tuple(tasks)
    logits = torch.randn(20, 2, spec.n_outputs(outputs))
    logits[7, 1] = float("nan")
    shape = (20, 2, 3) if kind == "multilabel" else (20, 2)
    target = torch.randint(2, shape)
    present = torch.ones(20, 2, dtype=torch.bool)
    meter = Meter({"g": broken}, tasks, CPU)
    meter.update("g", logits, targets_of(target, present), *broken.loss(logits, target, present.float()))
    values = meter.values("x")
    assert {name: value for name, value in values.items() if "/broken/" in name and value is not None} == {}
    assert all(isinstance(value, float) for name, value in values.items() if "/good/" in name)
    assert sum("/broken/" in name for name in values) == 1 + len(spec.default_metrics)
    assert values[f"x/mean/{mean_metric(tasks)}"] is None


def test_what_is_pending_is_bounded_in_rows_and_in_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target, mask = data(1.0)
    for name, limit, most in (("PENDING", 40, 40), ("PENDING_NUMBERS", 30 * T * O, 30)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, limit)
            meter, seen = Meter(group_of(list(specs()), O), specs(), CPU), []
            for row in range(N):
                rows = slice(row, row + 1)
                targets = targets_of(target[rows], mask[rows])
                meter.update("g", logits[rows], targets, torch.zeros(T), torch.ones(T))
                seen.append(len(meter.pending["g"]))
        assert max(seen) == most - 1
        assert seen.count(0) == N // most


# -- the weights that losses had ---------------------------------------------------------------------------


def test_the_weight_of_a_loss_is_its_mean_over_the_steps_that_saw_the_task() -> None:
    meter = fed(Meter(group_of(list(specs()), O), specs(), CPU), data(1.0), [N])
    assert not [name for name in meter.values("train") if "loss_weight" in name]  # an evaluation has none
    meter.weigh(torch.tensor([1.0, 9.0, 0.5]), torch.tensor([True, False, True]))
    meter.weigh(torch.tensor([2.0, 9.0, 0.0]), torch.tensor([True, False, True]))
    meter.weigh(torch.tensor([6.0, 9.0, 9.0]), torch.tensor([True, False, False]))
    found = {name: value for name, value in meter.values("train").items() if "loss_weight" in name}
    assert found == {"train/t0/loss_weight": 3.0, "train/t2/loss_weight": 0.25}


def test_what_was_seen_comes_back_from_a_checkpoint() -> None:
    """Sums, counts, weights of losses, and rows that no metric has counted yet."""
    logits, target, mask = data()
    one, two = (Meter(group_of(list(specs()), O), specs(), CPU) for _ in range(2))
    fed(one, (logits[:100], target[:100], mask[:100]), [60, 40])
    one.weigh(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([True, True, False]))
    two.restore(one.state())
    for meter in (one, two):
        fed(meter, (logits[100:], target[100:], mask[100:]), [57])
        meter.weigh(torch.tensor([1.0, 3.0, 4.0]), torch.tensor([True, True, False]))
    assert one.values("train") == two.values("train")
    assert two.values("train")["train/t1/loss_weight"] == 2.5
