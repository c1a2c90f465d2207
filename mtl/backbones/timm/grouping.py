"""One stage of timm, made for K towers at once: every convolution and norm is that of K groups of channels.

Shapes: B batch, K towers, C channels of one tower.
"""

from __future__ import annotations

import copy
import operator
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from mtl.model.towers import SeparateTowers

PASSING: tuple[type[nn.Module], ...] = (
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.SiLU,
    nn.GELU,
    nn.Mish,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Sigmoid,
    nn.Tanh,
)
"""Modules that compute each channel by itself and have no weights, so that they work on K groups as they are."""
FUNCTIONS: tuple[Callable[..., Any], ...] = (
    operator.add,
    operator.iadd,
    operator.mul,
    operator.imul,
    operator.truediv,
    F.relu,
    F.relu6,
    F.leaky_relu,
    F.elu,
    F.silu,
    F.gelu,
    F.mish,
    F.hardswish,
    F.hardsigmoid,
    torch.sigmoid,
    torch.tanh,
)
"""Functions of numbers at one place, likewise."""
METHODS = ("add", "mul", "sigmoid", "tanh", "relu", "contiguous")
"""Methods of a tensor, likewise."""


class Copies(nn.Module):
    """The shared input of K towers once for each, (B, C, ...) -> (B, K*C, ...).

    Args:
        n_towers: K.
    """

    def __init__(self, n_towers: int) -> None:
        super().__init__()
        self.n_towers = n_towers

    def forward(self, x: Tensor) -> Tensor:
        """Input (B, C, ...) -> (B, K*C, ...)."""
        return x.repeat(1, self.n_towers, *(1,) * (x.ndim - 2))

    def extra_repr(self) -> str:
        return f"n_towers={self.n_towers}"


def for_towers(stage: nn.Sequential, n_towers: int, *, shared_input: bool) -> nn.Module:
    """K copies of a stage, with equal weights: grouped if its forward pass keeps channels apart, else K modules.

    The weights and statistics of a grouped stage have the names that they have in `stage`, and K slices.

    Args:
        stage: the modules of one tower; they stay as they are.
        n_towers: K.
        shared_input: whether all towers read one input, (B, C, ...); otherwise each reads its own, (B, K*C, ...).
    """
    graph = _graph_of(stage)
    if graph is None:
        return SeparateTowers([copy.deepcopy(stage) for _ in range(n_towers)], shared_input=shared_input)
    reading_one = _only_reader(graph, stage) if shared_input else None
    grouped = copy.deepcopy(stage)
    for path, module in list(grouped.named_modules()):
        if _is_widened(module):
            _widen(module, n_towers, shared_input=path == reading_one)
    if shared_input and reading_one is None:
        return nn.Sequential(OrderedDict([("copies", Copies(n_towers)), *grouped.named_children()]))
    return grouped


class _Inside(fx.Tracer):
    """Follows a stage down to the modules whose way with channels is known."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _is_widened(m) or type(m) in PASSING or type(m) is nn.Flatten


def _graph_of(stage: nn.Sequential) -> fx.Graph | None:
    """The forward pass of a stage; None if it is not known to compute each channel group by itself."""
    try:
        graph = _Inside().trace(stage)
    except Exception:  # whatever a forward pass says to a tensor without numbers
        return None
    return graph if all(_keeps_groups_apart(stage, node) for node in graph.nodes) else None


def _keeps_groups_apart(stage: nn.Sequential, node: fx.Node) -> bool:
    """Whether a part of a forward pass gives, for K groups of channels, the K results one after another."""
    match node.op:
        case "placeholder" | "output":
            return True
        case "call_module":
            module = stage.get_submodule(str(node.target))
            flat = type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)
            return flat or _is_widened(module) or type(module) in PASSING
        case "call_function" if node.target is torch.flatten:
            return _options(node, start_dim=0, end_dim=-1) == (1, -1)
        case "call_function":
            return node.target in FUNCTIONS
        case "call_method" if node.target == "flatten":
            return _options(node, start_dim=0, end_dim=-1) == (1, -1)
        case "call_method" if node.target == "mean":
            return set(_dims(_options(node, dim=None, keepdim=False)[0])) in ({2, 3}, {-2, -1})
        case "call_method":
            return node.target in METHODS
    return False  # a weight of a module without layers


def _options(node: fx.Node, **defaults: object) -> tuple[object, ...]:
    """The arguments of a node after its first one."""
    given = dict(zip(defaults, node.args[1:], strict=False))
    return tuple({**defaults, **given, **node.kwargs}.get(name) for name in defaults)


def _dims(given: object) -> tuple[object, ...]:
    return tuple(given) if isinstance(given, list | tuple) else (given,)


def _only_reader(graph: fx.Graph, stage: nn.Sequential) -> str | None:
    """The one convolution that reads the input, if it reads all channels; it can read one input for K towers."""
    readers = list(next(iter(graph.nodes)).users)
    if len(readers) != 1 or readers[0].op != "call_module":
        return None
    path = str(readers[0].target)
    module = stage.get_submodule(path)
    once = sum(node.op == "call_module" and node.target == path for node in graph.nodes) == 1
    return path if once and isinstance(module, nn.Conv2d) and module.groups == 1 else None


def _is_widened(module: nn.Module) -> bool:
    """Whether a module is a convolution or a norm over groups of channels, as torch or timm has it."""
    if type(module) in (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm):
        return True
    from timm import layers

    own = (layers.Conv2dSame, layers.BatchNormAct2d, layers.GroupNormAct)
    return type(module) in own and all(type(part) in PASSING for part in module.children())


def _widen(module: nn.Module, n_towers: int, *, shared_input: bool) -> None:
    """Let a convolution or a norm of C channels be that of K groups of C channels, with the same weights in each."""
    counts = ["out_channels", "num_features", "num_groups", "num_channels"]
    counts += [] if shared_input else ["in_channels", "groups"]
    for name in counts:
        if hasattr(module, name):
            setattr(module, name, getattr(module, name) * n_towers)
    for name, parameter in list(module.named_parameters(recurse=False)):
        setattr(module, name, nn.Parameter(_repeated(parameter.detach(), n_towers)))
    for name, buffer in list(module.named_buffers(recurse=False)):
        if buffer.ndim:  # all towers have one counter of batches
            setattr(module, name, _repeated(buffer, n_towers))


def _repeated(tensor: Tensor, n: int) -> Tensor:
    return tensor.repeat(n, *(1,) * (tensor.ndim - 1))
