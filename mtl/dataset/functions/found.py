"""Finds labels that are exact functions of another label or of an input column, as far as the training rows show.

Shapes: n training rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from mtl.console import counted
from mtl.data.types import Array, Rows
from mtl.dataset.copies import hashes
from mtl.dataset.functions.evidence import REPEATED, SURE, Codes, evidence, n_pairs, refuted, repeated
from mtl.dataset.join import Joined
from mtl.dataset.labels import TaskLabels
from mtl.errors import quoted
from mtl.recipe.specs import TaskSpec

FIRST, SAMPLE = 2048, 20_000
"""Rows on which a label must be a function before it is looked at on more, and before it is looked at on all."""
MOST_VALUES = 1000
"""A column with more values in `SAMPLE` rows is no column of few values."""
PROBED = 512
"""Rows in which most columns that a label does not follow from are found at once."""
SHOWN = 6
"""Most functions that notices name."""


@dataclass(frozen=True)
class LabelFunction:
    """A label that follows from another column in every training row that has both.

    Args:
        task: the task with this label.
        of: the other task, or the input column.
        is_input: whether `of` is an input column.
        mapping: value of `of` -> value of the label, as texts.
        n_rows: the training rows that have both.
    """

    task: str
    of: str
    is_input: bool
    mapping: Mapping[str, str]
    n_rows: int


@dataclass(frozen=True)
class _Column:
    """A column whose values are looked up when they are needed.

    Args:
        name: the task, or the input column.
        values: rows -> their values, NaN where there is none.
        named: a value as text.
        is_input: whether it is an input column.
    """

    name: str
    values: Callable[[Rows], Array]
    named: Callable[[float], str]
    is_input: bool


class _Rows:
    """Some training rows: the codes of two columns on those that have both.

    Args:
        rows: the rows.
        unit: (len(rows),) rows of one unit that agree in both columns count once; None: each counts.
    """

    def __init__(self, rows: Rows, unit: Callable[[Rows], Array] | None = None) -> None:
        self.rows, self._unit = rows, unit

    @cached_property
    def units(self) -> Codes | None:
        """The codes of units."""
        return None if self._unit is None else np.unique(self._unit(self.rows), return_inverse=True)[1]

    def codes(self, of: _Column, label: _Column) -> tuple[Codes, Codes] | None:
        """(n,) codes of both columns from 0; None if either has fewer than two values."""
        values, targets = of.values(self.rows), label.values(self.rows)
        both = ~(np.isnan(values) | np.isnan(targets))
        if not both.any():
            return None
        c, t = (np.unique(part[both], return_inverse=True)[1].astype(np.int64) for part in (values, targets))
        return (c, t) if c.max() > 0 and t.max() > 0 else None

    def are_sure(self, of: _Column, label: _Column) -> bool:
        """Whether the label is a function of the column, and not by chance."""
        found = self.codes(of, label)
        if found is None:
            return False
        sure = evidence(*found)
        if sure is None or sure < SURE:
            return False
        values, targets = of.values(self.rows), label.values(self.rows)
        both = ~(np.isnan(values) | np.isnan(targets))
        assert self.units is not None
        keys = np.stack([self.units[both], *found])
        _, first = np.unique(keys, axis=1, return_index=True)
        once = evidence(*(np.unique(part[first], return_inverse=True)[1].astype(np.int64) for part in found))
        return once is not None and once >= SURE


def label_functions(
    specs: Mapping[str, TaskSpec],
    tasks: Mapping[str, TaskLabels],
    joined: Joined,
    train: Rows,
    groups: Array | None = None,
) -> list[LabelFunction]:
    """The labels that are functions of another task's label or of an input column; at most one function for a task.

    A function must hold in every training row that has both. It must also be sure by its `evidence` on a sample, where
    rows with equal inputs count once if they agree in both columns, and so do those of one group: copies agree
    whatever a column holds. Tasks that say `derived_from`, and tasks of several labels in a row, are left out. Other
    labels come before inputs, and columns of fewer values before others. Of two labels that are functions of
    each other, the later one is found.

    Args:
        specs: task -> its spec.
        tasks: task -> its labels.
        joined: the rows of all sources; inputs are looked at if they are the columns of a table.
        train: the training rows; no other row is looked at.
        groups: (n_rows,) the group of each row, if rows have groups.
    """
    unit = (lambda rows: hashes(joined.inputs, rows)) if groups is None else (lambda rows: groups[rows])
    labels = [_label(task, own) for task, own in tasks.items() if own.targets.ndim == 1]
    sample = _spread(train, SAMPLE)
    others = [(_size(column, sample), i, column) for i, column in enumerate([*labels, *_inputs(joined)])]
    few = [(d, i, column) for d, i, column in others if d is not None]
    few.sort(key=lambda each: (each[2].is_input, each[0], each[1]))
    place = {label.name: i for i, label in enumerate(labels)}
    some = _spread(train, PROBED)
    probed = np.array([column.values(some) for _, _, column in few]).reshape(len(few), len(some))
    found = []
    for label in labels:
        if specs[label.name].derived_from is not None:
            continue
        there = train[tasks[label.name].present[train]]
        tiers = [_Rows(_spread(there, FIRST)), _Rows(_spread(there, SAMPLE), unit), _Rows(there)]
        for (_, _, of), no in zip(few, refuted(probed, label.values(some).astype(np.float64)), strict=True):
            if no or (of.name == label.name and not of.is_input):
                continue
            later = not of.is_input and place[of.name] > place[label.name]
            function = _function(of, label, tiers, later)
            if function is not None:
                found.append(function)
                break
    return found


def _function(of: _Column, label: _Column, tiers: Sequence[_Rows], later: bool) -> LabelFunction | None:
    """The label as a function of a column, or None; with `later`, one that works both ways does not count."""
    first, sample, whole = tiers
    codes = first.codes(of, label)
    if codes is not None and n_pairs(*codes) > int(codes[0].max()) + 1:
        return None
    if not sample.are_sure(of, label):
        return None
    codes = whole.codes(of, label)
    if codes is None or n_pairs(*codes) > int(codes[0].max()) + 1:
        return None
    c, t = codes
    if later and c.max() == t.max():
        return None
    values, targets = of.values(whole.rows), label.values(whole.rows)
    both = np.flatnonzero(~(np.isnan(values) | np.isnan(targets)))
    rows = both[np.unique(c, return_index=True)[1]]
    mapping = {
        of.named(v): label.named(y)
        for v, y in zip(values[rows].tolist(), targets[rows].tolist(), strict=True)
    }
    return LabelFunction(label.name, of.name, of.is_input, mapping, len(both))


def _spread(rows: Rows, most: int) -> Rows:
    """At most `most` of the rows, evenly spread."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def _size(column: _Column, sample: Rows) -> int | None:
    """The number of a column's values in the sample; None if they are one, many, or hardly come again."""
    values = column.values(sample)
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    known, codes = np.unique(values, return_inverse=True)
    if len(known) > MOST_VALUES or repeated(codes) < REPEATED:
        return None
    return len(known) if len(known) > 1 else None


def _label(task: str, labels: TaskLabels) -> _Column:
    """The label of a task."""
    names = labels.outputs if len(labels.outputs) > 1 else ()

    def values(rows: Rows) -> Array:
        return np.where(labels.present[rows], labels.targets[rows].astype(np.float64), np.nan)

    return _Column(task, values, partial(_named, names), False)


def _inputs(joined: Joined) -> Iterator[_Column]:
    """The columns of a table: its numbers one by one, and its categories."""
    layout, inputs = joined.layout, joined.inputs
    if layout is None:
        return
    for i, name in enumerate(layout.numeric):
        yield _Column(name, partial(_numbers, inputs, i), partial(_named, ()), True)
    for i, name in enumerate(layout.categorical):
        values = partial(_categories, inputs, layout.n_numeric + i)
        yield _Column(name, values, partial(_named, layout.values[name]), True)


def _numbers(inputs: Array, i: int, rows: Rows) -> Array:
    numbers: Array = inputs[rows, i].astype(np.float64)
    return numbers


def _categories(inputs: Array, i: int, rows: Rows) -> Array:
    codes = inputs[rows, i].astype(np.float64)
    return np.where(codes > 0, codes - 1, np.nan)


def _named(names: Sequence[str], value: float) -> str:
    return names[int(value)] if names else f"{value:g}"


def function_notices(functions: Sequence[LabelFunction], specs: Mapping[str, TaskSpec]) -> Iterator[str]:
    """Yield a line about each function, up to `SHOWN`."""
    for function in functions[:SHOWN]:
        rows = f"in all {counted(function.n_rows, 'training row')} that have both"
        called = f"task {quoted(function.task)}: its label follows from"
        if function.is_input:
            yield (
                f"{called} input {quoted(function.of)} {rows}; leave that column out if it is not known before the "
                "label is"
            )
        elif specs[function.task].one_class and specs[function.of].one_class:
            yield (
                f"{called} that of task {quoted(function.of)} {rows}; with tasks.{function.task}.derived_from: "
                f"{function.of} the results show what that alone reaches"
            )
        else:
            yield f"{called} that of task {quoted(function.of)} {rows}"
    if len(functions) > SHOWN:
        yield f"{len(functions) - SHOWN} more labels follow from another label or from an input"
