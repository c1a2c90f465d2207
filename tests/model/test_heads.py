"""One grouped head is its tasks' heads, one by one.

Shapes: B batch, K towers, F features of one tower, T tasks of a group, O outputs per task.
"""

import pytest
import torch
from torch import Tensor, nn

from mtl.model.heads import GroupedHead, Heads
from mtl.model.layers import grouped_norm

B, F, O = 6, 5, 3  # noqa: E741 - shape letters

PLANS = {
    "a tower each": ((0, 1, 2), 3),
    "another order": ((2, 0, 1), 3),
    "towers with several tasks": ((0, 2, 1, 0, 2), 3),
    "towers: one": ((0, 0, 0, 0), 1),
    "one task of three towers": ((1,), 3),
    "the first towers only": ((0, 1), 3),
    "one of each": ((0,), 1),
}


def one_by_one(head: GroupedHead, h_BKF: Tensor, norm: str) -> Tensor:
    """The same with an nn.Linear and a norm per task."""
    T = len(head.tasks)
    out = []
    for t, tower in enumerate(head.towers.tolist()):
        linear = nn.Linear(F, O, bias=norm == "none").double()
        layers: list[nn.Module] = [linear]
        if norm != "none":
            layers.append((nn.BatchNorm1d(O) if norm == "batch" else nn.LayerNorm(O)).double())
        with torch.no_grad():
            alone = nn.Sequential(*layers)
            own = [p.chunk(T)[t] for p in (*head.linear.parameters(), *head.norm.parameters())]
            for parameter, value in zip(alone.parameters(), own, strict=True):
                parameter.copy_(value)
        out.append(alone(h_BKF[:, tower]))
    return torch.stack(out, 1)


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize(("towers", "n_towers"), PLANS.values(), ids=PLANS)
def test_a_group_of_tasks_is_its_tasks_one_by_one(towers: tuple[int, ...], n_towers: int, norm: str) -> None:
    T = len(towers)
    module = grouped_norm(norm, T, O, spatial=False, eps=1e-5, momentum=0.1)
    head = GroupedHead([f"t{t}" for t in range(T)], towers, n_towers, F, O, module).double()
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    h_BKF = torch.randn(B, n_towers, F, dtype=torch.float64)
    logits = head(h_BKF)
    assert logits.shape == (B, T, O)
    torch.testing.assert_close(logits, one_by_one(head, h_BKF, norm))


@pytest.mark.parametrize(("towers", "n_towers"), PLANS.values(), ids=PLANS)
def test_a_task_sends_gradient_to_its_tower_alone(towers: tuple[int, ...], n_towers: int) -> None:
    head = GroupedHead([f"t{t}" for t in range(len(towers))], towers, n_towers, F, O)
    nn.init.normal_(head.linear.weight)
    for t, tower in enumerate(towers):
        h_BKF = torch.randn(B, n_towers, F, requires_grad=True)
        head(h_BKF)[:, t].square().sum().backward()
        assert h_BKF.grad is not None
        reached = h_BKF.grad.abs().sum((0, 2)) > 0
        assert reached.tolist() == [k == tower for k in range(n_towers)]


def test_a_head_has_a_bias_only_without_a_norm() -> None:
    bare = GroupedHead(("a",), (0,), 1, F, O)
    normed = GroupedHead(("a",), (0,), 1, F, O, nn.BatchNorm1d(O))
    assert bare.linear.bias is not None
    assert normed.linear.bias is None


def heads(dropout: float = 0.0) -> Heads:
    first = GroupedHead(("a", "c"), (0, 1), 2, F, 3)
    second = GroupedHead(("b",), (1,), 2, F, 2)
    for head in (first, second):
        nn.init.normal_(head.linear.weight)
    return Heads({"three": first, "two": second}, 2, dropout)


@pytest.mark.parametrize("shape", [(B, 2 * F), (B, 2, F), (B, 2 * F, 1, 1)])
def test_heads_take_any_shape_of_last_activation(shape: tuple[int, ...]) -> None:
    module = heads()
    h = torch.randn(B, 2, F)
    logits = module(h.view(shape))
    shapes = {name: tuple(value.shape) for name, value in logits.items()}
    assert shapes == {"three": (B, 2, 3), "two": (B, 1, 2)}
    assert torch.equal(logits["two"], module.groups["two"](h))


def test_dropout_is_on_features_in_training_alone() -> None:
    module, h = heads(dropout=0.5), torch.ones(B, 2 * F)
    assert not torch.equal(module.train()(h)["three"], module.eval()(h)["three"])
    assert torch.equal(module.eval()(h)["three"], heads_like(module, 0.0)(h)["three"])


def heads_like(module: Heads, dropout: float) -> Heads:
    other = heads(dropout)
    other.load_state_dict(module.state_dict())
    return other


def test_a_task_is_found_in_its_group() -> None:
    module = heads()
    assert [module.place(task) for task in ("a", "b", "c")] == [("three", 0), ("two", 0), ("three", 1)]
    with pytest.raises(KeyError, match="nobody"):
        module.place("nobody")


def test_which_tower_a_task_reads_is_not_part_of_a_checkpoint() -> None:
    assert sorted(heads().state_dict()) == [
        "groups.three.linear.bias",
        "groups.three.linear.weight",
        "groups.two.linear.bias",
        "groups.two.linear.weight",
    ]


def test_a_head_shows_its_tasks() -> None:
    assert "tasks=['a', 'c'], n_outputs=3" in repr(heads())


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize(("towers", "n_towers"), PLANS.values(), ids=PLANS)
def test_hidden_layers_are_those_of_each_task_alone(
    towers: tuple[int, ...], n_towers: int, norm: str
) -> None:
    """Linear, norm, ReLU, twice, and a linear output, against an nn.Sequential per task."""
    T, sizes = len(towers), (4, 7)

    def norm_of(features: int) -> nn.Module | None:
        return grouped_norm(norm, T, features, spatial=False, eps=1e-5, momentum=0.1)

    hidden = [(features, norm_of(features)) for features in sizes]
    head = GroupedHead([f"t{t}" for t in range(T)], towers, n_towers, F, O, hidden=hidden).double()
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    h_BKF = torch.randn(B, n_towers, F, dtype=torch.float64)
    logits = head(h_BKF)
    assert logits.shape == (B, T, O)
    for t, tower in enumerate(towers):
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
        torch.testing.assert_close(logits[:, t], alone(h_BKF[:, tower]))


def test_a_head_with_dropout_of_its_own_reads_what_no_other_dropped() -> None:
    """With p = 0 it reads all features, whatever is dropped for the others; after hidden layers it drops too."""
    calm = GroupedHead(("a",), (0,), 1, F, O, dropout=0.0)
    wild = GroupedHead(("b",), (0,), 1, F, O, hidden=[(50, None)], dropout=0.5)
    for parameter in (*calm.parameters(), *wild.parameters()):
        nn.init.normal_(parameter)
    module, h = Heads({"calm": calm, "wild": wild}, 1, dropout=0.9), torch.randn(B, F)
    trained, evaluated = module.train()(h), module.eval()(h)
    assert torch.equal(trained["calm"], evaluated["calm"])
    assert not torch.equal(trained["wild"], evaluated["wild"])
    activations: list[Tensor] = []
    wild.linear.register_forward_pre_hook(lambda _, inputs: activations.append(inputs[0]))
    wild.train()(torch.ones(400, 1, F))
    dropped = (activations[0] == 0).double().mean(0)
    assert dropped.min() > 0.4
    positive = dropped[dropped < 1]  # a unit whose ReLU is open for some of the dropped inputs
    assert len(positive) > 10
