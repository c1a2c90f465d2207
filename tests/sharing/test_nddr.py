"""Neural discriminative dimensionality reduction against plain loops, and its limits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from mtl.model.stitch import convex
from mtl.model.trunk import StitchedTowers
from mtl.sharing.nddr.network import Reduction
from tests.sharing.loops import TASKS, assert_equals_loop, copy_of
from tests.sharing.small import Slices, inputs, network, plain_tower

SITES = {"vectors": ["fc1", "fc2"], "images": ["pool1", "fc3"]}


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("body", SITES)
def test_it_is_a_1x1_map_of_all_channels_for_each_tower(body: str, n: int, norm: str) -> None:
    tasks = TASKS[:n]
    model = network(body, tasks, {"kind": "nddr", "after": SITES[body]}, norm=norm)
    trunk, slices = model.trunk, Slices()
    assert isinstance(trunk, StitchedTowers)
    towers = [plain_tower(slices, body, trunk.towers, k, norm) for k in range(n)]
    weights = {site: copy_of(unit.weight) for site, unit in trunk.stitches.items()}  # type: ignore[arg-type]
    norms: dict[str, list[nn.Module]] = {site: [nn.Identity()] * n for site in weights}
    if norm == "batch":
        for site, unit in trunk.stitches.items():
            parts = list(unit.norm.parameters())  # type: ignore[union-attr]
            image = len(trunk.towers.shapes[site]) == 3
            plain = [(nn.BatchNorm2d if image else nn.BatchNorm1d)(unit.width).double() for _ in range(n)]  # type: ignore[arg-type]
            norms[site] = [slices.take(plain[k], parts, k, n) for k in range(n)]

    def readings(x: Tensor) -> list[Tensor]:
        h = [x] * n
        for i, name in enumerate(trunk.towers.stage_names):
            h = [tower[i](own) for tower, own in zip(towers, h, strict=True)]
            if name not in weights:
                continue
            c, mixed = h[0].shape[1], []
            for k in range(n):
                total = torch.zeros_like(h[0])
                for j in range(n):
                    block = weights[name][k * c : (k + 1) * c, j * c : (j + 1) * c]
                    total = total + torch.einsum("oc,bc...->bo...", block, h[j])
                mixed.append(norms[name][k](total))
            h = mixed
        return h

    own = [(trunk.stitches[site].weight, plain) for site, plain in weights.items()]
    assert_equals_loop(model, body, tasks, slices, readings, own)  # type: ignore[arg-type]


@pytest.mark.parametrize("start", [0.9, 1.0, 0.5])
def test_it_starts_diagonal_and_is_read_as_alpha(start: float) -> None:
    plan = type("P", (), {"norm": staticmethod(lambda n, shape: None)})()
    unit = Reduction(plan, 3, (4,), start)
    torch.testing.assert_close(unit.sharing_matrix(), convex(3, start))
    assert torch.equal(unit.weight[:4, :4], start * torch.eye(4))


def test_with_its_diagonal_at_one_it_is_separate_towers_with_a_norm() -> None:
    model = network(
        "images", ("a", "b"), {"kind": "nddr", "after": ["conv1"], "init": "identity"}, norm="batch"
    )
    unit = model.trunk.stitches["conv1"]  # type: ignore[index]
    with torch.no_grad():
        unit.weight.copy_(torch.eye(6))  # type: ignore[union-attr, operator]
        for k, value in (("weight", 1.5), ("bias", 0.25)):
            nn.init.constant_(getattr(unit.norm, k), value)  # type: ignore[union-attr]
    stages = copy.deepcopy(model.train().trunk.towers.stages)  # type: ignore[union-attr]
    x = inputs("images", 9)
    h = stages["conv1"](x)  # type: ignore[index, operator]
    mean, var = h.mean((0, 2, 3), keepdim=True), h.var((0, 2, 3), keepdim=True, correction=0)
    h = (h - mean) / (var + 1e-5).sqrt() * 1.5 + 0.25
    for name in ("pool1", "conv2", "fc3"):
        h = stages[name](h)  # type: ignore[index, operator]
    torch.testing.assert_close(model.train().trunk(x), h.unflatten(1, (2, -1)), rtol=1e-6, atol=1e-8)


def test_whose_parameters_they_are() -> None:
    model = network("vectors", ("a", "b"), {"kind": "nddr", "after": ["fc1", "fc2"]}, norm="batch")
    reach, roles = model.reach(("a", "b")), model.parameter_roles()
    assert reach["trunk.stitches.fc1.weight"].all()
    last = reach["trunk.stitches.fc2.weight"]
    assert last[:4].squeeze(1).tolist() == [[True, False]] * 4
    assert last[4:].squeeze(1).tolist() == [[False, True]] * 4
    assert roles["trunk.stitches.fc1.weight"] == "sharing"
