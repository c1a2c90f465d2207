"""One of several classes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Discriminator, Field, Tag

from mtl.console import counted
from mtl.data.columns.labels import by_name, class_codes, found_classes, written
from mtl.data.columns.spelling import Known
from mtl.errors import UserError, quoted
from mtl.recipe.specs import TASKS, Name, TaskSpec
from mtl.tasks.base import (
    ClassNames,
    ClassWeights,
    LabelValue,
    allowed_values,
    class_columns,
    class_lookup,
    class_weights,
    listed,
    named_labels,
    number_in_column,
    of_a_single_class,
    refuse_twice,
    weighing_classes,
    whole_number,
)

if TYPE_CHECKING:
    from torch import Tensor

    from mtl.data.types import Array, Header, Labels, Mask
    from mtl.model.tasks.heads import GroupedHead
    from mtl.model.tasks.module import TaskModule
    from mtl.recipe.specs import Decoded, GroupKey

Count = Annotated[int, Field(ge=2, le=100_000)]
Classes = Annotated[
    Annotated[Count, Tag("<number>")] | Annotated[ClassNames, Tag("<list>")],
    Discriminator(lambda value: "<list>" if isinstance(value, tuple) else "<number>"),
]
Members = Annotated[tuple[LabelValue, ...], Field(min_length=1, max_length=100_000)]


@TASKS.register("multiclass")
class Multiclass(TaskSpec):
    """Exactly one of O classes: softmax and cross entropy.

    Classes are the values of the target column in a stable order, as many as `classes` says, or `groups`
    of values. loss = - sum_i w(y_i) log softmax(logits_i)[y_i] / sum_i w(y_i), w the class weights.
    """

    reference: ClassVar[str] = "ours"
    example: ClassVar[Mapping[str, Any]] = {"target": "label"}
    one_class: ClassVar[bool] = True
    known_metrics: ClassVar[Mapping[str, bool]] = {
        "accuracy": True,
        "balanced_accuracy": True,
        "macro_f1": True,
        "macro_precision": True,
        "macro_recall": True,
        "cohen_kappa": True,
        "auroc": True,
        "average_precision": True,
        "calibration_error": False,
    }
    fitted: ClassVar[Mapping[str, float]] = {"temperature": 1.0}
    weighted_metrics: ClassVar[Collection[str]] = frozenset(known_metrics)
    answer_metrics: ClassVar[Collection[str]] = frozenset(
        {"accuracy", "balanced_accuracy", "macro_f1", "macro_precision", "macro_recall", "cohen_kappa"}
    )
    default_metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")

    classes: Classes | None = Field(
        None, description="how many classes, or their names; default: as the source says, or as found"
    )
    groups: Mapping[Name, Members] | None = Field(
        None, min_length=2, max_length=100_000, description="class name -> the raw values that count as it"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of each row's target that goes evenly to all classes"
    )
    class_weights: ClassWeights | None = Field(
        None,
        description="balanced: n / (O * count of the class); or class name -> weight in the loss, others 1",
    )
    temperature: bool = Field(
        False, description="fit a temperature on validation, by which predicted probabilities are calibrated"
    )

    def outputs(self, header: Header) -> tuple[str, ...] | None:
        names, text = named_labels(self, self.target, header)
        if self.groups is not None:
            self._check_groups(self.groups, names, text)
            return tuple(self.groups)
        if isinstance(self.classes, tuple):
            refuse_twice(self.classes, "classes")
        if text:
            return self._text_classes(names or ())
        if self.classes is None:
            return names
        given = (
            self.classes if isinstance(self.classes, tuple) else tuple(str(c) for c in range(self.classes))
        )
        if names is not None and len(given) != len(names):
            raise self._other_number(len(given), len(names), "leave `classes` out to use the column's own")
        return names if names is not None and not isinstance(self.classes, tuple) else given

    def found_outputs(self, labels: Labels) -> tuple[str, ...]:
        return found_classes(labels)

    def _text_classes(self, names: tuple[str, ...]) -> tuple[str, ...]:
        if isinstance(self.classes, tuple):
            return self.classes
        if self.classes is not None and self.classes != len(names):
            raise self._other_number(self.classes, len(names), "leave `classes` out, or list their names")
        if len(names) < 2:
            raise UserError(
                "", f"column {quoted(self.target)} has {len(names)} distinct values: nothing to learn"
            )
        return names

    def _other_number(self, given: int, found: int, todo: str) -> UserError:
        what = f"{counted(given, 'class', 'classes')}, but column {quoted(self.target)} has {found}"
        return UserError("", what, todo, path=("classes",))

    def _check_groups(
        self, groups: Mapping[str, tuple[Any, ...]], names: tuple[str, ...] | None, text: bool
    ) -> None:
        if self.classes is not None:
            raise UserError("", "give `classes` or `groups`, not both", path=("classes",))
        seen: dict[int | str, str] = {}
        known: dict[int | str, None] = dict.fromkeys(
            () if names is None else names if text else range(len(names))
        )
        for group, members in groups.items():
            for i, given in enumerate(members):
                path = ("groups", group, i)
                number = None if text else whole_number(given)
                member = self._member(given, number, names, text)
                if member in seen:
                    what = f"value {quoted(member)} is in group {quoted(seen[member])} already"
                    raise UserError("", what, path=path)
                if names is not None and member not in known:
                    which = f"; it has {listed(names)}" if text else f": 0..{len(names) - 1}"
                    raise UserError(
                        "", f"value {quoted(member)} is not in column {quoted(self.target)}{which}", path=path
                    )
                seen[member] = group
        left = [value for value in known if value not in seen]
        if left:
            raise UserError(
                "",
                f"values {listed(left, 5)} of column {quoted(self.target)} are in no group",
                "put each value into a group",
                path=("groups",),
            )

    @staticmethod
    def _member(given: object, number: int | None, names: Sequence[str] | None, text: bool) -> int | str:
        """A member of a group as the column spells it."""
        if number is not None:
            return number
        found = Known(names).find(written(given)) if text and names is not None else None
        return written(given) if found is None or names is None else names[found]

    def encode(self, labels: Labels, outputs: Sequence[str]) -> Array:
        if self.groups is not None:
            return class_codes(labels, self._group_of(labels), "what stands in `groups`")
        lookup = class_lookup(labels, outputs)
        return class_codes(labels, lookup, allowed_values(lookup, labels, outputs))

    def _group_of(self, labels: Labels) -> dict[int, int]:
        """Raw value -> number of its group."""
        groups = self.groups or {}
        if labels.text and labels.names is not None:
            group_of = [(written(v), i) for i, members in enumerate(groups.values()) for v in members]
            member_of = by_name(labels.names, [member for member, _ in group_of])
            return {code: group_of[i][1] for code, i in member_of.items()}
        lookup = {}
        for number, (group, members) in enumerate(groups.items()):
            for i, member in enumerate(members):
                lookup[number_in_column(member, self.target, ("groups", group, i))] = number
        return lookup

    def constants(self, targets: Array, outputs: Sequence[str]) -> dict[str, tuple[float, ...]]:
        return class_weights(self.class_weights, targets, outputs)

    def undefined(self, targets: Array, constants: Mapping[str, Sequence[float]]) -> Mapping[str, str]:
        return of_a_single_class(targets, ("cohen_kappa", "auroc", "average_precision", "temperature"))

    def weighs(self, targets: Array, constants: Mapping[str, Sequence[float]]) -> Mask:
        return weighing_classes(targets, constants)

    def group(self, n_outputs: int) -> GroupKey:
        return ("multiclass", n_outputs, self.label_smoothing, self.class_weights is not None)

    def build(self, head: GroupedHead, constants: Mapping[str, Tensor]) -> TaskModule:
        from mtl.model.tasks.kinds import Classes

        return Classes(head, constants, label_smoothing=self.label_smoothing)

    def decode(self, predicted: Mapping[str, Array], outputs: Sequence[str]) -> Decoded:
        return class_columns(predicted, outputs)
