"""One of several classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from mtl.data.labels import by_name, class_codes, found_classes, written
from mtl.errors import UserError, quoted
from mtl.recipe.spec import TASKS, Name, TaskSpec, fault
from mtl.tasks.base import named_labels

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics import Metric

    from mtl.data.columns import Array, Header, Labels

Count = Annotated[int, Field(ge=2, le=100_000)]
ClassNames = Annotated[tuple[Name, ...], Field(min_length=2, max_length=100_000)]
Classes = Annotated[
    Annotated[Count, Tag("<number>")] | Annotated[ClassNames, Tag("<list>")],
    Discriminator(lambda value: "<list>" if isinstance(value, tuple) else "<number>"),
]


def label_value(value: object) -> object:
    """One message for a value that is neither a whole number nor text."""
    if not isinstance(value, bool | int | str):
        raise fault(f"a label value is a whole number, text or true/false, got {quoted(value)}")
    return value


LabelValue = Annotated[bool | int | Annotated[str, Field(max_length=1000)], BeforeValidator(label_value)]
Members = Annotated[tuple[LabelValue, ...], Field(min_length=1, max_length=100_000)]
ClassWeights = Annotated[
    Annotated[Literal["balanced"], Tag("<word>")]
    | Annotated[dict[str, Annotated[float, Field(ge=0, le=1e6)]], Tag("<mapping>")],
    Discriminator(lambda value: "<mapping>" if isinstance(value, dict) else "<word>"),
]


@TASKS.register("multiclass")
class Multiclass(TaskSpec):
    """Exactly one of O classes: softmax and cross entropy.

    Classes are the values of the target column in a stable order, as many as `classes` says, or `groups`
    of values. loss = - sum_i w(y_i) log softmax(logits_i)[y_i] / sum_i w(y_i), w the class weights.
    """

    reference: ClassVar[str] = "ours"
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
    default_metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")

    classes: Classes | None = Field(
        None, description="how many classes, or their names; default: as the source says, or as found"
    )
    groups: Mapping[Name, Members] | None = Field(
        None, min_length=2, max_length=100_000, description="class name -> the raw values that count as it"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1)
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
        if text:
            return self._text_classes(names or ())
        if self.classes is None:
            return names
        given = (
            self.classes if isinstance(self.classes, tuple) else tuple(str(c) for c in range(self.classes))
        )
        if names is not None and len(given) != len(names):
            raise UserError(
                "",
                f"{len(given)} classes, but column {quoted(self.target)} has {len(names)}",
                "leave `classes` out to use the column's own",
                path=("classes",),
            )
        return names if names is not None and not isinstance(self.classes, tuple) else given

    def found_outputs(self, labels: Labels) -> tuple[str, ...]:
        return found_classes(labels)

    def _text_classes(self, names: tuple[str, ...]) -> tuple[str, ...]:
        if isinstance(self.classes, tuple):
            return self.classes
        if self.classes is not None and self.classes != len(names):
            raise UserError(
                "",
                f"{self.classes} classes, but column {quoted(self.target)} has {len(names)}",
                "leave `classes` out, or list their names",
                path=("classes",),
            )
        if len(names) < 2:
            raise UserError(
                "", f"column {quoted(self.target)} has {len(names)} distinct values: nothing to learn"
            )
        return names

    def _check_groups(
        self, groups: Mapping[str, tuple[Any, ...]], names: tuple[str, ...] | None, text: bool
    ) -> None:
        if self.classes is not None:
            raise UserError("", "give `classes` or `groups`, not both", path=("classes",))
        seen: dict[int | str, str] = {}
        known: set[int | str] = set() if names is None else set(names if text else range(len(names)))
        for group, members in groups.items():
            for i, written_member in enumerate(members):
                path = ("groups", group, i)
                member = written(written_member) if text else written_member
                if member in seen:
                    raise UserError(
                        "", f"value {member} is in group {quoted(seen[member])} already", path=path
                    )
                if names is not None and member not in known:
                    which = f": 0..{len(names) - 1}" if not text else f"; it has {', '.join(names[:10])}"
                    raise UserError(
                        "", f"value {quoted(member)} is not in column {quoted(self.target)}{which}", path=path
                    )
                seen[member] = group
        left = [value for value in sorted(known, key=str) if value not in seen]
        if left:
            raise UserError(
                "",
                f"values {', '.join(map(str, left[:5]))} of column {quoted(self.target)} are in no group",
                "put each value into a group",
                path=("groups",),
            )

    def encode(self, labels: Labels, outputs: Sequence[str]) -> Array:
        return class_codes(labels, self._lookup(labels, outputs), self._allowed(labels, outputs))

    def _lookup(self, labels: Labels, outputs: Sequence[str]) -> dict[int, int]:
        """Raw value -> class."""
        if self.groups is not None:
            if labels.text and labels.names is not None:
                group_of = {written(v): i for i, members in enumerate(self.groups.values()) for v in members}
                return {code: group_of[name] for code, name in enumerate(labels.names) if name in group_of}
            pairs = [(v, i) for i, members in enumerate(self.groups.values()) for v in members]
            return {int(v): i for v, i in pairs if not isinstance(v, str) or v.lstrip("-").isdecimal()}
        if labels.text and labels.names is not None:
            return by_name(labels.names, outputs)
        if labels.names is None and self.classes is None and all(o.lstrip("-").isdecimal() for o in outputs):
            return {int(output): i for i, output in enumerate(outputs)}
        return {i: i for i in range(len(outputs))}

    def _allowed(self, labels: Labels, outputs: Sequence[str]) -> str:
        if self.groups is not None:
            return "what stands in `groups`"
        if labels.text or (labels.names is None and self.classes is None):
            return ", ".join(map(quoted, outputs[:10])) + (", ..." if len(outputs) > 10 else "")
        return f"0..{len(outputs) - 1}"

    def constants(self, targets: Array, outputs: Sequence[str]) -> dict[str, tuple[float, ...]]:
        from mtl.tasks.base import balanced_weights

        if self.class_weights is None:
            return {}
        if isinstance(self.class_weights, dict):
            unknown = [name for name in self.class_weights if name not in outputs]
            if unknown:
                raise UserError(
                    "",
                    f"no class {quoted(unknown[0])}; classes: {', '.join(outputs[:10])}",
                    path=("class_weights",),
                )
            return {"class_weight": tuple(self.class_weights.get(name, 1.0) for name in outputs)}
        return {"class_weight": balanced_weights(targets, len(outputs))}

    def group(self, n_outputs: int) -> tuple[str | int | float | None, ...]:
        return ("multiclass", n_outputs, self.label_smoothing, self.class_weights is not None)

    def losses(
        self, logits_BTO: Tensor, target_BT: Tensor, weight_BT: Tensor, constants: Mapping[str, Tensor]
    ) -> Tensor:
        from mtl.model.losses import cross_entropy

        return cross_entropy(
            logits_BTO,
            target_BT,
            weight_BT,
            label_smoothing=self.label_smoothing,
            class_weight_TO=constants.get("class_weight"),
        )

    def meter(
        self, n_tasks: int, n_outputs: int, names: frozenset[str], constants: Mapping[str, Tensor]
    ) -> Metric:
        from mtl.model.metrics import GroupedConfusion

        return GroupedConfusion(
            n_tasks, n_outputs, scores=bool(names & {"auroc", "average_precision", "calibration_error"})
        )

    def decode(
        self, logits_BO: Tensor, outputs: Sequence[str], constants: Mapping[str, Tensor]
    ) -> dict[str, Array | list[Any]]:
        from mtl.tasks.base import class_columns

        return class_columns((logits_BO / constants.get("temperature", 1.0)).softmax(-1), outputs)

    def nll(self, logits_BO: Tensor, target_B: Tensor) -> Tensor | None:
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits_BO, target_B)
