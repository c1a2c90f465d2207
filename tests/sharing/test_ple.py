"""Customized gate control and progressive layered extraction against plain loops, and their limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtl.errors import UserError
from mtl.sharing.ple.network import ExtractionNetwork
from tests.sharing.loops import TASKS, assert_equals_loop
from tests.sharing.small import Slices, inputs, network, plain_tower

LEVELS = {"vectors": ["fc1", "fc2"], "images": ["pool1", "conv2", "fc3"]}
STAGES_OF = {
    "vectors": [["fc1"], ["fc2"]],
    "images": [["conv1", "pool1"], ["conv2"], ["fc3"]],
}


def loop(
    model: Any, slices: Slices, body: str, n: int, levels: Sequence[Sequence[str]], m: int, s: int
) -> Any:
    """The readings by plain loops over levels, towers and experts; `levels` has the stages of each."""
    trunk = model.trunk
    assert isinstance(trunk, ExtractionNetwork)
    n_experts = n * m + s
    experts, gates, over_all = [], [], []
    for site, stages in zip(trunk.sites, levels, strict=True):
        level, unit = trunk.levels[site], trunk.gates[site]
        experts.append([plain_tower(slices, body, level, e, "none", stages) for e in range(n_experts)])  # type: ignore[arg-type]
        width = unit.of_towers.in_features  # type: ignore[union-attr]
        weight = [unit.of_towers.weight]  # type: ignore[union-attr]
        gates.append(
            [slices.take(nn.Linear(width, m + s, bias=False).double(), weight, k, n) for k in range(n)]  # type: ignore[arg-type]
        )
        whole = unit.over_all  # type: ignore[union-attr]
        taken = (
            None
            if whole is None
            else slices.take(
                nn.Linear(width, n_experts, bias=False).double(),
                [whole.weight],
                0,
                1,  # type: ignore[union-attr, list-item]
            )
        )
        over_all.append(taken)

    def readings(x: Tensor) -> list[Tensor]:
        of_tower, of_shared = [x] * n, x
        for own_experts, own_gates, shared_gate in zip(experts, gates, over_all, strict=True):
            found = [own_experts[k * m + e](of_tower[k]) for k in range(n) for e in range(m)]
            common = [own_experts[n * m + e](of_shared) for e in range(s)]
            mixed = []
            for k in range(n):
                gate = own_gates[k](of_tower[k].flatten(1)).softmax(1)
                mine = [*found[k * m : (k + 1) * m], *common]
                mixed.append(
                    sum(g.view(-1, *(1,) * (h.ndim - 1)) * h for g, h in zip(gate.T, mine, strict=True))
                )
            if shared_gate is not None:
                gate = shared_gate(of_shared.flatten(1)).softmax(1)
                every = [*found, *common]
                of_shared = sum(
                    g.view(-1, *(1,) * (h.ndim - 1)) * h for g, h in zip(gate.T, every, strict=True)
                )
            of_tower = mixed
        return of_tower

    return readings


@pytest.mark.parametrize(("m", "s"), [(1, 1), (2, 1), (0, 2), (2, 0)])
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("body", LEVELS)
def test_cgc_is_the_loop_over_towers_and_experts(body: str, n: int, m: int, s: int) -> None:
    model = network(body, TASKS[:n], {"kind": "cgc", "own": m, "shared": s})
    slices = Slices()
    whole = [[stage for level in STAGES_OF[body] for stage in level]]
    assert_equals_loop(model, body, TASKS[:n], slices, loop(model, slices, body, n, whole, m, s))


@pytest.mark.parametrize(("m", "s"), [(1, 1), (2, 1), (1, 2), (2, 0)])
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("body", LEVELS)
def test_ple_is_the_loop_over_levels(body: str, n: int, m: int, s: int) -> None:
    model = network(body, TASKS[:n], {"kind": "ple", "after": LEVELS[body], "own": m, "shared": s})
    slices = Slices()
    assert_equals_loop(model, body, TASKS[:n], slices, loop(model, slices, body, n, STAGES_OF[body], m, s))


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_one_level_without_shared_experts_is_separate_towers(norm: str) -> None:
    ple = network("images", ("a", "b"), {"kind": "ple", "after": ["fc3"], "own": 1, "shared": 0}, norm=norm)
    apart = network("images", ("a", "b"), {"kind": "none"}, norm=norm)
    state = {k.replace("trunk.levels.fc3.", "trunk.towers."): v for k, v in ple.state_dict().items()}
    apart.load_state_dict({k: v for k, v in state.items() if "gates" not in k})
    x = inputs("images")
    for mode in (True, False):
        a, b = ple.train(mode)(x), apart.train(mode)(x)
        for task in ("a", "b"):
            torch.testing.assert_close(a[task], b[task])


def test_one_shared_expert_and_no_own_is_hard_sharing() -> None:
    cgc = network("vectors", ("a", "b"), {"kind": "cgc", "own": 0, "shared": 1})
    hard = network("vectors", ("a", "b"), {"kind": "none"}, towers="one")
    state = {k.replace("trunk.levels.fc2.", "trunk.towers."): v for k, v in cgc.state_dict().items()}
    hard.load_state_dict({k: v for k, v in state.items() if "gates" not in k})
    x = inputs("vectors")
    torch.testing.assert_close(cgc(x)["b"], hard(x)["b"])


def test_the_gates_of_the_last_batch_are_what_is_read() -> None:
    model = network("vectors", ("a", "b"), {"kind": "cgc", "own": 2, "shared": 1})
    x = inputs("vectors")
    model.train()(x)
    (matrix,) = model.sharing().values()
    assert matrix.sources == ("a_1", "a_2", "b_1", "b_2", "shared_1")
    weight = model.trunk.gates["fc2"].of_towers.weight  # type: ignore[index, union-attr]
    gates = [(x @ part.T).softmax(1).mean(0) for part in weight.chunk(2)]  # type: ignore[operator]
    wanted = torch.zeros(2, 5, dtype=torch.float64)
    wanted[0, [0, 1, 4]], wanted[1, [2, 3, 4]] = gates[0], gates[1]
    torch.testing.assert_close(matrix.values, wanted)


def test_own_experts_serve_their_tower_where_nothing_shared_reads_them() -> None:
    def served(sharing: dict[str, Any], name: str) -> list[list[bool]]:
        reach = network("vectors", ("a", "b"), sharing).reach(("a", "b"))[name]
        return reach.flatten(0, -2)[:: reach.shape[0] // 3].tolist()

    cgc = {"kind": "cgc", "own": 1, "shared": 1}
    assert served(cgc, "trunk.levels.fc2.stages.fc1.map.weight") == [
        [True, False],
        [False, True],
        [True, True],
    ]
    ple = {"kind": "ple", "after": ["fc1", "fc2"], "own": 1, "shared": 1}
    assert served(ple, "trunk.levels.fc2.stages.fc2.map.weight") == [
        [True, False],
        [False, True],
        [True, True],
    ]
    lower = network("vectors", ("a", "b"), ple).reach(("a", "b"))["trunk.levels.fc1.stages.fc1.map.weight"]
    assert lower.all()


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match=r"own: a tower needs an expert: own or shared must be above 0"):
        network("vectors", ("a", "b"), {"kind": "cgc", "own": 0, "shared": 0})
    with pytest.raises(
        UserError, match=r"after: the heads read stage 'fc2', which belongs to no level; add 'fc2'"
    ):
        network("vectors", ("a", "b"), {"kind": "ple", "after": ["fc1"]})
