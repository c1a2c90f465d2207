"""From recipe to network: starts keyed by name, parameters by role, and what the shapes forbid."""

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from mtl.build import build, parameter_groups
from mtl.data.learned import Learned
from mtl.data.types import Columns, Header
from mtl.experiment.trial import build_and_try
from mtl.model.trunk import StitchedTowers
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from mtl.recipe.specs import SOURCES, SourceSpec
from mtl.report.summary import parameter_count, summarize
from mtl.task_groups import TaskGroup, known_outputs, task_groups

LABELS = {
    "garment": ("shirt", "shoe", "bag"),
    "size": ("small", "large"),
    "raw": None,
}
IMAGES = Header(input_shape=(2, 8, 8), labels=LABELS)
CONV = {"name": "conv1", "kind": "conv", "channels": 3, "kernel": 3}
POOL = {"name": "pool1", "kind": "max_pool", "size": 2}
FC = {"name": "fc2", "kind": "linear", "features": 4}
STITCH = {"kind": "cross_stitch", "after": ("pool1", "fc2")}
GARMENT = {"kind": "multiclass", "target": "garment"}
SIZE = {"kind": "multiclass", "target": "size"}


@pytest.fixture(autouse=True)
def images() -> Iterator[None]:
    """A source `images` with the header above."""

    @SOURCES.register("images")
    class Images(SourceSpec):
        """Nothing but a header."""

        reference: ClassVar[str] = "ours"

        def header(self) -> Header:
            return IMAGES

        def columns(self, seed: int) -> Columns:
            raise NotImplementedError

    yield
    del SOURCES._members["images"]


def recipe_of(
    tasks: dict[str, dict[str, Any]] | None = None,
    stages: tuple[dict[str, Any], ...] = (CONV, POOL, FC),
    **model: Any,
) -> Recipe:
    backbone = {"kind": "layers", "stages": stages, **model.pop("backbone", {})}
    return load_recipe(
        {
            "schema_version": 1,
            "name": "toy",
            "seed": model.pop("seed", 0),
            "data": {"source": {"kind": "images"}},
            "tasks": tasks or {"garment": GARMENT, "size": SIZE},
            "model": {"backbone": backbone, **model},
            "optimizer": {"kind": "sgd", "lr": 0.5, "l2": 0.01},
            "train": {"epochs": 1},
        }
    )


# -- initial weights ---------------------------------------------------------------------------------------


def starts(recipe: Recipe) -> dict[tuple[str, str], Tensor]:
    """(tower or task, parameter) -> its initial value."""
    model = build(recipe, IMAGES).model
    assert isinstance(model.trunk, StitchedTowers)
    towers, found = model.trunk.towers, {}
    for name, parameter in towers.named_parameters():
        for tower, own in zip(towers.names, parameter.detach().chunk(len(towers.names)), strict=True):
            found["tower " + tower, name] = own
    for module in model.modules_of_tasks().values():
        for name, parameter in module.head.named_parameters():
            for task, own in zip(module.tasks, parameter.detach().chunk(len(module.tasks)), strict=True):
                found["head " + task, name] = own
    return found


BEFORE: dict[str, Any] = {"tasks": {"garment": GARMENT, "size": SIZE}, "sharing": STITCH}
CHANGES: dict[str, dict[str, Any]] = {
    "a third task": {"tasks": {"garment": GARMENT, "other": GARMENT, "size": SIZE}},
    "a task in its group": {"tasks": {"fit": SIZE, "garment": GARMENT, "size": SIZE}},
    "another order": {"tasks": {"size": SIZE, "garment": GARMENT}},
    "another loss": {"tasks": {"garment": {**GARMENT, "label_smoothing": 0.1}, "size": SIZE}},
    "no sharing": {"sharing": {"kind": "none"}},
    "another site": {"sharing": {**STITCH, "after": ("conv1",)}},
    "another granularity": {"sharing": {**STITCH, "granularity": "channel", "init": "uniform"}},
    "towers by name": {"towers": {"size": ("size",), "garment": ("garment",)}},
    "a stage without weights": {"stages": (CONV, POOL, {"name": "drop", "kind": "dropout", "p": 0.5}, FC)},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changes_elsewhere_leaves_a_tower_and_its_head_at_their_start(change: dict[str, Any]) -> None:
    before, after = starts(recipe_of(**BEFORE)), starts(recipe_of(**{**BEFORE, **change}))
    kept = {"tower garment", "tower size", "head garment", "head size"}
    assert {owner for owner, _ in before} == kept
    compared = {key for key in after if key[0] in kept}
    assert compared == set(before)
    assert [key for key in compared if not torch.equal(before[key], after[key])] == []


def test_weights_of_towers_and_tasks_differ_from_each_other() -> None:
    tasks = {"a": GARMENT, "b": GARMENT}
    found = starts(recipe_of(tasks))
    weights = [key for key, value in found.items() if value.ndim > 1]
    assert len(weights) == 2 * 3
    for owner, name in weights:
        if owner.endswith("a"):
            assert not torch.equal(found[owner, name], found[owner[:-1] + "b", name])


def test_tower_init_same_makes_towers_equal_and_heads_not() -> None:
    found = starts(recipe_of({"a": GARMENT, "b": GARMENT}, tower_init="same"))
    for owner, name in found:
        if owner == "tower a":
            assert torch.equal(found[owner, name], found["tower b", name])
    assert not torch.equal(found["head a", "linear.weight"], found["head b", "linear.weight"])


@pytest.mark.parametrize("seed", [1, {"init": 1}])
def test_another_seed_gives_other_weights(seed: Any) -> None:
    before, after = starts(recipe_of()), starts(recipe_of(seed=seed))
    assert all(not torch.equal(value, after[key]) for key, value in before.items() if value.ndim > 1)


def test_only_the_seed_of_the_weights_matters_to_them() -> None:
    before, after = starts(recipe_of()), starts(recipe_of(seed={"order": 7, "split": 7, "labels": 7}))
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_the_global_generator_has_no_part_in_it() -> None:
    before = starts(recipe_of())
    torch.manual_seed(12345)
    assert all(torch.equal(value, before[key]) for key, value in starts(recipe_of()).items())


@pytest.mark.parametrize("init", ["he", "xavier"])
def test_heads_and_stages_follow_the_init_of_the_backbone(init: str) -> None:
    stages = ({"name": "fc1", "kind": "linear", "features": 400},)
    found = starts(recipe_of(stages=stages, backbone={"init": init}))
    for key, fan_in, fan_out in (
        (("tower size", "fc1.map.weight"), 128, 400),
        (("head size", "linear.weight"), 400, 2),
    ):
        found_key = next(k for k in found if k[0] == key[0] and k[1].endswith(key[1]))
        variance = 2 / fan_in if init == "he" else 2 / (fan_in + fan_out)
        assert found[found_key].var().item() == pytest.approx(variance, rel=0.1)


# -- groups of tasks and of parameters ---------------------------------------------------------------------


def groups_of(recipe: Recipe) -> tuple[TaskGroup, ...]:
    return task_groups(
        recipe, Learned({t: n or ("?", "?") for t, n in known_outputs(recipe, IMAGES).items()})
    )


def test_tasks_alike_are_one_group_and_others_are_not() -> None:
    smooth = {**GARMENT, "label_smoothing": 0.1}
    recipe = recipe_of({"a": GARMENT, "b": SIZE, "c": {**GARMENT, "weight": 3.0}, "d": smooth, "e": SIZE})
    groups = groups_of(recipe)
    assert [group.tasks for group in groups] == [("a", "c"), ("b", "e"), ("d",)]
    assert [group.towers for group in groups] == [("a", "c"), ("b", "e"), ("d",)]
    assert [group.n_outputs for group in groups] == [3, 2, 3]
    assert [group.name for group in groups] == ["multiclass_3", "multiclass_2", "multiclass_3_2"]
    assert groups[0].outputs == (LABELS["garment"],) * 2


def test_groups_have_different_names() -> None:
    classes = {f"c{n}_{s}": (n, s) for n in (20, 2, 3, 22) for s in (0.0, 0.1, 0.2)}
    tasks = {
        name: {"kind": "multiclass", "target": "raw", "classes": n, "label_smoothing": s}
        for name, (n, s) in ((key.replace(".", ""), value) for key, value in classes.items())
    }
    groups = groups_of(recipe_of(tasks))
    assert len({group.name for group in groups}) == len(groups) == 12


@pytest.mark.parametrize("head_norm", [True, False])
@pytest.mark.parametrize("granularity", ["scalar", "channel", "dense"])
@pytest.mark.parametrize("weighting", [nn.Identity(), nn.Linear(2, 2)], ids=["stateless", "learned"])
def test_every_parameter_is_in_one_group_with_its_role(
    granularity: str, head_norm: bool, weighting: nn.Module
) -> None:
    sharing = {**STITCH, "granularity": granularity, "lr_scale": 8.0}
    recipe = recipe_of(sharing=sharing, head={"norm": head_norm})
    model = build(recipe, IMAGES).model
    groups = parameter_groups(recipe, model, weighting)
    role_of = {}
    for group in groups:
        assert len(group["params"]) == len(group["names"])  # type: ignore[arg-type]
        for name, parameter in zip(group["names"], group["params"], strict=True):  # type: ignore[call-overload]
            assert name not in role_of
            role_of[name] = (parameter, group["decay"], group["lr_scale"], group["lr"])
    own = dict(model.named_parameters())
    assert set(role_of) == set(own) | {f"weighting.{name}" for name, _ in weighting.named_parameters()}
    assert len({id(parameter) for parameter, *_ in role_of.values()}) == len(role_of)
    for name, (parameter, decay, scale, lr) in role_of.items():
        is_alpha = name.startswith("trunk.stitches.")
        assert parameter is own.get(name, parameter)
        assert decay == (parameter.ndim > 1 and not is_alpha and not name.startswith("weighting."))
        assert scale == (8.0 if is_alpha else 1.0)
        assert lr == 0.5 * scale


def test_a_network_without_stitches_has_no_group_for_them() -> None:
    recipe = recipe_of()
    groups = parameter_groups(recipe, build(recipe, IMAGES).model, nn.Identity())
    assert [(group["decay"], group["lr"]) for group in groups] == [(True, 0.5), (False, 0.5)]


# -- size --------------------------------------------------------------------------------------------------


def test_256_tasks_build_and_take_a_step() -> None:
    stages = (
        {"name": "conv1", "kind": "conv", "channels": 1, "kernel": 3, "stride": 4},
        {**FC, "features": 2},
    )
    tasks = {f"t{t}": SIZE if t % 2 else GARMENT for t in range(256)}
    recipe = recipe_of(tasks, stages, sharing={"kind": "cross_stitch", "after": ("conv1", "fc2")})
    built = build(recipe, IMAGES)
    optimizer = recipe.optimizer.build(parameter_groups(recipe, built.model, nn.Identity()))
    before = {name: value.detach().clone() for name, value in built.model.named_parameters()}
    logits = built.model(torch.randn(4, 2, 8, 8)).groups
    assert {name: tuple(value.shape) for name, value in logits.items()} == {
        "multiclass_3": (4, 128, 3),
        "multiclass_2": (4, 128, 2),
    }
    losses = []
    for name, module in built.model.modules_of_tasks().items():
        target = torch.zeros(4, len(module.tasks), dtype=torch.long)
        sum_T, weight_T = module.loss(logits[name], target, torch.ones(target.shape))
        losses.append(sum_T / weight_T)
    torch.cat(losses).sum().backward()
    optimizer.step()
    for name, value in built.model.named_parameters():
        assert value.isfinite().all(), name
        assert not torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("recipe", "stitches"),
    [
        ("fashion_stitch", 12),
        ("fashion_stitch_dense", 200_884_224),
        ("fashion_stitch_channel", (32 + 64 + 1024) * 4),
    ],
)
def test_published_sizes(recipe: str, stitches: int) -> None:
    loaded = load_recipe(recipe)
    built, _ = build_and_try(loaded)
    assert all(parameter.is_meta for parameter in built.model.parameters())
    assert isinstance(built.model.trunk, StitchedTowers)
    assert parameter_count(built.model.trunk.stitches) == stitches
    assert f"{stitches:,}" in summarize(loaded, *build_and_try(loaded))
    assert built.model.trunk.towers.shapes == {
        "conv1": (32, 28, 28),
        "pool1": (32, 14, 14),
        "conv2": (64, 14, 14),
        "pool2": (64, 7, 7),
        "fc3": (1024,),
    }
