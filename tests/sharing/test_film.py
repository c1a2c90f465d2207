"""Feature-wise modulation against plain loops over tasks, and its limits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mtl.sharing.film.network import ModulatedTrunk
from tests.sharing.loops import TASKS, assert_equals_loop, copy_of
from tests.sharing.small import Slices, inputs, network, plain_tower

SITES = {"vectors": [["fc1"], ["fc1", "fc2"], ["fc2"]], "images": [["conv1", "fc3"], ["pool1"]]}
CASES = [(body, sites) for body, all_sites in SITES.items() for sites in all_sites]


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize(("body", "sites"), CASES)
def test_it_scales_and_shifts_the_channels_for_each_task(body: str, sites: list[str], n: int) -> None:
    tasks = TASKS[:n]
    model = network(body, tasks, {"kind": "film", "after": sites})
    trunk, slices = model.trunk, Slices()
    assert isinstance(trunk, ModulatedTrunk)
    tower = plain_tower(slices, body, trunk.shared, 0, "none")
    parts = {
        site: {name: copy_of(p) for name, p in unit.named_parameters()}
        for site, unit in trunk.modulations.items()
    }

    def readings(x: Tensor) -> list[Tensor]:
        found = []
        for k in range(n):
            h = x
            for i, name in enumerate(trunk.shared.stage_names):
                h = tower[i](h)
                if name in parts:
                    c, shape = h.shape[1], (1, -1, *(1,) * (h.ndim - 2))
                    own = slice(k * c, (k + 1) * c)
                    h = (1 + parts[name]["scale"][own].view(shape)) * h + parts[name]["shift"][own].view(
                        shape
                    )
            found.append(h)
        return found

    pairs = [
        (p, parts[site][name]) for site, u in trunk.modulations.items() for name, p in u.named_parameters()
    ]
    assert_equals_loop(model, body, tasks, slices, readings, pairs)


@pytest.mark.parametrize("body", ["vectors", "images"])
def test_without_modulation_it_is_hard_sharing(body: str) -> None:
    site = "fc1" if body == "vectors" else "pool1"
    film = network(body, TASKS[:3], {"kind": "film", "after": [site]}, norm="batch")
    hard = network(body, TASKS[:3], {"kind": "none"}, norm="batch", towers="one")
    with torch.no_grad():
        for parameter in film.trunk.modulations.parameters():  # type: ignore[union-attr]
            parameter.zero_()
    state = {k.replace("trunk.shared.", "trunk.towers."): v for k, v in film.state_dict().items()}
    hard.load_state_dict({k: v for k, v in state.items() if "modulations" not in k})
    x = inputs(body)
    for mode in (False, True):  # a batch of B * K rows has another unbiased variance for later
        a, b = film.train(mode)(x), hard.train(mode)(x)
        for task in TASKS[:3]:
            torch.testing.assert_close(a[task], b[task], rtol=1e-9, atol=1e-11)


def test_it_starts_without_modulation_and_belongs_to_its_task() -> None:
    model = network("vectors", ("a", "b"), {"kind": "film", "after": ["fc1"]})
    reach = model.reach(("a", "b"))
    assert reach["trunk.modulations.fc1.scale"][:6].squeeze().tolist() == [[True, False]] * 6
    assert reach["trunk.shared.stages.fc2.map.weight"].all()
    assert model.parameter_roles()["trunk.modulations.fc1.scale"] == "scale"
    (matrix,) = model.sharing().values()
    assert matrix.values.shape == (2, 1)


def test_one_more_task_adds_two_numbers_for_each_channel() -> None:
    sizes = [
        sum(
            p.numel()
            for p in network("vectors", TASKS[:n], {"kind": "film", "after": ["fc1"]}).trunk.parameters()
        )
        for n in (2, 3)
    ]
    assert sizes[1] - sizes[0] == 2 * 6
