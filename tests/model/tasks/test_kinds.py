"""The losses of the shipped kinds are sums over rows and sums of the rows' weights.

Shapes: B batch, T tasks of a group, O outputs per task, C classes.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mtl.model.tasks.heads import GroupedHead
from mtl.model.tasks.kinds import Classes, Labels, OrderedClasses, Quantity, WeightedClasses, YesNo
from mtl.model.tasks.losses import cumulative_log_p
from mtl.model.tasks.module import TaskModule

B, T, O = 7, 3, 4  # noqa: E741 - shape letters


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Logits, targets and presence; every task has some labels and lacks some."""
    present_BT = torch.rand(B, T) < 0.6
    present_BT[0], present_BT[1] = True, False
    return torch.randn(B, T, O, dtype=torch.float64), torch.randint(O, (B, T)), present_BT


def double(values: list[float] | list[list[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


ONES_T, POSITIVE_T = double([1.0] * T), double([0.5, 1.0, 30.0])
POSITIVE_TO = double([[0.1, 1.0, 2.0, 9.0], [1.0, 1.0, 1.0, 1.0], [5.0, 0.0, 0.5, 3.0]])
CLASS_WEIGHT_TC = double([[1.0, 2.0, 0.0, 4.0, 1.0], [1.0] * 5, [0.1, 9.0, 3.0, 1.0, 0.0]])
MEAN_T, STD_T = double([0.0, 3.0, -7.0]), double([1.0, 0.1, 5.0])


def head(n_outputs: int) -> GroupedHead:
    return GroupedHead([f"t{t}" for t in range(T)], [0] * T, 1, 2, n_outputs)


def classes(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z.transpose(1, 2), y, reduction="none", label_smoothing=0.1)


def ordered(z: Tensor, y: Tensor) -> Tensor:
    log_p = cumulative_log_p(z)
    return -(0.9 * log_p.gather(-1, y[..., None])[..., 0] + 0.1 * log_p.mean(-1))


def yes_no(z: Tensor, y: Tensor) -> Tensor:
    y = (y % 2) * 0.9 + 0.05
    return -POSITIVE_T * y * F.logsigmoid(z[..., 0]) - (1 - y) * F.logsigmoid(-z[..., 0])


def labels(z: Tensor, y: Tensor) -> Tensor:
    y = (y.unsqueeze(-1) % 2).expand(z.shape) * 0.9 + 0.05
    return (-POSITIVE_TO * y * F.logsigmoid(z) - (1 - y) * F.logsigmoid(-z)).mean(-1)


def quantity(z: Tensor, y: Tensor) -> Tensor:
    return (z[..., 0] - (y - MEAN_T) / STD_T).abs()


CALIBRATED = {"temperature": ONES_T}
MODULES: dict[str, tuple[Callable[[], TaskModule], Callable[[Tensor, Tensor], Tensor]]] = {
    "classes": (lambda: Classes(head(O), CALIBRATED, label_smoothing=0.1), classes),
    "ordered classes": (lambda: OrderedClasses(head(O), {}, label_smoothing=0.1), ordered),
    "yes or no": (
        lambda: YesNo(head(1), {**CALIBRATED, "positive_weight": POSITIVE_T}, label_smoothing=0.1),
        yes_no,
    ),
    "labels": (
        lambda: Labels(head(O), {**CALIBRATED, "positive_weight": POSITIVE_TO}, label_smoothing=0.1),
        labels,
    ),
    "quantity": (
        lambda: Quantity(head(1), {"mean": MEAN_T, "mean_rest": 0 * MEAN_T, "std": STD_T}, loss="mae"),
        quantity,
    ),
}


@pytest.mark.parametrize("kind", MODULES)
def test_the_sum_by_the_weight_of_a_kind_is_the_weighted_mean_of_its_rows(kind: str) -> None:
    """And what stands in a missing label has no part in either; positive weights are none of the rows' weights."""
    made, alone = MODULES[kind]
    module = made()
    logits_BTO, target_BT, present_BT = batch()
    z = logits_BTO[..., : module.head.n_outputs]
    weight_BT = present_BT * torch.rand(B, T, dtype=torch.float64)
    target = target_BT
    if kind in ("yes or no", "labels"):
        target = target_BT % 2
    if kind == "labels":
        target = target.unsqueeze(-1).expand(B, T, O)
    sum_T, weight_T = module.loss(z, target, weight_BT)
    loss_BT = alone(z, target_BT)
    for t in range(T):
        rows = present_BT[:, t]
        expected = (weight_BT[rows, t] * loss_BT[rows, t]).sum() / weight_BT[rows, t].sum()
        torch.testing.assert_close(sum_T[t] / weight_T[t], expected)
    torch.testing.assert_close(weight_T, weight_BT.sum(0))
    assert torch.equal(module.counted(target, weight_BT), present_BT.sum(0))


def weighing(kind: type[WeightedClasses]) -> tuple[TaskModule, int]:
    """A module with class weights, and C."""
    n_classes = O if kind is Classes else O + 1
    constants = {"class_weight": CLASS_WEIGHT_TC[:, :n_classes]}
    return kind(head(O), constants | (CALIBRATED if kind is Classes else {}), label_smoothing=0.1), n_classes


def test_class_weights_and_sample_weights_are_those_of_torch_on_each_task() -> None:
    module = Classes(head(O), {**CALIBRATED, "class_weight": CLASS_WEIGHT_TC[:, :O]})
    logits_BTO, target_BT, present_BT = batch()
    sum_T, weight_T = module.loss(logits_BTO, target_BT, present_BT.double())
    for t in range(T):
        rows = present_BT[:, t]
        alone = F.cross_entropy(logits_BTO[rows, t], target_BT[rows, t], weight=CLASS_WEIGHT_TC[t, :O])
        torch.testing.assert_close(sum_T[t] / weight_T[t], alone)
    weight_BT = torch.rand(B, T, dtype=torch.float64) * present_BT
    sum_T, weight_T = module.loss(logits_BTO, target_BT, weight_BT)
    for t in range(T):
        w = weight_BT[:, t] * CLASS_WEIGHT_TC[t][target_BT[:, t]]
        each = -logits_BTO[:, t].log_softmax(-1).gather(-1, target_BT[:, t : t + 1])[:, 0]
        torch.testing.assert_close(sum_T[t] / weight_T[t], (w * each).sum() / w.sum())


@pytest.mark.parametrize("kind", [Classes, OrderedClasses])
def test_the_weight_of_a_rows_class_is_part_of_the_rows_weight(kind: type[WeightedClasses]) -> None:
    module, n_classes = weighing(kind)
    logits_BTO, _, present_BT = batch()
    target_BT = torch.arange(B * T).view(B, T) % n_classes  # every class is there, also those of weight 0
    weight_BT = present_BT * torch.rand(B, T, dtype=torch.float64)
    sum_T, weight_T = module.loss(logits_BTO, target_BT, weight_BT)
    row_weight_BT = weight_BT * CLASS_WEIGHT_TC[torch.arange(T), target_BT]
    assert (row_weight_BT == 0).sum() > (weight_BT == 0).sum()
    torch.testing.assert_close(weight_T, row_weight_BT.sum(0))
    torch.testing.assert_close(sum_T, (row_weight_BT * module.row_loss(logits_BTO, target_BT)).sum(0))
    assert torch.equal(module.counted(target_BT, weight_BT), (row_weight_BT > 0).sum(0))


def test_ordered_classes_are_weighted_as_others() -> None:
    """Log probabilities are logits of a softmax that leaves them as they are."""
    module, n_classes = weighing(OrderedClasses)
    constants = {**CALIBRATED, "class_weight": CLASS_WEIGHT_TC}
    others = Classes(head(n_classes), constants, label_smoothing=0.1)
    logits_BTO, target_BT, present_BT = batch()
    found = module.loss(logits_BTO, target_BT, present_BT.double())
    expected = others.loss(cumulative_log_p(logits_BTO), target_BT, present_BT.double())
    for sums in zip(found, expected, strict=True):
        torch.testing.assert_close(*sums)
