"""In which order rows are seen, and how they are cut into batches: pure functions, no loader state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mtl.data.types import Rows
from mtl.errors import UserError

BLOCK = 1 << 20
"""Rows that are handled in one go, so that no third array of all of them is in memory."""


def generator_bits(seed: int, epoch: int, stream: str) -> np.random.Philox:
    """A counter-based bit generator of its own for each (seed, epoch, stream).

    The key is the first 128 bits of sha256 over seed and stream; the epoch is the upper half of
    the 256-bit counter, so that two epochs are 2**128 draws apart and never overlap.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox 4x64).
    """
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    return np.random.Philox(key=int.from_bytes(digest[:16], "big"), counter=epoch << 128)


def order(n: int, seed: int, epoch: int, stream: str = "train") -> Rows:
    """The permutation of n rows for one epoch: the stable argsort of n raw 64-bit draws.

    The same arguments give the same order on every machine and with every numpy version, since
    only the raw bits of the generator are used.

    Args:
        n: number of rows.
        seed: seed of the order.
        epoch: 0, 1, ...
        stream: what the order is for; different names give independent orders.

    Returns:
        (n,) int64: 8 bytes per row, and 8 more while it sorts.
    """
    return stable_argsort(generator_bits(seed, epoch, stream).random_raw(n))


def stable_argsort(bits: npt.NDArray[np.uint64]) -> Rows:
    """`np.argsort(bits, kind="stable")` for bits that are random, in a quarter of its time for 10^7 of them.

    The row goes into the low bits of a copy, in place of what it covers, and the copy is sorted in place: no row is
    looked up anywhere. Rows whose upper bits are the same (0.04% of 10^8) are then put into their order by all bits.

    Args:
        bits: (n,) of any values; those with few different upper bits are as slow as an argsort.

    Returns:
        (n,) int64.
    """
    n = len(bits)
    mask = np.uint64((1 << n.bit_length()) - 1)
    packed = bits & ~mask
    for start in range(0, n, BLOCK):
        packed[start : start + BLOCK] |= np.arange(start, min(start + BLOCK, n), dtype=np.uint64)
    packed.sort()
    tied = [np.empty(0, np.int64)]  # places whose upper bits are those of the next one
    for start in range(0, n, BLOCK):
        part = packed[start : start + BLOCK + 1]
        tied.append(start + np.flatnonzero((part[:-1] ^ part[1:]) <= mask))
    packed &= mask
    order = packed.view(np.int64)
    first = np.concatenate(tied)
    places = np.union1d(first, first + 1)
    rows = order[places]
    order[places] = rows[np.argsort(bits[rows], kind="stable")]
    return order


def n_batches(n: int, batch_size: int, drop_last: bool) -> int:
    """How many batches n rows make.

    A last batch of one row joins the batch before it, because batch norm has no variance of one
    row; with `drop_last` a last batch that is not full is left out.

    Raises:
        UserError: no batch comes out.
    """
    full, rest = divmod(n, batch_size)
    if n == 0:
        raise UserError("", "there are no rows to make batches of")
    if drop_last:
        if not full:
            raise UserError(
                "",
                f"drop_last leaves no batch: {n} rows, batch_size {batch_size}",
                f"lower batch_size to {n} or less, or set drop_last: false",
                path=("train", "batch_size"),
            )
        return full
    alone = rest == 1 and full > 0
    return full + (rest > 0 and not alone)


def batches(order: Rows, batch_size: int, drop_last: bool, start: int = 0) -> Iterator[Rows]:
    """The batches of one epoch, as views into `order`.

    Args:
        order: (n,) the rows in the order in which they are seen.
        batch_size: rows per batch, >= 1.
        drop_last: leave out a last batch that is not full.
        start: the first batch to give, for going on within an epoch.

    Raises:
        UserError: as `n_batches`, at the call and not at the first batch.
    """
    n = len(order)
    count = n_batches(n, batch_size, drop_last)
    end = count * batch_size if drop_last else n
    cuts = [*range(0, count * batch_size, batch_size), end]
    return (order[cuts[step] : cuts[step + 1]] for step in range(start, count))
