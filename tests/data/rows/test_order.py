"""The order of rows and its batches."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl.data.rows import order as module
from mtl.data.rows.order import batches, generator_bits, n_batches, order, stable_argsort
from mtl.errors import UserError

GOLDEN = {
    (10, 0, 0, "train"): [0, 3, 5, 9, 6, 8, 2, 4, 7, 1],
    (1000, 7, 3, "train"): "7843518eb725b2d53bd4839856532cf795729e088952179be3f8fc853596cab9",
    (1000, 7, 3, "split"): "4bd0a0dd047ec6ae7113b31618cfeb08dec303a83cfca3461805e0e98491ba75",
}


@pytest.mark.parametrize("arguments", GOLDEN)
def test_order_is_the_recorded_one(arguments: tuple[int, int, int, str]) -> None:
    rows, golden = order(*arguments), GOLDEN[arguments]
    digest = hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()
    assert (rows.tolist() if isinstance(golden, list) else digest) == golden


@given(n=st.integers(0, 300), seed=st.integers(0, 2**63), epoch=st.integers(0, 2**63))
def test_order_is_a_permutation(n: int, seed: int, epoch: int) -> None:
    rows = order(n, seed, epoch)
    assert rows.dtype == np.int64
    np.testing.assert_array_equal(np.sort(rows), np.arange(n))
    np.testing.assert_array_equal(rows, order(n, seed, epoch))


@given(
    values=st.lists(
        st.sampled_from([0, 1, 2, 63, 64, 65, 2**40, 2**40 + 1, 2**63, 2**64 - 2, 2**64 - 1]), max_size=200
    ),
    block=st.sampled_from([1, 2, 7, 1 << 20]),
)
def test_rows_with_the_same_upper_bits_keep_their_order(values: list[int], block: int) -> None:
    """Of 10^8 random draws 0.04% have an equal one in what is left beside the row; of these, most have."""
    bits = np.array(values, dtype=np.uint64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        rows = stable_argsort(bits)
    assert rows.dtype == np.int64
    assert rows.tolist() == sorted(range(len(values)), key=lambda row: values[row])  # Python's sort is stable
    assert bits.tolist() == values


@pytest.mark.parametrize("n", [0, 1, 1023, 1024, 1025, 2_500_000])
def test_the_order_is_that_of_all_bits(n: int) -> None:
    bits = generator_bits(3, 1, "x").random_raw(n)
    np.testing.assert_array_equal(stable_argsort(bits), np.argsort(bits, kind="stable"))
    np.testing.assert_array_equal(order(n, 3, 1, "x"), np.argsort(bits, kind="stable"))


def test_seeds_epochs_and_streams_give_orders_of_their_own() -> None:
    orders = [order(100, s, e, t) for s in (0, 1, 11) for e in (0, 1, 2) for t in ("train", "1", "1/train")]
    assert len({rows.tobytes() for rows in orders}) == len(orders)


def test_every_row_is_as_likely_as_another_in_every_position() -> None:
    counts = np.zeros((5, 5))
    for epoch in range(4000):
        counts[np.arange(5), order(5, 0, epoch)] += 1
    chi2 = ((counts - 800) ** 2 / 800).sum()  # 16 degrees of freedom: 39.3 is passed once in 1000
    assert chi2 < 39.3


@given(n=st.integers(1, 200), size=st.integers(1, 60), drop_last=st.booleans())
def test_batches_cover_the_order_once(n: int, size: int, drop_last: bool) -> None:
    rows = order(n, 0, 0)
    if drop_last and n < size:
        return
    parts = list(batches(rows, size, drop_last))
    assert len(parts) == n_batches(n, size, drop_last)
    seen = np.concatenate(parts)
    np.testing.assert_array_equal(seen, rows[: len(seen)])
    assert len(seen) == (n // size * size if drop_last else n)
    assert all(len(part) == size for part in parts[:-1])
    assert n == 1 or size == 1 or min(map(len, parts)) > 1
    for start in range(len(parts) + 1):
        later = list(batches(rows, size, drop_last, start=start))
        assert [p.tolist() for p in later] == [p.tolist() for p in parts[start:]]


@pytest.mark.parametrize(
    ("n", "size", "drop_last", "sizes"),
    [
        (9, 4, False, [4, 5]),
        (10, 4, False, [4, 4, 2]),
        (9, 4, True, [4, 4]),
        (1, 4, False, [1]),
        (1, 1, True, [1]),
        (3, 1, False, [1, 1, 1]),
        (5, 4, False, [5]),
    ],
)
def test_a_last_batch_of_one_row_joins_the_one_before(
    n: int, size: int, drop_last: bool, sizes: list[int]
) -> None:
    assert [len(part) for part in batches(np.arange(n), size, drop_last)] == sizes


def test_no_batch_is_an_error_with_both_numbers() -> None:
    with pytest.raises(UserError) as caught:
        batches(np.arange(100), 128, True)
    assert str(caught.value) == (
        "train.batch_size: drop_last leaves no batch: 100 rows, batch_size 128; "
        "lower batch_size to 100 or less, or set drop_last: false"
    )
    with pytest.raises(UserError, match="there are no rows to make batches of"):
        n_batches(0, 4, False)
