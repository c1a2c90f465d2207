"""The meter agrees with torchmetrics and plain means, however rows are cut into batches.

Shapes: B batch, T tasks of a group, O outputs per task.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from mtl.build import TaskGroup
from mtl.evaluation.metrics import Meter
from mtl.recipe.schema import common_headline
from mtl.recipe.spec import TaskSpec
from mtl.tasks import Multiclass

CPU = torch.device("cpu")
N, T, O = 157, 3, 4  # noqa: E741


def specs(missing: str = "mask", n: int = T) -> dict[str, TaskSpec]:
    return {f"t{t}": Multiclass(target="x", missing=missing) for t in range(n)}


def group_of(tasks: Sequence[str], n_outputs: int, name: str = "g") -> TaskGroup:
    outputs = tuple(str(o) for o in range(n_outputs))
    return TaskGroup(
        name, tuple(tasks), Multiclass(target="x"), (outputs,) * len(tasks), tuple(range(len(tasks)))
    )


def data(present: float = 0.6) -> tuple[Tensor, Tensor, Tensor]:
    mask_BT = torch.rand(N, T) < present
    return torch.randn(N, T, O), torch.randint(O, (N, T)), mask_BT


def fed(meter: Meter, tensors: tuple[Tensor, Tensor, Tensor], sizes: Sequence[int], name: str = "g") -> Meter:
    for logits, target, present in zip(*(t.split(list(sizes)) for t in tensors), strict=True):
        loss_T = Multiclass(target="x").losses(logits, target, present.float(), {})
        meter.update(name, logits, target, present, loss_T)
    return meter


@pytest.mark.parametrize("present", [1.0, 0.6, 0.05])
def test_agrees_with_torchmetrics_and_plain_means(present: float) -> None:
    tensors = data(present)
    meter = fed(Meter([group_of(specs(), O)], specs(), CPU), tensors, [50, 50, 50, 7])
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
    whole = fed(Meter([group_of(specs(), O)], specs(), CPU), tensors, [N]).values("x")
    for sizes in ([1] * N, [156, 1], [1, 156], [50, 50, 57]):
        parts = fed(Meter([group_of(specs(), O)], specs(), CPU), tensors, sizes).values("x")
        assert parts.keys() == whole.keys()
        for name, value in whole.items():
            if name.endswith("/loss"):
                assert parts[name] == pytest.approx(value, rel=1e-5)
            else:
                assert parts[name] == value, name


def test_labels_are_counted_only_where_some_may_be_missing() -> None:
    values = fed(Meter([group_of(specs(), O)], specs("error"), CPU), data(1.0), [N]).values("x")
    assert not [name for name in values if name.endswith("/labels")]


def test_a_task_without_labels_is_undefined_and_so_is_the_mean() -> None:
    logits, target, mask = data()
    mask[:, 1] = False
    values = fed(Meter([group_of(specs(), O)], specs(), CPU), (logits, target, mask), [100, 57]).values("x")
    for metric in ("loss", "accuracy", "macro_f1"):
        assert values[f"x/t1/{metric}"] is None
        assert isinstance(values[f"x/t0/{metric}"], float)
    assert values["x/t1/labels"] == 0
    assert values["x/mean/accuracy"] is None


def test_nothing_seen_is_undefined_and_no_warning() -> None:
    values = Meter([group_of(specs(), O)], specs(), CPU).values("x")
    assert {name: v for name, v in values.items() if v is not None} == {f"x/t{t}/labels": 0 for t in range(T)}


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_none(loss: float) -> None:
    logits, target, mask = data(1.0)
    meter = Meter([group_of(specs(), O)], specs(), CPU)
    meter.update("g", logits, target, mask, torch.tensor([1.0, loss, 2.0]))
    values = meter.values("x")
    assert [values[f"x/t{t}/loss"] for t in range(T)] == [1.0, None, 2.0]


def test_one_task_in_a_group_and_the_order_of_results() -> None:
    """Groups come in the order of their first tasks; results in the order of the recipe."""
    groups = [group_of(["t0", "t2"], O, "four"), group_of(["t1"], 2, "two")]
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
    meter = fed(Meter([group_of(specs(), O)], specs(), CPU), (logits, target, mask), [N])
    assert meter.values("x") == meter.values("x")
    assert not meter.loss_sum["g"].requires_grad


@pytest.mark.parametrize(
    ("headlines", "expected"),
    [(["accuracy"], "accuracy"), (["accuracy", "accuracy"], "accuracy"), (["accuracy", "r2"], None)],
)
def test_a_mean_only_where_headlines_agree(headlines: list[str], expected: str | None) -> None:
    tasks: Any = {
        f"t{i}": SimpleNamespace(headline=h, metric_names=("accuracy",), missing="error")
        for i, h in enumerate(headlines)
    }
    assert common_headline(tasks) == expected
    n = len(tasks)
    meter = Meter([group_of(tasks, O)], tasks, CPU)
    logits, target, mask = data(1.0)
    fed(meter, (logits[:, :n], target[:, :n], mask[:, :n]), [N])
    means = [name for name in meter.values("x") if "/mean/" in name]
    assert means == ([f"x/mean/{expected}"] if expected else [])


def test_many_rows_keep_the_mean_loss() -> None:
    """60,000 rows in 500s; each batch's loss is exact, so that only the sum can lose digits."""
    meter = Meter([group_of(["t0"], O)], specs(n=1), CPU)
    losses = torch.rand(2000, 1) * 3
    logits, target = torch.zeros(500, 1, O), torch.zeros(500, 1, dtype=torch.long)
    for loss in losses:
        meter.update("g", logits, target, torch.ones(500, 1, dtype=torch.bool), loss)
    assert meter.values("x")["x/t0/loss"] == pytest.approx(losses.double().mean().item(), rel=1e-5)
