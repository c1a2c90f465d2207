"""Learning to branch: samples in training, a tree afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mtl.model.trunk import StitchedTowers
from mtl.sharing.ltb.network import Branching
from tests.sharing.loops import TASKS, assert_equals_loop, copy_of
from tests.sharing.small import Slices, inputs, network, plain_tower

SITES = {"vectors": ["fc1"], "images": ["pool1", "conv2"]}


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("body", SITES)
def test_it_is_a_sample_of_gumbel_softmax_for_each_tower(
    body: str, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step s has the temperature 5 * 0.9^s; the noise is -log(-log u)."""
    tasks = TASKS[:n]
    model = network(body, tasks, {"kind": "ltb", "after": SITES[body], "decay": 0.9})
    trunk, slices = model.trunk, Slices()
    assert isinstance(trunk, StitchedTowers)
    towers = [plain_tower(slices, body, trunk.towers, k, "none") for k in range(n)]
    logits = {site: copy_of(unit.logits) for site, unit in trunk.stitches.items()}  # type: ignore[arg-type]
    drawn = {site: torch.rand(n, n) for site in logits}
    feed = iter([*drawn.values()])
    for unit in trunk.stitches.values():
        unit.n_steps += 3  # type: ignore[operator, union-attr]
    real = torch.rand
    monkeypatch.setattr(torch, "rand", lambda *a, **k: next(feed) if a == (n, n) else real(*a, **k))

    def readings(x: Tensor) -> list[Tensor]:
        h = [x] * n
        for i, name in enumerate(trunk.towers.stage_names):
            h = [tower[i](own) for tower, own in zip(towers, h, strict=True)]
            if name not in logits:
                continue
            mixed = []
            for k in range(n):
                noise = -torch.log(-torch.log(drawn[name][k].double()))
                d = torch.softmax((logits[name][k] + noise) / (5 * 0.9**3), 0)
                mixed.append(torch.stack([d[j] * h[j] for j in range(n)]).sum(0))
            h = mixed
        return h

    own = [(trunk.stitches[site].logits, plain) for site, plain in logits.items()]
    assert_equals_loop(model, body, tasks, slices, readings, own)  # type: ignore[arg-type]


def test_after_training_it_is_the_tree_that_it_says() -> None:
    """Towers 1 and 2 go on with the activation of tower 2, tower 3 with its own."""
    model = network("vectors", ("a", "b", "c"), {"kind": "ltb", "after": ["fc1"]}).eval()
    trunk = model.trunk
    assert isinstance(trunk, StitchedTowers)
    unit = trunk.stitches["fc1"]
    assert isinstance(unit, Branching)
    with torch.no_grad():
        unit.logits.copy_(torch.tensor([[0.0, 2, 1], [0, 1, 0], [-1, -1, 3]]))
    assert unit.tree().tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 1]]
    x = inputs("vectors")
    h = trunk.towers.stages["fc1"](x).unflatten(1, (3, -1))
    chosen = torch.stack([h[:, 1], h[:, 1], h[:, 2]], dim=1)
    expected = trunk.towers.stages["fc2"](chosen.flatten(1)).unflatten(1, (3, -1))
    torch.testing.assert_close(trunk(x), expected)
    assert unit.sharing_matrix().argmax(1).tolist() == [1, 1, 2]


def test_equal_choices_leave_a_tower_with_itself() -> None:
    unit = Branching(3, 1.0, 1.0, 0.1)
    assert torch.equal(unit.tree(), torch.eye(3, dtype=torch.long))


def test_the_temperature_falls_to_its_bound_and_samples_become_choices() -> None:
    unit = Branching(4, 5.0, 0.5, 0.01).train()
    x = torch.randn(2, 8)
    sharpness = []
    for _ in range(15):
        unit(x)
        unit.n_steps -= 1
        sharpness.append(unit._sampled().max(1).values.mean().item())
    assert int(unit.n_steps) == 15
    assert sharpness[0] < 0.6
    assert sharpness[-1] > 0.99


def test_evaluation_counts_no_step_and_draws_nothing() -> None:
    unit = Branching(3, 5.0, 0.9, 0.1).eval()
    state = torch.get_rng_state()
    unit(torch.randn(2, 6, generator=torch.Generator().manual_seed(0)))
    assert int(unit.n_steps) == 0
    assert torch.equal(torch.get_rng_state(), state)
