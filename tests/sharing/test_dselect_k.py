"""DSelect-k against the paper's equations by plain loops, and its selectors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mtl.errors import UserError
from mtl.sharing.dselect_k.network import SelectedExperts, smooth_step
from tests.sharing.loops import TASKS, assert_equals_loop, copy_of
from tests.sharing.small import Slices, inputs, network, plain_tower


def step_of(t: Tensor, gamma: float) -> Tensor:
    if t <= -gamma / 2:
        return torch.zeros_like(t)
    if t >= gamma / 2:
        return torch.ones_like(t)
    return -2 / gamma**3 * t**3 + 3 / (2 * gamma) * t + 0.5


def selector(z: Tensor, gamma: float, n_experts: int) -> Tensor:
    """r(z), expert by expert and bit by bit."""
    values = []
    for e in range(n_experts):
        product = torch.ones((), dtype=z.dtype)
        for m in range(len(z)):
            s = step_of(z[m], gamma)
            product = product * (s if (e >> m) & 1 else 1 - s)
        values.append(product)
    return torch.stack(values)


@pytest.mark.parametrize("n_experts", [2, 4, 8])
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("body", ["vectors", "images"])
def test_it_mixes_experts_by_weighted_selectors(body: str, n: int, n_experts: int) -> None:
    tasks = TASKS[:n]
    sharing = {"kind": "dselect_k", "experts": n_experts, "k": 2, "gamma": 1.5, "entropy": 0.2}
    model = network(body, tasks, sharing)
    trunk, slices = model.trunk, Slices()
    assert isinstance(trunk, SelectedExperts)
    experts = [plain_tower(slices, body, trunk.experts, e, "none") for e in range(n_experts)]
    codes, weights = copy_of(trunk.codes), copy_of(trunk.weights)

    def readings(x: Tensor) -> list[Tensor]:
        found = [expert(x) for expert in experts]
        mixed = []
        for k in range(n):
            w = torch.softmax(weights[k], 0)
            q = sum(w[s] * selector(codes[k, s], 1.5, n_experts) for s in range(2))
            mixed.append(sum(q[e] * found[e] for e in range(n_experts)))  # type: ignore[index]
        return mixed  # type: ignore[return-value]

    assert_equals_loop(model, body, tasks, slices, readings, [(trunk.codes, codes), (trunk.weights, weights)])
    selectors = [selector(codes[k, s], 1.5, n_experts) for k in range(n) for s in range(2)]
    entropy = sum(-(p * p.log()).sum() for r in selectors for p in [r[r > 1e-9]])
    penalty = trunk.penalty()
    assert penalty is not None
    assert penalty.detach().item() == pytest.approx(0.2 * entropy.detach().item(), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 3.0])
def test_the_smooth_step(gamma: float) -> None:
    t = torch.linspace(-2 * gamma, 2 * gamma, 41, dtype=torch.float64)
    torch.testing.assert_close(smooth_step(t, gamma), torch.stack([step_of(each, gamma) for each in t]))


def test_beyond_the_steps_a_tower_has_at_most_k_experts() -> None:
    model = network("vectors", ("a", "b", "c"), {"kind": "dselect_k", "experts": 8, "k": 2})
    trunk = model.trunk
    assert isinstance(trunk, SelectedExperts)
    with torch.no_grad():
        trunk.codes.copy_(torch.where(trunk.codes > 0, 3.0, -3.0))
    gates = trunk.gates()
    assert ((gates > 0).sum(1) <= 2).all()
    torch.testing.assert_close(gates.sum(1), torch.ones(3, dtype=torch.float64))


def test_the_entropy_drives_each_selector_to_one_expert() -> None:
    """Gradient descent on the penalty alone, from the start of a run."""
    from mtl.build import build
    from mtl.data.types import Header
    from tests.support.recipes import recipe

    tasks = {t: {"kind": "binary", "target": t} for t in "ab"}
    sharing = {"kind": "dselect_k", "experts": 4, "k": 2, "entropy": 1.0}
    made = build(
        recipe(model__sharing=sharing, tasks=tasks), Header((5,), {"a": ("0", "1"), "b": ("0", "1")})
    )
    trunk = made.model.trunk
    assert isinstance(trunk, SelectedExperts)
    assert trunk.codes.abs().max() <= 0.01
    assert trunk.selectors().max() < 0.3
    for _ in range(400):
        penalty = trunk.penalty()
        assert penalty is not None
        (gradient,) = torch.autograd.grad(penalty, trunk.codes)
        with torch.no_grad():
            trunk.codes -= 0.05 * gradient
    assert trunk.selectors().max(2).values.min() > 0.99
    assert ((trunk.gates() > 1e-3).sum(1) <= 2).all()


def test_numbers_of_experts_without_a_code_are_refused() -> None:
    with pytest.raises(UserError, match=r"experts: 6 is no power of two: use 4 or 8"):
        network("vectors", ("a", "b"), {"kind": "dselect_k", "experts": 6})
    with pytest.raises(UserError, match=r"k: is 5, but there are 4 experts"):
        network("vectors", ("a", "b"), {"kind": "dselect_k", "experts": 4, "k": 5})


def test_readings_are_the_gates() -> None:
    model = network("vectors", ("a", "b"), {"kind": "dselect_k", "experts": 4, "k": 2})
    (matrix,) = model.sharing().values()
    assert (matrix.targets, matrix.sources) == (("a", "b"), tuple(f"expert_{e}" for e in (1, 2, 3, 4)))
    torch.testing.assert_close(matrix.values, model.trunk.gates())  # type: ignore[union-attr, operator]
    assert torch.isfinite(model(inputs("vectors"))["a"]).all()
