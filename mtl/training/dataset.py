"""The rows of a recipe as tensors, resident on the device and addressed by row number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtl.build import TaskGroup
from mtl.data.columns import Columns, Header, Mask, Rows
from mtl.data.splits import make_splits
from mtl.data.standardize import check_finite
from mtl.data.standardize import fit as fit_standardize
from mtl.errors import UserError, quoted
from mtl.recipe.schema import Recipe


@dataclass(frozen=True)
class Dataset:
    """n rows.

    Args:
        inputs: (n, ...) as the source stores them; the model standardizes.
        target: task group -> (n, T).
        present: task group -> (n, T) bool, whether the label is there.
        splits: split -> row numbers.
        standardize: mean and std of the training inputs, or None.
        fingerprint: sha256 of the data.
        ceiling: task -> the best accuracy that any predictor can reach, where known.
        notices: what the user should know about the data, one line each.
    """

    inputs: Tensor
    target: dict[str, Tensor]
    present: dict[str, Tensor]
    splits: dict[str, Rows]
    standardize: tuple[Tensor, Tensor] | None
    fingerprint: str
    ceiling: dict[str, float]
    notices: tuple[str, ...]

    def to(self, device: torch.device) -> Dataset:
        """The same rows on another device."""
        moved = {name: tensor.to(device) for name, tensor in self.target.items()}
        present = {name: tensor.to(device) for name, tensor in self.present.items()}
        return Dataset(
            self.inputs.to(device), moved, present, self.splits, self.standardize, self.fingerprint,
            self.ceiling, self.notices,
        )  # fmt: skip


def load_dataset(recipe: Recipe, header: Header, groups: Sequence[TaskGroup]) -> Dataset:
    """Read, split, encode and measure the data of a recipe.

    Raises:
        UserError: labels are missing or not allowed, or a split is empty.
    """
    with recipe.at("data", "source"):
        columns = recipe.data.source.columns(recipe.seeds.labels)
    with recipe.at("data", "split"):
        splits = make_splits(
            columns.splits, len(columns.inputs), recipe.data.split.held_out, recipe.seeds.split
        )
    target: dict[str, Tensor] = {}
    present: dict[str, Tensor] = {}
    notices: list[str] = []
    for group in groups:
        encoded = []
        for task, outputs in zip(group.tasks, group.outputs, strict=True):
            with recipe.at("tasks", task):
                encoded.append(_encode(recipe, task, columns, header, splits))
                notices.extend(_notices(task, outputs, *encoded[-1], splits["train"]))
        target[group.name] = torch.from_numpy(np.stack([values for values, _ in encoded], axis=1))
        present[group.name] = torch.from_numpy(np.stack([mask for _, mask in encoded], axis=1))
    scale = recipe.data.standardize.kind
    with recipe.at("data", "standardize"):
        check_finite(columns.inputs, np.concatenate(list(splits.values())))
        mean, std = fit_standardize(columns.inputs, splits["train"], scale)
    standardize = (torch.from_numpy(mean), torch.from_numpy(std)) if scale != "none" else None
    ceiling = {
        task: columns.ceiling[spec.target]
        for task, spec in recipe.tasks.items()
        if spec.target in columns.ceiling
    }
    inputs = torch.from_numpy(columns.inputs)
    return Dataset(inputs, target, present, splits, standardize, columns.fingerprint, ceiling, tuple(notices))


def _encode(
    recipe: Recipe, task: str, columns: Columns, header: Header, splits: dict[str, Rows]
) -> tuple[np.ndarray, Mask]:
    """Targets (n,) and whether they are there, checked against `missing`."""
    spec = recipe.tasks[task]
    raw = columns.labels[spec.target]
    mask = columns.present.get(spec.target)
    if mask is None:
        mask = np.ones(len(raw), dtype=bool)
    used = np.concatenate(list(splits.values()))
    lacking = used[~mask[used]]
    if lacking.size and spec.missing == "error":
        raise UserError(
            f"row {int(lacking.min())}",
            f"no label in column {quoted(spec.target)}, and {lacking.size - 1} more rows like it",
            "set `missing: mask` to leave such rows out of this task",
            path=("target",),
        )
    for name, rows in splits.items():
        if not mask[rows].any():
            raise UserError("", f"task {quoted(task)} has no labels in split {quoted(name)}")
    return spec.encode(raw, mask, header), mask


def _notices(task: str, outputs: Sequence[str], values: np.ndarray, mask: Mask, train: Rows) -> list[str]:
    """What is unusual about the labels of one task in the training split."""
    if not np.issubdtype(values.dtype, np.integer):
        return []
    counts = np.bincount(values[train][mask[train]], minlength=len(outputs))
    if (counts > 0).sum() < 2:
        raise UserError("", f"task {quoted(task)} has a single class in train: nothing to learn")
    absent = [name for name, count in zip(outputs, counts, strict=True) if count == 0]
    if not absent:
        return []
    return [f"task {quoted(task)}: no row of train has {', '.join(map(quoted, absent[:5]))}"]
