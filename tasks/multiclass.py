"""One of several classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Discriminator, Field, Tag

from mtl.errors import UserError, did_you_mean, quoted
from mtl.recipe.spec import TASKS, Name, TaskSpec

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics import Metric

    from mtl.data.columns import Array, Header, Mask

Count = Annotated[int, Field(ge=2, le=100_000)]
ClassNames = Annotated[tuple[Name, ...], Field(min_length=2, max_length=100_000)]
Classes = Annotated[
    Annotated[Count, Tag("<number>")] | Annotated[ClassNames, Tag("<list>")],
    Discriminator(lambda value: "<list>" if isinstance(value, tuple) else "<number>"),
]
Members = Annotated[tuple[int, ...], Field(min_length=1, max_length=100_000)]


@TASKS.register("multiclass")
class Multiclass(TaskSpec):
    """Exactly one of O classes: softmax and cross entropy, measured by accuracy.

    Classes are the raw values 0, 1, ..., O - 1 of the target column, or groups of raw values.
    """

    reference: ClassVar[str] = "ours"
    headline: ClassVar[str] = "accuracy"
    metric_names: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")

    classes: Classes | None = Field(
        None, description="how many classes, or their names; default: as the source says"
    )
    groups: dict[Name, Members] | None = Field(
        None, min_length=2, max_length=100_000, description="class name -> the raw values that count as it"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1)

    def outputs(self, header: Header) -> tuple[str, ...]:
        if self.target not in header.labels:
            raise UserError(
                "",
                f"no label column {quoted(self.target)}{did_you_mean(self.target, header.labels)}; "
                f"columns: {', '.join(header.labels)}",
                path=("target",),
            )
        names = header.labels[self.target]
        if self.groups is not None:
            self._check_groups(self.groups, names)
            return tuple(self.groups)
        if isinstance(self.classes, tuple):
            given: tuple[str, ...] | None = self.classes
        else:
            given = None if self.classes is None else tuple(str(c) for c in range(self.classes))
        if given is None and names is None:
            raise UserError("", "the source does not say how many classes there are", "give `classes`")
        if given is not None and names is not None and len(given) != len(names):
            raise UserError(
                "",
                f"{len(given)} classes, but column {quoted(self.target)} has {len(names)}",
                "leave `classes` out to use the column's own",
                path=("classes",),
            )
        return names if names is not None and not isinstance(self.classes, tuple) else given or ()

    def _check_groups(self, groups: dict[str, tuple[int, ...]], names: tuple[str, ...] | None) -> None:
        if self.classes is not None:
            raise UserError("", "give `classes` or `groups`, not both", path=("classes",))
        seen: dict[int, str] = {}
        for group, members in groups.items():
            for i, member in enumerate(members):
                path = ("groups", group, i)
                if member in seen:
                    raise UserError(
                        "", f"value {member} is in group {quoted(seen[member])} already", path=path
                    )
                if names is not None and not 0 <= member < len(names):
                    raise UserError(
                        "",
                        f"value {member} is not in column {quoted(self.target)}: 0..{len(names) - 1}",
                        path=path,
                    )
                seen[member] = group
        left = [value for value in range(len(names or ())) if value not in seen]
        if left:
            raise UserError(
                "",
                f"values {', '.join(map(str, left[:5]))} of column {quoted(self.target)} are in no group",
                "put each value into a group",
                path=("groups",),
            )

    def encode(self, raw: Array, present: Mask, header: Header) -> Array:
        n_outputs = len(self.outputs(header))
        if self.groups is None:
            lookup = {value: value for value in range(n_outputs)}
        else:
            lookup = {value: i for i, members in enumerate(self.groups.values()) for value in members}
        values, position = np.unique(np.where(present, raw, next(iter(lookup))), return_inverse=True)
        codes = np.array([_position(lookup, value) for value in values.tolist()], dtype=np.int64)[position]
        wrong = np.flatnonzero(codes < 0)
        if wrong.size:
            row = int(wrong[0])
            allowed = f"0..{n_outputs - 1}" if self.groups is None else "what stands in `groups`"
            raise UserError(
                f"row {row}", f"label {quoted(raw[row].item())}, allowed {allowed}", path=("target",)
            )
        return codes

    def group(self, n_outputs: int) -> tuple[str | int | float, ...]:
        return ("multiclass", n_outputs, self.label_smoothing)

    def loss(self, logits_BTO: Tensor, target_BT: Tensor, present_BT: Tensor) -> Tensor:
        from mtl.model.losses import cross_entropy

        return cross_entropy(logits_BTO, target_BT, present_BT, label_smoothing=self.label_smoothing)

    def metrics(self, n_tasks: int, n_outputs: int) -> Metric:
        from mtl.model.metrics import GroupedConfusion

        return GroupedConfusion(n_tasks, n_outputs)


def _position(lookup: dict[int, int], value: object) -> int:
    """The class of a raw value; -1 if it is not a whole number or has none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return lookup.get(value, -1) if isinstance(value, int) else -1
