"""Several labels at once, each there or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from mtl.errors import UserError, quoted
from mtl.recipe.spec import TASKS, Name, TaskSpec, recipe_errors
from mtl.tasks.base import named_labels

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics import Metric

    from mtl.data.columns import Array, Header, Labels


@TASKS.register("multilabel")
class Multilabel(TaskSpec):
    """Any number of O labels: one logit for each, the loss is the mean of their binary cross entropies.

    The labels are several 0/1 columns (`targets`), or one column that lists them (`target`, texts
    separated by `separator`, or a list column).
    """

    reference: ClassVar[str] = "ours"
    reads: ClassVar[Literal["classes", "numbers", "lists"]] = "lists"
    known_metrics: ClassVar[Mapping[str, bool]] = {
        "macro_auroc": True,
        "macro_average_precision": True,
        "macro_f1": True,
        "micro_f1": True,
        "accuracy": True,
        "calibration_error": False,
    }
    default_metrics: ClassVar[tuple[str, ...]] = ("macro_auroc", "macro_f1", "accuracy")

    target: str = Field("", max_length=200, description="the column that lists the labels")
    targets: tuple[Annotated[str, Field(max_length=200)], ...] | None = Field(
        None,
        min_length=2,
        max_length=10_000,
        description="the 0/1 columns, one per label, instead of `target`",
    )
    labels: tuple[Name, ...] | None = Field(
        None, min_length=2, max_length=10_000, description="the labels of a list column; default: as found"
    )

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if bool(self.target) == (self.targets is not None):
            raise recipe_errors(
                "multilabel", [(("target",), "give either `target` (a list column) or `targets`")]
            )
        if self.targets is not None and len(set(self.targets)) < len(self.targets):
            raise recipe_errors("multilabel", [(("targets",), "a column is given twice")])
        return self

    def target_columns(self) -> tuple[str, ...]:
        return self.targets or (self.target,)

    def outputs(self, header: Header) -> tuple[str, ...] | None:
        if self.targets is not None:
            for i, column in enumerate(self.targets):
                try:
                    named_labels(self, column, header)
                except UserError as error:
                    raise UserError(error.place, error.what, error.todo, path=("targets", i)) from None
            return self.targets
        names, _ = named_labels(self, self.target, header)
        return self.labels or names

    def found_outputs(self, labels: Labels) -> tuple[str, ...]:
        raise UserError("", f"column {quoted(self.target)} holds no lists of labels", path=("target",))

    def encode(self, labels: Labels, outputs: Sequence[str]) -> Array:
        values = labels.values
        if values.ndim == 1:
            raise UserError("", f"column {quoted(self.target)} holds no lists of labels", path=("target",))
        if self.targets is None and labels.names is not None and tuple(labels.names) != tuple(outputs):
            values = self._chosen(labels, outputs)
        wrong = np.flatnonzero((~np.isin(values, (0, 1)) & labels.present).any(axis=1))
        if wrong.size:
            row = int(wrong[0])
            value = next(
                v
                for v, there in zip(values[row], labels.present[row], strict=True)
                if there and v not in (0, 1)
            )
            raise UserError(
                labels.place(row), f"label {quoted(value.item())}, allowed 0 and 1", path=("targets",)
            )
        present = labels.present if labels.present.shape == values.shape else labels.present[:, :1]
        return np.where(present, values, -1).astype(np.int8)

    def _chosen(self, labels: Labels, outputs: Sequence[str]) -> Array:
        """The columns of the labels that the task has, in its order; others are refused."""
        names = list(labels.names or ())
        for c, name in enumerate(names):
            if name not in outputs and (labels.values[:, c] == 1).any():
                row = int(np.flatnonzero(labels.values[:, c] == 1)[0])
                raise UserError(
                    labels.place(row), f"label {quoted(name)}, allowed {', '.join(map(quoted, outputs[:10]))}",
                    path=("target",),
                )  # fmt: skip
        zeros = np.zeros(len(labels.values), dtype=np.int8)
        return np.stack([labels.values[:, names.index(o)] if o in names else zeros for o in outputs], axis=1)

    def group(self, n_outputs: int) -> tuple[str | int | float | None, ...]:
        return ("multilabel", n_outputs)

    def losses(
        self, logits_BTO: Tensor, target_BT: Tensor, weight_BT: Tensor, constants: Mapping[str, Tensor]
    ) -> Tensor:
        from mtl.model.losses import multilabel_loss

        return multilabel_loss(logits_BTO, target_BT, weight_BT)

    def meter(
        self, n_tasks: int, n_outputs: int, names: frozenset[str], constants: Mapping[str, Tensor]
    ) -> Metric:
        from mtl.model.metrics import GroupedLabels

        return GroupedLabels(n_tasks, n_outputs)

    def decode(
        self, logits_BO: Tensor, outputs: Sequence[str], constants: Mapping[str, Tensor]
    ) -> dict[str, Array | list[Any]]:
        p = logits_BO.sigmoid().float().cpu().numpy()
        columns: dict[str, Array | list[Any]] = {
            "": [[outputs[int(o)] for o in np.flatnonzero(row >= 0.5)] for row in p]
        }
        columns.update({f"_p_{name}": p[:, o] for o, name in enumerate(outputs)})
        return columns
