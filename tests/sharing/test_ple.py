"""Customized gate control and progressive layered extraction against plain loops, and their limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtl.errors import UserError
from mtl.sharing.ple.network import ExtractionNetwork, PartialGateLinks
from tests.sharing.loops import TASKS, assert_equals_loop
from tests.sharing.small import Slices, inputs, network, plain_tower

LEVELS = {"vectors": ["fc1", "fc2"], "images": ["pool1", "conv2", "fc3"]}
STAGES_OF = {
    "vectors": [["fc1"], ["fc2"]],
    "images": [["conv1", "pool1"], ["conv2"], ["fc3"]],
}


def loop(
    model: Any,
    slices: Slices,
    body: str,
    n: int,
    levels: Sequence[Sequence[str]],
    m: int,
    s: int,
    cut: Mapping[int, Sequence[tuple[int, int]]] = MappingProxyType({}),
) -> Any:
    """The readings by plain loops over levels, towers and experts; `levels` has the stages of each.

    `cut` has the number of a level -> (tower, column): these gates are 0, and the others of the tower share the rest.
    """
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
        each = zip(experts, gates, over_all, strict=True)
        for level, (own_experts, own_gates, shared_gate) in enumerate(each):
            found = [own_experts[k * m + e](of_tower[k]) for k in range(n) for e in range(m)]
            common = [own_experts[n * m + e](of_shared) for e in range(s)]
            mixed = []
            for k in range(n):
                gate = own_gates[k](of_tower[k].flatten(1)).softmax(1)
                for _, column in (one for one in cut.get(level, ()) if one[0] == k):
                    left = torch.cat(
                        [gate[:, :column], 0 * gate[:, column : column + 1], gate[:, column + 1 :]], 1
                    )
                    gate = left / left.sum(1, keepdim=True)
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


CUTS = {"own": (0, 0), "shared": (1, -1), "of two towers": (0, 0, 1, -1)}
"""Tower and column of its gate, one pair after the other: the own experts come first, then the shared ones."""


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("m", "s"), [(1, 1), (2, 1), (0, 2), (2, 0), (1, 2)])
@pytest.mark.parametrize("body", LEVELS)
def test_a_cut_sets_a_gate_to_zero_and_rescales_the_others(body: str, m: int, s: int, cut: str) -> None:
    """At each level in turn, against the loop with that gate set to 0."""
    n = 2
    model = network(body, TASKS[:n], {"kind": "ple", "after": LEVELS[body], "own": m, "shared": s})
    trunk, slices, x = model.trunk.eval(), Slices(), inputs(body)
    gates = [(CUTS[cut][i], CUTS[cut][i + 1] % (m + s)) for i in range(0, len(CUTS[cut]), 2)]
    links = trunk.links()  # type: ignore[operator, union-attr]
    assert list(links) == LEVELS[body]
    for level, own in enumerate(links.values()):
        covered = [[*range(k * m, (k + 1) * m), *range(n * m, n * m + s)] for k in range(n)]
        assert (
            set(own.pairs()) == {(k, e) for k in range(n) for e in covered[k]}
            if m + s > 1
            else not own.pairs()
        )
        with own.cut([(k, covered[k][column]) for k, column in gates]):
            found = trunk(x)
        expected = loop(model, slices, body, n, STAGES_OF[body], m, s, {level: gates})(x)
        torch.testing.assert_close(found, torch.stack(expected, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("m", "s"), [(1, 1), (2, 1), (0, 2), (2, 0)])
def test_the_shares_of_a_tower_sum_to_one(m: int, s: int) -> None:
    model = network("vectors", TASKS[:3], {"kind": "ple", "after": ["fc1", "fc2"], "own": m, "shared": s})
    trunk, x = model.trunk.eval(), inputs("vectors")
    trunk.train()(x)
    for site, links in trunk.links().items():  # type: ignore[operator, union-attr]
        with links.observed() as seen:
            trunk(x)
        shares = links.shares(seen)
        torch.testing.assert_close(shares.sum(1), torch.ones(3, dtype=torch.float64))
        torch.testing.assert_close(shares, trunk.readings()[site].values)  # type: ignore[operator, union-attr]
        others = torch.block_diag(*[torch.ones(1, m)] * 3) == 0 if m else torch.zeros(3, 0, dtype=torch.bool)
        assert not shares[:, : 3 * m][others].any()


def test_a_gate_over_some_sources_has_links_to_these_alone() -> None:
    """Two targets with a source each and one in common, columns in any order."""
    mixing = nn.Identity()
    links = PartialGateLinks(mixing, ("a", "b"), ("a_1", "b_1", "common"), [[2, 0], [1, 2]], apart=True)
    weights = torch.tensor([[[0.2, 0.8], [0.7, 0.3]], [[0.4, 0.6], [0.9, 0.1]]])
    assert links.pairs() == [(0, 2), (0, 0), (1, 1), (1, 2)]
    with links.observed() as seen:
        mixing(weights)
    shares, over_rows = links.shares(seen), links.spread(seen)
    torch.testing.assert_close(shares, torch.tensor([[0.7, 0.0, 0.3], [0.0, 0.8, 0.2]], dtype=torch.float64))
    assert over_rows[0].tolist() == pytest.approx([0.1, 0.0, 0.1])
    with links.cut([(0, 2), (1, 2)]):
        found = mixing(weights)
    torch.testing.assert_close(found, torch.tensor([[[0.0, 1.0], [1.0, 0.0]]] * 2))
    alone = PartialGateLinks(mixing, ("a", "b"), ("a_1", "b_1"), [[0], [1]], apart=True)
    assert alone.pairs() == []


def test_what_a_tower_mixes_reaches_others_two_levels_above() -> None:
    """Where a level is `apart`, a cut of one tower changes no other reading; elsewhere it does."""
    for sharing in ({"own": 1, "shared": 1}, {"own": 0, "shared": 2}, {"own": 2, "shared": 0}):
        model = network("images", ("a", "b"), {"kind": "ple", "after": LEVELS["images"], **sharing})
        trunk, x = model.trunk.eval(), inputs("images")
        with torch.no_grad():
            before = trunk(x)
            for links in trunk.links().values():  # type: ignore[operator, union-attr]
                with links.cut([pair for pair in links.pairs() if pair[0] == 0][:1]):
                    after = trunk(x)
                assert not torch.equal(before[:, 0], after[:, 0])
                assert torch.equal(before[:, 1], after[:, 1]) == links.apart
    assert [
        own.apart
        for own in network("images", ("a", "b"), {"kind": "ple", "after": LEVELS["images"]})
        .trunk.links()
        .values()
    ] == [False, True, True]  # type: ignore[operator, union-attr]


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
