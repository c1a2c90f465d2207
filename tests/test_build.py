"""From recipe to network: starts keyed by name, parameters by role, and what the shapes forbid."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from mtl.build import build, parameter_groups
from mtl.data.columns import Columns, Header
from mtl.data.learned import Learned
from mtl.errors import ManyErrors, UserError
from mtl.model.heads import GroupedHead
from mtl.model.layers import GroupedLinear
from mtl.model.towers import SeparateTowers
from mtl.recipe.load import load_recipe
from mtl.recipe.schema import Recipe
from mtl.recipe.spec import BACKBONES, SOURCES, BackboneSpec, Shape, SourceSpec
from mtl.report.summary import parameter_count, summarize
from mtl.task_groups import TaskGroup, known_outputs, task_groups
from mtl.trial import build_and_try
from tests.test_errors import called, refused

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
    found = {}
    for name, parameter in model.towers.named_parameters():
        for tower, own in zip(
            model.towers.names, parameter.detach().chunk(len(model.towers.names)), strict=True
        ):
            found["tower " + tower, name] = own
    for head in model.heads.groups.values():
        assert isinstance(head, GroupedHead)
        for name, parameter in head.named_parameters():
            for task, own in zip(head.tasks, parameter.detach().chunk(len(head.tasks)), strict=True):
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
    assert [group.towers for group in groups] == [(0, 2), (1, 4), (3,)]
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
        is_alpha = name.startswith("stitches.")
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
    logits = built.model.forward_groups(torch.randn(4, 2, 8, 8))
    assert {name: tuple(value.shape) for name, value in logits.items()} == {
        "multiclass_3": (4, 128, 3),
        "multiclass_2": (4, 128, 2),
    }
    losses = []
    for group in built.groups:
        target = torch.zeros(4, len(group.tasks), dtype=torch.long)
        losses.append(group.spec.losses(logits[group.name], target, torch.ones(target.shape), {}))
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
    assert parameter_count(built.model.stitches) == stitches
    assert f"{stitches:,}" in summarize(loaded)
    assert built.shapes == {
        "conv1": (32, 28, 28),
        "pool1": (32, 14, 14),
        "conv2": (64, 14, 14),
        "pool2": (64, 7, 7),
        "fc3": (1024,),
    }


# -- what is refused ---------------------------------------------------------------------------------------


def stages_of(*stages: dict[str, Any]) -> dict[str, Any]:
    return {"stages": stages}


def pool(kind: str, **options: Any) -> dict[str, Any]:
    return {"name": "p", "kind": kind, **options}


NO_IMAGE = (
    "needs an image (channels, height, width), but its input is 4 features; "
    "put it before the first linear stage"
)
LEAVE_OUT = "leave `classes` out to use the column's own"
NOT_FIRST = "cannot be the first stage: towers part at the first conv or linear stage"

FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "kernel": (
        stages_of(CONV, POOL, {"name": "b", "kind": "conv", "channels": 2, "kernel": 7, "padding": 1}),
        "model.backbone.stages[2].kernel: a kernel of 7 with padding 1 does not fit on 4 x 4 pixels",
    ),
    "kernel without padding": (
        stages_of({**CONV, "kernel": 9, "padding": 0}),
        "model.backbone.stages[0].kernel: a kernel of 9 with padding 0 does not fit on 8 x 8 pixels",
    ),
    "max_pool": (
        stages_of(CONV, pool("max_pool", size=9)),
        "model.backbone.stages[1].size: a pool of 9 does not fit on 8 x 8 positions",
    ),
    "avg_pool": (
        stages_of(CONV, POOL, pool("avg_pool", size=5)),
        "model.backbone.stages[2].size: a pool of 5 does not fit on 4 x 4 positions",
    ),
    "conv after linear": (stages_of(FC, CONV), f"model.backbone.stages[1]: conv {NO_IMAGE}"),
    "pool after linear": (stages_of(FC, POOL), f"model.backbone.stages[1]: max_pool {NO_IMAGE}"),
    "mean after linear": (
        stages_of(FC, pool("global_avg_pool")),
        f"model.backbone.stages[1]: global_avg_pool {NO_IMAGE}",
    ),
    "max_pool first": (stages_of(POOL, FC), f"model.backbone.stages[0]: max_pool {NOT_FIRST}"),
    "avg_pool first": (
        stages_of(pool("avg_pool", size=2), FC),
        f"model.backbone.stages[0]: avg_pool {NOT_FIRST}",
    ),
    "mean first": (
        stages_of(pool("global_avg_pool"), FC),
        f"model.backbone.stages[0]: global_avg_pool {NOT_FIRST}",
    ),
    "dropout first": (
        stages_of(pool("dropout", p=0.1), FC),
        f"model.backbone.stages[0]: dropout {NOT_FIRST}",
    ),
    "a name twice": (
        stages_of(CONV, POOL, {**FC, "name": "conv1"}),
        "model.backbone.stages[2].name: stage 'conv1' is given twice",
    ),
    "a reserved name": (
        stages_of(CONV, {**FC, "name": "train"}),
        "model.backbone.stages: a stage cannot be called 'train': choose another name",
    ),
    "a name reserved in objects": (
        stages_of(CONV, {**FC, "name": "training"}),
        "model.backbone.stages: a stage cannot be called 'training': choose another name",
    ),
}


def garment(**options: Any) -> dict[str, Any]:
    return {"tasks": {"size": SIZE, "it": {**GARMENT, **options}}}


FAULTS |= {
    "unknown target": (
        garment(target="garmnt"),
        "tasks.it.target: no label column 'garmnt' (did you mean 'garment'?); columns: garment, size, raw",
    ),
    "overlapping groups": (
        garment(groups={"a": (0, 1), "b": (2, 1)}),
        "tasks.it.groups.b[1]: value 1 is in group 'a' already",
    ),
    "a value twice in a group": (
        garment(groups={"a": (0, 0), "b": (2, 1)}),
        "tasks.it.groups.a[1]: value 0 is in group 'a' already",
    ),
    "groups out of range": (
        garment(groups={"a": (0, 1), "b": (2, 3)}),
        "tasks.it.groups.b[1]: value 3 is not in column 'garment': 0..2",
    ),
    "a negative value": (
        garment(groups={"a": (0, 1, -1), "b": (2,)}),
        "tasks.it.groups.a[2]: value -1 is not in column 'garment': 0..2",
    ),
    "groups that leave a value out": (
        garment(groups={"a": (0,), "b": (2,)}),
        "tasks.it.groups: values 1 of column 'garment' are in no group; put each value into a group",
    ),
    "classes and groups": (
        garment(classes=3, groups={"a": (0, 1), "b": (2,)}),
        "tasks.it.classes: give `classes` or `groups`, not both",
    ),
    "too many classes": (
        garment(classes=4),
        f"tasks.it.classes: 4 classes, but column 'garment' has 3; {LEAVE_OUT}",
    ),
    "too few class names": (
        garment(classes=("a", "b")),
        f"tasks.it.classes: 2 classes, but column 'garment' has 3; {LEAVE_OUT}",
    ),
}


@pytest.mark.parametrize(("change", "text"), FAULTS.values(), ids=FAULTS)
def test_what_does_not_fit_is_refused_by_path(change: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError) as caught:
        build_and_try(recipe_of(**change))
    assert str(caught.value) == f"recipe: {text}"


def test_all_tasks_that_do_not_fit_are_named_at_once() -> None:
    tasks = {"a": {**GARMENT, "target": "x"}, "b": SIZE, "c": {**GARMENT, "classes": 9}}
    with pytest.raises(ManyErrors) as caught:
        build_and_try(recipe_of(tasks))
    assert [error.path for error in caught.value.errors] == [
        ("tasks", "a", "target"),
        ("tasks", "c", "classes"),
    ]


TABLE = """\
schema_version: 1
name: shop
data:
  source: {kind: table, path: shop.csv, id: key, inputs: {numeric: [x]}}
  split: {test: 0.5}
tasks:
  buys: {kind: binary, target: buys, sample_weight: value}
model: {backbone: {kind: layers, stages: [{name: fc1, kind: linear, features: 4}]}}
optimizer: {kind: sgd, lr: 0.1}
train: {epochs: 1, device: cpu}
"""


@pytest.mark.parametrize("command", ["validate", "run"])
@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("data.split={column: Part}", "data.split.column: no column 'Part' (did you mean 'part'?)"),
        (
            "data.split={test: 0.5, group: persn}",
            "data.split.group: no column 'persn' (did you mean 'person'?)",
        ),
        ("data.split={test: 0.5, by_time: zz}", "data.split.by_time: no column 'zz'"),
        (
            "tasks.buys.sample_weight=valu",
            "tasks.buys.sample_weight: no column 'valu' (did you mean 'value'?)",
        ),
        ("data.source.id=keys", "data.source: no column 'keys' (did you mean 'key'?)"),
    ],
)
def test_a_further_column_that_is_not_there(
    command: str,
    change: str,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shop.yaml").write_text(TABLE, encoding="utf-8")
    rows = "".join(f"{i},{i},{i % 2},1,p{i % 3},train\n" for i in range(8))
    Path("shop.csv").write_text("key,x,buys,value,person,part\n" + rows, encoding="utf-8")
    assert called(capsys, "validate", "shop.yaml").returncode == 0
    place = "shop.yaml:4:11" if "source" in change else "command line"
    expected = f"{place}: {line}; columns: key, x, buys, value, person, part"
    refused(lambda: called(capsys, command, "shop.yaml", change), tmp_path, [expected])


def test_further_columns_that_are_not_there_are_named_at_once() -> None:
    recipe = recipe_of({"garment": {**GARMENT, "sample_weight": "a"}, "size": {**SIZE, "sample_weight": "b"}})
    with pytest.raises(ManyErrors) as caught:
        build_and_try(recipe)
    assert [error.path for error in caught.value.errors] == [
        ("tasks", "garment", "sample_weight"),
        ("tasks", "size", "sample_weight"),
    ]


@pytest.mark.parametrize("change", [{}, {"sharing": STITCH}, {"towers": "one"}, {"head": {"norm": True}}])
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_what_fits_is_built_without_memory(change: dict[str, Any], norm: str) -> None:
    built, header = build_and_try(recipe_of(backbone={"norm": {"kind": norm}}, **change))
    assert header is IMAGES
    assert all(parameter.is_meta for parameter in built.model.parameters())
    assert built.shapes == {"conv1": (3, 8, 8), "pool1": (3, 4, 4), "fc2": (4,)}


# -- backbones of users ------------------------------------------------------------------------------------


class Unreached(nn.Module):
    """A linear map beside a parameter that nothing uses."""

    def __init__(self, n_towers: int) -> None:
        super().__init__()
        self.map = GroupedLinear(n_towers, 4, 4)
        self.unused = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.map(x)
        return y


class PluginSpec(BackboneSpec):
    """A flattened image to four features, and then what `second` says."""

    reference: ClassVar[str] = "ours"

    second: str = "linear"

    def stage_names(self) -> tuple[str, ...]:
        return ("first", "second")

    def build(self, n_towers: int, input_shape: Shape) -> list[tuple[str, nn.Module, Shape]]:
        first = nn.Sequential(nn.Flatten(), GroupedLinear(n_towers, 128, 4, shared_input=True))
        second: dict[str, nn.Module] = {
            "linear": GroupedLinear(n_towers, 4, 4),
            "crooked": GroupedLinear(n_towers, 5, 4),
            "lying": GroupedLinear(n_towers, 4, 6),
            "unreached": Unreached(n_towers),
        }
        if self.second == "separate":
            second["separate"] = SeparateTowers(
                [nn.Linear(4, 4, bias=False) for _ in range(n_towers)], shared_input=False
            )
        return [("first", first, (4,)), ("second", second[self.second], (4,))]


@pytest.fixture
def plugin() -> Iterator[str]:
    BACKBONES.register("plugin")(PluginSpec)
    yield "plugin"
    del BACKBONES._members["plugin"]


def plugin_recipe(plugin: str, second: str, *tasks: str) -> Recipe:
    values = recipe_of(dict.fromkeys(tasks or ("a", "b", "c"), GARMENT)).plain()
    values["model"]["backbone"] = {"kind": plugin, "second": second}
    return load_recipe(values)


@pytest.mark.parametrize(
    ("second", "text"),
    [
        ("crooked", r"recipe: model\.backbone: shapes do not chain: .+"),
        ("lying", r"recipe: model\.backbone: shapes do not chain: .+"),
        (
            "unreached",
            re.escape("recipe: model.backbone: towers.stages.second.unused gets no gradient from any task"),
        ),
    ],
)
def test_a_backbone_that_does_not_work_is_refused(plugin: str, second: str, text: str) -> None:
    with pytest.raises(UserError, match=rf"^{text}$"):
        build_and_try(plugin_recipe(plugin, second))


@pytest.mark.parametrize("second", ["linear", "separate"])
def test_a_backbone_that_works_is_built(plugin: str, second: str) -> None:
    recipe = plugin_recipe(plugin, second)
    build_and_try(recipe)
    logits = build(recipe, IMAGES).model(torch.randn(3, 2, 8, 8))
    assert {task: tuple(value.shape) for task, value in logits.items()} == dict.fromkeys("abc", (3, 3))


def test_separate_towers_start_by_their_names_too(plugin: str) -> None:
    two, one = (
        build(plugin_recipe(plugin, "separate", *tasks), IMAGES).model.towers.stages["second"].towers
        for tasks in (("a", "b"), ("b",))
    )
    assert torch.equal(two[1].weight, one[0].weight)
    assert not torch.equal(two[0].weight, two[1].weight)
