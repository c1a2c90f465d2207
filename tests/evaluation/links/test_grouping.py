"""The grouping that a transfer table supports: planted clusters are found, and noise gives none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mtl.evaluation.links.grouping import Proposal, propose
from mtl.evaluation.links.losses import Change

SIX = {name: (name,) for name in "abcdef"}


def table(
    towers: dict[str, tuple[str, ...]], delta: Callable[[str, str], float], se: float = 0.01
) -> dict[tuple[str, str], dict[str, Change | None]]:
    return {
        (into, source): {task: Change(delta(into, source), se, 500) for task in towers[into]}
        for into in towers
        for source in towers
        if into != source
    }


def proposed(
    delta: Callable[[str, str], float], towers: dict[str, tuple[str, ...]] = SIX, se: float = 0.01
) -> Proposal:
    losses: dict[str, float | None] = {task: 1.0 for tasks in towers.values() for task in tasks}
    return propose(towers, losses, table(towers, delta, se))


def test_two_planted_clusters_are_found_whatever_the_order() -> None:
    rng = np.random.default_rng(0)

    def delta(into: str, source: str) -> float:
        return 0.1 * ((into in "ace") == (source in "ace")) + 0.01 * rng.standard_normal()

    found = proposed(delta)
    assert found.towers == {"group_1": ("a", "c", "e"), "group_2": ("b", "d", "f")}
    assert (
        found.reason == "within {a, c, e}, {b, d, f} the towers use each other beyond the noise of these rows"
    )


def test_noise_gives_no_grouping() -> None:
    """Of 100 tables of noise, few give a grouping."""
    rng = np.random.default_rng(0)
    some = [proposed(lambda *_: 0.01 * rng.standard_normal()).towers for _ in range(100)]
    assert sum(one is not None for one in some) <= 5
    assert proposed(lambda *_: 0.0).towers is None
    assert proposed(lambda *_: 0.0).reason == "no two towers use each other beyond the noise of these rows"


def test_towers_that_hurt_each_other_stay_apart() -> None:
    assert proposed(lambda *_: -0.1).towers is None


def test_a_pair_and_four_alone() -> None:
    found = proposed(lambda into, source: 0.1 * ({into, source} == {"b", "e"}))
    assert found.towers == {"a": ("a",), "group_1": ("b", "e"), "c": ("c",), "d": ("d",), "f": ("f",)}


def test_both_directions_count_alike() -> None:
    """One tower uses the other a lot and is hurt as much: no gain together."""
    found = proposed(lambda into, source: {("a", "b"): 0.2, ("b", "a"): -0.2}.get((into, source), 0.0))
    assert found.towers is None


def test_a_chain_is_joined_only_as_far_as_the_means_go() -> None:
    """a-b and c-d are strong; the mean between the two pairs is within noise."""
    strong = [{"a", "b"}, {"c", "d"}]
    found = proposed(lambda i, j: 0.2 if {i, j} in strong else 0.021 * ({i, j} == {"b", "c"}))
    assert found.towers is not None
    assert {("a", "b"), ("c", "d")} <= set(found.towers.values())


def test_all_towers_may_end_in_one_group() -> None:
    assert proposed(lambda *_: 0.1).towers == {"group_1": tuple("abcdef")}


def test_grouped_towers_move_as_a_whole() -> None:
    towers = {"risk": ("a", "b"), "value": ("c",), "group_1": ("d",)}
    found = proposed(lambda i, j: 0.1 * ({i, j} == {"risk", "value"}), towers)
    assert found.towers == {"group_2": ("a", "b", "c"), "group_1": ("d",)}


def test_losses_of_other_units_count_by_their_size() -> None:
    """0.1 of a loss of 100 is little: the relative change decides."""
    losses: dict[str, float | None] = {name: 1.0 if name in "abc" else 100.0 for name in SIX}
    found = propose(SIX, losses, table(SIX, lambda *_: 0.1, se=0.01))
    assert found.towers is not None
    assert max(map(len, found.towers.values())) >= 3
    assert propose(SIX, losses, table(SIX, lambda *_: 0.1, se=1.0)).towers is None


@pytest.mark.parametrize("hole", [None, Change(0.1, None, 1)])
def test_what_is_not_known_joins_nothing(hole: Change | None) -> None:
    transfers = table(SIX, lambda *_: 0.1)
    for into in "bcdef":
        transfers["a", into] = {"a": hole}
    found = propose(SIX, dict.fromkeys(SIX, 1.0), transfers)
    assert found.towers is not None
    assert found.towers["a"] == ("a",)


def test_two_tasks_and_experts_have_no_grouping() -> None:
    two = {"a": ("a",), "b": ("b",)}
    assert proposed(lambda *_: 0.1, two).reason == "a grouping needs three tasks and two towers"
    assert propose({"a": tuple("xyz")}, {}, {}).reason == "a grouping needs three tasks and two towers"
    assert propose(SIX, {}, {}).reason == "no tower takes anything from another tower directly"
