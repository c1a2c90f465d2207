"""The Spec base of tasks says what a kind of task must give.

Shapes: B batch, T tasks of a group, O outputs per task.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mtl.errors import KeyPath, did_you_mean, quoted
from mtl.recipe.base import Model, Spec, TaskName, Text, fault, recipe_errors

if TYPE_CHECKING:
    from torch import Tensor

    from mtl.data.types import Array, Empty, Header, Labels, Mask
    from mtl.model.tasks.heads import GroupedHead
    from mtl.model.tasks.module import TaskModule

    Decoded = dict[str, Array | list[Any]]
    """The suffix of a column of predictions -> a value for every row."""
    GroupKey = tuple[str | int | float | None, ...]


class TaskHead(Model):
    """The output layers of one task."""

    hidden: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = Field(
        (), max_length=16, description="features of each hidden layer between the tower and the output"
    )
    dropout: float | None = Field(
        None, ge=0, lt=1, description="on what the head reads; default: as in model.head"
    )


def _class_name(value: object) -> object:
    """A class as a column of texts would hold it; a whole number or true/false stands for its text."""
    return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int) else value


class Derived(Model):
    """The task whose class tells that of this one, and how."""

    task: TaskName = Field(description="the other task")
    mapping: (
        Annotated[
            dict[
                Text, Annotated[Text, BeforeValidator(_class_name, json_schema_input_type=bool | int | str)]
            ],
            Field(min_length=1, max_length=100_000),
        ]
        | None
    ) = Field(
        None,
        description="each class of the other task -> the class of this one; default: as in the training rows",
    )


DerivedFrom = Annotated[
    Annotated[TaskName, Tag("<name>")] | Annotated[Derived, Tag("<mapping>")],
    Discriminator(lambda value: "<mapping>" if isinstance(value, (dict, Derived)) else "<name>"),
]


class TaskSpec(Spec):
    """What is learned from one label column. Members: `tasks/`.

    A member says which metrics it knows, with the direction that is better, and which of them are
    measured unless the recipe names others; the first one is the headline.
    """

    known_metrics: ClassVar[Mapping[str, bool | None]]
    """Metric -> whether higher is better; None: no direction is better, and the metric selects nothing."""
    default_metrics: ClassVar[tuple[str, ...]]
    reads: ClassVar[Literal["classes", "numbers", "lists"]] = "classes"
    """How the values of a table's label column are read."""
    one_class: ClassVar[bool] = False
    """Whether a row has exactly one of the classes that `outputs` names, whose numbers `encode` gives.

    The module of such a kind has `class_probabilities` and `logits_of`.
    """
    weighted_metrics: ClassVar[Collection[str]] = ()
    """The metrics that can weigh rows, as `metrics_weighted` asks; see `TaskModule.metric`."""
    answer_metrics: ClassVar[Collection[str]] = ()
    """The metrics that depend on the answers alone, and not on probabilities; see `TaskModule.logits_of`."""
    fitted: ClassVar[Mapping[str, float]] = {}
    """Number that a task may ask to fit after training -> its value until then."""

    weight: float = Field(1.0, ge=0, le=1e6, description="factor of the task's loss")
    target: str = Field(max_length=200, description="the label column")
    source: str | None = Field(
        None,
        max_length=64,
        description="the one of data.sources that has the label column; default: all that do",
    )
    missing: Literal["error", "mask"] = Field(
        "error", description="a row without this label: an error, or left out of this task's loss and metrics"
    )
    sample_weight: str | None = Field(
        None, max_length=200, description="column with each row's weight in this task's loss"
    )
    metrics_weighted: bool = Field(
        False, description="whether `sample_weight` weighs the rows in metrics too, not only in the loss"
    )
    metrics: tuple[Text, ...] | None = Field(
        None, min_length=1, max_length=50, description="what is measured; the first is the headline"
    )
    head: TaskHead = TaskHead()
    strict_classes: bool = Field(
        False, description="a class that no training row has is an error, not a warning"
    )

    derived_from: DerivedFrom | None = Field(
        None,
        description="another task whose class tells that of this one: what its prediction alone reaches then "
        "stands beside the results",
    )
    margin: float | None = Field(
        None,
        gt=0,
        le=1e12,
        description="difference of the headline metric, in its own unit, below which two networks are as good as "
        "each other",
    )
    weight_in_verdict: float = Field(
        1.0, ge=0, le=1e6, description="how much the task counts in a mean over tasks that compares networks"
    )

    @field_validator("metrics")
    @classmethod
    def _known(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        for name in value or ():
            if name not in cls.known_metrics:
                known = ", ".join(cls.known_metrics)
                raise fault(
                    f"unknown metric {quoted(name)}; known: {known}{did_you_mean(name, cls.known_metrics)}"
                )
        return value

    @model_validator(mode="after")
    def _weighable(self) -> Self:
        if not self.metrics_weighted:
            return self
        if self.sample_weight is None:
            raise recipe_errors(
                "task", [(("metrics_weighted",), "needs sample_weight, the column of weights")]
            )
        for i, name in enumerate(self.metric_names):
            if name not in self.weighted_metrics:
                path: KeyPath = ("metrics_weighted",) if self.metrics is None else ("metrics", i)
                raise recipe_errors("task", [(path, f"metric {quoted(name)} cannot be weighted")])
        return self

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of the metrics that are measured."""
        return tuple(dict.fromkeys(self.metrics or self.default_metrics))

    @property
    def headline(self) -> str:
        """The metric that represents the task in tables."""
        return self.metric_names[0]

    @property
    def derives_from(self) -> str | None:
        """The task in `derived_from`."""
        return self.derived_from.task if isinstance(self.derived_from, Derived) else self.derived_from

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher value of the headline metric is better."""
        return bool(self.known_metrics[self.headline])

    @property
    def empty_means(self) -> Empty | None:
        """What an empty text means in a column that lists labels; None if the recipe does not say."""
        return None

    @property
    def label_unit(self) -> str:
        """The unit of the labels, for tables and plots; empty if they have none."""
        return ""

    def target_columns(self) -> tuple[str, ...]:
        """The names of the label columns."""
        return (self.target,)

    def outputs(self, header: Header) -> tuple[str, ...] | None:
        """The names of the task's outputs: its classes, its labels or its value. None if only the labels can tell.

        Raises:
            UserError: the names cannot be known; the path is relative to the task.
        """
        raise NotImplementedError

    def found_outputs(self, labels: Labels) -> tuple[str, ...]:
        """The names of the task's outputs, found in the labels; called where `outputs` gave None."""
        raise NotImplementedError

    def n_outputs(self, outputs: Sequence[str]) -> int:
        """O, the numbers that the head gives per row."""
        return len(outputs)

    def encode(self, labels: Labels, outputs: Sequence[str]) -> Array:
        """Targets (n,) or (n, O) in the form that the loss takes; a row without a label gets any valid target."""
        raise NotImplementedError

    def constants(self, targets: Array, outputs: Sequence[str]) -> dict[str, tuple[float, ...]]:
        """Numbers that the loss, metrics and predictions need, computed from the training rows that have a label."""
        return {}

    def undefined(self, targets: Array, constants: Mapping[str, Sequence[float]]) -> Mapping[str, str]:
        """Metric that these labels alone leave undefined -> why, as in "a single class".

        The names of `fitted`, and `threshold`, stand for numbers that these labels cannot determine.

        Args:
            targets: (n,) or (n, O) of the n >= 1 rows of a split that count in the task's metrics.
            constants: the result of `constants`.
        """
        return {}

    def weighs(self, targets: Array, constants: Mapping[str, Sequence[float]]) -> Mask:
        """(n,) whether the kind's own weight of each row in the loss is positive, such as that of its class."""
        return np.ones(len(targets), dtype=bool)

    def group(self, n_outputs: int) -> GroupKey:
        """The key of the task's group: tasks with equal keys are computed together. Its first part names the group."""
        raise NotImplementedError

    def build(self, head: GroupedHead, constants: Mapping[str, Tensor]) -> TaskModule:
        """The module of T tasks of this kind.

        Args:
            head: the output layers of the T tasks.
            constants: each number of `constants` and of `fitted`, for the T tasks: (T,) or (T, ...).
        """
        raise NotImplementedError

    def decode(self, predicted: Mapping[str, Array], outputs: Sequence[str]) -> Decoded:
        """Predictions of one task; each key is the suffix of a column, and "" stands for the class or value itself.

        Args:
            predicted: what the module's `predict` gives for this task, (B,) or (B, ...) each.
            outputs: the names of the task's outputs.
        """
        raise NotImplementedError


def units_of(tasks: Mapping[str, TaskSpec]) -> dict[str, str]:
    """Task -> the unit of its labels, where they have one."""
    return {task: spec.label_unit for task, spec in tasks.items() if spec.label_unit}


def mean_metric(tasks: Mapping[str, TaskSpec]) -> str:
    """The metric that is averaged over tasks: their headline if all have the same one, else the loss."""
    names = {task.headline for task in tasks.values()}
    return names.pop() if len(names) == 1 else "loss"
