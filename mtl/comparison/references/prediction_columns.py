"""The columns of a task's predictions in a file, as `mtl predict` writes them, and how their values are read.

Shapes: B rows of a batch, m rows that are asked for, O outputs per task, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtl.console import counted
from mtl.data.columns.numbers import numbers
from mtl.data.columns.spelling import BITS, Known
from mtl.data.columns.values import lists_of_text, texts
from mtl.data.files.table import Table
from mtl.errors import UserError, quoted
from mtl.recipe.specs import TaskSpec

if TYPE_CHECKING:
    import pyarrow as pa

Float64 = npt.NDArray[np.float64]

ROUNDED = 0.005
"""How far rounding may move each probability of a row: those of C classes add up to 1 within C times this."""
SHOWN = 5
"""Most columns that a message names."""


@dataclass(frozen=True)
class PredictionColumns:
    """The columns of a file that hold the predictions of one task.

    Args:
        task: the task.
        answer: the kind of its answers, as in `TaskModule.answer`.
        outputs: the names of its outputs.
        probabilities: the columns of probabilities: one for yes, or one for each class or label; empty if there are
            none, and for values.
        separator: the text between the labels of one row.
    """

    task: str
    answer: str
    outputs: tuple[str, ...]
    probabilities: tuple[str, ...]
    separator: str

    @property
    def answers_only(self) -> bool:
        """Whether only classes or labels are given, and no probabilities."""
        return self.answer != "value" and not self.probabilities

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are read."""
        return self.probabilities or (self.task,)

    @property
    def width(self) -> int:
        """The numbers that one row gives: probabilities, the labels that are there, a class, or a value."""
        if self.probabilities:
            return len(self.probabilities)
        return len(self.outputs) if self.answer == "there" else 1

    def values(self, file: Table, first: int, batch: pa.RecordBatch) -> Float64:
        """(B, width) the numbers of a batch, NaN where the file has no prediction; its first row is row `first`.

        Raises:
            UserError: a value is no probability, no number, or no class of the task.
        """
        if self.probabilities or self.answer == "value":
            arrays = [numbers(file, name, first, batch.column(name)) for name in self.names]
            found = np.stack(arrays, axis=1)
            if self.probabilities:
                self._check(file, first, found)
            return found
        if self.answer == "there":
            return self._labels(file, first, batch.column(self.task))
        return self._classes(file, first, batch.column(self.task))[:, None]

    def _check(self, file: Table, first: int, p_BC: Float64) -> None:
        """Refuse what is no probability, and probabilities of classes that do not add up to 1."""
        wrong = np.argwhere((p_BC < 0) | (p_BC > 1 + 1e-6))
        if wrong.size:
            row, o = wrong[0].tolist()
            what = f"{p_BC[row, o]:g} is no probability: it is none of 0 to 1"
            raise UserError(file.where(self.probabilities[o], first + row), what)
        if self.answer != "class":
            return
        total = p_BC.sum(1)
        off = np.flatnonzero(np.abs(total - 1) > 1e-3 + ROUNDED * p_BC.shape[1])
        if off.size:
            row = int(off[0])
            what = (
                f"the probabilities of the classes of {quoted(self.task)} add up to {total[row]:.4g}, not 1"
            )
            raise UserError(file.row(first + row), what)

    def _classes(self, file: Table, first: int, array: pa.Array) -> Float64:
        """(B,) the class of each row; for yes or no 1 and 0."""
        encoded = texts(file, self.task, first, array).dictionary_encode()
        known = [self._position(text) for text in encoded.dictionary.to_pylist()]
        where = encoded.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
        found: Float64 = np.array([*(-1.0 if k is None else k for k in known), np.nan])[where]
        self._refuse_unknown(file, first, np.flatnonzero(found < 0), array)
        return found

    def _position(self, text: str) -> int | None:
        found = Known(self.outputs).find(text)
        if found is None and self.answer == "yes":
            found = Known(BITS).find(text)  # 0 and 1 where the answers are called otherwise
        return found

    def _labels(self, file: Table, first: int, array: pa.Array) -> Float64:
        """(B, O) 1 where a label is there, else 0; NaN in a row without a list."""
        there, rows, labels = lists_of_text(file, self.task, first, array, self.separator, "none")
        known = Known(self.outputs)
        codes = np.array(
            [-1 if (k := known.find(text)) is None else k for text in labels.to_pylist()], np.int64
        )
        unknown = np.flatnonzero(codes < 0)
        if unknown.size:
            place, label = (
                file.where(self.task, first + int(rows[unknown[0]])),
                labels[int(unknown[0])].as_py(),
            )
            raise UserError(place, f"{quoted(label)} is no label of the task{self._listed()}")
        found = np.where(there[:, None], 0.0, np.nan) * np.ones(len(self.outputs))
        found[rows, codes] = 1.0
        return found

    def _refuse_unknown(self, file: Table, first: int, wrong: npt.NDArray[np.int64], array: pa.Array) -> None:
        if wrong.size:
            row = int(wrong[0])
            what = f"{quoted(array[row].as_py())} is no class of the task{self._listed()}"
            raise UserError(file.where(self.task, first + row), what)

    def _listed(self) -> str:
        shown = ", ".join(map(quoted, self.outputs[:SHOWN])) + (", ..." if len(self.outputs) > SHOWN else "")
        return f"; known: {shown}"

    def predicted(self, found_MW: Float64) -> dict[str, Tensor]:
        """What `TaskModule.logits_of` takes for the m rows, all of which have a prediction."""
        values = torch.from_numpy(found_MW)
        if self.probabilities:
            return {"p": values if self.answer == "yes" else values.unsqueeze(1)}
        if self.answer == "there":
            return {"there": values.unsqueeze(1) > 0}
        whole = {"class": values.long(), "yes": values > 0, "value": values}
        return {self.answer: whole[self.answer]}


def columns_of(
    task: str, spec: TaskSpec, answer: str, outputs: Sequence[str], file: Table, separator: str
) -> PredictionColumns | None:
    """The columns of a task's predictions in a file; None if it has none of them.

    Raises:
        UserError: columns of some classes are missing, or there is no column of probabilities and the headline metric
            needs them.
    """
    wanted = {"yes": [f"{task}_p"], "value": []}.get(answer, [f"{task}_p_{name}" for name in outputs])
    lacking = [name for name in wanted if name not in file.column_names]
    if lacking and len(lacking) < len(wanted):
        what = f"has {wanted_text([n for n in wanted if n not in lacking])} but not {wanted_text(lacking)}"
        raise UserError(file.name, f"{what}, which task {quoted(task)} needs too")
    has_answers = task in file.column_names
    if (lacking and not has_answers) or (answer == "value" and not has_answers):
        return None
    found = PredictionColumns(task, answer, tuple(outputs), () if lacking else tuple(wanted), separator)
    if found.answers_only and spec.headline not in spec.answer_metrics:
        what = f"task {quoted(task)} is measured by {spec.headline}, which needs probabilities"
        given = counted(len(wanted), "column")
        todo = f"give {given}: {wanted_text(wanted)}; or put one of {', '.join(_in_order(spec))} first in `metrics`"
        raise UserError(file.name, what, todo)
    return found


def wanted_text(names: Sequence[str]) -> str:
    """Names of columns for a message."""
    return ", ".join(map(quoted, names[:SHOWN])) + (
        f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    )


def _in_order(spec: TaskSpec) -> list[str]:
    return [name for name in spec.known_metrics if name in spec.answer_metrics]
