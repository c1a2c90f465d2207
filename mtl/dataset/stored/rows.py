"""Rows in files: a thread reads the rows of the next steps into memory, in the order of the files.

Shapes: n rows, B rows of a batch, T tasks of a group, O outputs per task.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import torch

from mtl.data.types import Rows as RowNumbers
from mtl.dataset.batch import Batch, ResidentRows, Targets, moved
from mtl.dataset.stored.arrays import RowFile
from mtl.errors import EnvironmentFault

WINDOW = 1 << 27
"""Bytes of rows that are read at once, ahead of their steps; one step may take more. Two windows are in memory."""
NUMBERS = 32
"""Bytes a row that its numbers and places take beside it."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Window:
    """The rows of some parts of steps, in memory.

    Args:
        parts: the row numbers of each part.
        places: where the rows of each part are in `rows`; a search of them would take a tenth of a small step.
        numbers: (m,) the numbers of `rows`, ascending, each once.
        rows: m rows, on the CPU.
    """

    parts: list[RowNumbers]
    places: dict[int, RowNumbers]
    numbers: RowNumbers
    rows: ResidentRows

    def find(self, rows: RowNumbers) -> RowNumbers | None:
        """(B,) where these rows are in the window; None if one of them is not."""
        own = self.places.get(id(rows))  # the window holds its parts, so that no other array has this id
        if own is not None:
            return own
        found = np.minimum(np.searchsorted(self.numbers, rows), len(self.numbers) - 1)
        return found if np.array_equal(self.numbers[found], rows) else None


@dataclass(frozen=True)
class StoredRows(ResidentRows):
    """n rows in two files, which batches are read from; the tensors of all rows are read-only maps of these files.

    A step asks for rows from all over the files, and reading each by itself costs microseconds, most of them in the
    kernel. The rows of many steps together lie close to each other, so that a thread reads through the files in large
    pieces and keeps what these steps will ask for.

    Args:
        input_file: the inputs.
        label_file: (n,) records of targets, presence and weights; the fields are named as `target/<task group>`.
        on: the device of the batches.
    """

    input_file: RowFile
    label_file: RowFile
    on: torch.device = CPU
    _window: list[Future[Window | None]] = field(default_factory=list)
    """That of the steps at hand, while `ahead` is asked."""

    @property
    def device(self) -> torch.device:
        """Where batches are; the rows themselves stay in their files."""
        return self.on

    def to(self, device: torch.device) -> StoredRows:
        """The same rows, with batches on another device."""
        return replace(self, on=device, _window=[])

    def ahead(self, parts: Iterator[RowNumbers], n_parts: int) -> Iterator[RowNumbers]:
        """The same row numbers in the same order, while a thread reads the rows of the next steps.

        Until the first window is there, each step reads its own rows, so that the first one does not wait. A file that
        cannot be read fails the step that needs it.
        """
        cancelled = threading.Event()
        with ThreadPoolExecutor(1, "mtl-rows") as pool:
            try:
                reading: deque[tuple[list[RowNumbers], Future[Window | None]]] = deque()
                for i, own in enumerate(self._by_windows(parts, n_parts)):
                    reading.append((own, pool.submit(self._read, own, cancelled)))
                    if i > 0:
                        yield from self._served(*reading.popleft(), wait=i > 1)
                for own, window in reading:
                    yield from self._served(own, window, wait=i > 0)
            finally:
                cancelled.set()
                self._window.clear()

    def _by_windows(self, parts: Iterator[RowNumbers], n_parts: int) -> Iterator[list[RowNumbers]]:
        """The parts that one window serves, those of whole steps."""
        own: list[RowNumbers] = []
        n_bytes = 0
        while step := list(islice(parts, n_parts)):
            of_row = self.input_file.row_bytes + self.label_file.row_bytes + NUMBERS
            of_step = sum(map(len, step)) * of_row
            if own and n_bytes + of_step > WINDOW:
                yield own
                own, n_bytes = [], 0
            own.extend(step)
            n_bytes += of_step
        if own:
            yield own

    def _served(
        self, parts: list[RowNumbers], window: Future[Window | None], *, wait: bool
    ) -> Iterator[RowNumbers]:
        self._window[:] = [window]
        if wait:
            window.result()
        yield from parts

    def batch(self, rows: RowNumbers) -> Batch:
        """The rows with these numbers."""
        window, places = self._found(rows)
        found = window.batch(places)
        return Batch(
            moved(found.target, self.on),
            moved(found.present, self.on),
            moved(found.weight, self.on),
            moved({"": found.inputs}, self.on)[""],
            torch.from_numpy(rows).to(self.on),
        )

    def targets(self, rows: RowNumbers) -> Targets:
        """The labels of these rows, without their inputs."""
        window, places = self._found(rows, with_inputs=False)
        return self._moved(window.targets(places))

    def targets_of_task(self, rows: RowNumbers, group: str, t: int) -> Targets:
        """The labels of these rows in task t of a group alone: (B, 1) or (B, 1, O)."""
        window, places = self._found(rows, with_inputs=False)
        return self._moved(window.targets_of_task(places, group, t))

    def _moved(self, labels: Targets) -> Targets:
        return Targets(*(moved(part, self.on) for part in (labels.target, labels.present, labels.weight)))

    def _found(self, rows: RowNumbers, *, with_inputs: bool = True) -> tuple[ResidentRows, RowNumbers]:
        """Rows in memory that have these, and their places there."""
        for reading in self._window:
            window = reading.result() if reading.done() else None
            places = None if window is None else window.find(rows)
            if window is not None and places is not None:
                return window.rows, places
        numbers, places = np.unique(rows, return_inverse=True)
        return self._in_memory(numbers, with_inputs=with_inputs), places

    def _read(self, parts: list[RowNumbers], cancelled: threading.Event) -> Window | None:
        """The window of these parts; None if a file cannot be read: the step that needs it meets the same fault."""
        asked = np.concatenate(parts)
        order = np.argsort(asked, kind="stable")
        is_first = np.diff(asked[order], prepend=-1) != 0
        numbers = asked[order[is_first]]
        places = np.empty_like(asked)
        places[order] = np.cumsum(is_first) - 1
        ends = np.cumsum([len(part) for part in parts])
        try:
            rows = self._in_memory(numbers, cancelled)
        except EnvironmentFault:
            return None
        of_part = {id(part): places[end - len(part) : end] for part, end in zip(parts, ends, strict=True)}
        return Window(parts, of_part, numbers, rows)

    def _in_memory(
        self, numbers: RowNumbers, cancelled: threading.Event | None = None, *, with_inputs: bool = True
    ) -> ResidentRows:
        """The rows with these ascending numbers."""
        labels = self.label_file.read(numbers, cancelled)
        inputs = self.input_file.read(numbers, cancelled) if with_inputs else np.empty((len(numbers), 0))
        fields = labels.dtype.names or ()
        return ResidentRows(
            torch.from_numpy(inputs),
            {group: torch.from_numpy(labels[f"target/{group}"]) for group in self.target},
            {
                group: torch.from_numpy(labels[f"present/{group}"])
                if f"present/{group}" in fields
                else every[:1].expand(
                    len(numbers), -1
                )  # no label is missing: one row in memory stands for all
                for group, every in self.present.items()
            },
            {group: torch.from_numpy(labels[f"weight/{group}"]) for group in self.weight},
        )
