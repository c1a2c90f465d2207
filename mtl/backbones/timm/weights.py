"""Trained weights for a network of timm: from a file, from the hub's cache on this machine, or from the hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mtl.backbones.timm.network import make
from mtl.backbones.timm.package import in_one_line, load
from mtl.errors import EnvironmentFault, UserError

NAMES_IN_HUB = ("model.safetensors", "pytorch_model.bin")
SECONDS = 5.0
"""The hub has so long to answer at all; without this question, its library would try twelve times in a minute."""
TODO = "give a file by weights: PATH, or set HF_HOME to a folder with the hub's cache"


def trained_network(name: str, channels: int, path: str | None) -> nn.Module:
    """The network `name` without its classifier, with trained weights; timm adapts the first layer to the channels.

    One channel gets the sum of the weights of three; more than three get them in turn, scaled.

    Args:
        name: timm's name, with or without the tag of its weights.
        channels: channels of an image.
        path: a file of weights, `.safetensors` or as torch saves a `state_dict`; None takes those that timm names,
            from the hub's cache if they are there.

    Raises:
        UserError: the file is not there, or has the weights of another network.
        EnvironmentFault: the hub cannot be reached, and its cache on this machine lacks the weights.
    """
    if path is not None:
        whole = _from_file(name, channels, Path(path))
    elif (cached := _cached(name)) is not None:
        whole = _from_file(name, channels, cached)
    else:
        whole = _from_hub(name, channels)
    tensors = whole.state_dict()
    network = make(name, channels)
    network.load_state_dict({key: tensors[key] for key in network.state_dict()})
    return network


def _from_file(name: str, channels: int, path: Path) -> nn.Module:
    if not path.is_file():
        raise UserError("", f"no file {path}", path=("weights",))
    try:
        tensors: Mapping[str, Tensor] = load().models.load_state_dict(str(path), weights_only=True)
        classes = _n_classes(name, tensors)
        source = {"state_dict": tensors, "num_classes": classes}
        # with as many classes as the weights have, timm requires that they name every tensor of the network
        return make(name, channels, pretrained=True, num_classes=classes, pretrained_cfg_overlay=source)
    except Exception as error:  # a damaged file, or another network's: each has errors of its own
        what = f"{path} does not have the weights of {name}: {in_one_line(error)}"
        raise UserError("", what, path=("weights",)) from error


def _n_classes(name: str, tensors: Mapping[str, Tensor]) -> int:
    """The classes of the classifier in a file; 0 if the weights have none."""
    names = _config(name).classifier or ()
    keys = [f"{each}.weight" for each in ((names,) if isinstance(names, str) else names)]
    return next((len(tensors[key]) for key in keys if key in tensors), 0)


def _cached(name: str) -> Path | None:
    """The file in the hub's cache with the weights that timm names; None if there is none in a form that fits all."""
    from huggingface_hub import try_to_load_from_cache

    config = _config(name)
    if not config.hf_hub_id or config.custom_load:
        return None
    names = (config.hf_hub_filename,) if config.hf_hub_filename else NAMES_IN_HUB
    found = [try_to_load_from_cache(config.hf_hub_id, each) for each in names]
    return next((Path(each) for each in found if isinstance(each, str)), None)


def _from_hub(name: str, channels: int) -> nn.Module:
    config = _config(name)
    _require_answer(name, _address(config))
    try:
        return make(name, channels, pretrained=True, num_classes=config.num_classes)
    except Exception as error:  # each way to the hub has errors of its own
        what = f"the weights of {name} cannot be loaded from the hub: {in_one_line(error)}"
        raise EnvironmentFault("", what, TODO, path=("pretrained",)) from error


def _address(config: Any) -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT if config.hf_hub_id else config.url)


def _require_answer(name: str, address: str) -> None:
    """Ask the hub once, so that a machine without a network says so at once."""
    import requests

    if any(os.environ.get(name, "") not in ("", "0") for name in ("MTL_OFFLINE", "HF_HUB_OFFLINE")):
        what = f"the weights of {name} are not in the hub's cache, and the network is forbidden (MTL_OFFLINE)"
        raise EnvironmentFault("", what, TODO, path=("pretrained",))
    try:
        requests.head(address, timeout=SECONDS)
    except requests.RequestException as error:
        what = f"the weights of {name} are not in the hub's cache, and {address} does not answer"
        raise EnvironmentFault("", f"{what} ({type(error).__name__})", TODO, path=("pretrained",)) from error


def _config(name: str) -> Any:
    """What timm knows of the weights of a network."""
    return load().models.get_pretrained_cfg(name)
