"""Rows in files: batches are read by their numbers, by a thread that is ahead of the step.

Shapes: n rows, B rows of a batch, T tasks of a group, O outputs per task.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from mtl.data.types import Rows as RowNumbers
from mtl.dataset.batch import Batch, ResidentRows, Targets
from mtl.dataset.stored.arrays import RowFile

AHEAD = 2
"""Batches that are read before a step asks for them."""


CPU = torch.device("cpu")


@dataclass(frozen=True)
class StoredRows(ResidentRows):
    """n rows in two files, which batches are read from; the tensors of all rows are read-only maps of these files.

    Args:
        input_file: the inputs.
        label_file: (n,) records of targets, presence and weights; the fields are named as `target/<task group>`.
        on: the device of the batches.
    """

    input_file: RowFile
    label_file: RowFile
    on: torch.device = CPU
    _reading: deque[tuple[RowNumbers, Future[Batch]]] = field(default_factory=deque)

    @property
    def device(self) -> torch.device:
        """Where batches are; the rows themselves stay in their files."""
        return self.on

    def to(self, device: torch.device) -> StoredRows:
        """The same rows, with batches on another device."""
        return replace(self, on=device, _reading=deque())

    def ahead(self, parts: Iterator[RowNumbers], n_parts: int) -> Iterator[RowNumbers]:
        """The same row numbers in the same order, while a thread reads the batches of the next ones.

        `batch` gives what the thread has read, for the very arrays of row numbers that come from here. What went wrong
        in the thread is raised there, at the batch where it would have been raised without the thread.
        """
        with ThreadPoolExecutor(1, "mtl-rows") as pool:
            waiting: deque[RowNumbers] = deque()
            for rows in parts:
                while len(self._reading) >= AHEAD + n_parts:  # a step that cut its parts asked for others
                    self._reading.popleft()
                self._reading.append((rows, pool.submit(self._read, rows)))
                waiting.append(rows)
                if len(waiting) > AHEAD:
                    yield waiting.popleft()
            yield from waiting

    def batch(self, rows: RowNumbers) -> Batch:
        """The rows with these numbers."""
        for i, (own, read) in enumerate(self._reading):
            if own is rows:
                del self._reading[i]
                return read.result()
        return self._read(rows)

    def targets(self, rows: RowNumbers) -> Targets:
        """The labels of these rows, without their inputs."""
        for own, read in self._reading:
            if own is rows:
                found = read.result()
                return Targets(
                    found.target, found.present, found.weight
                )  # without the inputs, which take room
        return self._part(rows, torch.empty(len(rows), 0)).batch(np.arange(len(rows)))

    def targets_of_task(self, rows: RowNumbers, group: str, t: int) -> Targets:
        """The labels of these rows in task t of a group alone: (B, 1) or (B, 1, O)."""
        part = self._part(rows, torch.empty(len(rows), 0))
        return part.targets_of_task(np.arange(len(rows)), group, t)

    def _read(self, rows: RowNumbers) -> Batch:
        part = self._part(rows, torch.from_numpy(self.input_file.read(rows)))
        batch = part.batch(np.arange(len(rows)))
        return replace(batch, rows=torch.from_numpy(rows).to(self.on))

    def _part(self, rows: RowNumbers, inputs: torch.Tensor) -> ResidentRows:
        """These rows alone, in memory on the device, with these inputs."""
        labels = self.label_file.read(rows)

        def of(kind: str, groups: Iterable[str]) -> dict[str, torch.Tensor]:
            return {group: torch.from_numpy(labels[f"{kind}/{group}"]) for group in groups}

        fields = labels.dtype.names or ()
        present = {
            group: torch.from_numpy(labels[f"present/{group}"])
            if f"present/{group}" in fields
            else every[:1].expand(len(rows), -1)  # no label is missing: one row in memory stands for all
            for group, every in self.present.items()
        }
        return ResidentRows(inputs, of("target", self.target), present, of("weight", self.weight)).to(self.on)
