"""Puts the rows of a recipe into tensors on the device, where row numbers address them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor

from mtl.console import counted
from mtl.contracts import check_columns
from mtl.data import room
from mtl.data.learned import Learned
from mtl.data.memory import BYTES_PER_ROW, require_memory
from mtl.data.types import Array, Empty, Header, How, Mask, Rows, Wanted
from mtl.dataset.batch import Dataset as Dataset
from mtl.dataset.batch import ResidentRows
from mtl.dataset.controls.changes import blocks_of, changed
from mtl.dataset.functions.derivation import derivations
from mtl.dataset.functions.found import function_notices, label_functions
from mtl.dataset.join import Joined, join
from mtl.dataset.labels import TaskLabels, labelled, read_tasks, sample_weights
from mtl.dataset.notices import notices_of, repeated_rows
from mtl.dataset.screen import screen
from mtl.dataset.split import groups_of_rows, split_rows
from mtl.dataset.standardize import learn_inputs
from mtl.dataset.stored.store import stored
from mtl.dataset.undefined import Undefined, notices_on, undefined_metrics
from mtl.errors import UserError, gathered, raise_all
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.specs import TaskSpec
from mtl.task_groups import TaskGroup, known_outputs, task_groups


def wanted_of(recipe: Recipe, source: str | None = None) -> Wanted:
    """The columns that a recipe asks of one source, or of all sources, and how each is read."""
    labels: dict[str, How] = {}
    extra: dict[str, How] = {}
    empty: dict[str, Empty] = {}
    for spec in recipe.tasks.values():
        if source is None or spec.source in (None, source):
            labels.update(dict.fromkeys(spec.target_columns(), cast(How, _how(spec))))
            if spec.empty_means is not None:
                empty.update(dict.fromkeys(spec.target_columns(), spec.empty_means))
            if spec.sample_weight is not None:
                extra[spec.sample_weight] = "numbers"
    split = recipe.data.split
    for column, how in ((split.column, "codes"), (split.group, "codes"), (split.by_time, "times")):
        if column is not None:
            extra[column] = cast(How, how)
    return Wanted(labels, extra, empty)


def _how(spec: TaskSpec) -> str:
    return "classes" if spec.reads == "lists" and len(spec.target_columns()) > 1 else spec.reads


def read_sources(recipe: Recipe) -> Joined:
    """The wanted columns of all sources."""
    columns = {}
    for name, source in recipe.data.by_name.items():
        with _at_source(recipe, name):
            own = wanted_of(recipe, name if recipe.data.sources is not None else None)
            ids = source.row_ids()
            if ids is not None:
                own = replace(own, extra={**own.extra, ids: "codes"})
            if recipe.data.sources is not None:
                own = _held(own, source.header())
            found = source.read(recipe.seeds.labels, own)
            columns[name] = check_columns(source, found, tuple(own.labels))
    return join(columns)


@contextmanager
def _at_source(recipe: Recipe, name: str) -> Iterator[None]:
    """Place the errors of a source at the source, but those of weights of rows at the task that names their column."""
    faults: list[UserError] = []
    try:
        yield
    except UserError as error:
        for each in error.errors:
            asked = [t for t, s in recipe.tasks.items() if each.path == ("sample_weight", s.sample_weight)]
            prefix = ("tasks", asked[0]) if asked else ("data", *recipe.data.path_of(name))
            path = each.path[:1] if asked else each.path
            with gathered(faults), recipe.at(*prefix):
                raise type(each)(each.place, each.what, each.todo, path=path) from None
    raise_all(faults)


def _held(wanted: Wanted, header: Header) -> Wanted:
    """The part of `wanted` that one source has."""
    known = set(header.columns or header.labels)
    return Wanted(
        {c: how for c, how in wanted.labels.items() if c in known},
        {c: how for c, how in wanted.extra.items() if c in known},
        {c: means for c, means in wanted.empty.items() if c in known},
    )


def load_dataset(recipe: Recipe, header: Header) -> Dataset:
    """The data of a recipe, in memory or from the store of encoded rows.

    Raises:
        UserError: labels are missing or not allowed, or a split is empty; the faults of all tasks come together.
        EnvironmentFault: memory or the disk does not suffice.
    """
    read = partial(_read_dataset, recipe, header)
    found = read() if recipe.data.in_memory else stored(recipe, read)
    return replace(found, notices=(*found.notices, *notices_of(recipe, found.splits)))


def _read_dataset(recipe: Recipe, header: Header) -> Dataset:
    """Read, split, encode and measure the data of a recipe.

    Raises:
        UserError: labels are missing or not allowed, or a split is empty; the faults of all tasks come together.
    """
    joined = read_sources(recipe)
    notices = [notice for columns in joined.sources.values() for notice in columns.notices]
    header = _read_header(joined, header)
    outputs = known_outputs(recipe, header)
    n_rows = len(joined.inputs)
    require_memory(
        BYTES_PER_ROW * n_rows, "", f"the order and the splits of {counted(n_rows, 'row')}", "use fewer rows"
    )
    with recipe.at("data", "split"):
        splits, said = split_rows(recipe, joined, header)
    tasks = read_tasks(recipe, outputs, joined, header, splits)
    derived, of_tasks = derivations(recipe, tasks, splits["train"])
    functions = label_functions(recipe.tasks, tasks, joined, splits["train"], blocks_of(recipe, joined))
    tasks, splits, of_changes = changed(recipe, joined, tasks, splits)
    notices += [*said, *repeated_rows(recipe, joined.inputs, splits)]
    notices += [line for labels in tasks.values() for line in labels.notices]
    notices += [*function_notices(functions, recipe.tasks), *of_tasks, *of_changes]
    learned = Learned(
        outputs={task: found.outputs for task, found in tasks.items()},
        constants={task: found.constants for task, found in tasks.items()},
    )
    if recipe.data.screen is not None:
        with recipe.at("data", "screen"):
            joined, header, said = screen(
                recipe.data.screen, joined, header, splits["train"], recipe.tasks, tasks
            )
        notices += said
    with recipe.at("data", "standardize"):
        learned = learn_inputs(recipe, joined, splits, learned)
    found = _dataset(recipe, joined, header, splits, learned, tasks, notices)
    return replace(found, derived=derived, functions=tuple(functions), groups=groups_of_rows(recipe, joined))


def assembled(
    recipe: Recipe, joined: Joined, header: Header, splits: Mapping[str, Rows], learned: Learned
) -> Dataset:
    """The rows of other data, encoded with what a run has learned from its own."""
    header = _read_header(joined, header)
    tasks = {}
    for task, spec in recipe.tasks.items():
        with recipe.at("tasks", task):
            labels = joined.labels(spec.target_columns(), spec.source, header)
            there = labels.any_present()
            outputs = learned.outputs[task]
            weight = None
            if spec.sample_weight is not None:
                weight = sample_weights(spec.sample_weight, joined, labelled(splits, there))
            tasks[task] = TaskLabels(
                outputs, spec.encode(labels, outputs), there, weight, learned.constants[task], []
            )
    return _dataset(recipe, joined, header, dict(splits), learned, tasks, [])


def _dataset(
    recipe: Recipe,
    joined: Joined,
    header: Header,
    splits: dict[str, Rows],
    learned: Learned,
    tasks: Mapping[str, TaskLabels],
    notices: Sequence[str],
) -> Dataset:
    target, present, weight = _stacked(task_groups(recipe, learned), tasks)
    rows = ResidentRows(torch.from_numpy(joined.inputs), target, present, weight)
    ceiling = {
        task: columns.ceiling[spec.target]
        for columns in joined.sources.values()
        for task, spec in recipe.tasks.items()
        if spec.target in columns.ceiling
    }
    undefined: dict[str, Undefined] = {
        split: {task: undefined_metrics(spec, tasks[task], own) for task, spec in recipe.tasks.items()}
        for split, own in splits.items()
    }
    return Dataset(
        rows=rows,
        splits=splits,
        streams=joined.streams(),
        header=header,
        learned=learned,
        fingerprint=joined.fingerprint,
        ceiling=ceiling,
        notices=(*notices, *notices_on(recipe.tasks, undefined)),
        undefined=undefined,
    )


def _read_header(joined: Joined, header: Header) -> Header:
    """The header as it is known after the rows were read."""
    seen = {
        name: header.of(name)
        if columns.header is None
        else _with_labels(header.of(name), columns.header, columns.labels)
        for name, columns in joined.sources.items()
    }
    if len(seen) == 1:
        ((_, only),) = seen.items()
        labels, text = dict(only.labels), set(only.text)
    else:
        labels, text = dict(header.labels), set(header.text)
        for column in dict.fromkeys(c for columns in joined.sources.values() for c in columns.labels):
            labels[column], is_text = joined.called(column, None, header)
            text = text | {column} if is_text else text - {column}
    return replace(
        header,
        input_shape=joined.inputs.shape[1:],
        labels=labels,
        text=frozenset(text),
        layout=joined.layout if joined.layout is not None else header.layout,
        by_source=seen if len(seen) > 1 else {},
    )


def _with_labels(header: Header, read: Header, columns: Iterable[str]) -> Header:
    """A source's header with the classes that were found in its label columns."""
    names = {column: read.labels.get(column) for column in columns}
    return replace(header, labels={**header.labels, **names}, text=header.text | (read.text & set(names)))


BLOCK = 1 << 16
"""Rows of several tasks that are put beside each other at once."""


def _beside(columns: Sequence[Array]) -> Tensor:
    """(n, T) or (n, T, O) the columns of T tasks as one array."""
    first = columns[0]
    found = room.zeros((len(first), len(columns), *first.shape[1:]), np.result_type(*columns))
    for start in range(0, len(first), BLOCK):
        np.stack([column[start : start + BLOCK] for column in columns], 1, found[start : start + BLOCK])
    return torch.from_numpy(found)


def _present(columns: Sequence[Mask]) -> Tensor:
    """(n, T) whether each label is there; if all are, one row in memory stands for all n."""
    if all(there.all() for there in columns):
        return torch.ones(1, len(columns), dtype=torch.bool).expand(len(columns[0]), -1)
    return _beside(columns)


def _stacked(
    groups: Sequence[TaskGroup], tasks: Mapping[str, TaskLabels]
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Target, presence and weight of each group."""
    target, present, weight = {}, {}, {}
    for group in groups:
        own = [tasks[task] for task in group.tasks]
        target[group.name] = _beside([labels.targets for labels in own])
        present[group.name] = _present([labels.present for labels in own])
        if any(labels.weight is not None for labels in own):
            ones = np.ones(len(own[0].targets), np.float32)
            weight[group.name] = _beside([ones if each.weight is None else each.weight for each in own])
    return target, present, weight
