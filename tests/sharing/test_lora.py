"""Low-rank adaptation against plain loops over tasks, and its limits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl.errors import UserError
from mtl.model.layers import GroupedLinear
from mtl.sharing.lora.network import AdaptedTrunk, merging_pays
from tests.sharing.loops import TASKS, assert_equals_loop, copy_of
from tests.sharing.small import STAGES, Slices, inputs, network, plain_tower

STAGES_OF = {"vectors": [(), ("fc2",), ("fc1",)], "images": [(), ("conv2",), ("conv1", "fc3")]}
CASES = [(body, stages) for body, all_stages in STAGES_OF.items() for stages in all_stages]


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize(("body", "stages"), CASES)
def test_each_task_has_the_shared_weights_and_its_own_of_low_rank(
    body: str, stages: tuple[str, ...], n: int
) -> None:
    tasks = TASKS[:n]
    model = network(body, tasks, {"kind": "lora", "rank": 2, "scale": 3.0, "stages": stages})
    trunk, slices = model.trunk, Slices()
    assert isinstance(trunk, AdaptedTrunk)
    tower = plain_tower(slices, body, trunk.shared, 0, "none")
    parts = {name: [copy_of(p) for p in unit.parameters()] for name, unit in trunk.adapters.items()}
    assert set(parts) == set(stages or [s["name"] for s in STAGES[body] if s["kind"] != "max_pool"])

    def own_part(name: str, k: int, h: Tensor) -> Tensor:
        down, up = (whole.chunk(n)[k] for whole in parts[name])
        if down.ndim == 2:
            return F.linear(F.linear(h.flatten(1), down), up)
        return F.conv2d(F.conv2d(h, down, padding=down.shape[-1] // 2), up)

    def readings(x: Tensor) -> list[Tensor]:
        found = []
        for k in range(n):
            h = x
            for i, name in enumerate(trunk.shared.stage_names):
                for layer in tower[i]:
                    is_map = name in parts and isinstance(layer, nn.Linear | nn.Conv2d)
                    h = layer(h) + 3.0 / 2 * own_part(name, k, h) if is_map else layer(h)
            found.append(h)
        return found

    pairs = [
        (p, q) for name, u in trunk.adapters.items() for p, q in zip(u.parameters(), parts[name], strict=True)
    ]
    assert_equals_loop(model, body, tasks, slices, readings, pairs)


def test_few_rows_take_two_maps_and_many_take_one_to_the_same_numbers() -> None:
    model = network("vectors", TASKS[:3], {"kind": "lora", "rank": 2, "scale": 3.0})
    trunk, x = model.trunk, inputs("vectors", rows=7)
    assert isinstance(trunk, AdaptedTrunk)
    shared = trunk.shared.stages["fc2"].get_submodule("map")
    assert isinstance(shared, GroupedLinear)
    assert [n for n in range(1, 8) if merging_pays(shared, n)] == [3, 4, 5, 6, 7]  # 6 * 4 <= n * (6 + 4)
    torch.testing.assert_close(trunk(x)[:2], trunk(x[:2]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("body", ["vectors", "images"])
def test_rank_zero_and_the_start_are_hard_sharing(body: str, rank: int) -> None:
    lora = network(body, TASKS[:3], {"kind": "lora", "rank": rank}, norm="batch")
    hard = network(body, TASKS[:3], {"kind": "none"}, norm="batch", towers="one")
    with torch.no_grad():
        for name, parameter in lora.named_parameters():
            if ".up." in name:
                parameter.zero_()
    state = {k.replace("trunk.shared.", "trunk.towers."): v for k, v in lora.state_dict().items()}
    hard.load_state_dict({k: v for k, v in state.items() if "adapters" not in k})
    x = inputs(body)
    for mode in (False, True):  # a batch of B * K rows has another unbiased variance for later
        a, b = lora.train(mode)(x), hard.train(mode)(x)
        for task in TASKS[:3]:
            torch.testing.assert_close(a[task], b[task], rtol=1e-9, atol=1e-11)


def test_a_run_starts_as_hard_sharing() -> None:
    from mtl.build import build
    from mtl.data.types import Header
    from tests.support.recipes import recipe

    made = build(
        recipe(
            model__sharing={"kind": "lora", "rank": 3},
            tasks={t: {"kind": "binary", "target": t} for t in "ab"},
        ),
        Header((5,), {"a": ("0", "1"), "b": ("0", "1")}),
    ).model.trunk
    assert isinstance(made, AdaptedTrunk)
    for adapter in made.adapters.values():
        assert not adapter.up.weight.any()  # type: ignore[union-attr, operator]
        assert adapter.down.weight.any()  # type: ignore[union-attr, operator]
    assert all(not matrix.values.any() for matrix in made.readings().values())


def test_readings_are_the_norms_of_the_products() -> None:
    model = network("images", ("a", "b"), {"kind": "lora", "rank": 2, "scale": 2.0})
    trunk = model.trunk
    assert isinstance(trunk, AdaptedTrunk)
    for name, matrix in model.sharing().items():
        adapter, shared = trunk.adapters[name], next(iter(trunk.shared.stages[name].parameters()))
        for k in range(2):
            down, up = (p.chunk(2)[k].flatten(1) for p in adapter.parameters())
            wanted = (up @ down).norm() / shared.norm()
            assert matrix.values[k, 0].item() == pytest.approx(wanted.item())


def test_stages_without_weights_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"stages\[0\]: 'pool1' has no conv or linear map that could be adapted"
    ):
        network("images", ("a", "b"), {"kind": "lora", "stages": ["pool1"]})
    with pytest.raises(UserError, match=r"stages\[0\]: no stage 'fc9'"):
        network("images", ("a", "b"), {"kind": "lora", "stages": ["fc9"]})
