"""Holds the rows of a data set as tensors, with what is known of them; the one place that reads batches out of them.

Shapes: n rows, B rows of a batch, T tasks of a group, O outputs per task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mtl.data.learned import Learned
from mtl.data.rows.split_rules import Codes
from mtl.data.types import Header
from mtl.data.types import Rows as RowNumbers
from mtl.dataset.functions.derivation import Derivation
from mtl.dataset.functions.found import LabelFunction
from mtl.dataset.undefined import Undefined
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


def moved(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The tensors on another device; float64 becomes float32 on MPS, which has no float64."""
    short = device.type == "mps"
    return {
        name: (tensor.float() if short and tensor.dtype == torch.float64 else tensor).to(device)
        for name, tensor in tensors.items()
    }


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

    @property
    def device(self) -> torch.device:
        """Where batches are."""
        return self.inputs.device

    def to(self, device: torch.device) -> ResidentRows:
        """The same rows on another device."""
        target, present, weight = (moved(part, device) for part in (self.target, self.present, self.weight))
        return ResidentRows(moved({"": self.inputs}, device)[""], target, present, weight)

    def ahead(self, parts: Iterator[RowNumbers], n_parts: int) -> Iterator[RowNumbers]:
        """The same row numbers, whose batches may be read before they are asked for; a step takes `n_parts` of them."""
        return parts

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


@dataclass(frozen=True)
class Dataset:
    """n rows, and the known facts about them.

    Args:
        rows: their inputs and labels.
        splits: split -> row numbers.
        streams: source -> its rows.
        header: the header as it is known after the rows were read.
        learned: numbers and names that were learned from the training rows.
        fingerprint: sha256 of the data.
        ceiling: task -> the best accuracy that any predictor can reach, if known.
        notices: facts about the data that the user should know, one line each.
        undefined: split -> the metrics that its labels cannot define.
        groups: (n,) the group of each row, where the recipe splits by groups.
        derived: task -> how its class follows from that of the task in its `derived_from`.
        functions: the labels that follow from another label or from an input column, though the recipe does not say so.
    """

    rows: ResidentRows
    splits: dict[str, RowNumbers]
    streams: dict[str, range]
    header: Header
    learned: Learned
    fingerprint: str
    ceiling: dict[str, float]
    notices: tuple[str, ...]
    undefined: dict[str, Undefined]
    groups: Codes | None = None
    derived: Mapping[str, Derivation] = field(default_factory=dict)
    functions: tuple[LabelFunction, ...] = ()

    def to(self, device: torch.device) -> Dataset:
        """The same rows on another device."""
        return replace(self, rows=self.rows.to(device))
