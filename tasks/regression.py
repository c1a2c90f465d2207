"""A quantity."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from mtl.errors import UserError, quoted
from mtl.recipe.specs import TASKS, TaskSpec, fault
from mtl.tasks.base import named_labels

LARGEST_NUMBER = 1e37
"""A mean or a standard deviation is at most this, and a standard deviation at least its inverse, to suit float32."""

if TYPE_CHECKING:
    from torch import Tensor

    from mtl.data.types import Array, Header, Labels
    from mtl.model.tasks.heads import GroupedHead
    from mtl.model.tasks.module import TaskModule
    from mtl.recipe.specs import Decoded, GroupKey


@TASKS.register("regression")
class Regression(TaskSpec):
    """A number, standardized inside: the network gives z, and the prediction is mean + std * z.

    With r = z - (y - mean) / std, mean and std of the training labels: mse is mean r^2, mae is mean |r|,
    huber is mean of r^2 / 2 where |r| <= delta and delta (|r| - delta / 2) elsewhere (Huber 1964).
    Metrics and predictions are in the label's own unit.
    """

    reference: ClassVar[str] = "Huber 1964, Annals of Mathematical Statistics 35 (huber); ours"
    example: ClassVar[Mapping[str, Any]] = {"target": "amount"}
    reads: ClassVar[Literal["classes", "numbers", "lists"]] = "numbers"
    known_metrics: ClassVar[Mapping[str, bool | None]] = {
        "rmse": False,
        "mae": False,
        "r2": True,
        "mse": False,
        "bias": None,
    }
    weighted_metrics: ClassVar[Collection[str]] = frozenset(known_metrics)
    answer_metrics: ClassVar[Collection[str]] = frozenset(known_metrics)
    default_metrics: ClassVar[tuple[str, ...]] = ("r2", "rmse", "mae")

    loss: Literal["mse", "mae", "huber"] = Field("mse", description="of standardized labels")
    delta: float = Field(1.0, gt=0, le=1e6, description="where huber turns linear, in standard deviations")
    unit: str = Field("", max_length=40, description="of the label, for tables and plots")

    @field_validator("metrics")
    @classmethod
    def _has_direction(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if value is not None and value[0] == "bias":
            raise fault("bias has no better direction (0 is best), so that it cannot come first")
        return value

    @property
    def label_unit(self) -> str:
        """The unit of the labels, as the recipe gives it."""
        return self.unit

    def outputs(self, header: Header) -> tuple[str, ...] | None:
        _, text = named_labels(self, self.target, header)
        if text:
            raise UserError(
                "", f"column {quoted(self.target)} holds text", "use kind: multiclass", path=("target",)
            )
        return (self.unit or "value",)

    def encode(self, labels: Labels, outputs: Sequence[str]) -> Array:
        values = labels.values.astype(np.float64)
        wrong = np.flatnonzero(~np.isfinite(values) & labels.present)
        if wrong.size:
            row = int(wrong[0])
            raise UserError(
                labels.place(row),
                f"label {quoted(labels.values[row].item())} is not finite",
                path=("target",),
            )
        return np.where(labels.present, values, 0.0)

    def constants(self, targets: Array, outputs: Sequence[str]) -> dict[str, tuple[float, ...]]:
        values = targets.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            mean, std = float(np.mean(values)), float(np.std(values))
        if not abs(mean) < LARGEST_NUMBER or not std < LARGEST_NUMBER:
            raise UserError("", "labels are too large to be averaged", "scale them down", path=("target",))
        if values.min() == values.max():
            std = 1.0
        elif std < 1 / LARGEST_NUMBER:
            raise UserError(
                "",
                f"labels differ by {values.max() - values.min():g} at most",
                "scale them up",
                path=("target",),
            )
        return {"mean": (mean,), "mean_rest": (mean - float(np.float32(mean)),), "std": (std,)}

    def undefined(self, targets: Array, constants: Mapping[str, Sequence[float]]) -> Mapping[str, str]:
        y = (targets.astype(np.float64) - constants["mean"][0]) / constants["std"][0]
        varies = np.square(y - y.mean()).sum() > 1e-12 * np.square(y).sum()  # as the metric decides
        return {} if varies else {"r2": "equal labels only"}

    def group(self, n_outputs: int) -> GroupKey:
        return ("regression", self.loss, self.delta if self.loss == "huber" else 0.0)

    def build(self, head: GroupedHead, constants: Mapping[str, Tensor]) -> TaskModule:
        from mtl.model.tasks.kinds import Quantity

        return Quantity(head, constants, loss=self.loss, delta=self.delta)

    def decode(self, predicted: Mapping[str, Array], outputs: Sequence[str]) -> Decoded:
        return {"": predicted["value"]}
