"""One of several classes that have an order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mtl.console import counted
from mtl.data.columns.labels import class_codes, found_classes
from mtl.data.columns.spelling import number
from mtl.errors import UserError, quoted
from mtl.recipe.specs import TASKS, TaskSpec
from mtl.tasks.base import (
    ClassNames,
    ClassWeights,
    allowed_values,
    class_columns,
    class_lookup,
    class_weights,
    listed,
    named_labels,
    of_a_single_class,
    refuse_twice,
    weighing_classes,
)

if TYPE_CHECKING:
    from torch import Tensor

    from mtl.data.types import Array, Header, Labels, Mask
    from mtl.model.tasks.heads import GroupedHead
    from mtl.model.tasks.module import TaskModule
    from mtl.recipe.specs import Decoded, GroupKey


@TASKS.register("ordinal")
class Ordinal(TaskSpec):
    """One of C ordered classes by C - 1 cumulative logits, P(y >= c) = s(z_c) with z_1 > z_2 > ... for every row.

    The head gives r_1 ... r_{C-1}; z_1 = r_1 and z_c = z_{c-1} - softplus(r_c), so that probabilities are never
    negative. loss = - sum_i w(y_i) log P(y_i) / sum_i w(y_i), P(y = c) = s(z_c) - s(z_{c+1}), s(z_0) = 1,
    s(z_C) = 0, w the class weights. The model of McCullagh with cut points that may depend on the row.
    """

    reference: ClassVar[str] = "McCullagh 1980, Journal of the Royal Statistical Society B 42"
    example: ClassVar[Mapping[str, Any]] = {"target": "label"}
    one_class: ClassVar[bool] = True
    known_metrics: ClassVar[Mapping[str, bool]] = {
        "mae": False,
        "quadratic_kappa": True,
        "accuracy": True,
        "balanced_accuracy": True,
        "macro_f1": True,
        "calibration_error": False,
    }
    weighted_metrics: ClassVar[Collection[str]] = frozenset(known_metrics)
    answer_metrics: ClassVar[Collection[str]] = frozenset(known_metrics) - {"calibration_error"}
    default_metrics: ClassVar[tuple[str, ...]] = ("quadratic_kappa", "mae", "accuracy")

    order: ClassNames | None = Field(
        None, description="the classes from lowest to highest; needed for text, numbers have their own order"
    )

    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of each row's target that goes evenly to all classes"
    )
    class_weights: ClassWeights | None = Field(
        None,
        description="balanced: n / (C * count of the class); or class name -> weight in the loss, others 1",
    )

    def outputs(self, header: Header) -> tuple[str, ...] | None:
        names, text = named_labels(self, self.target, header)
        if text and self.order is None and all(map(number, names or ("",))):
            raise UserError(
                "",
                f"column {quoted(self.target)} holds numbers that are not whole ({listed(names or (), 3)})",
                "kind: regression takes them; for grades give `order`, from lowest to highest",
                path=("target",),
            )
        if text and self.order is None:
            raise UserError(
                "",
                f"column {quoted(self.target)} holds text ({listed(names or ())}), which has no order of its own",
                "give `order`, from lowest to highest",
            )
        if self.order is not None:
            refuse_twice(self.order, "order")
        if self.order is not None and names is not None and not text and len(self.order) != len(names):
            raise UserError(
                "",
                f"{counted(len(self.order), 'class', 'classes')}, but column {quoted(self.target)} has {len(names)}",
                path=("order",),
            )
        return self.order or names

    def found_outputs(self, labels: Labels) -> tuple[str, ...]:
        return found_classes(labels)

    def n_outputs(self, outputs: Sequence[str]) -> int:
        return len(outputs) - 1

    def encode(self, labels: Labels, outputs: Sequence[str]) -> Array:
        lookup = class_lookup(labels, outputs)
        return class_codes(labels, lookup, allowed_values(lookup, labels, outputs))

    def constants(self, targets: Array, outputs: Sequence[str]) -> dict[str, tuple[float, ...]]:
        return class_weights(self.class_weights, targets, outputs)

    def undefined(self, targets: Array, constants: Mapping[str, Sequence[float]]) -> Mapping[str, str]:
        return of_a_single_class(targets, ("quadratic_kappa",))

    def weighs(self, targets: Array, constants: Mapping[str, Sequence[float]]) -> Mask:
        return weighing_classes(targets, constants)

    def group(self, n_outputs: int) -> GroupKey:
        return ("ordinal", n_outputs, self.label_smoothing, self.class_weights is not None)

    def build(self, head: GroupedHead, constants: Mapping[str, Tensor]) -> TaskModule:
        from mtl.model.tasks.kinds import OrderedClasses

        return OrderedClasses(head, constants, label_smoothing=self.label_smoothing)

    def decode(self, predicted: Mapping[str, Array], outputs: Sequence[str]) -> Decoded:
        return class_columns(predicted, outputs)
