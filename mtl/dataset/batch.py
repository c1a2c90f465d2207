"""Holds the rows of a data set as tensors, and is the one place that reads batches out of them.

Shapes: n rows, B rows of a batch, T tasks of a group, O outputs per task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mtl.data.types import Rows as RowNumbers
from mtl.model.parts import Part


@dataclass(frozen=True)
class Targets:
    """The labels of B rows.

    Args:
        target: task group -> (B, T) or (B, T, O); any valid value where a label is missing.
        present: task group -> (B, T) bool, whether the label is there.
        weight: task group -> (B, T) the row's weight in the loss: 0 where a label is missing.
    """

    target: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    weight: Mapping[str, Tensor]


@dataclass(frozen=True)
class Batch(Targets):
    """B rows: the inputs of the network, and their labels.

    Args:
        inputs: (B, ...) in the type of the source; the model standardizes them.
        rows: (B,) their numbers in the data set.
        part: their place in a batch of which other processes have the rest; None for a whole batch.
    """

    inputs: Tensor
    rows: Tensor
    part: Part | None = None


@dataclass(frozen=True)
class ResidentRows:
    """n rows in memory, on one device.

    Args:
        inputs: (n, ...).
        target: task group -> (n, T) or (n, T, O), in the smallest type that holds the values.
        present: task group -> (n, T) bool.
        weight: task group -> (n, T) sample weights, for groups that have such a column.
    """

    inputs: Tensor
    target: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    weight: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: torch.device) -> ResidentRows:
        """The same rows on another device."""

        def moved(tensor: Tensor) -> Tensor:
            half = device.type == "mps" and tensor.dtype == torch.float64  # MPS has no float64
            return (tensor.float() if half else tensor).to(device)

        def all_moved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {group: moved(tensor) for group, tensor in tensors.items()}

        return ResidentRows(
            moved(self.inputs), all_moved(self.target), all_moved(self.present), all_moved(self.weight)
        )

    def batch(self, rows: RowNumbers) -> Batch:
        """The rows with these numbers."""
        index = self._index(rows)
        labels = self._targets(index)
        return Batch(labels.target, labels.present, labels.weight, self.inputs.index_select(0, index), index)

    def targets(self, rows: RowNumbers) -> Targets:
        """The labels of these rows, without their inputs."""
        return self._targets(self._index(rows))

    def targets_of_task(self, rows: RowNumbers, group: str, t: int) -> Targets:
        """The labels of these rows in task t of a group alone: (B, 1) or (B, 1, O)."""
        index, own = self._index(rows), slice(t, t + 1)
        present = self.present[group][index, own]
        weight = self.weight.get(group)
        return Targets(
            {group: self._as_losses_take_it(self.target[group][index, own])},
            {group: present},
            {group: present.float() if weight is None else torch.where(present, weight[index, own], 0.0)},
        )

    def _index(self, rows: RowNumbers) -> Tensor:
        return torch.from_numpy(rows).to(self.inputs.device)

    def _targets(self, index: Tensor) -> Targets:
        present = {group: there.index_select(0, index) for group, there in self.present.items()}
        return Targets(
            {
                group: self._as_losses_take_it(target.index_select(0, index))
                for group, target in self.target.items()
            },
            present,
            {group: self._weight(group, there, index) for group, there in present.items()},
        )

    @staticmethod
    def _as_losses_take_it(target: Tensor) -> Tensor:
        """The target as int64 or float64 (on MPS float32), which are the types that losses take."""
        if not target.is_floating_point():
            return target.long()
        return target if target.device.type == "mps" else target.double()

    def _weight(self, group: str, present_BT: Tensor, index: Tensor) -> Tensor:
        own = self.weight.get(group)
        return present_BT.float() if own is None else torch.where(present_BT, own.index_select(0, index), 0.0)
