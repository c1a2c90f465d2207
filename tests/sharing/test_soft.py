"""Soft parameter sharing: the penalty by plain loops, and towers that share nothing without it."""

from __future__ import annotations

import pytest
import torch

from mtl.errors import UserError
from mtl.model.trunk import StitchedTowers
from tests.sharing.loops import TASKS, assert_equals_loop
from tests.sharing.small import Slices, inputs, network, plain_tower


@pytest.mark.parametrize("stages", [(), ("fc1",)])
@pytest.mark.parametrize("norm", ["l2", "trace"])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_penalty_is_the_loop_over_pairs_or_the_singular_values(
    n: int, norm: str, stages: tuple[str, ...]
) -> None:
    sharing = {"kind": "soft", "penalty": 0.3, "norm": norm, "stages": stages}
    model = network("vectors", TASKS[:n], sharing)
    trunk = model.trunk
    assert isinstance(trunk, StitchedTowers)
    found = trunk.penalty()
    if n == 1:
        assert found is None
        return
    weights = [trunk.towers.stages[s].map.weight for s in stages or ("fc1", "fc2")]
    total = torch.zeros((), dtype=torch.float64)
    plain = [w.detach().clone().requires_grad_() for w in weights]  # type: ignore[union-attr, operator]
    for weight in plain:
        parts = [part.flatten() for part in weight.chunk(n)]
        if norm == "l2":
            for k in range(n):
                for j in range(k + 1, n):
                    total = total + ((parts[k] - parts[j]) ** 2).sum() / 2
        else:
            gram = torch.stack(parts) @ torch.stack(parts).T
            total = total + torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().sum()
    assert found is not None
    torch.testing.assert_close(found, 0.3 * total)
    found.backward()
    (0.3 * total).backward()
    for weight, own in zip(weights, plain, strict=True):
        torch.testing.assert_close(weight.grad, own.grad, rtol=1e-6, atol=1e-9)  # type: ignore[union-attr]


@pytest.mark.parametrize("body", ["vectors", "images"])
def test_the_network_is_that_of_separate_towers(body: str) -> None:
    model = network(body, TASKS[:2], {"kind": "soft"}, norm="batch")
    slices = Slices()
    towers = [plain_tower(slices, body, model.trunk.towers, k, "batch") for k in range(2)]  # type: ignore[union-attr, arg-type]
    assert_equals_loop(model, body, TASKS[:2], slices, lambda x: [tower(x) for tower in towers])


def test_with_a_penalty_of_zero_it_is_none() -> None:
    soft = network("images", ("a", "b"), {"kind": "soft", "penalty": 0.0}, norm="batch")
    none = network("images", ("a", "b"), {"kind": "none"}, norm="batch")
    none.load_state_dict(soft.state_dict())
    assert soft.trunk.penalty() is None
    x = inputs("images")
    a, b = soft(x), none(x)
    assert all(torch.equal(a[task], b[task]) for task in ("a", "b"))


def test_a_stage_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"stages\[0\]: no stage 'fc3'; stages: fc1, fc2 \(did you mean"):
        network("vectors", ("a", "b"), {"kind": "soft", "stages": ["fc3"]})
