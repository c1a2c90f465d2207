"""Sluice networks against plain loops over subspaces and layers, and their penalty."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mtl.errors import UserError
from mtl.recipe.specs import SHARING
from mtl.sharing.sluice.network import SluiceTowers, SubspaceStitch
from mtl.sharing.sluice.spec import Sluice
from tests.sharing import small
from tests.sharing.loops import TASKS, assert_equals_loop, copy_of
from tests.sharing.small import Slices, inputs, network, plain_tower

EQUAL = (
    {"name": "fc1", "kind": "linear", "features": 4},
    {"name": "fc2", "kind": "linear", "features": 4},
)
"""Layers of one shape, as in the paper."""
CASES = {"vectors": ["fc1", "fc2"], "images": ["conv2", "fc3"]}


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize(("body", "equal"), [("vectors", False), ("vectors", True), ("images", False)])
def test_subspaces_mix_and_heads_read_layers(
    body: str, n: int, equal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if equal:
        monkeypatch.setitem(small.STAGES, "vectors", EQUAL)
        monkeypatch.setattr(small, "_shapes", lambda _: [(4,), (4,)])
    tasks = TASKS[:n]
    model = network(body, tasks, {"kind": "sluice", "after": CASES[body], "subspaces": 2})
    trunk, slices = model.trunk, Slices()
    assert isinstance(trunk, SluiceTowers)
    assert trunk.beta.shape == (n, 2 if equal else 1)
    towers = [plain_tower(slices, body, trunk.towers, k, "none") for k in range(n)]
    alpha = {site: copy_of(unit.alpha) for site, unit in trunk.stitches.items()}  # type: ignore[arg-type]
    beta = copy_of(trunk.beta)

    def readings(x: Tensor) -> list[Tensor]:
        h, layers = [x] * n, []
        for i, name in enumerate(trunk.towers.stage_names):
            h = [tower[i](own) for tower, own in zip(towers, h, strict=True)]
            if name in alpha:
                parts = [part for own in h for part in own.chunk(2, dim=1)]
                mixed = [sum(alpha[name][i, j] * parts[j] for j in range(2 * n)) for i in range(2 * n)]
                h = [torch.cat([mixed[2 * k], mixed[2 * k + 1]], dim=1) for k in range(n)]  # type: ignore[list-item]
            if equal or i == len(trunk.towers.stage_names) - 1:
                layers.append(h)
        return [sum(beta[k, i] * layer[k] for i, layer in enumerate(layers)) for k in range(n)]  # type: ignore[misc]

    own = [(trunk.stitches[site].alpha, plain) for site, plain in alpha.items()] + [(trunk.beta, beta)]
    assert_equals_loop(model, body, tasks, slices, readings, own)  # type: ignore[arg-type]


@pytest.mark.parametrize("subspaces", [2, 3])
def test_the_penalty_is_the_overlap_of_the_subspaces_of_each_tower(subspaces: int) -> None:
    sharing = {"kind": "sluice", "after": ["fc1"], "subspaces": subspaces, "orthogonality": 0.5}
    trunk = network("vectors", ("a", "b"), sharing).trunk
    assert isinstance(trunk, SluiceTowers)
    total = 0.0
    for weight in trunk.towers.stages["fc1"].map.weight.chunk(2):  # type: ignore[operator, union-attr]
        parts = weight.chunk(subspaces)
        for i in range(subspaces):
            for j in range(i + 1, subspaces):
                total += ((parts[i] @ parts[j].T) ** 2).sum().item()
    found = trunk.penalty()
    assert found is not None
    assert found.item() == pytest.approx(0.5 * total)
    found.backward()


def test_one_subspace_and_one_layer_is_a_cross_stitch() -> None:
    sluice = network(
        "images", ("a", "b"), {"kind": "sluice", "after": ["pool1"], "subspaces": 1}, norm="batch"
    )
    stitch = network("images", ("a", "b"), {"kind": "cross_stitch", "after": ["pool1"]}, norm="batch")
    with torch.no_grad():
        sluice.trunk.beta.fill_(1)  # type: ignore[union-attr, operator]
    stitch.load_state_dict({k: v for k, v in sluice.state_dict().items() if not k.endswith("beta")})
    x = inputs("images")
    a, b = sluice(x), stitch(x)
    for task in ("a", "b"):
        torch.testing.assert_close(a[task], b[task])


def test_what_a_tower_takes_is_summed_over_the_subspaces_of_another() -> None:
    unit = SubspaceStitch(2, 2, (4,), 0.7)
    matrix = unit.sharing_matrix()
    torch.testing.assert_close(matrix, torch.tensor([[0.8, 0.2], [0.2, 0.8]]))


@pytest.mark.parametrize(
    ("init", "equal"),
    [("uniform", True), ({"convex": 0.25}, True), ({"convex": 0.5}, False), ("identity", False)],
)
def test_equal_towers_stay_equal_if_all_subspaces_mix_evenly(init: Any, equal: bool) -> None:
    """Two towers of two subspaces: an even alpha holds 1/4, and 1/2 on its diagonal is not even."""
    spec = SHARING["sluice"](after=("fc1",), subspaces=2, init=init)
    assert isinstance(spec, Sluice)
    assert spec.keeps_equal_towers_equal(2) is equal
    unit = SubspaceStitch(2, 2, (4,), spec.diagonal(4)).double()
    x = torch.randn(5, 4, dtype=torch.float64).repeat(1, 2).requires_grad_()
    y = unit(x)
    (y[:, :4].sin().sum() + y[:, 4:].cos().sum()).backward()  # the heads of the two towers differ
    assert x.grad is not None
    assert torch.allclose(x.grad[:, :4], x.grad[:, 4:]) is equal
    same = {"kind": "sluice", "after": ["fc1"], "subspaces": 2, "init": init}
    if equal:
        with pytest.raises(UserError, match="towers that start the same and mix evenly would stay identical"):
            network("vectors", ("a", "b"), same, tower_init="same")
    else:
        network("vectors", ("a", "b"), same, tower_init="same")


def test_channels_that_cannot_be_parted_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"after\[0\]: 3 channels or features after it cannot be parted into 2 equal"
    ):
        network("images", ("a", "b"), {"kind": "sluice", "after": ["conv1"], "subspaces": 2})
