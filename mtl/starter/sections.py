"""The lines of each section of a first recipe; a comment gives the reason for every guess."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mtl.console import counted, percent
from mtl.data.files.table import TableFile
from mtl.errors import quoted
from mtl.recipe.text.scalars import plain_text
from mtl.starter.guess import Role
from mtl.starter.look import Look, Looks

STEPS = 400
"""Approximate number of optimizer steps of a first run."""
BATCH = 256
MANY_TASKS = 16
"""Most tasks that get a tower each; more tasks share one tower."""


def head(file: TableFile, path: Path) -> Iterator[str]:
    """The lines above `data`: the header comment, the schema version, the name and the seed."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", path.stem).strip("_.-")[:80] or "table"
    yield "# yaml-language-server: $schema=recipe.schema.json"
    yield "#"
    yield f"# Written by `mtl init` from a look at {_comment(file.name)} ({counted(file.n_rows, 'row')})."
    yield "# Each guess says why; change what is wrong."
    yield "schema_version: 1"
    yield f"name: {_scalar(name)}"
    yield "seed: 0"
    yield ""


def source(path: Path, folder: Path, looks: Looks, delimiter: str | None) -> Iterator[str]:
    """The lines of `data.source`, except its inputs."""
    where, root = path.resolve(), folder.resolve()
    shown = str(where.relative_to(root)) if where.is_relative_to(root) else str(where)
    yield "  source:"
    yield "    kind: table"
    yield f"    path: {_scalar(shown)}"
    if delimiter is not None:
        yield f"    delimiter: {_scalar(delimiter)}"
    if looks.na_values:
        yield f"    na_values: {_scalar(['', *looks.na_values])}    # seen in columns that else hold numbers"


def ids(chosen: Mapping[Role, Sequence[str]], roles: Mapping[str, tuple[Role, str]]) -> Iterator[str]:
    """The line that names the column of row ids; no line if there is none."""
    for name in chosen.get("id", [])[:1]:
        yield f"    id: {_scalar(name)}    # {roles[name][1]}; not an input"


def image(column: str) -> Iterator[str]:
    """The lines of inputs that are images."""
    yield "    inputs:"
    yield f"      image: {{column: {_scalar(column)}, size: [64, 64], mode: rgb}}    # paths of images"


def inputs(chosen: Mapping[Role, Sequence[str]], looks: Mapping[str, Look]) -> Iterator[str]:
    """The lines of inputs that are columns of the table, with the rule for missing numbers."""
    yield "    inputs:"
    roles: tuple[Role, ...] = ("numeric", "categorical", "vector")
    for role in roles:
        if role in chosen:
            yield from _wrapped(f"      {role}: ", chosen[role])
    lacking = [name for name in chosen.get("numeric", []) if looks[name].missing]
    if lacking:
        most = max(lacking, key=lambda name: looks[name].missing)
        share = percent(looks[most].missing, looks[most].n)
        columns = counted(len(lacking), "column has", "columns have")
        yield f"      missing: mean     # {columns} missing numbers, {_comment(most)} most of all ({share})"
        yield "      indicator: true   # and a 0/1 input beside each of them says where"


def left_out(roles: Mapping[str, tuple[Role, str]], tabular: bool) -> Iterator[str]:
    """A comment for each column that is no input, with the reason."""
    ids = 0
    for name, (role, why) in roles.items():
        ids += role == "id"
        if role == "none" or (role == "id" and ids > 1) or (role == "image" and tabular):
            yield f"    # left out: {_comment(name)} ({why})"


def split(n_rows: int, group: str | None, time: str | None, stratify: str | None) -> Iterator[str]:
    """The lines of `data.split`; rows are held out by time, else by group, else by the classes of a task."""
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


def tasks(
    names: Sequence[str],
    targets: Sequence[str],
    kinds: Mapping[str, tuple[str, dict[str, Any], str]],
    looks: Mapping[str, Look],
) -> Iterator[str]:
    """The lines of `tasks`, with the reason for the kind of each."""
    yield "tasks:"
    for name, target in zip(names, targets, strict=True):
        kind, options, why = kinds[target]
        parts: dict[str, Any] = {"kind": kind, "target": target, **options}
        seen = looks[target]
        if seen.missing:
            parts["missing"] = "mask"
            why += f"; {percent(seen.missing, seen.n)} of labels are missing"
        body = ", ".join(f"{key}: {_scalar(value)}" for key, value in parts.items())
        yield f"  {_scalar(name)}: {{{body}}}    # {_comment(why)}"


def model(n_tasks: int, images: bool) -> Iterator[str]:
    """The lines of `model`: small dense towers, or convolutional ones for images, stitched if they are few."""
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


def training(n_rows: int) -> Iterator[str]:
    """The lines of the optimizer, the schedule and `train`; fewer rows get more epochs."""
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
    """Text that cannot end its comment."""
    return text if text.isprintable() and len(text) <= 200 else quoted(text)


def _wrapped(prefix: str, names: Sequence[str]) -> Iterator[str]:
    """A list, wrapped over several lines."""
    line, indent = prefix + "[", " " * (len(prefix) + 1)
    for i, name in enumerate(names):
        piece = _scalar(name) + ("]" if i == len(names) - 1 else ", ")
        if len(line) + len(piece) > 110 and line.strip() != "[":
            yield line.rstrip()
            line = indent
        line += piece
    yield line
