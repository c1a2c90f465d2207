"""Writes a first recipe for a table; comments give the reason for every guess."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from mtl.data.files.csv_structure import DELIMITERS, read_header
from mtl.data.files.opening import opened
from mtl.data.files.table import TEXT_SUFFIXES, TableFile
from mtl.errors import EnvironmentFault, UserError, did_you_mean, dotted, quoted, without_paths
from mtl.recipe.base import MAX_TASKS
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from mtl.runs.disk import write_whole
from mtl.signals import undoing
from mtl.starter import sections
from mtl.starter.guess import LONGEST, Role, guess_kind, guess_role, is_time
from mtl.starter.look import Look, look
from mtl.starter.settings import settings_of

TABULAR: tuple[Role, ...] = ("numeric", "categorical", "vector")
"""Roles of columns that are inputs of a table."""
SMALL = 20_000
"""Most rows of a table on which a new recipe is tried: they are read, split and encoded as in a run."""


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
    if len(names) > MAX_TASKS:
        raise UserError("--targets", f"{len(names)} columns, at most {MAX_TASKS} tasks")
    return names


def write_starter(
    table: str, targets: Sequence[str], output: Path, group: str | None = None, time: str | None = None
) -> Recipe:
    """Write a recipe for a table to `output`, and load it; if that fails, nothing is left behind.

    Raises:
        UserError: a column is missing, no kind of task fits it, or the table is too small to be split.
        EnvironmentFault: `output` cannot be written.
    """
    text = starter_recipe(table, targets, output.absolute().parent, group, time)
    trial = output.with_name(f".{output.stem[:50]}.{os.getpid()}.yaml")
    try:
        recipe = _loaded(text, trial)
        _try(recipe)
        write_whole(output, text.encode())
        return recipe
    except EnvironmentFault as error:
        raise EnvironmentFault(str(output), error.what, error.todo) from error
    except UserError as error:
        first = error.errors[0]
        at = f"{dotted(first.path)}: " if first.path else ""
        raise UserError(
            table, f"no recipe can be written: {at}{first.what}", "choose other columns, or bring more rows"
        ) from error


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
) -> str:
    """The text of a recipe for a table.

    Args:
        table: the file; the recipe names it relative to `folder` if it lies below.
        targets: label columns.
        folder: the folder in which the recipe will lie.
        group: a column; rows with the same value of it stay in one split.
        time: a column of times; the latest rows are held out.

    Raises:
        UserError: a column is missing, or no input is left.
    """
    path = Path(table)
    with without_paths():
        delimiter = _delimiter(path)
        file = TableFile(path, delimiter=delimiter or ("\t" if path.suffix == ".tsv" else ","))
        looks = look(file)
    _check(file, looks.columns, targets, group, time)
    roles = {
        name: guess_role(seen) for name, seen in looks.columns.items() if name not in (*targets, group, time)
    }
    chosen: dict[Role, list[str]] = {}
    for name, (role, _) in roles.items():
        chosen.setdefault(role, []).append(name)
    tabular = any(role in chosen for role in TABULAR)
    if not tabular and "image" not in chosen:
        raise UserError(file.name, "no column is left that could be an input")
    names = _task_names(targets)
    kinds = {target: guess_kind(looks.columns[target]) for target in targets}
    stratify = names[0] if len(names) == 1 and kinds[targets[0]][0] in ("binary", "multiclass") else None
    n_columns = sum(len(chosen.get(role, ())) for role in TABULAR)
    settings = settings_of(file.n_rows, n_columns, len(targets))
    lines = [
        *sections.head(file, path),
        "data:",
        *sections.source(path, folder, looks, delimiter),
        *sections.ids(chosen, roles),
        *(sections.inputs(chosen, looks.columns) if tabular else sections.image(chosen["image"][0])),
        *sections.left_out(roles, tabular),
        *sections.split(file.n_rows, group, time, stratify),
        *sections.screen(settings, n_columns, file.n_rows),
        "",
        *sections.tasks(names, targets, kinds, looks.columns),
        "",
        *sections.model(len(targets), not tabular, settings),
        "",
        *sections.training(settings),
    ]
    return "\n".join(lines) + "\n"


def _delimiter(path: Path) -> str | None:
    """The delimiter of a CSV's header, if it differs from the one that the suffix means; else None."""
    if path.suffix not in TEXT_SUFFIXES or not path.is_file():
        return None
    usual = "\t" if path.suffix == ".tsv" else ","
    file = opened(path)
    try:
        read_header(file, path.name, usual)
    except UserError:
        header = file.stream().readline(1 << 20)
        found = [d for d in DELIMITERS if d != usual and d.encode() in header]
        return found[0] if found and usual.encode() not in header else None
    return None


def _check(
    file: TableFile, looks: Mapping[str, Look], targets: Sequence[str], group: str | None, time: str | None
) -> None:
    if group is not None and time is not None:
        raise UserError("--time", "give either --group or --time")
    for option, names in (("--targets", targets), ("--group", [group]), ("--time", [time])):
        for name in names:
            if name is not None and name not in looks:
                known = ", ".join(list(looks)[:20]) + (", ..." if len(looks) > 20 else "")
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
            raise UserError(option, f"column {quoted(name)} lacks {looks[name].missing} values")
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
