"""Several labels at once, each there or not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Discriminator, Field, Tag, model_validator

from mtl.data.columns.labels import NO_AND_YES, by_name
from mtl.errors import UserError, quoted
from mtl.recipe.specs import TASKS, TaskSpec, recipe_errors
from mtl.tasks.base import (
    ClassNames,
    Weight,
    listed,
    named_labels,
    positive_weights,
    probability_columns,
    refuse_twice,
)

if TYPE_CHECKING:
    from torch import Tensor

    from mtl.data.types import Array, Empty, Header, Labels
    from mtl.model.tasks.heads import GroupedHead
    from mtl.model.tasks.module import TaskModule
    from mtl.recipe.specs import Decoded, GroupKey


def _form(value: object) -> str:
    return "<word>" if isinstance(value, str) else "<mapping>" if isinstance(value, dict) else "<number>"


PositiveWeights = Annotated[
    Annotated[Literal["balanced"], Tag("<word>")]
    | Annotated[float, Field(gt=0, le=1e6), Tag("<number>")]
    | Annotated[dict[str, Weight], Tag("<mapping>")],
    Discriminator(_form),
]


@TASKS.register("multilabel")
class Multilabel(TaskSpec):
    """Any number of O labels: one logit z_o for each, the loss is the mean of their binary cross entropies.

    loss = mean_i mean_o [ -w_o y_io log s(z_io) - (1 - y_io) log(1 - s(z_io)) ], s the logistic function, w_o
    `positive_weight`, the inner mean over the labels that are known of row i. The labels are several 0/1 columns
    (`targets`), or one column that lists them (`target`, texts separated by the source's `separator`, or a list
    column).
    """

    reference: ClassVar[str] = "ours"
    example: ClassVar[Mapping[str, Any]] = {"targets": ("a", "b", "c")}
    reads: ClassVar[Literal["classes", "numbers", "lists"]] = "lists"
    known_metrics: ClassVar[Mapping[str, bool]] = {
        "macro_auroc": True,
        "macro_average_precision": True,
        "macro_f1": True,
        "micro_f1": True,
        "accuracy": True,
        "calibration_error": False,
    }
    fitted: ClassVar[Mapping[str, float]] = {"temperature": 1.0}
    weighted_metrics: ClassVar[Collection[str]] = frozenset(known_metrics)
    answer_metrics: ClassVar[Collection[str]] = frozenset({"macro_f1", "micro_f1", "accuracy"})
    default_metrics: ClassVar[tuple[str, ...]] = ("macro_auroc", "macro_f1", "accuracy")

    target: str = Field("", max_length=200, description="the column that lists the labels")
    targets: tuple[Annotated[str, Field(max_length=200)], ...] | None = Field(
        None,
        min_length=2,
        max_length=10_000,
        description="the 0/1 columns, one per label, instead of `target`",
    )
    labels: ClassNames | None = Field(None, description="the labels of a list column; default: as found")
    empty: Literal["none", "missing"] | None = Field(
        None,
        description="what an empty cell of a list column of text means: no label applies, or the labels are missing",
    )
    positive_weight: PositiveWeights | None = Field(
        None,
        description="weight of labels that are there in the loss: a number, label -> number (others 1), "
        "or balanced: rows without it / rows with it",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of each label's target that goes evenly to there and not there"
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="probability from which a label is there"
    )
    fit_threshold: Literal["f1", "balanced_accuracy", "accuracy"] | None = Field(
        None, description="choose each label's threshold on validation, for this metric"
    )
    temperature: bool = Field(
        False, description="fit a temperature on validation, by which predicted probabilities are calibrated"
    )

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if bool(self.target) == (self.targets is not None):
            raise recipe_errors(
                "multilabel", [(("target",), "give either `target` (a list column) or `targets`")]
            )
        if self.targets is not None and len(set(self.targets)) < len(self.targets):
            raise recipe_errors("multilabel", [(("targets",), "a column is given twice")])
        if self.targets is not None and self.empty is not None:
            what = "belongs to `target`, a column that lists labels; an empty cell of a 0/1 column is missing"
            raise recipe_errors("multilabel", [(("empty",), what)])
        return self

    @property
    def empty_means(self) -> Empty | None:
        return self.empty

    def target_columns(self) -> tuple[str, ...]:
        return self.targets or (self.target,)

    def outputs(self, header: Header) -> tuple[str, ...] | None:
        if self.targets is None:
            names, _ = named_labels(self, self.target, header)
            if self.labels is not None:
                refuse_twice(self.labels, "labels")
            return self.labels or names
        for i, column in enumerate(self.targets):
            names, text = named_labels(self, column, header, "targets", i)
            # codes of text follow the order of its values, so only these pairs have the codes 0 for no and 1 for yes
            lower = [name.lower() for name in names or ()]
            if text and not any(lower == list(pair)[: len(lower)] for pair in NO_AND_YES):
                raise UserError(
                    "",
                    f"column {quoted(column)} holds text ({listed(names or (), 5)}), not 0 and 1",
                    "write it as 0 and 1, no and yes, or false and true",
                    path=("targets", i),
                )
        return self.targets

    def found_outputs(self, labels: Labels) -> tuple[str, ...]:
        raise self._no_lists()

    def _no_lists(self) -> UserError:
        return UserError("", f"column {quoted(self.target)} holds no lists of labels", path=("target",))

    def encode(self, labels: Labels, outputs: Sequence[str]) -> Array:
        values = labels.values
        if values.ndim == 1:
            raise self._no_lists()
        present = labels.present
        if self.targets is None:  # a row has its whole list or none of it
            present = np.broadcast_to(present[:, :1], (len(values), len(outputs)))
            if labels.names is not None and tuple(labels.names) != tuple(outputs):
                values = self._chosen(labels, outputs)
        wrong = np.argwhere((values != 0) & (values != 1) & present)
        if wrong.size:
            row, o = wrong[0].tolist()
            raise UserError(
                labels.place(row),
                f"label {quoted(values[row, o].item())}, allowed 0 and 1",
                path=("targets" if self.targets is not None else "target",),
            )
        return np.where(present, values, -1).astype(np.int8)

    def _chosen(self, labels: Labels, outputs: Sequence[str]) -> Array:
        """The columns of the labels that the task has, in its order; others are refused."""
        names = list(labels.names or ())
        place = {output: code for code, output in by_name(names, outputs).items()}
        for c, name in enumerate(names):
            if c not in place.values() and (labels.values[:, c] == 1).any():
                row = int(np.flatnonzero(labels.values[:, c] == 1)[0])
                raise UserError(
                    labels.place(row), f"label {quoted(name)}, allowed {listed(outputs)}",
                    path=("target",),
                )  # fmt: skip
        zeros = np.zeros(len(labels.values), dtype=np.int8)
        columns = [labels.values[:, place[o]] if o in place else zeros for o in range(len(outputs))]
        return np.stack(columns, axis=1)

    def constants(self, targets: Array, outputs: Sequence[str]) -> dict[str, tuple[float, ...]]:
        thresholds = (self.threshold,) * len(outputs)
        return {"threshold": thresholds, **positive_weights(self.positive_weight, targets, outputs)}

    def undefined(self, targets: Array, constants: Mapping[str, Sequence[float]]) -> Mapping[str, str]:
        yes_O, no_O = (targets == 1).any(axis=0), (targets == 0).any(axis=0)
        found = {}
        if not (yes_O & no_O).any():
            names = ("macro_auroc", "macro_average_precision", "threshold")
            found = dict.fromkeys(names, "no label with rows on both sides")
        if not (yes_O.any() and no_O.any()):
            found["temperature"] = "no label with rows on both sides"
        if not yes_O.any():
            found["micro_f1"] = "no row with any of its labels"
        return found

    def group(self, n_outputs: int) -> GroupKey:
        return ("multilabel", n_outputs, self.label_smoothing, self.positive_weight is not None)

    def build(self, head: GroupedHead, constants: Mapping[str, Tensor]) -> TaskModule:
        from mtl.model.tasks.kinds import Labels as Module

        return Module(head, constants, label_smoothing=self.label_smoothing)

    def decode(self, predicted: Mapping[str, Array], outputs: Sequence[str]) -> Decoded:
        lists = [[outputs[o] for o in np.flatnonzero(row).tolist()] for row in predicted["there"]]
        return {"": lists, **probability_columns(predicted["p"], outputs)}
