"""Trained weights for a network of timm: from the hub, from its cache on this machine, or from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mtl.backbones.timm.network import make
from mtl.backbones.timm.package import in_one_line, load
from mtl.errors import EnvironmentFault, UserError

CACHED = "give a file by weights: PATH, or set HF_HOME to a folder of the hub's cache that has them"


def trained_network(name: str, channels: int, path: str | None) -> nn.Module:
    """The network `name` without its classifier, with trained weights; the first layer is adapted to the channels.

    timm adapts it: one channel gets the sum of the weights of three, and more than three get them in turn, scaled.

    Args:
        name: timm's name, with or without the tag of its weights.
        channels: channels of an image.
        path: a file of weights, `.safetensors` or as torch saves a `state_dict`; None takes those that timm names.

    Raises:
        UserError: the file is not there, or has the weights of another network.
        EnvironmentFault: the hub cannot be reached, and its cache on this machine lacks the weights.
    """
    whole = _from_hub(name, channels) if path is None else _from_file(name, channels, Path(path))
    tensors = whole.state_dict()
    network = make(name, channels)
    network.load_state_dict({key: tensors[key] for key in network.state_dict()})
    return network


def _from_hub(name: str, channels: int) -> nn.Module:
    classes = load().models.get_pretrained_cfg(name).num_classes
    try:
        # with the classifier of the weights, timm requires that every name is there
        return make(name, channels, pretrained=True, num_classes=classes)
    except Exception as error:  # each way to the hub has errors of its own
        what = f"the weights of {name} cannot be loaded from the hub: {in_one_line(error)}"
        raise EnvironmentFault("", what, CACHED, path=("pretrained",)) from error


def _from_file(name: str, channels: int, path: Path) -> nn.Module:
    if not path.is_file():
        raise UserError("", f"no file {path}", path=("weights",))
    try:
        tensors: Mapping[str, Tensor] = load().models.load_state_dict(str(path))
        classes = _n_classes(name, tensors)
        source = {"state_dict": tensors, "num_classes": classes}
        return make(name, channels, pretrained=True, num_classes=classes, pretrained_cfg_overlay=source)
    except Exception as error:  # a damaged file, or another network's: each has errors of its own
        what = f"{path} does not have the weights of {name}: {in_one_line(error)}"
        raise UserError("", what, path=("weights",)) from error


def _n_classes(name: str, tensors: Mapping[str, Tensor]) -> int:
    """The classes of the classifier in a file; 0 if the weights have none."""
    config: Any = load().models.get_pretrained_cfg(name)
    names = config.classifier or ()
    keys = [f"{each}.weight" for each in ((names,) if isinstance(names, str) else names)]
    return next((len(tensors[key]) for key in keys if key in tensors), 0)
