"""Yes or no."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Discriminator, Field, Tag

from mtl.data.columns.labels import NO_AND_YES, by_name, class_codes, written
from mtl.data.columns.spelling import Known
from mtl.errors import UserError, quoted
from mtl.recipe.specs import TASKS, TaskSpec
from mtl.tasks.base import (
    LabelValue,
    class_values,
    label_value,
    listed,
    named_labels,
    number_in_column,
    of_a_single_class,
    positive_weights,
)

if TYPE_CHECKING:
    from torch import Tensor

    from mtl.data.types import Array, Header, Labels
    from mtl.model.tasks.heads import GroupedHead
    from mtl.model.tasks.module import TaskModule
    from mtl.recipe.specs import Decoded, GroupKey


def _values(value: object) -> object:
    for part in value if isinstance(value, tuple) else (value,):
        label_value(part)
    return value


Positive = Annotated[
    Annotated[LabelValue, Tag("<value>")]
    | Annotated[tuple[LabelValue, ...], Field(min_length=1, max_length=100_000), Tag("<list>")],
    Discriminator(lambda value: "<list>" if isinstance(value, tuple) else "<value>"),
    BeforeValidator(_values),
]
PositiveWeight = Annotated[
    Annotated[Literal["balanced"], Tag("<word>")] | Annotated[float, Field(gt=0, le=1e6), Tag("<number>")],
    Discriminator(lambda value: "<word>" if isinstance(value, str) else "<number>"),
]

NO_YES = ("no", "yes")
"""The names of the two outputs if several values mean the same answer, or if numbers stand for the answers."""


@TASKS.register("binary")
class Binary(TaskSpec):
    """Whether the label is one of the positive values: one logit z per row.

    loss = mean_i [ -w y_i log s(z_i) - (1 - y_i) log(1 - s(z_i)) ], s the logistic function, w `positive_weight`.
    """

    reference: ClassVar[str] = "ours"
    example: ClassVar[Mapping[str, Any]] = {"target": "label", "positive": (5, 7, 9)}
    one_class: ClassVar[bool] = True
    known_metrics: ClassVar[Mapping[str, bool]] = {
        "auroc": True,
        "average_precision": True,
        "accuracy": True,
        "balanced_accuracy": True,
        "f1": True,
        "precision": True,
        "recall": True,
        "specificity": True,
        "calibration_error": False,
        "brier": False,
    }
    fitted: ClassVar[Mapping[str, float]] = {"temperature": 1.0}
    weighted_metrics: ClassVar[Collection[str]] = frozenset(known_metrics)
    answer_metrics: ClassVar[Collection[str]] = frozenset(
        {"accuracy", "balanced_accuracy", "f1", "precision", "recall", "specificity"}
    )
    default_metrics: ClassVar[tuple[str, ...]] = ("auroc", "average_precision", "accuracy", "f1")

    positive: Positive | None = Field(
        None, description="the value or values that mean yes; default: 1, true, yes"
    )
    positive_weight: PositiveWeight | None = Field(
        None, description="weight of positive rows in the loss; balanced: negatives / positives"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of each row's target that goes evenly to yes and no"
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="probability from which the answer is yes"
    )
    fit_threshold: Literal["f1", "balanced_accuracy", "accuracy"] | None = Field(
        None, description="choose the threshold on validation, for this metric"
    )
    temperature: bool = Field(
        False, description="fit a temperature on validation, by which predicted probabilities are calibrated"
    )

    def outputs(self, header: Header) -> tuple[str, ...] | None:
        names, text = named_labels(self, self.target, header)
        if not text:
            if names is not None:
                self._check_known(range(len(names)), f"0..{len(names) - 1}")
                if self.positive is None and len(names) != 2:
                    raise UserError(
                        "",
                        f"column {quoted(self.target)} has {len(names)} classes",
                        "say which are `positive`",
                    )
            if names is None and self.positive is None:
                return ("0", "1")
            return NO_YES if names is not None else None  # the rows show later whether the values occur
        return self._text_outputs(names or ())

    def found_outputs(self, labels: Labels) -> tuple[str, ...]:
        values = np.unique(labels.values[labels.present])
        shown = listed([int(v) if float(v).is_integer() else v for v in values[:11].tolist()])
        for i, value in enumerate(self._positive()):
            number = number_in_column(value, self.target, self._path_of(i))
            if values.size and number not in values:
                raise self._unknown(i, shown)
        return NO_YES

    def _text_outputs(self, names: tuple[str, ...]) -> tuple[str, ...]:
        self._check_known(names, listed(names))
        if self.positive is None:
            meant = {n.lower() for n in names}
            usual = next((pair for pair in NO_AND_YES if meant <= set(pair)), None)
            if usual is None or (len(meant) == 1 and len(names) > 1):  # YES and Yes mean the same
                shown = listed(names, 5)
                raise UserError(
                    "", f"which value of column {quoted(self.target)} means yes: {shown}?", "give `positive`"
                )
            yes = next((n for n in names if n.lower() == usual[1]), "yes")
            no = next((n for n in names if n != yes), "no")
            return (no, yes)
        known = Known(names)
        positive = [names[known.position_of(written(v))] for v in self._positive()]
        others = [n for n in names if n not in positive]
        return (others[0], positive[0]) if len(others) == len(positive) == 1 else NO_YES

    def _check_known(self, known: Sequence[Any], shown: str) -> None:
        named = Known(known) if known and isinstance(known[0], str) else None
        for i, value in enumerate(self._positive()):
            if (value not in known) if named is None else (named.find(written(value)) is None):
                raise self._unknown(i, shown)

    def _unknown(self, i: int, shown: str) -> UserError:
        what = f"value {quoted(self._positive()[i])} is not in column {quoted(self.target)}: {shown}"
        return UserError("", what, path=self._path_of(i))

    def _path_of(self, i: int) -> tuple[str | int, ...]:
        return ("positive", i) if isinstance(self.positive, tuple) else ("positive",)

    def _positive(self) -> tuple[Any, ...]:
        if self.positive is None:
            return ()
        return self.positive if isinstance(self.positive, tuple) else (self.positive,)

    def n_outputs(self, outputs: Sequence[str]) -> int:
        return 1

    def encode(self, labels: Labels, outputs: Sequence[str]) -> Array:
        if labels.text and labels.names is not None:
            yes = by_name(labels.names, [written(v) for v in self._positive()] or [outputs[1]])
            no = by_name(labels.names, outputs[:1]) if self.positive is None else range(len(labels.names))
            lookup = {code: int(code in yes) for code in {*yes, *no}}
            return class_codes(labels, lookup, f"{quoted(outputs[0])} and {quoted(outputs[1])}")
        if self.positive is None:
            return class_codes(labels, {0: 0, 1: 1}, "0 and 1; or give `positive`")
        given = enumerate(self._positive())
        numbers = [number_in_column(value, self.target, self._path_of(i)) for i, value in given]
        return np.isin(labels.values, numbers).astype(np.int64)

    def constants(self, targets: Array, outputs: Sequence[str]) -> dict[str, tuple[float, ...]]:
        return {"threshold": (self.threshold,), **positive_weights(self.positive_weight, targets, outputs)}

    def undefined(self, targets: Array, constants: Mapping[str, Sequence[float]]) -> Mapping[str, str]:
        of_both = ("auroc", "average_precision", "balanced_accuracy", "temperature", "threshold")
        of_one = ("f1", "precision", "recall") if targets[0] == 0 else ("specificity",)
        return of_a_single_class(targets, (*of_both, *of_one))

    def group(self, n_outputs: int) -> GroupKey:
        return ("binary", self.label_smoothing, self.positive_weight is not None)

    def build(self, head: GroupedHead, constants: Mapping[str, Tensor]) -> TaskModule:
        from mtl.model.tasks.kinds import YesNo

        return YesNo(head, constants, label_smoothing=self.label_smoothing)

    def decode(self, predicted: Mapping[str, Array], outputs: Sequence[str]) -> Decoded:
        return {"": class_values(outputs)[predicted["yes"].astype(np.int64)], "_p": predicted["p"]}
