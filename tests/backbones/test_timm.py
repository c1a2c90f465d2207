"""Backbones of timm: their stages, what is refused, and what summaries say of them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from mtl.build import build, parameter_groups
from mtl.dataset.header import checked_header
from mtl.errors import EnvironmentFault, UserError
from mtl.experiment.trial import build_and_try
from mtl.model.towers import Towers
from mtl.recipe.load import load_recipe
from mtl.recipe.specs import BACKBONES
from mtl.report.summary import summarize
from tests.support.optional import needs_timm
from tests.support.recipes import small, stitched

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4", "pool")
IMAGES = {"kind": "fashion_mnist", "sample": True}


def spec(name: str = "test_resnet", **options: Any) -> Any:
    return BACKBONES["timm"].model_validate({"name": name, **options})


def mapping(sharing: dict[str, Any] | None = None, **backbone: Any) -> dict[str, Any]:
    """Two tasks on images, and towers of timm."""
    return small(
        data__source=IMAGES,
        tasks={"a": {"kind": "fashion.garment"}, "b": {"kind": "fashion.audience"}},
        model={
            "backbone": {"kind": "timm", "name": "test_resnet", **backbone},
            "sharing": sharing or stitched("layer1", "layer2"),
        },
    )


def towers_of(recipe: Any) -> tuple[Any, Towers]:
    built = build(recipe, checked_header(recipe))
    (towers,) = (part for part in built.model.trunk.modules() if isinstance(part, Towers))
    return built, towers


# -- stages ------------------------------------------------------------------------------------------------


@needs_timm
@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("resnet18", STAGES),
        ("resnet18.a1_in1k", STAGES),
        ("test_convnext", ("stem", *(f"stages_{i}" for i in range(4)), "pool")),
        ("test_byobnet", ("stem", *(f"stages_{i}" for i in range(4)), "pool")),
        ("mobilenetv3_small_050", ("stem", *(f"blocks_{i}" for i in range(6)), "pool")),
        ("vgg11", (*(f"features_{i}" for i in (1, 4, 9, 14, 19, 20)), "pool")),
    ],
)
def test_a_network_has_named_stages(name: str, stages: tuple[str, ...]) -> None:
    assert spec(name).stage_names() == stages


@needs_timm
def test_a_stage_that_is_not_named_belongs_to_the_next_one() -> None:
    torch.manual_seed(0)
    whole = nn.Sequential(*(module for _, module, _ in spec().build(2, (3, 32, 32))))
    parts = spec(stages=("layer2", "layer3")).build(2, (3, 32, 32))
    assert [(name, shape) for name, _, shape in parts] == [("layer2", (48, 4, 4)), ("layer3", (192, 2, 2))]
    cut = nn.Sequential(*(module for _, module, _ in parts))
    for own, other in zip(cut.parameters(), whole.parameters(), strict=False):
        own.data.copy_(other.data)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(cut.eval()(x), whole[:4].eval()(x))


@needs_timm
def test_a_stage_writes_into_nothing_that_it_reads() -> None:
    for _, module, _ in spec("resnet18").build(2, (1, 32, 32)):
        assert not any(getattr(part, "inplace", False) for part in module.modules())


@needs_timm
def test_towers_start_different_and_the_first_is_the_same_beside_any_other() -> None:
    _, two = towers_of(load_recipe(mapping()))
    _, one = towers_of(load_recipe(mapping({"kind": "none"}) | {"tasks": {"a": {"kind": "fashion.garment"}}}))
    for stage in STAGES:
        for name, weight in two.stages[stage].named_parameters():
            if weight.ndim > 1:
                first, second = weight.chunk(2)
                assert not torch.equal(first, second)
                assert torch.equal(first, dict(one.stages[stage].named_parameters())[name])


@needs_timm
def test_an_unchanged_recipe_gives_the_same_weights() -> None:
    recipe = load_recipe(mapping({"kind": "none"}, name="dla46x_c", stages=["level0", "level2"]))
    _, first = towers_of(recipe)
    torch.rand(3)  # what was drawn before does not matter
    _, second = towers_of(recipe)
    state = second.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in first.state_dict().items())


# -- frozen stages -----------------------------------------------------------------------------------------


@needs_timm
def test_frozen_stages_are_not_trained_and_keep_their_statistics() -> None:
    recipe = load_recipe(mapping(freeze=["stem", "layer1"]))
    build_and_try(recipe)
    built, towers = towers_of(recipe)
    trained = {
        name for group in parameter_groups(recipe, built.model, nn.Identity()) for name in group["names"]
    }
    frozen = {name for name, p in built.model.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in built.model.named_parameters() if ".stem." in n or ".stages.layer1." in n}
    assert frozen
    assert trained == {name for name, _ in built.model.named_parameters()} - frozen
    before = {name: tensor.clone() for name, tensor in towers.state_dict().items()}
    built.model.train()
    optimizer = recipe.optimizer.build(parameter_groups(recipe, built.model, nn.Identity()))
    logits = built.model(torch.rand(4, 1, 28, 28))
    torch.stack([output.square().sum() for output in logits.groups.values()]).sum().backward()
    optimizer.step()
    changed = {
        name.split(".")[1] for name, tensor in towers.state_dict().items() if not tensor.equal(before[name])
    }
    assert changed == {"layer2", "layer3", "layer4"}


@needs_timm
def test_frozen_stages_take_no_part_in_a_weighting_of_gradients() -> None:
    recipe = load_recipe(mapping(freeze=["stem"]) | {"weighting": {"kind": "pcgrad"}})
    build_and_try(recipe)


# -- what is said ------------------------------------------------------------------------------------------


def summary(**backbone: Any) -> list[str]:
    sharing = {"kind": "none"} if backbone.get("name") else None
    recipe = load_recipe(mapping(sharing, **backbone))
    built, header = build_and_try(recipe)
    return summarize(recipe, built, header).splitlines()


@needs_timm
def test_a_summary_says_which_stages_are_grouped() -> None:
    assert f"grouped, one call for all towers: {', '.join(STAGES)}" in summary()
    stages = ["stem", "stages_0", "stages_1"]
    expected = "separate, a module for each tower: stem, stages_0, stages_1"
    assert expected in summary(name="test_convnext", stages=stages)
    expected = "grouped, one call for all towers: level0; separate, a module for each tower: level2"
    assert expected in summary(name="dla46x_c", stages=["level0", "level2"])


@needs_timm
def test_a_summary_says_which_stages_are_frozen_and_what_they_start_from() -> None:
    lines = summary(freeze=["stem"], pretrained=True)
    _, towers = towers_of(load_recipe(mapping()))
    size = sum(weight.numel() for weight in towers.stages["stem"].parameters())
    assert f"frozen: stem; their {size:,} parameters and their norms' statistics stay as they are" in lines
    assert "every tower starts from the same trained weights" in lines
    assert not any(line.startswith(("frozen", "every tower")) for line in summary())


@needs_timm
def test_a_remark_tells_inputs_that_trained_weights_do_not_expect() -> None:
    trained = spec("resnet18", pretrained=True)
    assert trained.remark("none") == (
        "resnet18 was trained on channels less their mean over their deviation (0.485, 0.456, 0.406; "
        "0.229, 0.224, 0.225 of pixels from 0 to 1), and data.standardize is none; "
        "kind: per_channel gives it such inputs"
    )
    assert "data.standardize is per_feature" in trained.remark("per_feature")
    assert trained.remark("per_channel") == spec("resnet18").remark("none") == ""


# -- what is refused ---------------------------------------------------------------------------------------

REFUSED = {
    "network": ({"name": "resnet19"}, "timm has no network 'resnet19' (did you mean 'resnet18'?)"),
    "place": ({"name": "hf-hub:someone/else"}, "String should match pattern"),
    "tag": ({"name": "resnet18.x"}, "Invalid pretrained tag (x) for resnet18."),
    "transformer": (
        {"name": "test_vit3"},
        "test_vit3 cannot be cut into stages: its forward pass is no chain of modules, as ",
    ),
    "branches": (
        {"name": "test_vit"},
        "test_vit cannot be cut into stages: its forward pass cannot be followed: ",
    ),
    "stage": (
        {"name": "resnet18", "stages": ("layer5",)},
        f"no stage 'layer5'; stages: {', '.join(STAGES)} (did you mean 'layer4'?)",
    ),
    "order": (
        {"name": "resnet18", "stages": ("layer2", "layer1")},
        f"stage 'layer1' is out of order; stages: {', '.join(STAGES)}",
    ),
    "twice": ({"name": "resnet18", "stages": ("stem", "stem")}, "stage 'stem' is out of order"),
    "frozen": (
        {"name": "resnet18", "stages": ("layer1", "layer2"), "freeze": ("stem",)},
        "no stage 'stem'; stages: layer1, layer2",
    ),
    "weights": (
        {"name": "resnet18", "weights": "x.safetensors"},
        "trained weights are given, and pretrained is false; set pretrained: true",
    ),
}


@needs_timm
@pytest.mark.parametrize(("options", "text"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_setting_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(**options)
    assert text in str(caught.value)


@needs_timm
def test_weights_that_timm_does_not_name_are_refused() -> None:
    from mtl.backbones.timm.package import load

    models = load().models
    name = next(n for n in models.list_models("resnet*") if not models.get_pretrained_cfg(n).has_weights)
    with pytest.raises(
        ValidationError, match=rf"timm names no weights of {name}; give a file by weights: PATH"
    ):
        spec(name, pretrained=True)
    assert spec(name, pretrained=True, weights="here.pth")


@needs_timm
@pytest.mark.parametrize(
    ("name", "shape", "text"),
    [
        ("resnet18", (8,), r"resnet18 reads images \(channels, height, width\), but a row has 8 numbers"),
        (
            "swin_tiny_patch4_window7_224",
            (3, 224, 224),
            "stage layers_0 gives .* where .channels, height, width. is",
        ),
        ("test_convnext", (3, 8, 8), "test_convnext: stage stages_2 does not fit on 3 x 8 x 8: "),
    ],
)
def test_images_that_do_not_fit_are_refused(name: str, shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(UserError, match=text) as caught:
        spec(name).build(2, shape)
    assert caught.value.path == ("name",)


@needs_timm
def test_equal_towers_that_mix_evenly_are_refused() -> None:
    with pytest.raises(UserError, match="start from the same weights and mix evenly would stay identical"):
        load_recipe(mapping(stitched("layer1", init="uniform"), pretrained=True))
    load_recipe(mapping(stitched("layer1", init="uniform")))


def test_a_forward_pass_that_drops_its_last_module_is_no_chain() -> None:
    from mtl.backbones.timm.network import NotAChain, _elements

    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.layer(x)
            return x

    with pytest.raises(NotAChain, match="does not give what its last module gives"):
        _elements(Dropping(), set())


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    for module in ("mtl.recipe.keys.checks", "mtl.backbones.timm.spec"):
        monkeypatch.setattr(
            sys.modules[module], "find_spec", lambda name: None if name == "timm" else found(name)
        )
    with pytest.raises(UserError) as caught:
        load_recipe(mapping())
    expected = 'model.backbone.kind: timm needs timm, not installed here; pip install "mtl-recipes[timm]"'
    assert str(caught.value) == f"recipe: {expected}"


# -- the import of timm ------------------------------------------------------------------------------------


@pytest.fixture
def not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which Python looks first for timm and torchvision, neither of which is imported yet."""
    own = {
        name: module
        for name, module in sys.modules.items()
        if name.partition(".")[0] in ("timm", "torchvision")
    }
    for name in own:
        del sys.modules[name]
    monkeypatch.syspath_prepend(tmp_path)
    try:
        yield tmp_path
    finally:
        for name in [n for n in sys.modules if n.partition(".")[0] in ("timm", "torchvision")]:
            del sys.modules[name]
        sys.modules.update(own)


def test_a_package_that_cannot_be_imported_is_a_fault_of_the_machine(not_imported: Path) -> None:
    from mtl.backbones.timm.package import load

    (not_imported / "timm.py").write_text('raise RuntimeError("operator torchvision::nms\\ndoes not exist")')
    (not_imported / "torchvision.py").write_text("")
    with pytest.raises(EnvironmentFault) as caught:
        load()
    assert str(caught.value) == (
        "timm cannot be imported: RuntimeError: operator torchvision::nms does not exist; "
        'pip install "mtl-recipes[timm]", or without torchvision: pip uninstall torchvision'
    )


def test_timm_is_imported_without_torchvision(not_imported: Path) -> None:
    from mtl.backbones.timm.package import load

    if importlib.util.find_spec("torchvision") is not None:
        pytest.skip("torchvision is installed")
    (not_imported / "timm.py").write_text(
        "from torchvision.ops.misc import FrozenBatchNorm2d\n"
        "import torchvision.transforms as transforms\n"
        "modes = {transforms.InterpolationMode.NEAREST: 'nearest'}\n"
    )
    timm = load()
    assert not isinstance(nn.BatchNorm2d(2), timm.FrozenBatchNorm2d)
    with pytest.raises(
        ModuleNotFoundError, match=r"FrozenBatchNorm2d is needed, and torchvision is not installed"
    ):
        timm.FrozenBatchNorm2d(3)
    assert not any(name.startswith("torchvision") for name in sys.modules)
    with pytest.raises(ModuleNotFoundError, match="No module named 'torchvision'"):
        importlib.import_module("torchvision")
