"""A network of timm as a chain of named stages: the modules of one tower, before they are made for K towers.

Shapes: B batch, C channels, H W positions, F features.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import fx, nn

from mtl.backbones.timm.package import load

STEM, POOL = "stem", "pool"
Shape = tuple[int, ...]


class NotAChain(ValueError):
    """A network whose stages cannot be told apart; the text says why."""


@dataclass(frozen=True)
class Chain:
    """The stages of a network, in order.

    Args:
        stages: stage -> the paths of its modules in the network, each of which reads what the one before it gives.
        channels: stage -> the channels of its output, as timm gives them; some stages are not in it.
    """

    stages: Mapping[str, tuple[str, ...]]
    channels: Mapping[str, int]

    def up_to(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The stages `names`, each with the modules of the stages before it that are not named."""
        found: dict[str, tuple[str, ...]] = {}
        waiting: list[str] = []
        for name, paths in self.stages.items():
            waiting += paths
            if name in names:
                found[name], waiting = tuple(waiting), []
        return found


def make(name: str, channels: int, **options: Any) -> nn.Module:
    """The network `name` of timm without its classifier, for images of so many channels.

    Its modules write into no activation that they read, since a stitch may read it too.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # names that timm has replaced by others
        network: nn.Module = load().create_model(name, in_chans=channels, **{"num_classes": 0, **options})
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
    return network


@lru_cache(maxsize=16)
def chain_of(name: str) -> Chain:
    """The stages of a network.

    The blocks of layers that timm lists as features are stages, and so are the blocks beside them in one nn.Sequential.
    `stem` has the modules before the first block, and `pool` those behind the last one, which end in a vector. A
    network without blocks is cut after each feature.

    Raises:
        NotAChain: the forward pass is more than one module after another.
    """
    network = _without_memory(name, 3)
    features = _features(network)
    inside = {path.rpartition(".")[0] for path in features} - {""}
    elements = _elements(network, inside)
    blocks = {
        element
        for element in elements
        if (element in features or element.rpartition(".")[0] in inside)
        and _has_layers(network.get_submodule(element))
    }
    last = blocks or features.keys() & set(elements)
    stages: dict[str, tuple[str, ...]] = {}
    waiting: list[str] = []
    for element in elements:
        if element in blocks and not stages and waiting:
            stages[STEM], waiting = tuple(waiting), []
        waiting.append(element)
        if element in last:
            stages[_named(element)], waiting = tuple(waiting), []
    if not stages or not waiting:
        raise NotAChain("timm lists no features of it")
    stages[POOL] = tuple(waiting)
    return Chain(stages, {_named(path): n for path, n in features.items() if _named(path) in stages})


@lru_cache(maxsize=64)
def shapes_of(name: str, input_shape: Shape, last: str) -> dict[str, Shape]:
    """Stage, up to `last` -> the shape of its output for images of a shape (C, H, W): (C', H', W'), or (F,).

    Raises:
        NotAChain: a stage does not give channels first.
        ValueError: the network does not fit on these images.
    """
    chain, shapes = chain_of(name), {}
    network = _without_memory(name, input_shape[0]).eval()
    x = torch.empty(1, *input_shape, device="meta")
    for stage, paths in chain.stages.items():
        try:
            for path in paths:
                x = network.get_submodule(path)(x)
        except (RuntimeError, AssertionError, ValueError) as error:
            size = " x ".join(map(str, input_shape))
            raise ValueError(f"stage {stage} does not fit on {size}: {str(error).splitlines()[0]}") from error
        if x.ndim not in (2, 4) or chain.channels.get(stage, x.shape[1]) != x.shape[1]:
            raise NotAChain(
                f"stage {stage} gives {tuple(x.shape[1:])}, where (channels, height, width) is needed"
            )
        shapes[stage] = tuple(x.shape[1:])
        if stage == last:
            break
    return shapes


def cut(network: nn.Module, stages: Mapping[str, Sequence[str]]) -> dict[str, nn.Sequential]:
    """The stages of a network; each holds the network's own modules."""
    found = {}
    for stage, paths in stages.items():
        found[stage] = nn.Sequential()
        for path in paths:
            found[stage].add_module(_named(path), network.get_submodule(path))
    return found


def _without_memory(name: str, channels: int) -> nn.Module:
    with torch.device("meta"):
        return make(name, channels)


def _features(network: nn.Module) -> dict[str, int]:
    """The path of each module that timm lists as a feature -> its channels."""
    listed: Any = getattr(network, "feature_info", ())
    return {each["module"]: each["num_chs"] for each in getattr(listed, "info", listed)}


def _named(path: str) -> str:
    return path.replace(".", "_")


def _has_layers(module: nn.Module) -> bool:
    """Whether a module is made of others, one of which has a matrix or a kernel of weights."""
    return any(parameter.ndim > 1 for part in module.children() for parameter in part.parameters())


class _Opening(fx.Tracer):
    """Follows the forward pass of a network down to its modules, and inside those that are to be opened."""

    def __init__(self, opened: set[str]) -> None:
        super().__init__()
        self.opened = opened

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(f"{path}.".startswith(f"{module_qualified_name}.") for path in self.opened)


def _elements(network: nn.Module, opened: set[str]) -> list[str]:
    """The paths of the modules that the forward pass calls one after another.

    Raises:
        NotAChain: it does anything else.
    """
    try:
        graph = _Opening(opened).trace(network)
    except Exception as error:  # whatever a forward pass says to a tensor without numbers
        raise NotAChain(f"its forward pass cannot be followed: {str(error).splitlines()[0]}") from error
    previous, *others, end = graph.nodes
    elements: list[str] = []
    for node in others:
        if node.op != "call_module" or node.args != (previous,) or node.kwargs:
            raise NotAChain(f"its forward pass is no chain of modules, as {node.name} shows")
        elements.append(str(node.target))
        previous = node
    if end.args != (previous,):
        raise NotAChain("its forward pass does not give what its last module gives")
    return elements
