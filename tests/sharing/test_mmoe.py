"""Multi-gate mixture of experts: the grouped network is the plain one, with gates that sum to one."""

import pytest
import torch
from torch import nn

from mtl.sharing.mmoe.network import MixtureOfExperts
from tests.sharing.loops import assert_equals_loop
from tests.sharing.small import FEATURES, IMAGE, Slices, inputs, network, plain_heads, plain_tower
from tests.support.reference_networks import mmoe

TASKS = ("a", "b", "c")
N_INPUTS = {"vectors": FEATURES, "images": torch.Size(IMAGE).numel()}


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("n_experts", [1, 2, 5])
@pytest.mark.parametrize("body", ["vectors", "images"])
def test_it_is_the_plain_loop_over_experts_and_tasks(body: str, n_experts: int, norm: str) -> None:
    model = network(body, TASKS, {"kind": "mmoe", "experts": n_experts}, norm=norm).train()
    trunk, slices, x = model.trunk, Slices(), inputs(body)
    assert isinstance(trunk, MixtureOfExperts)
    experts = [plain_tower(slices, body, trunk.experts, e, norm) for e in range(n_experts)]
    gates = [
        slices.take(
            nn.Linear(N_INPUTS[body], n_experts, bias=False).double(), [trunk.gates.weight], k, len(TASKS)
        )
        for k in range(len(TASKS))
    ]
    expected = mmoe(x, experts, gates, plain_heads(slices, model, TASKS))  # type: ignore[arg-type]
    logits = model(x)
    for task, value in zip(TASKS, expected, strict=True):
        torch.testing.assert_close(logits[task], value, rtol=1e-5, atol=1e-5)
    weights = torch.arange(1.0, len(TASKS) + 1, dtype=torch.float64)
    sum(w * logits[task].square().sum() for w, task in zip(weights, TASKS, strict=True)).backward()
    sum(w * value.square().sum() for w, value in zip(weights, expected, strict=True)).backward()
    assert slices.gradients_differ() < 1e-5


@pytest.mark.parametrize("body", ["vectors", "images"])
def test_one_expert_is_hard_sharing(body: str) -> None:
    """The same weights give the same logits, and every gate is 1."""
    one = network(body, TASKS, {"kind": "mmoe", "experts": 1}, norm="batch")
    hard = network(body, TASKS, {"kind": "none"}, norm="batch", towers="one")
    weights = {name: value for name, value in one.state_dict().items() if "gate" not in name}
    hard.load_state_dict(
        {name.replace("trunk.experts.", "trunk.towers."): value for name, value in weights.items()}
    )
    x = inputs(body)
    for mode in (True, False):
        found, expected = one.train(mode)(x), hard.train(mode)(x)
        for task in TASKS:
            torch.testing.assert_close(found[task], expected[task], rtol=0, atol=1e-12)


def test_the_gates_of_the_last_batch_are_what_is_read() -> None:
    model = network("vectors", TASKS, {"kind": "mmoe", "experts": 4})
    (before,) = model.sharing().values()
    assert before.values.eq(0.25).all()
    x = inputs("vectors")
    model.train()(x)
    (matrix,) = model.sharing().values()
    assert (matrix.targets, matrix.sources) == (TASKS, tuple(f"expert_{e}" for e in (1, 2, 3, 4)))
    trunk = model.trunk
    assert isinstance(trunk, MixtureOfExperts)
    for k in range(len(TASKS)):
        expected = (x @ trunk.gates.weight.view(3, 4, -1)[k].T).softmax(-1).mean(0)
        torch.testing.assert_close(matrix.values[k], expected)
    torch.testing.assert_close(matrix.values.sum(1), torch.ones(3, dtype=torch.float64))
    model.eval()(inputs("vectors"))
    assert torch.equal(model.sharing()["gates"].values, matrix.values)


def test_gates_belong_to_their_towers_and_experts_to_all() -> None:
    model = network(
        "vectors", TASKS, {"kind": "mmoe", "experts": 2}, towers={"left": ("a", "c"), "right": ("b",)}
    )
    reach, roles = model.reach(TASKS), model.parameter_roles()
    gates = reach["trunk.gates.weight"][:, 0]
    assert gates.tolist() == [[True, False, True]] * 2 + [[False, True, False]] * 2
    assert reach["trunk.experts.stages.fc1.map.weight"].all()
    assert roles["trunk.gates.weight"] == "sharing"
    assert roles["trunk.experts.stages.fc1.map.weight"] == "weight"


def test_the_number_of_kernels_does_not_grow_with_experts() -> None:
    """No loop over experts or tasks: as many operations for 16 experts of 8 towers as for 2 of 2."""

    def operations(n_experts: int, n_tasks: int) -> int:
        tasks = [f"t{t}" for t in range(n_tasks)]
        model = network("vectors", tasks, {"kind": "mmoe", "experts": n_experts}).eval()
        with torch.profiler.profile() as profile, torch.no_grad():
            model(inputs("vectors"))
        return sum(event.count for event in profile.key_averages())

    assert operations(16, 8) == operations(2, 2)


@pytest.mark.parametrize("body", ["vectors", "images"])
def test_a_gate_with_a_hidden_layer_is_the_plain_one(body: str) -> None:
    model = network(body, TASKS, {"kind": "mmoe", "experts": 2, "hidden": 3})
    trunk, slices = model.trunk, Slices()
    assert isinstance(trunk, MixtureOfExperts)
    experts = [plain_tower(slices, body, trunk.experts, e, "none") for e in range(2)]
    first, _, second = trunk.gates  # type: ignore[misc]
    gates = [
        nn.Sequential(
            slices.take(nn.Linear(N_INPUTS[body], 3, bias=False).double(), [first.weight], k, 3),
            nn.ReLU(),
            slices.take(nn.Linear(3, 2, bias=False).double(), [second.weight], k, 3),
        )
        for k in range(3)
    ]

    def readings(x: torch.Tensor) -> list[torch.Tensor]:
        found = [expert(x) for expert in experts]
        weights = [gate(x.flatten(1)).softmax(1) for gate in gates]
        return [sum(w[:, e : e + 1] * found[e] for e in range(2)) for w in weights]  # type: ignore[misc]

    assert_equals_loop(model, body, TASKS, slices, readings)
    assert {model.parameter_roles()[f"trunk.gates.{i}.weight"] for i in (0, 2)} == {"sharing"}
    assert model.reach(TASKS)["trunk.gates.2.weight"][:, 0].tolist() == (
        [[True, False, False]] * 2 + [[False, True, False]] * 2 + [[False, False, True]] * 2
    )


def test_gate_dropout_leaves_experts_out_in_training_only() -> None:
    model = network("vectors", TASKS, {"kind": "mmoe", "experts": 4, "gate_dropout": 0.5})
    trunk = model.trunk
    assert isinstance(trunk, MixtureOfExperts)
    gates = torch.rand(400, 3, 4, dtype=torch.float64).softmax(-1)
    torch.manual_seed(0)
    dropped = trunk._dropped(gates)
    torch.testing.assert_close(dropped.sum(-1), torch.ones(400, 3, dtype=torch.float64))
    # half of the entries, but where all four fell (1 in 16) all are kept
    assert (dropped == 0).double().mean().item() == pytest.approx(0.5 - 1 / 16, abs=0.03)
    kept = dropped > 0
    ratio = (dropped / gates)[kept]
    assert (ratio >= 1 - 1e-12).all()
    x = inputs("vectors")
    assert torch.equal(model.eval()(x)["a"], model(x)["a"])
    assert not torch.equal(model.train()(x)["a"], model(x)["a"])
