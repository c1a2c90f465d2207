"""Which rows make up each training batch: a pure function of (seed, epoch)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mtl.data.batches import batches, n_batches, order
from mtl.data.columns import Rows
from mtl.errors import UserError, quoted


class Endless:
    """An endless sequence of rows: one seeded permutation of them after the other.

    Args:
        rows: the n rows.
        seed: seed of the permutations; cycle c is `order(n, seed, c, stream)`.
        stream: what they are for.
    """

    def __init__(self, rows: Rows, seed: int, stream: str) -> None:
        self.rows, self.seed, self.stream = rows, seed, stream
        self._cycle = -1
        self._shuffled = rows

    def take(self, start: int, count: int) -> Rows:
        """The rows from position `start` on."""
        parts = []
        while count > 0:
            cycle, at = divmod(start, len(self.rows))
            if cycle != self._cycle:
                self._cycle = cycle
                self._shuffled = self.rows[order(len(self.rows), self.seed, cycle, self.stream)]
            part = self._shuffled[at : at + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts) if parts else self.rows[:0]


class Sampler:
    """The batches of every epoch.

    Plain: one permutation of all rows an epoch. With `min_labelled`, m slots of each batch are filled from an
    endless sequence of the rows that have the task's label, and the epoch's permutation fills the others, so that an
    epoch still shows every row once and takes more batches. With a `temperature` T, stream s of n_s rows has the
    share n_s^(1/T) / sum_r n_r^(1/T) of every batch (T5: Raffel et al. 2020, section 3.5.2), its rows drawn from an
    endless sequence; an epoch is as many batches as all rows would make.

    Args:
        rows: the training rows.
        batch_size: rows per batch.
        drop_last: leave out a last batch that is not full.
        seed: seed of the order.
        min_labelled: task -> rows that have its label, and how many each batch has at least.
        streams: the rows of each source, which together are `rows`; for a temperature only.
        temperature: 1: by size; inf: evenly; None: the plain permutation, by size too.

    Raises:
        UserError: no batch comes out, a task has no labelled row, or slots are reserved for more than a batch.
    """

    def __init__(
        self,
        rows: Rows,
        batch_size: int,
        drop_last: bool,
        seed: int,
        *,
        min_labelled: Mapping[str, tuple[Rows, int]] | None = None,
        streams: Sequence[Rows] = (),
        temperature: float | None = None,
    ) -> None:
        self.rows, self.batch_size, self.drop_last, self.seed = rows, batch_size, drop_last, seed
        self.reserved = self._reserve(min_labelled or {})
        self.free = batch_size - sum(count for _, count in self.reserved)
        self.streams = [Endless(own, seed, f"source/{s}") for s, own in enumerate(streams)]
        self.shares = _shares([len(own) for own in streams], temperature)
        if self.reserved and len(self.streams) > 0:
            raise UserError(
                "", "min_labelled and a sampling of sources cannot be combined yet", "use one of them",
                path=("train", "batches"),
            )  # fmt: skip
        self.n_batches = n_batches(len(rows), self.free, drop_last)

    def _reserve(self, min_labelled: Mapping[str, tuple[Rows, int]]) -> list[tuple[Endless, int]]:
        path = ("train", "batches", "min_labelled")
        for task, (labelled, _) in min_labelled.items():
            if len(labelled) == 0:
                raise UserError("", f"no row of train has a label of task {quoted(task)}", path=(*path, task))
        total = sum(count for _, count in min_labelled.values())
        if total >= self.batch_size:
            raise UserError(
                "",
                f"{total} rows are reserved of a batch of {self.batch_size}",
                "leave room for other rows",
                path=path,
            )
        return [(Endless(own, self.seed, f"labelled/{t}"), count) for t, (own, count) in min_labelled.items()]

    def batches(self, epoch: int, start: int = 0) -> Iterator[Rows]:
        """The batches of one epoch from batch `start` on; each is the same wherever one starts."""
        if self.streams:
            return (self._mixed(epoch * self.n_batches + step) for step in range(start, self.n_batches))
        shuffled = self.rows[order(len(self.rows), self.seed, epoch)]
        plain = batches(shuffled, self.free, self.drop_last, start)
        if not self.reserved:
            return plain
        return (self._filled(epoch * self.n_batches + start + i, part) for i, part in enumerate(plain))

    def _filled(self, step: int, part: Rows) -> Rows:
        """A batch of the plain permutation with the reserved slots added."""
        return np.concatenate([part, *(own.take(step * count, count) for own, count in self.reserved)])

    def _mixed(self, step: int) -> Rows:
        """Batch `step` of all epochs: each stream's rows up to its share of the rows so far."""
        before, after = (
            np.floor(self.shares * (s * self.batch_size)).astype(np.int64) for s in (step, step + 1)
        )
        counts = after - before
        lacking = self.batch_size - int(counts.sum())
        if lacking:  # floors may leave a row or two over: to the streams that are furthest behind
            behind = np.argsort(-(self.shares * ((step + 1) * self.batch_size) - after), kind="stable")[
                :lacking
            ]
            extra = np.bincount(behind, minlength=len(counts))
        else:
            extra = np.zeros_like(counts)
        parts = [
            own.take(int(b), int(c)) for own, b, c in zip(self.streams, before, counts + extra, strict=True)
        ]
        return np.concatenate(parts)


def _shares(sizes: Sequence[int], temperature: float | None) -> npt.NDArray[np.float64]:
    if not sizes or temperature is None:
        return np.zeros(0)
    exponent = 0.0 if math.isinf(temperature) else 1 / temperature
    weights: npt.NDArray[np.float64] = np.array(sizes, dtype=np.float64) ** exponent
    weights /= weights.sum()
    return weights
