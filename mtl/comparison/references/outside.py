"""Predictions from elsewhere: a file of rows with ids becomes logits, as if a network had given them.

Shapes: m rows of the validation and the test split, O outputs per task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtl.comparison.references.prediction_columns import Float64, PredictionColumns, columns_of
from mtl.comparison.references.replay import module_of_task
from mtl.comparison.references.row_ids import AskedRows, id_column
from mtl.comparison.references.scored import Predicted
from mtl.console import counted
from mtl.data.files.table import TableFile
from mtl.dataset.assemble import Dataset
from mtl.errors import UserError, quoted, without_paths
from mtl.model.tasks.module import TaskModule
from mtl.recipe.keys.recipe import Recipe
from mtl.task_groups import TaskGroup


def outside_predictions(
    path: str | Path, recipe: Recipe, dataset: Dataset, groups: Sequence[TaskGroup]
) -> Predicted:
    """The logits of predictions that another program wrote, found by the ids of rows.

    The file is a CSV, Parquet or .npz file in the form of `mtl predict --keep <id>`: the column of ids, and for each
    task `<task>_p` (the probability of yes), or `<task>_p_<class>` for every class or label, or `<task>` alone (the
    class, the labels or the value). A task without any of these columns is left out. Probabilities count where they
    are given, and answers follow from them by the task's threshold. The rows may have any order. Every test row that
    has a label of a task needs its prediction. The validation rows are taken if all of them are there.

    Args:
        path: the file.
        recipe: the checked recipe.
        dataset: its rows.
        groups: the task groups of `task_groups(recipe, dataset.learned)`.

    Raises:
        UserError: the rows have no ids; the file lacks a column, a row or a value, repeats a row, or holds something
            that is no prediction; or the headline metric of a task needs probabilities that the file does not have.
    """
    id_column(recipe)
    with without_paths():
        file = TableFile(Path(path))
        file.check()
    found = _columns(recipe, groups, file)
    splits = [split for split in ("test", "validation") if split in dataset.splits]
    asked = AskedRows(recipe, np.concatenate([dataset.splits[split] for split in splits]))
    values = _read(file, asked, found)
    told = [*_left_out(recipe, found, file), *_ignored(file, asked)]
    logits: dict[str, dict[str, Tensor]] = {}
    start = 0
    for split in splits:
        own = slice(start, start + len(dataset.splits[split]))
        start = own.stop
        lacking = _lacking(dataset, groups, split, values, own, asked, found)
        if lacking and split == "test":
            raise UserError(file.name, *lacking)
        if lacking:
            told.append(f"{file.name}: validation rows are not used: {lacking[0]}")
            continue
        logits[split] = {
            task: _logits(module, columns, values[task][own]) for task, (module, columns) in found.items()
        }
    only = frozenset(task for task, (_, columns) in found.items() if columns.answers_only)
    told += [_without_probabilities(recipe, task) for task in recipe.tasks if task in only]
    facts = {"file": file.name, "sha256": file.sha256(), "tasks": list(found)}
    return Predicted(logits, only, facts, told=tuple(told))


def _columns(
    recipe: Recipe, groups: Sequence[TaskGroup], file: TableFile
) -> dict[str, tuple[TaskModule, PredictionColumns]]:
    """Task -> its module and its columns, for the tasks that the file predicts, in the order of the recipe."""
    place = {task: (group, t) for group in groups for t, task in enumerate(group.tasks)}
    found = {}
    for task, spec in recipe.tasks.items():
        group, t = place[task]
        module = module_of_task(group, t)
        assert module.answer is not None
        source = recipe.data.by_name.get(spec.source or "") or next(iter(recipe.data.by_name.values()))
        separator = source.label_separator(spec.target)
        columns = columns_of(task, spec, module.answer, group.outputs[t], file, separator)
        if columns is not None:
            found[task] = module, columns
    if not found:
        known = ", ".join(map(quoted, list(recipe.tasks)[:6]))
        what = f"has no column of predictions of any task: {known}"
        raise UserError(
            file.name, what, "a column has the name of its task, or <task>_p, or <task>_p_<class>"
        )
    return found


def _read(
    file: TableFile, asked: AskedRows, found: Mapping[str, tuple[TaskModule, PredictionColumns]]
) -> dict[str, Float64]:
    """Task -> (m, width) its numbers for the rows that are asked for; NaN where the file has none."""
    columns = {task: own for task, (_, own) in found.items()}
    if asked.column not in file.column_names:
        raise UserError(
            file.name, file.lacks(asked.column),
            f"the ids of rows stand in {quoted(asked.column)}; mtl predict writes them by --keep",
        )  # fmt: skip
    values = {task: np.full((len(asked.codes), own.width), np.nan) for task, own in columns.items()}
    lists = [own.task for own in columns.values() if own.answer == "there" and own.answers_only]
    names = dict.fromkeys([asked.column, *(name for own in columns.values() for name in own.names)])
    for first, batch in file.batches(list(names), empty=lists):
        position = asked.add(file, first, batch)
        mine = position >= 0
        for task, own in columns.items():
            values[task][position[mine]] = own.values(file, first, batch)[mine]
    if (asked.times > 1).any():
        n = int((asked.times > 1).sum())
        what = f"{counted(n, 'id')} of column {quoted(asked.column)} {'stands' if n == 1 else 'stand'} in several rows"
        raise UserError(file.name, f"{what}: {asked.of(asked.times > 1)}", "keep one prediction for each row")
    return values


def _lacking(
    dataset: Dataset,
    groups: Sequence[TaskGroup],
    split: str,
    values: Mapping[str, Float64],
    own: slice,
    asked: AskedRows,
    found: Mapping[str, tuple[TaskModule, PredictionColumns]],
) -> tuple[str, str] | None:
    """What the labelled rows of a split lack, and the advice; None if each has its prediction."""
    there: npt.NDArray[np.bool_] = asked.times[own] > 0
    labelled = np.zeros(len(there), dtype=bool)
    for group in groups:
        present = dataset.rows.present[group.name].cpu().numpy()
        for t, task in enumerate(group.tasks):
            if task not in found:
                continue
            own_labelled = present[dataset.splits[split], t]
            labelled |= own_labelled
            holes = own_labelled & there & np.isnan(values[task][own]).any(1)
            if holes.any():
                n, shown = counted(int(holes.sum()), f"{split} row"), asked.shown(asked.codes[own][holes])
                column = quoted(found[task][1].names[0])
                return (
                    f"no prediction of task {quoted(task)} in column {column} for {n}: {shown}",
                    "fill them",
                )
    absent = labelled & ~there
    if absent.any():
        n = counted(int(absent.sum()), f"labelled {split} row")
        what = f"no row for {n} of {int(labelled.sum()):,}, by column {quoted(asked.column)}: "
        return what + asked.shown(asked.codes[own][absent]), "predict every row of the split"
    return None


def _logits(module: TaskModule, columns: PredictionColumns, found: Float64) -> Tensor:
    """(rows, O) the logits; those of rows without a prediction, which have no label, are 0."""
    has = ~np.isnan(found).any(1)
    logits = torch.zeros(len(found), module.head.n_outputs)
    if has.any():
        logits[torch.from_numpy(has)] = module.logits_of(columns.predicted(found[has]))[:, 0]
    return logits


def _left_out(
    recipe: Recipe, found: Mapping[str, tuple[TaskModule, PredictionColumns]], file: TableFile
) -> list[str]:
    absent = [task for task in recipe.tasks if task not in found]
    shown = ", ".join(map(quoted, absent[:6])) + (", ..." if len(absent) > 6 else "")
    return (
        [f"{file.name}: no predictions of {'task' if len(absent) == 1 else 'tasks'} {shown}"]
        if absent
        else []
    )


def _ignored(file: TableFile, asked: AskedRows) -> list[str]:
    """A line about rows of the file that are not asked for."""
    if not asked.n_ignored:
        return []
    line = f"{file.name}: {counted(asked.n_ignored, 'row')} of no validation and no test row are ignored"
    n = asked.unknown.n_unseen
    if n:
        line += (
            f"; {n:,} of them have an id that the data do not have, such as {quoted(asked.unknown.example)}"
        )
    return [line]


def _without_probabilities(recipe: Recipe, task: str) -> str:
    spec = recipe.tasks[task]
    lost = [name for name in ("loss", *spec.metric_names) if name not in spec.answer_metrics]
    return f"task {quoted(task)}: predictions without probabilities have no {', '.join(lost)}"
