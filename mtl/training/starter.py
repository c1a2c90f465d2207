"""A first recipe for a table, with the reasons for every guess as comments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mtl.data.guess import Look, guess_kind, guess_role, look
from mtl.data.table import TableFile
from mtl.errors import UserError, did_you_mean, quoted
from mtl.recipe.scalars import plain_text

STEPS = 4000
"""About as many optimizer steps as a first run should take."""
BATCH = 256


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
    file = TableFile(path, delimiter="\t" if path.suffix == ".tsv" else ",")
    looks = look(file)
    for option, names in (("--targets", targets), ("--group", [group]), ("--time", [time])):
        for name in names:
            if name is not None and name not in looks:
                known = ", ".join(list(looks)[:20])
                raise UserError(
                    option,
                    f"{file.name} has no column {quoted(name)}{did_you_mean(name, looks)}; columns: {known}",
                )
    inputs = {name: seen for name, seen in looks.items() if name not in (*targets, group, time)}
    lines = [
        *_head(file, path, folder),
        *_data(path, folder, inputs, looks, file, group, time),
        "",
        *_tasks(targets, looks),
    ]
    lines += ["", *_model(len(targets)), "", *_training(file.n_rows)]
    return "\n".join(lines) + "\n"


def _head(file: TableFile, path: Path, folder: Path) -> Iterator[str]:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", path.stem).strip("_.-") or "table"
    yield "# yaml-language-server: $schema=recipe.schema.json"
    yield "#"
    yield f"# Written by `mtl init` from a look at {file.name} ({file.n_rows:,} rows)."
    yield "# Each guess says why; change what is wrong."
    yield "schema_version: 1"
    yield f"name: {name[:80]}"
    yield "seed: 0"
    yield ""


def _data(
    path: Path, folder: Path, inputs: Mapping[str, Look], looks: Mapping[str, Look], file: TableFile,
    group: str | None, time: str | None,
) -> Iterator[str]:  # fmt: skip
    roles = {name: guess_role(seen) for name, seen in inputs.items()}
    where = path.resolve()
    shown = str(where.relative_to(folder.resolve())) if where.is_relative_to(folder.resolve()) else str(where)
    ids = [name for name, (role, _) in roles.items() if role == "id"]
    yield "data:"
    yield "  source:"
    yield "    kind: table"
    yield f"    path: {_scalar(shown)}"
    if ids:
        yield f"    id: {_scalar(ids[0])}    # {roles[ids[0]][1]}; not an input"
    yield "    inputs:"
    chosen = {
        kind: [n for n, (role, _) in roles.items() if role == kind]
        for kind in ("numeric", "categorical", "vector", "image")
    }
    tabular = chosen["numeric"] or chosen["categorical"] or chosen["vector"]
    if chosen["image"] and not tabular:
        yield f"      image: {{column: {_scalar(chosen['image'][0])}, size: [64, 64], mode: rgb}}    # paths of images"
    elif not tabular:
        raise UserError(file.name, "no column is left that could be an input")
    else:
        for kind in ("numeric", "categorical", "vector"):
            if chosen[kind]:
                yield from _wrapped(f"      {kind}: ", chosen[kind])
        lacking = [n for n in (*chosen["numeric"], *chosen["vector"]) if looks[n].missing]
        if lacking:
            most = max(lacking, key=lambda n: looks[n].missing)
            share = looks[most].missing / max(1, looks[most].n)
            why = f"{len(lacking)} columns have missing numbers, {_comment(most)} most of all ({share:.0%})"
            yield f"      missing: mean     # {why}"
            yield "      indicator: true   # and a 0/1 input beside each of them says where"
    for name, (role, why) in roles.items():
        if role == "none" or (role == "id" and name not in ids[:1]) or (role == "image" and tabular):
            yield f"    # left out: {_comment(name)} ({why})"
    yield from _split(group, time)


def _split(group: str | None, time: str | None) -> Iterator[str]:
    if time is not None:
        yield f"  split: {{validation: 0.1, test: 0.2, by_time: {_scalar(time)}}}    # the latest rows are held out"
    elif group is not None:
        yield f"  split: {{validation: 0.1, test: 0.2, group: {_scalar(group)}}}    # no {_comment(group)} on two sides"
    else:
        yield "  split: {validation: 0.1, test: 0.2}    # if rows belong together (people, sites), add group: COLUMN"


def _tasks(targets: Sequence[str], looks: Mapping[str, Look]) -> Iterator[str]:
    yield "tasks:"
    taken: set[str] = set()
    for target in targets:
        seen = looks[target]
        kind, options, why = guess_kind(seen)
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", target)[:60].strip("-") or "task"
        while name in taken or name == "mean":
            name += "_"
        taken.add(name)
        parts: dict[str, Any] = {"kind": kind, "target": target, **options}
        if seen.missing:
            parts["missing"] = "mask"
            why += f"; {seen.missing / seen.n:.0%} of labels are missing"
        body = ", ".join(f"{key}: {_scalar(value)}" for key, value in parts.items())
        yield f"  {_scalar(name)}: {{{body}}}    # {_comment(why)}"


def _model(n_tasks: int) -> Iterator[str]:
    yield "model:"
    if n_tasks > 16:
        yield "  towers: one        # many tasks: one tower for all; per_task or a mapping of towers is the alternative"
    else:
        yield "  towers: per_task"
    yield "  backbone:"
    yield "    kind: layers"
    yield "    stages:"
    yield "      - {name: fc1, kind: linear, features: 64}"
    yield "      - {name: fc2, kind: linear, features: 64}"
    if 1 < n_tasks <= 16:
        yield "  sharing: {kind: cross_stitch, after: [fc1, fc2], lr_scale: 10}"
    yield "  head: {dropout: 0.1}"


def _training(n_rows: int) -> Iterator[str]:
    epochs = min(100, max(3, round(STEPS * BATCH / (0.7 * n_rows))))
    yield "optimizer: {kind: adamw, lr: 2e-3, weight_decay: 1e-4}"
    yield "schedule: {kind: cosine}"
    yield f"train: {{epochs: {epochs}, batch_size: {BATCH}, early_stopping: {{patience: 15}}}}"


def _scalar(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, str) and plain_text(value):
        return value
    text = yaml.safe_dump(
        value,
        default_flow_style=True,
        width=10**6,
        allow_unicode=True,
        default_style='"' if isinstance(value, str) else None,
    )
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
