"""The whole network: identity is no sharing, towers are plain networks, labels are only labels."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl.build import Built, parameter_groups
from mtl.model.layers import GroupedLinear
from mtl.model.stitch import GRANULARITIES, CrossStitch
from mtl.model.stitched import Logits, Standardize, StitchedMultiTower
from mtl.model.tasks.heads import GroupedHead
from mtl.model.tasks.module import TaskModule
from mtl.model.towers import Towers
from mtl.model.trunk import StitchedTowers
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.specs import OPTIMIZERS

Toy = Callable[..., tuple[Recipe, Built]]

B = 6
SHAPES = {"conv": (2, 8, 8), "linear": (9,)}
LAYOUTS = {
    "conv": ("conv", torch.contiguous_format),
    "conv, channels last": ("conv", torch.channels_last),
    "linear": ("linear", torch.contiguous_format),
}
IDENTITY = {"kind": "cross_stitch", "init": "identity"}
OPTIONS = {
    "adam": {"lr": 1e-2, "l2": 1e-2},
    "sgd": {"lr": 0.1, "momentum": 0.9, "l2": 1e-2},
}


def inputs(body: str) -> Tensor:
    return torch.randn(B, *SHAPES[body], generator=torch.Generator().manual_seed(1))


def trunk_of(model: StitchedMultiTower) -> StitchedTowers:
    """Its trunk, as one of towers."""
    assert isinstance(model.trunk, StitchedTowers)
    return model.trunk


def total_loss(built: Built, logits: Logits) -> Tensor:
    """The sum of the tasks' mean losses on fixed labels."""
    losses = []
    for group in built.groups:
        target = (torch.arange(B)[:, None] + torch.arange(len(group.tasks))) % group.n_outputs
        module = built.model.modules_of_tasks()[group.name]
        sum_T, weight_T = module.loss(logits.groups[group.name], target, torch.ones(target.shape))
        losses.append(sum_T / weight_T)
    return torch.cat(losses).sum()


def one_step(built: Built, recipe: Recipe, body: str, optimizer: str) -> dict[str, Tensor]:
    """Everything that one training step computes, by name."""
    made = OPTIMIZERS[optimizer](**OPTIONS[optimizer]).build(
        parameter_groups(recipe, built.model, nn.Identity())
    )
    built.model.train()
    torch.manual_seed(5)  # dropout
    logits = built.model(inputs(body))
    total_loss(built, logits).backward()
    made.step()
    return (
        {f"logits of {name}": value.detach() for name, value in logits.groups.items()}
        | {f"gradient of {name}": p.grad for name, p in built.model.named_parameters() if p.grad is not None}
        | {f"{name} after the step": value for name, value in built.model.state_dict().items()}
    )


@pytest.mark.parametrize("optimizer", OPTIONS)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize(("body", "layout"), LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("n_towers", [1, 2, 3, 7])
def test_identity_alpha_is_no_sharing_bit_for_bit(
    toy: Toy, n_towers: int, body: str, layout: torch.memory_format, granularity: str, optimizer: str
) -> None:
    identity = {**IDENTITY, "granularity": granularity}
    common: dict[str, Any] = {"dropout": 0.3, "head": {"dropout": 0.2, "norm": True}}
    found = []
    for sharing in (None, identity):
        recipe, built = toy(body, n_towers, sharing=sharing, **common)
        built.model.to(memory_format=layout)  # type: ignore[call-overload]
        found.append(one_step(built, recipe, body, optimizer))
    alone, stitched = found
    assert set(stitched.keys() - alone.keys()) == {
        text.format(f"trunk.stitches.{site}.alpha")
        for site in trunk_of(built.model).stitches
        for text in ("gradient of {}", "{} after the step")
    }
    assert [name for name, value in alone.items() if not torch.equal(stitched[name], value)] == []


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("body", SHAPES)
def test_identity_alpha_is_no_sharing_in_evaluation(toy: Toy, body: str, granularity: str) -> None:
    identity = {**IDENTITY, "granularity": granularity}
    alone, stitched = (toy(body, 3, sharing=sharing)[1].model.eval() for sharing in (None, identity))
    logits = stitched(inputs(body))
    assert len(logits) == 3
    assert all(torch.equal(logits[task], value) for task, value in alone(inputs(body)).items())


def plain_network(body: str, n_classes: int, head_norm: bool) -> nn.Sequential:
    """One tower with its head, in plain torch; parameters in the order of the stitched network's stages."""
    head = [nn.Linear(6 if body == "conv" else 5, n_classes, bias=not head_norm)]
    if head_norm:
        head.append(nn.BatchNorm1d(n_classes))
    if body == "linear":
        return nn.Sequential(
            nn.Linear(9, 6, bias=False),
            nn.BatchNorm1d(6),
            nn.ReLU(),
            nn.Linear(6, 5, bias=False),
            nn.BatchNorm1d(5),
            nn.ReLU(),
            *head,
        )
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, bias=False),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 6, bias=False),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        *head,
    )


def own_slices(
    model: StitchedMultiTower, task: str, values: Callable[[nn.Parameter], Tensor]
) -> list[Tensor]:
    """What belongs to one task's tower and head, in the order of `plain_network`'s parameters."""
    towers = trunk_of(model).towers
    tower = towers.names.index(task)
    parts = [values(p).chunk(len(towers.names))[tower] for p in towers.parameters()]
    group, place = model.places[task]
    head = model.modules_of_tasks()[group].head
    return parts + [values(p).chunk(len(head.tasks))[place] for p in head.parameters()]


@pytest.mark.parametrize("head_norm", [False, True])
@pytest.mark.parametrize("sharing", [None, IDENTITY], ids=["none", "identity"])
@pytest.mark.parametrize("body", SHAPES)
@pytest.mark.parametrize("n_towers", [1, 2, 3, 7])
def test_towers_are_separate_plain_networks(
    toy: Toy, n_towers: int, body: str, sharing: dict[str, Any] | None, head_norm: bool
) -> None:
    _, built = toy(body, n_towers, sharing=sharing, head={"norm": head_norm})
    model, x = built.model.double().train(), inputs(body).double()
    plain = {}
    for task in model.tasks:
        plain[task] = plain_network(body, 2 if int(task[1:]) % 2 else 3, head_norm).double()
        own = own_slices(model, task, lambda p: p.detach())
        with torch.no_grad():
            for parameter, value in zip(plain[task].parameters(), own, strict=True):
                parameter.copy_(value)
    logits = model(x)
    F.softplus(torch.cat([logits[task] for task in model.tasks], 1)).square().sum().backward()
    for task, network in plain.items():
        expected = network(x)
        torch.testing.assert_close(logits[task], expected, rtol=0, atol=1e-5)
        F.softplus(expected).square().sum().backward()
        gradients = own_slices(model, task, lambda p: p.grad if p.grad is not None else torch.empty(0))
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-5, atol=1e-5)
    model.eval()
    for task, network in plain.items():  # running statistics too
        torch.testing.assert_close(model(x)[task], network.eval()(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("granularity", ["scalar", "channel"])
@pytest.mark.parametrize("body", SHAPES)
@pytest.mark.parametrize("order", [(1, 0, 2), (2, 0, 1), (2, 1, 0)])
def test_relabelling_towers_relabels_outputs(
    toy: Toy, body: str, order: tuple[int, ...], granularity: str
) -> None:
    sharing = {"kind": "cross_stitch", "granularity": granularity, "init": {"convex": 0.6}}
    _, first = toy(body, ["t0", "t1", "t2"], sharing=sharing)
    _, second = toy(body, [f"t{k}" for k in order], sharing=sharing)
    for site in trunk_of(first.model).stitches:
        own, other = (trunk_of(b.model).get_parameter(f"stitches.{site}.alpha") for b in (first, second))
        with torch.no_grad():
            nn.init.normal_(own)
            other.copy_(own[..., order, :][..., order])
    expected, found = first.model.train()(inputs(body)), second.model.train()(inputs(body))
    assert trunk_of(second.model).copies == tuple(f"t{k}" for k in order)
    assert set(found) == set(expected) == {"t0", "t1", "t2"}
    for task, value in expected.items():
        torch.testing.assert_close(found[task], value, rtol=0, atol=1e-5)


def test_tasks_of_one_tower_and_of_others_each_read_their_own(toy: Toy) -> None:
    towers = {"left": ("t2", "t1"), "right": ("t0", "t3")}
    _, built = toy("linear", 4, towers=towers)
    model = built.model.eval()
    before = model(inputs("linear"))
    with torch.no_grad():
        for parameter in trunk_of(model).towers.parameters():
            parameter.chunk(2)[1].add_(1.0)  # the right tower alone
    after = model(inputs("linear"))
    assert {task for task in model.tasks if not torch.equal(before[task], after[task])} == {"t0", "t3"}


def test_a_stitched_tower_reads_the_other(toy: Toy) -> None:
    _, built = toy("linear", 2, sharing={"kind": "cross_stitch", "init": {"convex": 0.9}})
    model = built.model.eval()
    before = model(inputs("linear"))
    with torch.no_grad():
        for parameter in trunk_of(model).towers.parameters():
            parameter.chunk(2)[1].add_(1.0)
    after = model(inputs("linear"))
    assert not torch.equal(before["t0"], after["t0"])


def test_towers_and_tasks_do_not_mix_rows(toy: Toy) -> None:
    _, built = toy("conv", 3, sharing={"kind": "cross_stitch"})
    model, x = built.model.eval(), inputs("conv")
    together = model(x)
    for row in range(B):
        for task, value in model(x[row : row + 1]).items():
            torch.testing.assert_close(value[0], together[task][row], rtol=0, atol=1e-5)


def small(sites: tuple[str, ...] = ("a",), standardize: Standardize | None = None) -> StitchedMultiTower:
    towers = Towers(("x", "y"), [("a", GroupedLinear(2, 3, 4, shared_input=True))], {"a": (4,)})
    head = GroupedHead(("x", "y"), (0, 1), 2, 4, 2)
    stitches = {site: CrossStitch(2, (4,)) for site in sites}
    for module in (*towers.modules(), *head.modules()):
        if isinstance(module, GroupedLinear):
            nn.init.normal_(module.weight, generator=torch.Generator().manual_seed(3))
    trunk = StitchedTowers(towers, stitches, torch.eye(2, dtype=torch.bool), (0, 1))
    return StitchedMultiTower(trunk, {"two": TaskModule(head, {})}, standardize)


def test_a_site_that_is_no_stage_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^stitches after unknown stages \['b'\]; stages: \('a',\)$"):
        small(sites=("a", "b"))


def test_inputs_are_standardized_from_any_dtype() -> None:
    mean, std = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 0.5])
    module = Standardize(mean, std)
    raw = torch.tensor([[1, 6, 4], [5, 2, 3]], dtype=torch.uint8)
    assert module(raw).tolist() == [[0.0, 1.0, 2.0], [2.0, 0.0, 0.0]]
    assert torch.equal(small(standardize=module)(raw)["y"], small()(module(raw))["y"])


def test_logits_are_a_mapping_of_every_task_by_its_group(toy: Toy) -> None:
    _, built = toy("linear", ["t1", "t0", "t2", "t3"])
    model = built.model.eval()
    logits = model(inputs("linear"))
    assert issubclass(Logits, Mapping)
    assert isinstance(logits, Logits)
    assert model.tasks == ("t1", "t3", "t0", "t2")  # group by group, within one by tower
    assert tuple(logits) == tuple(logits.keys()) == model.tasks
    assert len(logits) == 4
    assert dict(logits).keys() == logits.keys()
    assert {name: tuple(whole.shape) for name, whole in logits.groups.items()} == {
        "multiclass_2": (B, 2, 2),
        "multiclass_3": (B, 2, 3),
    }
    for task, value in logits.items():
        group, t = model.places[task]
        assert model.modules_of_tasks()[group].tasks[t] == task
        assert torch.equal(value, logits.groups[group][:, t])
        assert value.untyped_storage().data_ptr() == logits.groups[group].untyped_storage().data_ptr()
    assert "t0" in logits
    assert "nobody" not in logits
    assert logits.get("nobody") is None
    with pytest.raises(KeyError, match="nobody"):
        logits["nobody"]
