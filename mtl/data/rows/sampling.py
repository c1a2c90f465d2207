"""Chooses the rows of each training batch: a pure function of (seed, epoch)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mtl.console import counted
from mtl.data.columns.labels import narrow
from mtl.data.rows.order import batches, generator_bits, n_batches, order
from mtl.data.types import Rows
from mtl.errors import UserError, quoted

BLOCK = 1024
"""Fewest rows of a sequence that are shuffled at once."""


class Endless:
    """An endless sequence of rows: seeded permutations, one after the other.

    `k = ceil(BLOCK / n)` permutations of few rows are drawn at once: block b is the argsort of each row of k x n
    raw draws of `generator_bits(seed, b, stream)`. From BLOCK rows on, block b is `order(n, seed, b, stream)`.

    Args:
        rows: the n rows.
        seed: seed of the permutations.
        stream: the purpose of the sequence; different names give independent sequences.
    """

    def __init__(self, rows: Rows, seed: int, stream: str) -> None:
        self.rows, self.seed, self.stream = narrow(rows), seed, stream  # kept for the whole run
        self._number = -1
        self._shuffled = self.rows

    def take(self, start: int, count: int) -> Rows:
        """`count` rows, from position `start` on."""
        parts = [self.rows[:0]]
        n = len(self.rows)
        times = -(-BLOCK // n)
        while count > 0:
            number, at = divmod(start, times * n)
            if number != self._number:
                self._number, self._shuffled = number, self.rows[self._orders(number, times)]
            parts.append(self._shuffled[at : at + count])
            start, count = start + len(parts[-1]), count - len(parts[-1])
        return np.concatenate(parts).astype(np.int64)

    def _orders(self, number: int, times: int) -> Rows:
        """Block `number`: `times` permutations, one after the other."""
        n = len(self.rows)
        if times == 1:
            return order(n, self.seed, number, self.stream)
        draws = generator_bits(self.seed, number, self.stream).random_raw(times * n)
        return np.argsort(draws.reshape(times, n), axis=1, kind="stable").ravel()


class Sampler:
    """The batches of each epoch; an epoch has as many rows as the training split.

    Plain: an epoch is one permutation of all rows. With a `temperature` T, stream s of n_s rows has the share
    n_s^(1/T) / sum_r n_r^(1/T) of an epoch (T5: Raffel et al. 2020, section 3.5.2), rounded to whole rows. Its rows
    come from an endless sequence and are spread evenly over the epoch: among any first m rows of the epoch, their
    number differs from m times their share by less than 1/2 + share * S / 2, with S the number of streams.

    With `min_labelled`, m slots of each batch take rows from an endless sequence of the rows that have the task's
    label. The epoch's rows fill the other slots, so that an epoch takes more batches.

    Args:
        rows: the training rows.
        batch_size: rows per batch.
        drop_last: leave out a last batch that is not full.
        seed: seed of the order.
        min_labelled: task -> the rows that have its label, and the fewest of them in each batch.
        streams: source -> its rows, which together are `rows`; needed for a temperature only.
        temperature: above 1, up to inf for equal shares; None for the plain permutation, which gives shares by size.

    Raises:
        UserError: there would be no batch, a task has too few labelled rows, or the reserved slots exceed a batch.
    """

    def __init__(
        self,
        rows: Rows,
        batch_size: int,
        drop_last: bool,
        seed: int,
        *,
        min_labelled: Mapping[str, tuple[Rows, int]] | None = None,
        streams: Mapping[str, Rows] | None = None,
        temperature: float | None = None,
    ) -> None:
        self.rows, self.batch_size, self.drop_last, self.seed = rows, batch_size, drop_last, seed
        self.reserved = self._reserve(min_labelled or {})
        self.free = batch_size - sum(count for _, count in self.reserved)
        self.streams: list[Endless] = []
        if temperature is not None and streams:
            self.streams = [Endless(own, seed, f"source/{name}") for name, own in streams.items()]
            self.quotas = quotas([len(own) for own in streams.values()], temperature)
            self.owner = interleaved(self.quotas)
        if drop_last and self.reserved and len(rows) < self.free:
            raise UserError(
                "",
                f"drop_last leaves no batch: {counted(len(rows), 'row')}, {self.free} of each batch are not reserved",
                "lower batch_size, or set drop_last: false",
                path=("train", "batch_size"),
            )
        self.n_batches = n_batches(len(rows), self.free, drop_last)
        self._kept: tuple[int, Rows] = (-1, rows[:0])

    @property
    def smallest(self) -> int:
        """The number of rows of the smallest batch."""
        rest = len(self.rows) % self.free
        least = len(self.rows) if self.n_batches == 1 else rest if rest > 1 else self.free
        return (self.free if self.drop_last else least) + self.batch_size - self.free

    def _reserve(self, min_labelled: Mapping[str, tuple[Rows, int]]) -> list[tuple[Endless, int]]:
        path = ("train", "batches", "min_labelled")
        for task, (labelled, count) in min_labelled.items():
            if len(labelled) == 0:
                raise UserError("", f"no row of train has a label of task {quoted(task)}", path=(*path, task))
            if len(labelled) < count:
                asked = counted(count, "row is", "rows are")
                what = f"{asked} asked for in each batch, train has {len(labelled)} with this label"
                raise UserError("", what, f"ask for {len(labelled)} or fewer", path=(*path, task))
        total = sum(count for _, count in min_labelled.values())
        if total >= self.batch_size:
            reserved = counted(total, "row is", "rows are")
            raise UserError(
                "",
                f"{reserved} reserved of a batch of {self.batch_size}",
                "leave room for other rows",
                path=path,
            )
        return [(Endless(own, self.seed, f"labelled/{t}"), count) for t, (own, count) in min_labelled.items()]

    def batches(self, epoch: int, start: int = 0) -> Iterator[Rows]:
        """The batches of one epoch, from batch `start` on; `start` changes no batch after it."""
        plain = batches(self._epoch(epoch), self.free, self.drop_last, start)
        if not self.reserved:
            return plain
        return (self._filled(epoch * self.n_batches + start + i, part) for i, part in enumerate(plain))

    def _epoch(self, epoch: int) -> Rows:
        """The rows of one epoch in their order, without those of reserved slots; the last epoch asked for is kept.

        A checkpoint at the end of an epoch asks for the first batches of the next epoch, which is then used.
        """
        if self._kept[0] != epoch:
            self._kept = (-1, self.rows[:0])  # frees memory: two epochs are never held at once
            self._kept = (epoch, self._drawn(epoch))
        return self._kept[1]

    def _drawn(self, epoch: int) -> Rows:
        if not self.streams:
            return self.rows[order(len(self.rows), self.seed, epoch)]
        rows = np.empty_like(self.rows)
        for s, (own, quota) in enumerate(zip(self.streams, self.quotas.tolist(), strict=True)):
            rows[self.owner == s] = own.take(epoch * quota, quota)
        return rows

    def _filled(self, step: int, part: Rows) -> Rows:
        """A batch with rows in its reserved slots."""
        return np.concatenate([part, *(own.take(step * count, count) for own, count in self.reserved)])


def quotas(sizes: Sequence[int], temperature: float) -> npt.NDArray[np.int64]:
    """(S,) rows of each of S streams in an epoch, by largest remainders; together they are as many as all rows.

    No stream gets 0 rows: each share is at least that of the smallest stream, and that stream's share is at least
    its fraction of the rows.
    """
    exponent = 0.0 if math.isinf(temperature) else 1 / temperature
    weights = np.array(sizes, dtype=np.float64) ** exponent
    exact = sum(sizes) * (weights / weights.sum())
    found: npt.NDArray[np.int64] = np.floor(exact).astype(np.int64)
    found[np.argsort(found - exact, kind="stable")[: sum(sizes) - int(found.sum())]] += 1
    return found


def interleaved(quotas: npt.NDArray[np.int64]) -> npt.NDArray[np.int16]:
    """(n,) the stream of each row of an epoch: row j of a stream with q rows is due at (j + 1/2) / q of the epoch."""
    due = np.concatenate([(np.arange(quota) + 0.5) / quota for quota in quotas.tolist()])
    owner = np.repeat(np.arange(len(quotas), dtype=np.int16), quotas)
    return owner[np.argsort(due, kind="stable")]
