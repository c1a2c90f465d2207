"""Writes a first recipe for a table; comments give the reason for every guess."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from mtl.console import counted
from mtl.data.files.remote.fetch import local
from mtl.data.files.table import TableFile
from mtl.errors import EnvironmentFault, UserError, did_you_mean, dotted, quoted, without_paths
from mtl.recipe.base import MAX_TASKS
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from mtl.runs.disk import write_whole
from mtl.signals import undoing
from mtl.starter.guess.roles import LONGEST, is_time
from mtl.starter.guess.settings import settings_of
from mtl.starter.look.columns import Look, look
from mtl.starter.look.opening import opening_of
from mtl.starter.plan import plan_of
from mtl.starter.text import remarks, sections

SMALL = 20_000
"""Most rows of a table on which a new recipe is tried: they are read, split and encoded as in a run."""
MOST_NOTES = 20
"""Most lines on what was guessed; the recipe tells how each column is read, and why one is left out."""


def target_names(text: str) -> list[str]:
    """The names in `a,b`; a name that holds a comma stands in double quotes.

    Raises:
        UserError: there is no name, or one is given twice.
    """
    (fields,) = csv.reader([text], skipinitialspace=True) if text.strip() else [[]]
    names = [name.strip() for name in fields if name.strip()]
    if not names:
        raise UserError("--targets", "names no column")
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise UserError("--targets", f"column {quoted(twice[0])} is given twice")
    return names


@dataclass(frozen=True)
class Starter:
    """A first recipe: its text, and lines for its author on what was guessed."""

    text: str
    notes: tuple[str, ...]


def write_starter(
    table: str,
    targets: Sequence[str],
    output: Path,
    group: str | None = None,
    time: str | None = None,
    note: Callable[[str], None] | None = None,
) -> Recipe:
    """Write a recipe for a table to `output`, and load it; if that fails, nothing is left behind.

    Args:
        table, targets, group, time: as for `starter_recipe`.
        output: the recipe.
        note: gets each line on what was guessed, once the recipe is written.

    Raises:
        UserError: a column is missing, no kind of task fits it, or the table is too small to be split.
        EnvironmentFault: `output` cannot be written.
    """
    starter = starter_recipe(table, targets, output.absolute().parent, group, time)
    trial = output.with_name(f".{output.stem[:50]}.{os.getpid()}.yaml")
    try:
        recipe = _loaded(starter.text, trial)
        _try(recipe)
        write_whole(output, starter.text.encode())
    except EnvironmentFault as error:
        raise EnvironmentFault(str(output), error.what, error.todo) from error
    except UserError as error:
        first = error.errors[0]
        at = f"{dotted(first.path)}: " if first.path else ""
        raise UserError(
            table, f"no recipe can be written: {at}{first.what}", "choose other columns, or bring more rows"
        ) from error
    for line in starter.notes:
        if note is not None:
            note(line)
    return recipe


@undoing()
def _loaded(text: str, trial: Path) -> Recipe:
    """The recipe in `text`, loaded from the file `trial`, which exists only during the loading."""
    try:
        write_whole(trial, text.encode())
        return load_recipe(str(trial))
    finally:
        with suppress(OSError):
            trial.unlink()


def _try(recipe: Recipe) -> None:
    """Read a small table as a run would."""
    (source,) = recipe.data.by_name.values()
    file = source.table()
    if file is not None and file.n_rows <= SMALL:
        from mtl.dataset.assemble import load_dataset
        from mtl.dataset.header import header_of

        load_dataset(recipe, header_of(recipe))


def starter_recipe(
    table: str, targets: Sequence[str], folder: Path, group: str | None = None, time: str | None = None
) -> Starter:
    """The text of a recipe for a table, and what its author should know.

    Args:
        table: the file, data set or address; the recipe names it relative to `folder` if it lies below.
        targets: label columns, or patterns such as `assay_*`.
        folder: the folder in which the recipe will lie.
        group: a column; rows with the same value of it stay in one split.
        time: a column of times; the latest rows are held out.

    Raises:
        UserError: a column is missing, or no input is left.
    """
    with without_paths():
        opening = opening_of(local(table), table)
        file = opening.table()
        looks = look(file)
    targets = _meant(file, targets, [name for name in looks if name not in (group, time)])
    _check(file, looks, targets, group, time)
    plan = plan_of(opening, file, looks, targets, group, time)
    names = _task_names(targets)
    alone = len(names) == 1 and plan.kinds[targets[0]][0] in ("binary", "multiclass")
    stratify = names[0] if alone and not (plan.split_column or group or time) else None
    n_columns = len(plan.used) - len(targets) if plan.tabular else 0
    settings = settings_of(file.n_rows, n_columns, len(targets))
    lines = [
        *sections.head(file),
        "data:",
        *sections.source(opening, folder, plan, file.form.first_row),
        *sections.ids(plan),
        *sections.inputs(plan),
        *sections.left_out(plan),
        *sections.split(file.n_rows, plan, stratify),
        *sections.screen(settings, n_columns, file.n_rows),
        "",
        *sections.tasks(names, plan, stratify),
        "",
        *sections.model(len(targets), not plan.tabular, settings),
        "",
        *sections.training(settings),
    ]
    notes = [opening.note] if opening.note else []
    notes += remarks.notes(plan, file.form.first_row, settings, n_columns, file.n_rows)
    return Starter("\n".join(lines) + "\n", tuple(remarks.cut(notes, MOST_NOTES)))


def _meant(file: TableFile, targets: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The label columns, with each pattern such as `assay_*` replaced by the columns that match it.

    Raises:
        UserError: no column matches, or there are too many targets.
    """
    found: dict[str, None] = {}
    for name in targets:
        if name in columns or not set("*?[") & set(name):
            found[name] = None
            continue
        matching = [column for column in columns if fnmatchcase(column, name)]
        if not matching:
            raise UserError(
                "--targets", f"{file.name} has no column like {quoted(name)}; columns: {_known(columns)}"
            )
        found.update(dict.fromkeys(matching))
    if len(found) > MAX_TASKS:
        raise UserError("--targets", f"{len(found)} columns, at most {MAX_TASKS} tasks")
    return list(found)


def _known(columns: Sequence[str]) -> str:
    return ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")


def _check(
    file: TableFile, looks: Mapping[str, Look], targets: Sequence[str], group: str | None, time: str | None
) -> None:
    if group is not None and time is not None:
        raise UserError("--time", "give either --group or --time")
    for option, names in (("--targets", targets), ("--group", [group]), ("--time", [time])):
        for name in names:
            if name is not None and name not in looks:
                known = _known(list(looks))
                near = did_you_mean(name, looks)
                raise UserError(option, f"{file.name} has no column {quoted(name)}{near}; columns: {known}")
    for name in targets:
        if len(name) > LONGEST:
            raise UserError(
                "--targets", f"column {quoted(name)} has a name of more than {LONGEST} characters"
            )
    for option, name in (("--group", group), ("--time", time)):
        if name is None:
            continue
        if name in targets:
            raise UserError(option, f"column {quoted(name)} is a target too")
        if looks[name].missing:
            raise UserError(option, f"column {quoted(name)} lacks {counted(looks[name].missing, 'value')}")
    if time is not None and not is_time(looks[time]):
        raise UserError("--time", f"column {quoted(time)} holds neither numbers nor dates such as 2024-03-01")


def _task_names(targets: Sequence[str]) -> list[str]:
    """A name of letters and digits for each column; the columns that the tasks predict have different names."""
    names: list[str] = []
    for target in targets:
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", target)[:50].lstrip("-")
        name = name if re.search("[A-Za-z0-9]", name) else "task"
        stem, number = name, 2
        while name == "mean" or any(_clash(name, other) for other in names):
            name = f"{stem}_{number}" if name in names or name == "mean" else f"task_{name}"
            number += 1
        names.append(name)
    return names


def _clash(one: str, other: str) -> bool:
    """Whether two tasks might predict columns of the same name: `a_p` is also the probability of task a."""
    pairs = ((one, other), (other, one))
    return one == other or any(b == f"{a}_p" or b.startswith(f"{a}_p_") for a, b in pairs)
