"""What each batch is made of: reserved rows, exact shares of sources, and nothing but (seed, epoch, step)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl.data.rows.order import batches, n_batches, order
from mtl.data.rows.sampling import BLOCK, Endless, Sampler, interleaved, quotas
from mtl.data.types import Rows
from mtl.errors import UserError

ROWS = np.arange(100, 200)
A, B = ROWS[:70], ROWS[70:]
RARE = ROWS[::9]  # 12 rows with a label

SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "plain": lambda seed=5, **more: Sampler(ROWS, 16, False, seed, **more),
    "drop_last": lambda seed=5, **more: Sampler(ROWS, 16, True, seed, **more),
    "min_labelled": lambda seed=5: Sampler(ROWS, 16, False, seed, min_labelled={"a": (RARE, 3), "b": (B, 2)}),
    "min_labelled, drop_last": lambda seed=5: Sampler(ROWS, 16, True, seed, min_labelled={"a": (RARE, 3)}),
    "uniform": lambda seed=5: Sampler(ROWS, 16, False, seed, streams={"x": A, "y": B}, temperature=math.inf),
    "temperature": lambda seed=5: Sampler(ROWS, 16, True, seed, streams={"x": A, "y": B}, temperature=2.0),
    "both": lambda seed=5: Sampler(
        ROWS, 16, False, seed, min_labelled={"a": (RARE, 3)}, streams={"x": A, "y": B}, temperature=2.0
    ),
}


def as_lists(parts: Any) -> list[list[int]]:
    return [part.tolist() for part in parts]


# --- what holds of all ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLERS)
def test_batches_are_a_function_of_seed_epoch_and_step(name: str) -> None:
    """A sampler that has seen other epochs, and one that starts within an epoch, give the same batches."""
    used, make = SAMPLERS[name](), SAMPLERS[name]
    epochs = [as_lists(used.batches(epoch)) for epoch in range(4)]
    assert [len(parts) for parts in epochs] == [used.n_batches] * 4
    for epoch in (3, 0, 2):
        assert as_lists(used.batches(epoch)) == epochs[epoch]
        for start in range(used.n_batches + 1):
            assert as_lists(make().batches(epoch, start)) == epochs[epoch][start:]
            assert as_lists(used.batches(epoch, start)) == epochs[epoch][start:]
    assert len({str(parts) for parts in epochs}) == 4
    assert as_lists(SAMPLERS[name](6).batches(0)) != epochs[0]


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_smallest_batch(name: str) -> None:
    sampler = SAMPLERS[name]()
    assert sampler.smallest == min(len(part) for part in sampler.batches(0))


@given(n=st.integers(1, 60), size=st.integers(2, 20), reserved=st.integers(0, 3), drop=st.booleans())
def test_sizes_of_batches(n: int, size: int, reserved: int, drop: bool) -> None:
    rows, labelled = np.arange(n), np.arange(n)[:3]
    count = min(reserved, len(labelled), size - 1)
    asked = {"a": (labelled, count)} if count else {}
    if drop and n < size - count:
        with pytest.raises(UserError, match="drop_last leaves no batch"):
            Sampler(rows, size, drop, 0, min_labelled=asked)
        return
    sampler = Sampler(rows, size, drop, 0, min_labelled=asked)
    sizes = [len(part) for part in sampler.batches(0)]
    assert sampler.n_batches == len(sizes) == n_batches(n, size - count, drop)
    assert sampler.smallest == min(sizes)
    assert sum(sizes) == count * len(sizes) + (n if not drop else n // (size - count) * (size - count))


def test_plain_batches_are_those_of_one_permutation() -> None:
    shuffled = ROWS[order(100, 5, 2)]
    assert as_lists(SAMPLERS["plain"]().batches(2)) == as_lists(batches(shuffled, 16, False))
    # proportional to size is every row once
    streams = SAMPLERS["plain"](streams={"x": A, "y": B}, temperature=None)
    assert as_lists(streams.batches(2)) == as_lists(SAMPLERS["plain"]().batches(2))


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_epoch_is_sorted_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although a checkpoint at its beginning looks at its first batches before it is trained."""
    sampler, real, drawn = SAMPLERS[name](), Sampler._drawn, []

    def counted(self: Sampler, epoch: int) -> Rows:
        drawn.append(epoch)
        return real(self, epoch)

    monkeypatch.setattr(Sampler, "_drawn", counted)
    first = as_lists(sampler.batches(0))
    assert as_lists(sampler.batches(0, 1)) == first[1:]
    list(sampler.batches(1))
    assert as_lists(sampler.batches(0)) == first
    assert drawn == [0, 1, 0]


# --- rows with a label ------------------------------------------------------------------------------------


@given(
    n=st.integers(10, 120),
    n_labelled=st.integers(3, 10),
    size=st.integers(5, 40),
    count=st.integers(1, 3),
    seed=st.integers(0, 9),
    temperature=st.sampled_from([None, 3.0, math.inf]),
)
def test_every_batch_has_the_labels_asked_for(
    n: int, n_labelled: int, size: int, count: int, seed: int, temperature: float | None
) -> None:
    """Of both tasks, the last and smallest batch included; without sources an epoch is every row once, too."""
    rows = np.arange(1000, 1000 + n)
    few, many = rows[:n_labelled], rows[n // 2 :]
    sampler = Sampler(
        rows,
        size,
        False,
        seed,
        min_labelled={"few": (few, count), "many": (many, 1)},
        streams={"x": rows[: n // 3], "y": rows[n // 3 :]},
        temperature=temperature,
    )
    for epoch in range(2):
        parts = list(sampler.batches(epoch))
        for part in parts:
            assert np.isin(part, few).sum() >= count
            assert np.isin(part, many).sum() >= 1
        assert all(len(part) == size for part in parts[:-1])
        if temperature is None:
            free = np.concatenate([part[: len(part) - count - 1] for part in parts])
            assert sorted(free) == rows.tolist()


def test_reserved_rows_take_turns() -> None:
    """Over batches and epochs, no labelled row is drawn twice more than another."""
    sampler = Sampler(ROWS, 16, False, 1, min_labelled={"a": (RARE, 3)})
    drawn = np.concatenate([part[-3:] for epoch in range(5) for part in sampler.batches(epoch)])
    assert len(drawn) == 5 * sampler.n_batches * 3
    counts = np.array([np.count_nonzero(drawn == row) for row in RARE])
    assert counts.sum() == len(drawn)
    assert counts.max() - counts.min() <= 1


def test_another_reserved_task_leaves_the_first_ones_rows_as_they_are() -> None:
    one = Sampler(ROWS, 16, False, 1, min_labelled={"a": (RARE, 3)})
    two = Sampler(ROWS, 18, False, 1, min_labelled={"b": (B, 2), "a": (RARE, 3)})
    assert as_lists(part[-3:] for part in one.batches(0)) == as_lists(part[-3:] for part in two.batches(0))


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"a": (RARE[:0], 1)}, "train.batches.min_labelled.a: no row of train has a label of task 'a'"),
        (
            {"a": (RARE, 13)},
            "train.batches.min_labelled.a: 13 rows are asked for in each batch, train has 12 with this label; "
            "ask for 12 or fewer",
        ),
        (
            {"a": (RARE, 8), "b": (B, 8)},
            "train.batches.min_labelled: 16 rows are reserved of a batch of 16; leave room for other rows",
        ),
    ],
)
def test_what_cannot_be_reserved(asked: dict[str, tuple[Rows, int]], text: str) -> None:
    with pytest.raises(UserError) as caught:
        Sampler(ROWS, 16, False, 0, min_labelled=asked)
    assert str(caught.value) == text


def test_drop_last_that_leaves_nothing_says_what_is_reserved() -> None:
    with pytest.raises(UserError) as caught:
        Sampler(ROWS[:20], 28, True, 0, min_labelled={"a": (RARE, 3)})
    assert str(caught.value) == (
        "train.batch_size: drop_last leaves no batch: 20 rows, 25 of each batch are not reserved; "
        "lower batch_size, or set drop_last: false"
    )


# --- shares of sources ------------------------------------------------------------------------------------

SIZES = st.lists(st.integers(1, 60), min_size=2, max_size=6)


@given(sizes=SIZES, temperature=st.sampled_from([1.0, 1.5, 2.0, 5.0, math.inf]))
def test_quotas_are_the_shares_of_t5(sizes: list[int], temperature: float) -> None:
    share = np.array([size ** (1 / temperature) for size in sizes])
    share /= share.sum()
    found = quotas(sizes, temperature)
    assert found.sum() == sum(sizes)
    assert (np.abs(found - share * sum(sizes)) < 1).all()
    assert (found >= 1).all()
    if temperature == 1:
        assert found.tolist() == sizes


def test_quotas_by_hand() -> None:
    assert quotas([100, 900], math.inf).tolist() == [500, 500]
    assert quotas([100, 900], 2.0).tolist() == [250, 750]  # 10 and 30
    assert quotas([1, 1, 1, 7], math.inf).tolist() == [3, 3, 2, 2]
    assert quotas([10, 10, 80], 1.0).tolist() == [10, 10, 80]


@given(sizes=SIZES)
def test_any_first_rows_of_an_epoch_hold_the_shares(sizes: list[int]) -> None:
    wanted = np.array(sizes)
    owner = interleaved(wanted)
    counts = np.cumsum(owner[:, np.newaxis] == np.arange(len(sizes)), axis=0)
    share = wanted / wanted.sum()
    off = np.abs(counts - np.arange(1, len(owner) + 1)[:, np.newaxis] * share)
    assert (off <= 0.5 + share * len(sizes) / 2 + 1e-9).all()
    assert counts[-1].tolist() == sizes


@pytest.mark.parametrize(("temperature", "each"), [(math.inf, [50, 50]), (2.0, [60, 40])])
def test_an_epoch_draws_its_sources_by_their_shares(temperature: float, each: list[int]) -> None:
    """70 and 30 rows: 60.4 and 39.6 of 100 at temperature 2."""
    sampler = Sampler(ROWS, 16, False, 5, streams={"x": A, "y": B}, temperature=temperature)
    drawn = []
    for epoch in range(3):
        parts = list(sampler.batches(epoch))
        assert [len(part) for part in parts] == [16] * 6 + [4]
        seen = np.concatenate(parts)
        assert [np.isin(seen, own).sum() for own in (A, B)] == each
        for part in parts[:-1]:
            assert abs(np.isin(part, B).sum() - 16 * each[1] / 100) <= 2
        drawn.append(seen)
    counts = [np.bincount(np.concatenate(drawn), minlength=200)[own] for own in (A, B)]
    assert all(count.max() - count.min() <= 1 for count in counts)  # rows take turns, over epochs too


def test_many_equal_sources_get_equal_shares() -> None:
    """Not the first of them what rounding leaves over in each batch."""
    streams = {f"s{i}": np.arange(i * 20, i * 20 + 20) for i in range(3)}
    sampler = Sampler(np.arange(60), 4, False, 0, streams=streams, temperature=math.inf)
    seen = np.concatenate(list(sampler.batches(0)))
    assert np.bincount(seen // 20).tolist() == [20, 20, 20]


def test_another_source_leaves_the_order_of_the_others_as_it_is() -> None:
    two = Sampler(ROWS, 16, False, 5, streams={"x": A, "y": B}, temperature=math.inf)
    three = Sampler(
        np.arange(50, 200),
        16,
        False,
        5,
        streams={"z": np.arange(50, 100), "x": A, "y": B},
        temperature=math.inf,
    )
    seen = [np.concatenate(list(sampler.batches(0))) for sampler in (two, three)]
    assert seen[0][np.isin(seen[0], B)].tolist() == seen[1][np.isin(seen[1], B)].tolist()


# --- endless sequences ------------------------------------------------------------------------------------


@given(n=st.integers(1, 40), start=st.integers(0, 3000), count=st.integers(0, 3000))
def test_endless_is_permutations_one_after_the_other(n: int, start: int, count: int) -> None:
    rows = np.arange(n) + 7
    one = Endless(rows, 3, "x").take(0, start + count)
    whole = one[: len(one) // n * n].reshape(-1, n)
    assert (np.sort(whole, axis=1) == rows).all()
    other = Endless(rows, 3, "x")
    assert other.take(start, count).tolist() == one[start:].tolist()
    assert other.take(0, start).tolist() == one[:start].tolist()  # backwards too


def test_endless_of_many_rows_is_the_order_of_batches() -> None:
    rows = np.arange(BLOCK + 5)
    drawn = Endless(rows, 3, "x").take(0, 2 * len(rows))
    assert drawn.tolist() == [*order(len(rows), 3, 0, "x"), *order(len(rows), 3, 1, "x")]


def test_endless_of_few_rows_does_not_repeat_its_permutation() -> None:
    drawn = Endless(np.arange(12), 0, "x").take(0, 12 * 300).reshape(300, 12)
    assert len({tuple(row) for row in drawn.tolist()}) == 300
