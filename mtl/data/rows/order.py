"""The order of rows and their division into batches: pure functions, without the state of a loader."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mtl.console import counted
from mtl.data.types import Rows
from mtl.errors import UserError

BLOCK = 1 << 20
"""Rows that are handled at once; memory therefore holds no third array of all rows."""


def generator_bits(seed: int, epoch: int, stream: str) -> np.random.Philox:
    """An independent counter-based bit generator for each (seed, epoch, stream).

    The key is the first 128 bits of sha256 over seed and stream. The epoch is the upper half of
    the 256-bit counter, so that two epochs are 2**128 draws apart and never overlap.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox 4x64).
    """
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    return np.random.Philox(key=int.from_bytes(digest[:16], "big"), counter=epoch << 128)


def order(n: int, seed: int, epoch: int, stream: str = "train") -> Rows:
    """The permutation of n rows for one epoch: the stable argsort of n raw 64-bit draws.

    The same arguments give the same order on every machine and with every numpy version, because
    only the raw bits of the generator are used.

    Args:
        n: number of rows.
        seed: seed of the order.
        epoch: 0, 1, ...
        stream: the purpose of the order; different names give independent orders.

    Returns:
        (n,) int64: 8 bytes per row, and 8 more during the sort.
    """
    return stable_argsort(generator_bits(seed, epoch, stream).random_raw(n))


def stable_argsort(bits: npt.NDArray[np.uint64]) -> Rows:
    """`np.argsort(bits, kind="stable")` for random bits; it takes a quarter of the time for 10^7 of them.

    A copy of the bits holds the number of each row in its low bits, and is sorted in place; no row is looked up.
    The rows that then have equal upper bits (0.04% of 10^8) are put in order by all their bits.

    Args:
        bits: (n,) any values; bits with few different upper bits take as long as an argsort.

    Returns:
        (n,) int64.
    """
    n = len(bits)
    mask = np.uint64((1 << n.bit_length()) - 1)
    packed = bits & ~mask
    for start in range(0, n, BLOCK):
        packed[start : start + BLOCK] |= np.arange(start, min(start + BLOCK, n), dtype=np.uint64)
    packed.sort()
    tied = [np.empty(0, np.int64)]  # places whose upper bits equal those of the next place
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
    """The number of batches that n rows make.

    A last batch of one row joins the batch before it, because batch norm has no variance of one
    row. With `drop_last`, a last batch that is not full is left out.

    Raises:
        UserError: there would be no batch.
    """
    full, rest = divmod(n, batch_size)
    if n == 0:
        raise UserError("", "there are no rows to make batches of")
    if drop_last:
        if not full:
            raise UserError(
                "",
                f"drop_last leaves no batch: {counted(n, 'row')}, batch_size {batch_size}",
                f"lower batch_size to {n} or less, or set drop_last: false",
                path=("train", "batch_size"),
            )
        return full
    alone = rest == 1 and full > 0
    return full + (rest > 0 and not alone)


def batches(order: Rows, batch_size: int, drop_last: bool, start: int = 0) -> Iterator[Rows]:
    """The batches of one epoch, as views into `order`.

    Args:
        order: (n,) the rows in the order of the epoch.
        batch_size: rows per batch, >= 1.
        drop_last: leave out a last batch that is not full.
        start: the number of the first batch; above 0 to continue an epoch.

    Raises:
        UserError: as `n_batches`; it comes at the call, not at the first batch.
    """
    n = len(order)
    count = n_batches(n, batch_size, drop_last)
    end = count * batch_size if drop_last else n
    cuts = [*range(0, count * batch_size, batch_size), end]
    return (order[cuts[step] : cuts[step + 1]] for step in range(start, count))
