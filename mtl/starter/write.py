"""A first recipe for a table, with the reasons for every guess as comments."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from mtl.data.files.csv import DELIMITERS, read_header
from mtl.data.files.table import TEXT_SUFFIXES, TableFile
from mtl.errors import EnvironmentFault, UserError, did_you_mean, dotted, quoted, without_paths
from mtl.recipe.base import MAX_TASKS
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from mtl.recipe.text.scalars import plain_text
from mtl.runs.disk import write_whole
from mtl.signals import undoing
from mtl.starter.guess import LONGEST, Role, guess_kind, guess_role, is_time
from mtl.starter.look import Look, Looks, look

STEPS = 400
"""About as many optimizer steps as a first run should take."""
BATCH = 256
SMALL = 20_000
"""Rows up to which a new recipe is tried: the table is read, split and encoded as a run would."""
MANY_TASKS = 16
"""Tasks up to which each gets a tower of its own."""


def target_names(text: str) -> list[str]:
    """`a,b` as names; one that holds a comma stands in double quotes.

    Raises:
        UserError: there is none, or one is given twice.
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
    """Write a recipe for a table to `output`, and load it; nothing is left behind where that fails.

    Raises:
        UserError: a column is missing or no kind of task is for it, or the table is too small to be split.
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
    """The recipe as a file says it that lies there for as long as it is read."""
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
        table: the file; the recipe names it relative to `folder` where it lies below.
        targets: label columns.
        folder: where the recipe will lie.
        group: a column whose values must each be on one side of the split.
        time: a column of times: the latest rows are held out.

    Raises:
        UserError: a column is missing, or nothing is left to learn from.
    """
    path = Path(table)
    delimiter = _delimiter(path)
    with without_paths():
        file = TableFile(path, delimiter=delimiter or ("\t" if path.suffix == ".tsv" else ","))
        looks = look(file)
    _check(file, looks.columns, targets, group, time)
    roles = {
        name: guess_role(seen) for name, seen in looks.columns.items() if name not in (*targets, group, time)
    }
    chosen: dict[Role, list[str]] = {}
    for name, (role, _) in roles.items():
        chosen.setdefault(role, []).append(name)
    tabular = any(role in chosen for role in ("numeric", "categorical", "vector"))
    if not tabular and "image" not in chosen:
        raise UserError(file.name, "no column is left that could be an input")
    names = _task_names(targets)
    kinds = {target: guess_kind(looks.columns[target]) for target in targets}
    stratify = names[0] if len(names) == 1 and kinds[targets[0]][0] in ("binary", "multiclass") else None
    lines = [
        *_head(file, path),
        "data:",
        *_source(path, folder, looks, delimiter),
        *_id(chosen, roles),
        *(_inputs(chosen, looks.columns) if tabular else _image(chosen["image"][0])),
        *_left_out(roles, tabular),
        *_split(file.n_rows, group, time, stratify),
        "",
        *_tasks(names, targets, kinds, looks.columns),
        "",
        *_model(len(targets), not tabular),
        "",
        *_training(file.n_rows),
    ]
    return "\n".join(lines) + "\n"


def _delimiter(path: Path) -> str | None:
    """What a CSV's header is divided by, if it is not what its suffix says."""
    if path.suffix not in TEXT_SUFFIXES or not path.is_file():
        return None
    usual = "\t" if path.suffix == ".tsv" else ","
    try:
        read_header(path, path.name, usual)
    except UserError:
        with path.open("rb") as file:
            header = file.readline(1 << 20)
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
    """A name of letters and digits for each column, whose predicted columns do not clash."""
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
    """Whether two tasks might predict a column of the same name: `a_p` is also the probability of task a."""
    pairs = ((one, other), (other, one))
    return one == other or any(b == f"{a}_p" or b.startswith(f"{a}_p_") for a, b in pairs)


def _head(file: TableFile, path: Path) -> Iterator[str]:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", path.stem).strip("_.-")[:80] or "table"
    yield "# yaml-language-server: $schema=recipe.schema.json"
    yield "#"
    yield f"# Written by `mtl init` from a look at {_comment(file.name)} ({file.n_rows:,} rows)."
    yield "# Each guess says why; change what is wrong."
    yield "schema_version: 1"
    yield f"name: {_scalar(name)}"
    yield "seed: 0"
    yield ""


def _source(path: Path, folder: Path, looks: Looks, delimiter: str | None) -> Iterator[str]:
    where, root = path.resolve(), folder.resolve()
    shown = str(where.relative_to(root)) if where.is_relative_to(root) else str(where)
    yield "  source:"
    yield "    kind: table"
    yield f"    path: {_scalar(shown)}"
    if delimiter is not None:
        yield f"    delimiter: {_scalar(delimiter)}"
    if looks.na_values:
        yield f"    na_values: {_scalar(['', *looks.na_values])}    # seen in columns that else hold numbers"


def _id(chosen: Mapping[Role, Sequence[str]], roles: Mapping[str, tuple[Role, str]]) -> Iterator[str]:
    for name in chosen.get("id", [])[:1]:
        yield f"    id: {_scalar(name)}    # {roles[name][1]}; not an input"


def _image(column: str) -> Iterator[str]:
    yield "    inputs:"
    yield f"      image: {{column: {_scalar(column)}, size: [64, 64], mode: rgb}}    # paths of images"


def _inputs(chosen: Mapping[Role, Sequence[str]], looks: Mapping[str, Look]) -> Iterator[str]:
    yield "    inputs:"
    roles: tuple[Role, ...] = ("numeric", "categorical", "vector")
    for role in roles:
        if role in chosen:
            yield from _wrapped(f"      {role}: ", chosen[role])
    lacking = [name for name in chosen.get("numeric", []) if looks[name].missing]
    if lacking:
        most = max(lacking, key=lambda name: looks[name].missing)
        share = looks[most].missing / looks[most].n
        columns = "1 column has" if len(lacking) == 1 else f"{len(lacking)} columns have"
        yield f"      missing: mean     # {columns} missing numbers, {_comment(most)} most of all ({share:.0%})"
        yield "      indicator: true   # and a 0/1 input beside each of them says where"


def _left_out(roles: Mapping[str, tuple[Role, str]], tabular: bool) -> Iterator[str]:
    ids = 0
    for name, (role, why) in roles.items():
        ids += role == "id"
        if role == "none" or (role == "id" and ids > 1) or (role == "image" and tabular):
            yield f"    # left out: {_comment(name)} ({why})"


def _split(n_rows: int, group: str | None, time: str | None, stratify: str | None) -> Iterator[str]:
    held_out = f"validation: {0.1 if n_rows >= 500 else 0.2}, test: 0.2"
    if time is not None:
        yield f"  split: {{{held_out}, by_time: {_scalar(time)}}}    # the latest rows are held out"
    elif group is not None:
        yield f"  split: {{{held_out}, group: {_scalar(group)}}}    # no {_comment(group)} on two sides"
    elif stratify is not None:
        yield "  # if rows belong together (people, sites), write group: COLUMN instead of stratify"
        yield f"  split: {{{held_out}, stratify: {_scalar(stratify)}}}    # the same shares of classes"
    else:
        yield f"  split: {{{held_out}}}    # if rows belong together (people, sites), add group: COLUMN"


def _tasks(
    names: Sequence[str],
    targets: Sequence[str],
    kinds: Mapping[str, tuple[str, dict[str, Any], str]],
    looks: Mapping[str, Look],
) -> Iterator[str]:
    yield "tasks:"
    for name, target in zip(names, targets, strict=True):
        kind, options, why = kinds[target]
        parts: dict[str, Any] = {"kind": kind, "target": target, **options}
        seen = looks[target]
        if seen.missing:
            parts["missing"] = "mask"
            why += f"; {seen.missing / seen.n:.0%} of labels are missing"
        body = ", ".join(f"{key}: {_scalar(value)}" for key, value in parts.items())
        yield f"  {_scalar(name)}: {{{body}}}    # {_comment(why)}"


def _model(n_tasks: int, images: bool) -> Iterator[str]:
    stages = [f"{{name: fc{i}, kind: linear, features: 64}}" for i in (1, 2)]
    sites = ["fc1", "fc2"]
    if images:
        convolutions = [
            [f"{{name: conv{i}, kind: conv, channels: {c}, kernel: 3}}", f"{{name: pool{i}, kind: max_pool, size: 2}}"]
            for i, c in ((1, 16), (2, 32), (3, 64))
        ]  # fmt: skip
        stages = [*(stage for pair in convolutions for stage in pair), stages[0]]
        sites = ["pool1", "pool2", "pool3", "fc1"]
    yield "model:"
    if n_tasks > MANY_TASKS:
        yield "  towers: one        # many tasks: one tower for all; per_task or a mapping of towers is the alternative"
    else:
        yield "  towers: per_task"
    yield "  backbone:"
    yield "    kind: layers"
    yield "    stages:"
    for stage in stages:
        yield f"      - {stage}"
    if 1 < n_tasks <= MANY_TASKS:
        yield f"  sharing: {{kind: cross_stitch, after: [{', '.join(sites)}], lr_scale: 10}}"
    yield "  head: {dropout: 0.1}"


def _training(n_rows: int) -> Iterator[str]:
    epochs = min(100, max(3, round(STEPS * BATCH / (0.7 * n_rows))))
    yield "optimizer: {kind: adamw, lr: 2e-3, weight_decay: 1e-4}"
    yield "schedule: {kind: cosine}"
    yield f"train: {{epochs: {epochs}, batch_size: {BATCH}, early_stopping: {{patience: 15}}}}"


def _scalar(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, str) and plain_text(value):
        return value
    style = '"' if isinstance(value, str) else None
    text = yaml.safe_dump(value, width=10**6, allow_unicode=True, default_style=style)
    return text.strip().removesuffix("...").strip()


def _comment(text: str) -> str:
    """Text that stays within its comment."""
    return text if text.isprintable() and len(text) <= 200 else quoted(text)


def _wrapped(prefix: str, names: Sequence[str]) -> Iterator[str]:
    """A list over as many lines as it takes."""
    line, indent = prefix + "[", " " * (len(prefix) + 1)
    for i, name in enumerate(names):
        piece = _scalar(name) + ("]" if i == len(names) - 1 else ", ")
        if len(line) + len(piece) > 110 and line.strip() != "[":
            yield line.rstrip()
            line = indent
        line += piece
    yield line
