"""One grouped head is its tasks' heads, one by one.

Shapes: B batch, R readings, F features of one reading, T tasks of a group, O outputs per task.
"""

import pytest
import torch
from torch import Tensor, nn

from mtl.model.layers import grouped_norm
from mtl.model.stitched import StitchedMultiTower
from mtl.model.tasks.heads import GroupedHead, LinearOfReadings, Take
from mtl.model.tasks.module import TaskModule
from mtl.model.trunk import Trunk

B, F, O = 6, 5, 3  # noqa: E741 - shape letters

PLANS = {
    "a reading each": ((0, 1, 2), 3),
    "as many tasks to each reading": ((0, 0, 1, 1, 2, 2), 3),
    "more tasks to some readings": ((0, 1, 1, 1, 2, 2), 3),
    "most tasks to the first": ((0, 0, 0, 1), 2),
    "towers: one": ((0, 0, 0, 0), 1),
    "one task of three readings": ((1,), 3),
    "two tasks of three readings": ((1, 1), 3),
    "the first readings only": ((0, 1), 3),
    "the last readings only": ((1, 2, 2), 3),
    "readings apart": ((0, 2), 3),
    "readings apart, with several tasks": ((0, 0, 2, 2), 4),
    "readings apart, with more tasks to some": ((0, 2, 2, 3), 4),
    "one of each": ((0,), 1),
}
every_plan = pytest.mark.parametrize(("readings", "n_readings"), PLANS.values(), ids=PLANS)


def one_by_one(head: GroupedHead, norm: str) -> list[nn.Sequential]:
    """For each task an nn.Linear and a norm with the task's own numbers."""
    T, found = len(head.tasks), []
    for t in range(T):
        linear = nn.Linear(F, O, bias=norm == "none").double()
        layers: list[nn.Module] = [linear]
        if norm != "none":
            layers.append((nn.BatchNorm1d(O) if norm == "batch" else nn.LayerNorm(O)).double())
        with torch.no_grad():
            alone = nn.Sequential(*layers)
            own = [p.chunk(T)[t] for p in (*head.linear.parameters(), *head.norm.parameters())]
            for parameter, value in zip(alone.parameters(), own, strict=True):
                parameter.copy_(value)
        found.append(alone)
    return found


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@every_plan
def test_a_group_of_tasks_is_its_tasks_one_by_one(
    readings: tuple[int, ...], n_readings: int, norm: str
) -> None:
    T = len(readings)
    module = grouped_norm(norm, T, O, spatial=False, eps=1e-5, momentum=0.1)
    head = GroupedHead([f"t{t}" for t in range(T)], readings, n_readings, F, O, module).double()
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    modules = one_by_one(head, norm)
    h_BRF = torch.randn(B, n_readings, F, dtype=torch.float64, requires_grad=True)
    logits = head(h_BRF)
    assert logits.shape == (B, T, O)
    expected = torch.stack([alone(h_BRF[:, r]) for alone, r in zip(modules, readings, strict=True)], 1)
    torch.testing.assert_close(logits, expected)

    slope = torch.randn_like(logits)
    found = torch.autograd.grad((logits * slope).sum(), [h_BRF, *head.parameters()])
    by_task = torch.autograd.grad(
        (expected * slope).sum(), [h_BRF, *(p for m in modules for p in m.parameters())]
    )
    torch.testing.assert_close(found[0], by_task[0])
    n = len(found) - 1  # parameters of one task
    for i in range(n):
        torch.testing.assert_close(found[1 + i], torch.cat(by_task[1 + i :: n]))


@every_plan
def test_a_task_sends_gradient_to_its_reading_alone(readings: tuple[int, ...], n_readings: int) -> None:
    head = GroupedHead([f"t{t}" for t in range(len(readings))], readings, n_readings, F, O)
    nn.init.normal_(head.linear.weight)
    for t, reading in enumerate(readings):
        h_BRF = torch.randn(B, n_readings, F, requires_grad=True)
        head(h_BRF)[:, t].square().sum().backward()
        assert h_BRF.grad is not None
        reached = h_BRF.grad.abs().sum((0, 2)) > 0
        assert reached.tolist() == [r == reading for r in range(n_readings)]


def test_a_head_has_a_bias_only_without_a_norm() -> None:
    bare = GroupedHead(("a",), (0,), 1, F, O)
    normed = GroupedHead(("a",), (0,), 1, F, O, nn.BatchNorm1d(O))
    assert bare.linear.bias is not None
    assert normed.linear.bias is None


class Given(Trunk):
    """Two readings, (B, 2 * F) as they are given."""

    def __init__(self) -> None:
        super().__init__(("x", "y"), (F,), (0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        readings: Tensor = x.unflatten(1, (2, F))
        return readings


def network(dropout: float = 0.0) -> StitchedMultiTower:
    """Tasks a and c of three classes, b of two."""
    first = GroupedHead(("a", "c"), (0, 1), 2, F, 3)
    second = GroupedHead(("b",), (1,), 2, F, 2)
    for head in (first, second):
        nn.init.normal_(head.linear.weight)
    modules = {"three": TaskModule(first, {}), "two": TaskModule(second, {})}
    return StitchedMultiTower(Given(), modules, dropout=dropout)


@pytest.mark.parametrize("shape", [(F,), (F, 1), (1, F), (F, 1, 1)])
def test_heads_take_any_shape_of_readings(shape: tuple[int, ...]) -> None:
    model = network()
    h_BRF = torch.randn(B, 2, F)
    groups = model(h_BRF.flatten(1)).groups
    shapes = {name: tuple(value.shape) for name, value in groups.items()}
    assert shapes == {"three": (B, 2, 3), "two": (B, 1, 2)}
    for name, module in model.modules_of_tasks().items():
        assert torch.equal(groups[name], module(h_BRF.view(B, 2, *shape)))


def test_dropout_is_on_features_in_training_alone() -> None:
    model, x = network(dropout=0.5), torch.ones(B, 2 * F)
    assert not torch.equal(model.train()(x)["a"], model.eval()(x)["a"])
    calm = network()
    calm.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(x)["a"], calm.train()(x)["a"])


def test_all_heads_read_what_was_dropped_once() -> None:
    """One module draws for all readings, so that draws do not depend on how tasks are grouped."""
    model, x = network(dropout=0.5), torch.ones(B, 2 * F)
    read: dict[str, Tensor] = {}
    for name, module in model.modules_of_tasks().items():
        module.register_forward_pre_hook(lambda _, h, name=name: read.update({name: h[0]}))
    model.train()(x)
    assert read["three"] is read["two"]
    assert set(read["two"].unique().tolist()) == {0.0, 2.0}


def test_a_task_is_found_in_its_group() -> None:
    model = network()
    assert model.places == {"a": ("three", 0), "c": ("three", 1), "b": ("two", 0)}
    assert model.tasks == ("a", "c", "b")
    with pytest.raises(KeyError, match="nobody"):
        model(torch.randn(B, 2 * F))["nobody"]


def test_which_reading_a_task_takes_is_not_part_of_a_checkpoint() -> None:
    linear = ("task_modules.three.head.linear", "task_modules.two.head.linear")
    assert sorted(network().state_dict()) == [
        f"{name}.{part}" for name in linear for part in ("bias", "weight")
    ]
    uneven = GroupedHead(("a", "b", "c"), (0, 2, 2), 3, F, O)
    assert sorted(uneven.state_dict()) == ["linear.bias", "linear.weight"]


def test_a_head_shows_its_tasks_and_what_they_read() -> None:
    shown = repr(GroupedHead(("a", "c", "d"), (0, 2, 2), 3, F, O))
    assert "tasks=['a', 'c', 'd'], n_outputs=3" in shown
    assert "Take([0, 2] of 3)" in shown


def test_readings_side_by_side_are_not_copied() -> None:
    h_BRF = torch.randn(B, 4, F)
    for chosen in ((0, 1, 2, 3), (1, 2), (3,)):
        taken = Take(chosen, 4)(h_BRF)
        assert torch.equal(taken, h_BRF[:, list(chosen)])
        assert taken.untyped_storage().data_ptr() == h_BRF.untyped_storage().data_ptr()
    assert torch.equal(Take((0, 3), 4)(h_BRF), h_BRF[:, [0, 3]])


@pytest.mark.parametrize(
    ("readings", "n_readings"), [((2, 0, 1), 3), ((0, 1, 0), 2), ((0, 2), 2), ((-1, 0), 2)]
)
def test_readings_that_do_not_ascend_or_are_not_there_are_refused(
    readings: tuple[int, ...], n_readings: int
) -> None:
    with pytest.raises(ValueError, match=r"^readings of a head's tasks ascend from 0 to \d at most, got \["):
        GroupedHead([f"t{t}" for t in range(len(readings))], readings, n_readings, F, O)


@every_plan
def test_a_head_without_memory_knows_its_shapes(readings: tuple[int, ...], n_readings: int) -> None:
    tasks = [f"t{t}" for t in range(len(readings))]
    with torch.device("meta"):
        head = GroupedHead(tasks, readings, n_readings, F, O, hidden=[(4, None)])
        assert head(torch.empty(B, n_readings, F)).shape == (B, len(tasks), O)
    assert all(buffer.is_meta for buffer in head.buffers())


@pytest.mark.parametrize("bias", [True, False])
def test_slices_of_tasks_are_the_same_for_even_and_uneven_readings(bias: bool) -> None:
    """Whether or not one more task makes the readings uneven."""
    even = LinearOfReadings((2, 2), F, O, bias=bias)
    uneven = LinearOfReadings((2, 3), F, O, bias=bias)
    assert even.weight.shape == (4 * O, F)
    assert uneven.weight.shape == (5 * O, F)
    for parameter in (*even.parameters(), *uneven.parameters()):
        nn.init.normal_(parameter)
    with torch.no_grad():
        for own, other in zip(even.parameters(), uneven.parameters(), strict=True):
            own.copy_(other[: 4 * O])
    x = torch.randn(B, 2 * F)
    torch.testing.assert_close(even(x), uneven(x)[:, : 4 * O])


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@every_plan
def test_hidden_layers_are_those_of_each_task_alone(
    readings: tuple[int, ...], n_readings: int, norm: str
) -> None:
    """Linear, norm, ReLU, twice, and a linear output, against an nn.Sequential per task."""
    T, sizes = len(readings), (4, 7)

    def norm_of(features: int) -> nn.Module | None:
        return grouped_norm(norm, T, features, spatial=False, eps=1e-5, momentum=0.1)

    hidden = [(features, norm_of(features)) for features in sizes]
    head = GroupedHead([f"t{t}" for t in range(T)], readings, n_readings, F, O, hidden=hidden).double()
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    h_BRF = torch.randn(B, n_readings, F, dtype=torch.float64)
    logits = head(h_BRF)
    assert logits.shape == (B, T, O)
    for t, reading in enumerate(readings):
        layers: list[nn.Module] = []
        for before, after in ((F, 4), (4, 7)):
            layers.append(nn.Linear(before, after, bias=norm == "none"))
            if norm != "none":
                layers.append(nn.BatchNorm1d(after) if norm == "batch" else nn.LayerNorm(after))
            layers.append(nn.ReLU())
        alone = nn.Sequential(*layers, nn.Linear(7, O)).double()
        own = [p.chunk(T)[t] for p in (*head.hidden.parameters(), *head.linear.parameters())]
        with torch.no_grad():
            for parameter, value in zip(alone.parameters(), own, strict=True):
                parameter.copy_(value.view_as(parameter))
        torch.testing.assert_close(logits[:, t], alone(h_BRF[:, reading]))


def test_a_head_with_dropout_of_its_own_reads_what_no_other_dropped() -> None:
    """With p = 0 it reads all features, whatever is dropped for the others; after hidden layers it drops too."""
    calm = GroupedHead(("a",), (0,), 2, F, O, dropout=0.0)
    wild = GroupedHead(("b",), (0,), 2, F, O, hidden=[(50, None)], dropout=0.5)
    for parameter in (*calm.parameters(), *wild.parameters()):
        nn.init.normal_(parameter)
    modules = {"calm": TaskModule(calm, {}), "wild": TaskModule(wild, {})}
    model, x = StitchedMultiTower(Given(), modules, dropout=0.9), torch.randn(B, 2 * F)
    trained, evaluated = model.train()(x), model.eval()(x)
    assert torch.equal(trained["a"], evaluated["a"])
    assert not torch.equal(trained["b"], evaluated["b"])
    activations: list[Tensor] = []
    wild.linear.register_forward_pre_hook(lambda _, inputs: activations.append(inputs[0]))
    model.train()(torch.ones(400, 2 * F))
    dropped = (activations[0] == 0).double().mean(0)
    assert dropped.min() > 0.4
    positive = dropped[dropped < 1]  # a unit whose ReLU is open for some of the dropped inputs
    assert len(positive) > 10
