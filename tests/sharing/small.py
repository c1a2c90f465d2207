"""Small networks with a given sharing scheme, and each part of their grouped tensors as a plain module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtl.build import build
from mtl.data.types import Header
from mtl.model.stitched import StitchedMultiTower
from mtl.model.towers import Towers
from mtl.recipe.load import load_recipe

FEATURES, IMAGE = 5, (2, 8, 8)
STAGES = {
    "vectors": (
        {"name": "fc1", "kind": "linear", "features": 6},
        {"name": "fc2", "kind": "linear", "features": 4},
    ),
    "images": (
        {"name": "conv1", "kind": "conv", "channels": 3, "kernel": 3},
        {"name": "pool1", "kind": "max_pool", "size": 2},
        {"name": "conv2", "kind": "conv", "channels": 4, "kernel": 3},
        {"name": "fc3", "kind": "linear", "features": 6},
    ),
}


def network(
    body: str, tasks: Sequence[str], sharing: Mapping[str, Any], *, norm: str = "none", **model: Any
) -> StitchedMultiTower:
    """A network of binary tasks on vectors or images, in float64, with every weight drawn at random."""
    recipe = load_recipe(
        {
            "schema_version": 1,
            "name": "small",
            "data": {"source": {"kind": "synthetic"}},
            "tasks": {task: {"kind": "binary", "target": "label", "positive": 1} for task in tasks},
            "model": {
                "backbone": {"kind": "layers", "norm": {"kind": norm}, "stages": STAGES[body]},
                "sharing": sharing,
                **model,
            },
            "optimizer": {"kind": "sgd", "lr": 0.1},
            "train": {"epochs": 1},
        }
    )
    header = Header((FEATURES,) if body == "vectors" else IMAGE, {"label": ("0", "1")})
    built = build(recipe, header).model.double()
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.5)
    return built


def inputs(body: str, rows: int = 6) -> Tensor:
    return torch.randn(rows, *((FEATURES,) if body == "vectors" else IMAGE), dtype=torch.float64)


class Slices:
    """Plain modules whose parameters are slices of grouped ones; compares their gradients with those of the whole."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Tensor, nn.Parameter, int, int]] = []

    def take(self, plain: nn.Module, grouped: Sequence[nn.Parameter], k: int, n: int) -> nn.Module:
        """Give a plain module slice k of n of each grouped parameter."""
        for own, whole in zip(plain.parameters(), grouped, strict=True):
            with torch.no_grad():
                own.copy_(whole.unflatten(0, (n, -1))[k].view_as(own))
            self.pairs.append((own, whole, k, n))
        return plain

    def gradients_differ(self) -> float:
        """The largest difference between a slice's gradient and the plain module's; adds over modules of one slice."""
        worst = 0.0
        expected: dict[tuple[int, int], Tensor] = {}
        for own, whole, k, _ in self.pairs:
            assert own.grad is not None
            key = (id(whole), k)
            expected[key] = expected.get(key, torch.zeros_like(own.grad)) + own.grad
        for own, whole, k, n in self.pairs:
            assert whole.grad is not None
            found = whole.grad.unflatten(0, (n, -1))[k].view_as(own)
            worst = max(worst, (found - expected[(id(whole), k)]).abs().max().item())
        return worst


def plain_stage(stage: Mapping[str, Any], shape_in: tuple[int, ...], norm: str) -> nn.Sequential:
    """One stage of one tower in plain torch, in float64."""
    kind = stage["kind"]
    if kind == "max_pool":
        return nn.Sequential(nn.MaxPool2d(stage["size"]))
    layers: list[nn.Module] = []
    if kind == "conv":
        pad = stage["kernel"] // 2
        layers.append(nn.Conv2d(shape_in[0], stage["channels"], stage["kernel"], padding=pad, bias=False))
        width, norms = stage["channels"], nn.BatchNorm2d
    else:
        layers += [nn.Flatten(), nn.Linear(torch.Size(shape_in).numel(), stage["features"], bias=False)]
        width, norms = stage["features"], nn.BatchNorm1d
    if norm == "batch":
        layers.append(norms(width))
    return nn.Sequential(*layers, nn.ReLU()).double()


def plain_tower(
    slices: Slices, body: str, towers: Towers, k: int, norm: str, stages: Sequence[str] | None = None
) -> nn.Sequential:
    """Copy k of grouped towers as plain modules, one for each stage."""
    shape = (FEATURES,) if body == "vectors" else IMAGE
    parts, n = [], len(towers.names)
    known = {str(stage["name"]): stage for stage in STAGES[body]}
    before = {name: ([shape, *_shapes(body)])[i] for i, name in enumerate(known)}
    for name in stages or towers.stage_names:
        plain = plain_stage(known[name], before[name], norm)
        parts.append(slices.take(plain, list(towers.stages[name].parameters()), k, n))
    return nn.Sequential(*parts)


def _shapes(body: str) -> list[tuple[int, ...]]:
    if body == "vectors":
        return [(6,), (4,)]
    return [(3, 8, 8), (3, 4, 4), (4, 4, 4), (6,)]


def plain_heads(slices: Slices, model: StitchedMultiTower, tasks: Sequence[str]) -> list[nn.Module]:
    """The head of each task as an nn.Linear."""
    heads = []
    for task in tasks:
        group, t = model.places[task]
        head = model.modules_of_tasks()[group].head
        width = head.linear.weight.shape[1]
        plain = nn.Sequential(nn.Flatten(), nn.Linear(width, 1)).double()
        heads.append(slices.take(plain, list(head.linear.parameters()), t, len(head.tasks)))
    return heads
