"""What a recipe and its columns do not fit is refused before training, by the path of the key."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from mtl.build import build
from mtl.errors import ManyErrors, UserError
from mtl.experiment.trial import build_and_try
from mtl.model.layers import GroupedLinear
from mtl.model.towers import SeparateTowers
from mtl.model.trunk import StitchedTowers
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from mtl.recipe.specs import BACKBONES, BackboneSpec, Shape
from tests.support.assertions import called, refused
from tests.test_build import CONV, FC, GARMENT, IMAGES, POOL, SIZE, STITCH, recipe_of
from tests.test_build import images as images


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
    assert isinstance(built.model.trunk, StitchedTowers)
    assert built.model.trunk.towers.shapes == {"conv1": (3, 8, 8), "pool1": (3, 4, 4), "fc2": (4,)}


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
            re.escape(
                "recipe: model.backbone: trunk.towers.stages.second.unused gets no gradient from any task"
            ),
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
        build(plugin_recipe(plugin, "separate", *tasks), IMAGES).model.trunk for tasks in (("a", "b"), ("b",))
    )
    weight = "towers.stages.second.towers.{}.weight"
    assert torch.equal(two.get_parameter(weight.format(1)), one.get_parameter(weight.format(0)))
    assert not torch.equal(two.get_parameter(weight.format(0)), two.get_parameter(weight.format(1)))
