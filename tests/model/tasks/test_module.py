"""What task modules of every kind have in common: buffers, losses that leave rows out, predictions, decisions.

Shapes: B batch, T tasks of a group, O outputs per task.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mtl.model.tasks.heads import GroupedHead
from mtl.model.tasks.kinds import Classes, OrderedClasses, Quantity, WeightedClasses
from mtl.model.tasks.losses import cumulative_log_p
from mtl.model.tasks.module import TaskModule
from mtl.recipe.specs import TASKS
from tests.support.task_samples import example, module_of, outputs_of

B, T = 5, 3
KINDS = [kind for kind in TASKS.names() if "." not in kind]
CONSTANTS: dict[str, dict[str, tuple[float, ...]]] = {
    "binary": {"threshold": (0.3,), "positive_weight": (2.0,)},
    "multiclass": {"class_weight": tuple(range(10))},
    "multilabel": {"threshold": (0.3, 0.5, 0.7)},
    "ordinal": {"class_weight": tuple(range(10))},
    "regression": {"mean": (5.0,), "mean_rest": (1e-9,), "std": (2.0,)},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def module(kind: str) -> TaskModule:
    """Three tasks of a kind; the constants of the second and third are 1% and 2% larger."""
    spec = example(kind)
    own = [
        {name: tuple(v * (1 + 0.01 * t) for v in values) for name, values in CONSTANTS[kind].items()}
        for t in range(T)
    ]
    return module_of(spec, spec.n_outputs(outputs_of(spec)), *own)


def logits_of(kind: TaskModule) -> Tensor:
    return torch.randn(B, T, kind.head.n_outputs)


def test_every_kind_was_among_them() -> None:
    assert set(KINDS) == set(CONSTANTS)


@every_kind
def test_numbers_of_a_kind_are_buffers_that_move_and_that_no_checkpoint_holds(kind: str) -> None:
    found = module(kind)
    names = {*CONSTANTS[kind], *TASKS[kind].fitted, "mean_weight"}
    assert {name for name, _ in found.named_buffers()} - {"head.take.positions"} == names
    assert all(len(found.get_buffer(name)) == T for name in names)
    assert set(found.state_dict()) == {f"head.{name}" for name in found.head.state_dict()}
    assert set(found.state_dict()) == {name for name, _ in found.named_parameters()}
    assert all(buffer.is_floating_point() for name, buffer in found.double().named_buffers() if name in names)
    assert {found.get_buffer(name).dtype for name in names} == {torch.float64}
    assert all(buffer.is_meta for buffer in found.to("meta").buffers())


@every_kind
def test_a_module_is_its_head(kind: str) -> None:
    found, h = module(kind), torch.randn(B, 1, 5)
    assert found.tasks == found.head.tasks == ("t0", "t1", "t2")
    assert torch.equal(found(h), found.head(h))
    assert found.mean_weight.tolist() == [1.0, 1.0, 1.0]  # until training sets it


# -- losses ------------------------------------------------------------------------------------------------


class Squares(TaskModule):
    """A kind of its own: squared logits."""

    def row_loss(self, logits_BTO: Tensor, target: Tensor) -> Tensor:
        return (logits_BTO.squeeze(-1) - target).square()


def squares() -> Squares:
    return Squares(GroupedHead(("a", "b"), (0, 0), 1, 2, 1), {})


def test_a_loss_is_the_sum_over_rows_and_the_sum_of_their_weights() -> None:
    logits = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]).unsqueeze(-1)
    weight_BT = torch.tensor([[1.0, 0.0], [0.5, 0.0], [2.0, 0.0]])
    sum_T, weight_T = squares().loss(logits, torch.zeros(3, 2), weight_BT)
    assert sum_T.tolist() == [1.0 + 0.5 * 9 + 2 * 25, 0.0]
    assert weight_T.tolist() == [3.5, 0.0]


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    kind = squares()
    logits, target, weight_BT = torch.randn(9, 2, 1), torch.randn(9, 2), torch.rand(9, 2)
    whole = kind.loss(logits, target, weight_BT)
    parts = [
        kind.loss(*part) for part in zip(logits.split(4), target.split(4), weight_BT.split(4), strict=True)
    ]
    for i in (0, 1):
        torch.testing.assert_close(whole[i], torch.stack([part[i] for part in parts]).sum(0))


def test_rows_without_a_label_or_a_weight_are_not_counted() -> None:
    weight_BT = torch.tensor([[1.0, 0.0], [1e-6, 0.0], [0.0, 0.0], [7.0, 3.0]])
    assert squares().counted(torch.zeros(4, 2), weight_BT).tolist() == [3, 1]


@pytest.mark.parametrize("kind", [Classes, OrderedClasses])
def test_rows_of_a_class_of_weight_0_are_not_counted(kind: type[WeightedClasses]) -> None:
    n_outputs = 3 if kind is Classes else 2
    head = GroupedHead(("a", "b"), (0, 0), 1, 2, n_outputs)
    fitted = {"temperature": torch.ones(2)} if kind is Classes else {}
    class_weight_TC = torch.tensor([[0.0, 1.0, 2.0], [3.0, 3.0, 0.0]])
    found = kind(head, {**fitted, "class_weight": class_weight_TC})
    target_BT = torch.tensor([[0, 0], [0, 1], [1, 2], [2, 2]])
    weight_BT = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.5, 1.0]])
    assert found.counted(target_BT, weight_BT).tolist() == [2, 1]
    logits = torch.randn(4, 2, n_outputs, requires_grad=True)
    sum_T, weight_T = found.loss(logits, target_BT, weight_BT)
    assert weight_T.tolist() == [1.0 + 0.5 * 2, 3.0]
    sum_T.sum().backward()
    assert logits.grad is not None
    assert (logits.grad != 0).any(-1).tolist() == [
        [False, True],
        [False, False],
        [True, False],
        [True, False],
    ]
    plain = kind(head, fitted)
    assert plain.counted(target_BT, weight_BT).tolist() == [4, 3]


def test_what_a_kind_must_say() -> None:
    kind = TaskModule(GroupedHead(("a",), (0,), 1, 2, 1), {})
    for method, given in (
        (kind.row_loss, (torch.ones(1, 1, 1), torch.ones(1, 1))),
        (kind.metric, (frozenset({"accuracy"}),)),
        (kind.predict, (torch.ones(1, 1, 1),)),
        (kind.negative_log_likelihood, (torch.ones(1, 1), torch.ones(1))),
    ):
        with pytest.raises(NotImplementedError):
            method(*given)


# -- predictions -------------------------------------------------------------------------------------------


def by_hand(kind: str, found: TaskModule, logits: Tensor) -> dict[str, Tensor]:
    """What logits mean, task by task, with a temperature of 1."""
    parts: list[dict[str, Tensor]] = []
    for t in range(T):
        z = logits[:, t]
        own = {name: buffer[t] for name, buffer in found.named_buffers() if len(buffer) == T}
        if kind in ("multiclass", "ordinal"):
            p = z.softmax(-1) if kind == "multiclass" else cumulative_log_p(z).exp()
            parts.append({"class": p.max(-1).indices, "p": p})
        elif kind == "regression":
            mean, std = own["mean"].double() + own["mean_rest"].double(), own["std"].double()
            parts.append({"value": mean + std * z[:, 0].double()})
        else:
            p = z.sigmoid() if kind == "multilabel" else z[:, 0].sigmoid()
            parts.append({"there" if kind == "multilabel" else "yes": p >= own["threshold"], "p": p})
    return {name: torch.stack([part[name] for part in parts], 1) for name in parts[0]}


@every_kind
def test_a_prediction_is_what_the_logits_of_each_task_mean(kind: str) -> None:
    found = module(kind)
    logits = logits_of(found)
    predicted, expected = found.predict(logits), by_hand(kind, found, logits)
    assert set(predicted) == set(expected)
    for name, values in predicted.items():
        assert values.dtype == expected[name].dtype
        torch.testing.assert_close(values, expected[name])


class Predicting(nn.Module):
    def __init__(self, kind: TaskModule) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, h: Tensor) -> dict[str, Tensor]:
        return self.kind.predict(self.kind(h))


@every_kind
def test_predictions_are_torch_alone_so_that_an_export_contains_them(kind: str) -> None:
    predicting, h = Predicting(module(kind)).eval(), torch.randn(B, 1, 5)
    expected = predicting(h)
    rows = torch.export.Dim("rows", min=2)
    exported = torch.export.export(predicting, (h,), dynamic_shapes=({0: rows},)).module()
    for name, values in exported(h).items():
        torch.testing.assert_close(values, expected[name])
    assert len(next(iter(exported(torch.randn(11, 1, 5)).values()))) == 11


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_a_temperature_divides_the_logits_and_is_not_in_the_likelihood(kind: str) -> None:
    found = module(kind)
    logits = logits_of(found)
    target = torch.randint(2, (B, found.head.n_outputs) if kind == "multilabel" else (B,))
    likelihood = found.negative_log_likelihood(logits[:, 1], target)
    plain, quarter = found.predict(logits)["p"], found.predict(logits / 4)["p"]
    found.decide(1, {"temperature": (4.0,)})
    p = found.predict(logits)["p"]
    assert torch.equal(p[:, [0, 2]], plain[:, [0, 2]])
    torch.testing.assert_close(p[:, 1], quarter[:, 1])
    assert torch.equal(found.negative_log_likelihood(logits[:, 1], target), likelihood)


# -- decisions ---------------------------------------------------------------------------------------------


def test_a_decision_sets_the_numbers_of_its_task_alone() -> None:
    found = module("multilabel")
    before = {name: buffer.clone() for name, buffer in found.named_buffers()}
    found.decide(2, {"threshold": (0.1, 0.2, 0.9), "temperature": (3.0,)})
    assert found.get_buffer("threshold")[2].tolist() == pytest.approx([0.1, 0.2, 0.9])
    assert found.get_buffer("temperature").tolist() == [1.0, 1.0, 3.0]
    assert torch.equal(found.get_buffer("threshold")[:2], before["threshold"][:2])
    found.decide(0, {})
    found.decide(0, {"threshold": (0.3, 0.5, 0.7)})
    assert torch.equal(found.get_buffer("threshold")[:2], before["threshold"][:2])


def test_a_threshold_that_is_decided_moves_the_answers() -> None:
    found = module("binary")
    logits = torch.zeros(B, T, 1)
    assert found.predict(logits)["yes"].all()  # p is 0.5, the thresholds are 0.3
    found.decide(1, {"threshold": (0.6,)})
    assert found.predict(logits)["yes"].any(0).tolist() == [True, False, True]


def test_a_decision_is_in_the_buffers_own_precision() -> None:
    found = module("binary").double()
    found.decide(0, {"threshold": (0.1,)})
    assert found.get_buffer("threshold")[0].item() == 0.1


def test_a_quantity_keeps_the_digits_of_its_mean() -> None:
    """mean + std z in float64, from a mean of float32 and what it loses there."""
    mean = 123_456_789.123
    low = mean - torch.tensor(mean).double().item()
    constants = {"mean": torch.tensor([mean]), "mean_rest": torch.tensor([low]), "std": torch.tensor([1.0])}
    found = Quantity(GroupedHead(("a",), (0,), 1, 2, 1), constants)
    value = found.predict(torch.zeros(1, 1, 1))["value"]
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(mean, abs=1e-6)
