"""What a trunk says of itself: roles, what is shared, and which tasks reach which part, as autograd finds it.

Shapes: B batch, K towers, N tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtl.build import Built
from mtl.model.inputs import TableInputs
from mtl.model.stitched import StitchedMultiTower
from mtl.model.tasks.heads import GroupedHead
from mtl.model.tasks.module import TaskModule
from mtl.model.trunk import SharingMatrix, StitchedTowers, Trunk, along, reach_of_slices
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.specs import SHARING
from tests.support.plans import plan

Toy = Callable[..., tuple[Recipe, Built]]

B = 8
STAGES = ("a", "b", "c")
TOWERS: dict[str, dict[str, tuple[str, ...]]] = {
    "a tower each": {"x": ("t0",), "y": ("t1",), "z": ("t2",)},
    "another order": {"x": ("t2",), "y": ("t0",), "z": ("t1",)},
    "towers with several tasks": {"x": ("t3", "t1"), "y": ("t0",), "z": ("t2", "t4")},
    "one tower": {"x": ("t0", "t1")},
}
SITES = {
    "no sharing": (),
    "in the middle": ("b",),
    "at the start and in the middle": ("a", "b"),
    "at the end": ("c",),
    "everywhere": STAGES,
}
every_plan = pytest.mark.parametrize("towers", TOWERS.values(), ids=TOWERS)


def trunk_of(
    towers: dict[str, tuple[str, ...]], sites: tuple[str, ...], granularity: str = "scalar", **options: Any
) -> StitchedTowers:
    """A trunk in double precision; every alpha is random."""
    mixing = {"after": sites, "granularity": granularity}
    sharing = SHARING["cross_stitch"].model_validate(mixing) if sites else SHARING["none"]()
    trunk = sharing.build(plan(towers, stages=STAGES, **options))
    assert isinstance(trunk, StitchedTowers)
    for parameter in trunk.stitches.parameters():
        nn.init.normal_(parameter)
    return trunk.double()


def expanded(reach: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Parameter -> (*shape, N), by name."""
    shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
    assert set(reach) == set(shapes)
    return {name: served.expand(*shapes[name], served.shape[-1]) for name, served in reach.items()}


def by_autograd(outputs: list[Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Parameter -> (*shape, N) where the gradient of each task's output is not zero; outputs are weighted at random."""
    parameters = dict(module.named_parameters())
    found = []
    for output in outputs:
        loss = (output * torch.randn_like(output)).sum()
        found.append(
            torch.autograd.grad(
                loss, list(parameters.values()), retain_graph=True, allow_unused=True, materialize_grads=True
            )
        )
    return {
        name: torch.stack([gradients[i] != 0 for gradients in found], -1) for i, name in enumerate(parameters)
    }


# -- who reaches what --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3,), (2, 4, 4)], ids=["vectors", "images"])
@pytest.mark.parametrize("granularity", ["scalar", "channel", "dense"])
@pytest.mark.parametrize("sites", SITES.values(), ids=SITES)
@every_plan
def test_reach_is_what_autograd_finds(
    towers: dict[str, tuple[str, ...]], sites: tuple[str, ...], granularity: str, shape: tuple[int, ...]
) -> None:
    trunk = trunk_of(towers, sites, granularity, shape=shape)
    h = trunk(torch.randn(B, *shape, dtype=torch.float64))
    found = by_autograd([h[:, reading] for reading in trunk.reading_of], trunk)
    for name, served in expanded(trunk.reach(), trunk).items():
        assert torch.equal(found[name], served), name


@pytest.mark.parametrize("shape", [(3,), (2, 4, 4)], ids=["vectors", "images"])
@pytest.mark.parametrize("sites", SITES.values(), ids=SITES)
@every_plan
def test_reach_of_separate_towers_is_what_autograd_finds(
    towers: dict[str, tuple[str, ...]], sites: tuple[str, ...], shape: tuple[int, ...]
) -> None:
    trunk = trunk_of(towers, sites, shape=shape, separate=True)
    h = trunk(torch.randn(B, *shape, dtype=torch.float64))
    found = by_autograd([h[:, reading] for reading in trunk.reading_of], trunk)
    for name, served in expanded(trunk.reach(), trunk).items():
        assert torch.equal(found[name], served), name


@pytest.mark.parametrize("sites", SITES.values(), ids=SITES)
@every_plan
def test_reach_of_copies_is_who_reads_their_inputs(
    towers: dict[str, tuple[str, ...]], sites: tuple[str, ...]
) -> None:
    trunk = trunk_of(towers, sites, own_inputs=True)
    x = torch.randn(B, 3 * len(towers), dtype=torch.float64, requires_grad=True)
    h = trunk(x)
    rows = []
    for reading in trunk.reading_of:
        (gradient,) = torch.autograd.grad(h[:, reading].sin().sum(), x, retain_graph=True)
        rows.append((gradient != 0).any(0).view(len(towers), 3).all(-1))
    assert torch.equal(trunk.reach_of_copies(), torch.stack(rows, -1))


def test_a_unit_that_does_not_say_where_its_rows_lie_serves_every_task() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Parameter(torch.rand(2))

        def forward(self, x: Tensor) -> Tensor:
            own = x.unflatten(1, (2, 3))
            mixed: Tensor = own + self.gate[:, None] * own.mean(1, keepdim=True)
            return mixed.flatten(1)

    towers = {"x": ("t0",), "y": ("t1",)}
    given = plan(towers)
    trunk = StitchedTowers(
        given.stages(("x", "y")), {"b": Mean()}, given.tasks_of_towers(), given.reading_of()
    )
    assert all(served.all() for served in trunk.reach().values())


def test_a_parameter_that_towers_have_in_common_is_reached_by_their_tasks() -> None:
    """A slope of one number in a grouped stage is no tower's own."""
    reach_KN = torch.tensor([[True, False, False], [False, True, False]])
    stage = nn.Sequential(nn.BatchNorm1d(6), nn.PReLU())
    found = expanded(reach_of_slices(stage, reach_KN), stage)
    assert found["0.weight"].tolist() == [reach_KN[k].tolist() for k in (0, 0, 0, 1, 1, 1)]
    assert found["1.weight"].tolist() == [[True, True, False]]
    assert along(reach_KN, torch.tensor(1.0)).tolist() == [True, True, False]


def test_reach_in_the_whole_network_is_what_autograd_finds(toy: Toy) -> None:
    """Heads too, whatever the order of tasks within groups and towers; a unit whose ReLU is shut has no gradient."""
    towers = {"left": ("t2", "t1"), "right": ("t0", "t3", "t4")}
    tasks = ("t4", "t1", "t2", "t3", "t0")
    for sharing in (None, {"kind": "cross_stitch"}, {"kind": "cross_stitch", "after": ("pool1",)}):
        _, built = toy("conv", tasks, towers=towers, sharing=sharing, head={"norm": True})
        model = built.model.double()
        logits = model(torch.randn(B, 2, 8, 8, dtype=torch.float64))
        assert model.tasks != tasks
        found = by_autograd([logits[task] for task in tasks], model)
        for name, served in expanded(model.reach(tasks), model).items():
            assert not (found[name] & ~served).any(), name
            over_entries = tuple(range(served.ndim - 1))
            assert torch.equal(found[name].any(over_entries), served.any(over_entries)), name


@pytest.mark.parametrize("sites", SITES.values(), ids=SITES)
def test_vectors_of_categories_are_reached_as_their_towers_are(sites: tuple[str, ...]) -> None:
    towers = {"x": ("t2", "t0"), "y": ("t1",)}
    trunk = trunk_of(towers, sites, own_inputs=True)
    numbers = torch.zeros(1), torch.ones(1), torch.zeros(1)
    inputs = TableInputs(*numbers, indicators=(), n_values=(3,), embedding=2, n_towers=2)
    head = GroupedHead(("t0", "t2", "t1"), (0, 0, 1), 2, 3, 2)
    for module in (inputs, head):
        for parameter in module.parameters():
            nn.init.normal_(parameter)
    model = StitchedMultiTower(trunk, {"it": TaskModule(head, {})}, inputs).double()
    logits = model(torch.stack([torch.randn(B), torch.arange(B) % 3 + 1], 1).double())
    tasks = ("t0", "t1", "t2")
    found = by_autograd([logits[task] for task in tasks], model)
    for name, served in expanded(model.reach(tasks), model).items():
        assert torch.equal(found[name], served), name


# -- roles, and what is shared -----------------------------------------------------------------------------


def test_roles_part_the_parameters(toy: Toy) -> None:
    _, built = toy("conv", 2, sharing={"kind": "cross_stitch"}, head={"norm": False})
    roles = built.model.parameter_roles()
    assert set(roles) == {name for name, _ in built.model.named_parameters()}
    for name, parameter in built.model.named_parameters():
        expected = "weight" if parameter.ndim > 1 else "scale"
        assert roles[name] == ("sharing" if name.startswith("trunk.stitches.") else expected)
    assert {role: list(roles.values()).count(role) for role in set(roles.values())} == {
        "sharing": 3,
        "weight": 3 + 2,
        "scale": 2 * 3 + 2,
    }


def test_what_is_shared_is_given_by_site_without_a_graph(toy: Toy) -> None:
    sharing = {"kind": "cross_stitch", "granularity": "channel", "after": ("pool1", "fc3")}
    _, built = toy("conv", 3, sharing=sharing)
    found = built.model.sharing()
    assert list(found) == ["pool1", "fc3"]
    for site, matrix in found.items():
        assert matrix.targets == matrix.sources == ("t0", "t1", "t2")
        assert not matrix.values.requires_grad
        alpha = built.model.trunk.get_parameter(f"stitches.{site}.alpha")
        torch.testing.assert_close(matrix.values, alpha.detach().mean(0))
    assert toy("conv", 3)[1].model.sharing() == {}


class Affine(Trunk):
    """A trunk of its own: nothing is said of it but its shape."""

    def __init__(self) -> None:
        super().__init__(("shared",), (4,), (0, 0, 0))
        self.linear = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.linear(x)
        return h.unsqueeze(1)


def test_a_trunk_that_says_nothing_serves_every_task_and_shares_nothing_that_is_shown() -> None:
    trunk = Affine()
    assert trunk.n_readings == 1
    assert trunk.roles() == {"linear.weight": "weight", "linear.bias": "scale"}
    for name, served in expanded(trunk.reach(), trunk).items():
        assert served.shape == (*trunk.get_parameter(name).shape, 3)
        assert served.all()
    assert trunk.reach_of_copies().tolist() == [[True, True, True]]
    assert trunk.readings() == {}
    assert trunk.penalty() is None


@every_plan
def test_a_plan_knows_which_task_reads_which_tower(towers: dict[str, tuple[str, ...]]) -> None:
    given = plan(towers)
    names = list(towers)
    for t, task in enumerate(given.tasks):
        own = [name for name, tasks in towers.items() if task in tasks]
        assert [names[given.reading_of()[t]]] == own
        assert [names[k] for k in given.tasks_of_towers()[:, t].nonzero().flatten().tolist()] == own
    assert trunk_of(towers, ()).n_readings == len(towers)
    with torch.device("meta"):
        assert not given.tasks_of_towers().is_meta


def test_readings_are_those_of_the_towers_in_their_order() -> None:
    trunk = trunk_of(TOWERS["towers with several tasks"], ("b",), shape=(2, 4, 4))
    x = torch.randn(B, 2, 4, 4, dtype=torch.float64)
    h = trunk(x)
    assert trunk.shape == (2, 4, 4)
    assert h.shape == (B, 3, 2, 4, 4)
    stages, unit = trunk.towers.stages, trunk.stitches["b"]
    assert torch.equal(h.flatten(1, 2), stages["c"](unit(stages["b"](stages["a"](x)))))
    assert list(trunk.readings()) == ["b"]
    assert isinstance(trunk.readings()["b"], SharingMatrix)
