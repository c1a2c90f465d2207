"""Trained weights of timm: from a file, from the hub's cache, and a clear word where they cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mtl.build import build
from mtl.dataset.header import checked_header
from mtl.errors import EnvironmentFault, UserError
from mtl.model.towers import SeparateTowers, Towers
from mtl.recipe.load import load_recipe, to_yaml
from mtl.recipe.specs import BACKBONES
from tests.support.optional import needs_timm
from tests.support.recipes import small, stitched

pytestmark = needs_timm

NETWORK, K = "test_resnet", 2


@pytest.fixture(autouse=True)
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub does not answer, and its cache is an empty folder, which is the result."""
    import requests
    from huggingface_hub import constants

    def refuse(*_: object, **__: object) -> None:
        raise requests.ConnectionError("no network\nin tests")

    monkeypatch.setattr(requests, "head", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def weights(name: str = NETWORK, channels: int = 3, classes: int = 1000) -> dict[str, Tensor]:
    """The state of a network of timm with random weights."""
    from mtl.backbones.timm.network import make

    torch.manual_seed(7)
    return make(name, channels, num_classes=classes).state_dict()


def written(folder: Path, tensors: dict[str, Tensor], name: str = "w.safetensors") -> Path:
    if name.endswith(".safetensors"):
        save_file(tensors, folder / name)
    else:
        torch.save({"state_dict": tensors, "epoch": 3}, folder / name)
    return folder / name


def spec(path: Path | None, name: str = NETWORK, **options: Any) -> Any:
    given = {} if path is None else {"weights": str(path)}
    return BACKBONES["timm"].model_validate({"name": name, "pretrained": True, **given, **options})


def mapping(**backbone: Any) -> dict[str, Any]:
    return small(
        data__source={"kind": "fashion_mnist", "sample": True},
        tasks={"a": {"kind": "fashion.garment"}, "b": {"kind": "fashion.audience"}},
        model={
            "backbone": {"kind": "timm", "name": NETWORK, "pretrained": True, **backbone},
            "sharing": stitched("layer1", "layer4"),
        },
    )


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("classes", [1000, 5, 0])
def test_every_tower_starts_from_the_weights_of_a_file(tmp_path: Path, name: str, classes: int) -> None:
    tensors = weights(classes=classes)
    trained = spec(written(tmp_path, tensors, name)).trained(K, (3, 32, 32))
    names = {
        f"{path}.{rest}" for path, rest in (key.split(".", 1) for key in tensors if key.split(".")[0] != "fc")
    }
    found = {key: (stage, key) for stage, state in trained.items() for key in state}
    assert {key for _, key in found.values()} == names
    for key, (stage, _) in found.items():
        for part in trained[stage][key].chunk(K) if tensors[key].ndim else [trained[stage][key]]:
            assert torch.equal(part, tensors[key])


def test_separate_towers_start_from_the_weights_too(tmp_path: Path) -> None:
    name = "test_convnext"
    tensors = weights(name)
    backbone = spec(written(tmp_path, tensors), name)
    trained = backbone.trained(K, (3, 64, 64))
    for stage, module, _ in backbone.build(K, (3, 64, 64)):
        assert isinstance(module, SeparateTowers)
        module.load_state_dict(trained[stage])
    for k in range(K):
        assert torch.equal(trained["stem"][f"towers.{k}.stem.0.weight"], tensors["stem.0.weight"])
        assert torch.equal(trained["pool"][f"towers.{k}.head.norm.weight"], tensors["head.norm.weight"])


def test_the_first_layer_is_adapted_to_the_channels(tmp_path: Path) -> None:
    tensors = weights()
    trained = spec(written(tmp_path, tensors)).trained(K, (1, 32, 32))["stem"]["conv1.0.weight"]
    expected = tensors["conv1.0.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(trained, torch.cat([expected] * K))
    own = weights(channels=1)
    trained = spec(written(tmp_path, own, "one.pth")).trained(K, (1, 32, 32))["stem"]["conv1.0.weight"]
    assert torch.equal(trained, torch.cat([own["conv1.0.weight"]] * K))


def test_weights_in_the_cache_of_the_hub_are_taken_without_a_network(no_network: Path) -> None:
    from mtl.backbones.timm.package import load

    tensors, repository = weights(), load().models.get_pretrained_cfg(NETWORK).hf_hub_id
    folder = no_network / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    for each in (snapshot, folder / "refs"):
        each.mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    written(snapshot, tensors, "model.safetensors")
    trained = spec(None).trained(K, (3, 32, 32))
    assert torch.equal(trained["stem"]["conv1.0.weight"].chunk(K)[1], tensors["conv1.0.weight"])


def test_a_hub_that_does_not_answer_is_a_fault_of_the_machine() -> None:
    recipe = load_recipe(mapping())
    header = checked_header(recipe)
    build(recipe, header)  # needs no weights
    with pytest.raises(EnvironmentFault) as caught:
        build(recipe, header, trained=True)
    assert str(caught.value) == (
        f"recipe: model.backbone.pretrained: the weights of {NETWORK} are not in the hub's cache, and "
        "https://huggingface.co does not answer (ConnectionError); "
        "give a file by weights: PATH, or set HF_HOME to a folder with the hub's cache"
    )


def test_a_network_that_is_forbidden_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTL_OFFLINE", "1")
    recipe = load_recipe(mapping())
    with pytest.raises(EnvironmentFault, match=r"the network is forbidden \(MTL_OFFLINE\)"):
        build(recipe, checked_header(recipe), trained=True)


def test_a_download_that_breaks_off_is_a_fault_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import requests
    from timm.models import _builder

    def broken(*_: object, **__: object) -> None:
        raise OSError("the line\nis cut")

    monkeypatch.setattr(requests, "head", lambda *_, **__: None)
    monkeypatch.setattr(_builder, "load_state_dict_from_hf", broken)
    with pytest.raises(
        EnvironmentFault, match="cannot be loaded from the hub: OSError: the line is cut; give a file"
    ):
        spec(None).trained(K, (3, 32, 32))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    other = written(tmp_path, weights("test_byobnet"))
    partial = weights()
    del partial["layer2.0.conv1.weight"]
    (tmp_path / "text.pth").write_text("no weights")
    for path in (other, written(tmp_path, partial, "partial.pth"), tmp_path / "text.pth"):
        with pytest.raises(UserError) as caught:
            spec(path).trained(K, (3, 32, 32))
        assert caught.value.path == ("weights",)
        assert caught.value.what.startswith(f"{path} does not have the weights of {NETWORK}: ")
        assert "\n" not in str(caught.value)


def test_a_file_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "run").touch, ())

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="does not have the weights"):
        spec(tmp_path / "evil.pth").trained(K, (3, 32, 32))
    assert not (tmp_path / "run").exists()


def test_a_path_is_relative_to_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    tensors = weights()
    written(tmp_path / "recipes", tensors)
    file = tmp_path / "recipes" / "r.yaml"
    file.write_text(to_yaml(load_recipe(mapping(weights="w.safetensors"))).replace(str(Path.cwd()) + "/", ""))
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(file)
    built = build(recipe, checked_header(recipe), trained=True)
    (towers,) = (part for part in built.model.trunk.modules() if isinstance(part, Towers))
    first, second = towers.stages["layer4"].state_dict()["layer4.0.conv1.weight"].chunk(K)
    assert torch.equal(first, tensors["layer4.0.conv1.weight"])
    assert torch.equal(first, second)
    with pytest.raises(UserError, match=r"model\.backbone\.weights: no file .*nowhere\.pth"):
        build(load_recipe(mapping(weights="nowhere.pth")), checked_header(recipe), trained=True)
