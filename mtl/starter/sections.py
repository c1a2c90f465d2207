"""The lines of each section of a first recipe; a comment gives the reason for every guess."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mtl.data.files.table import TableFile
from mtl.errors import quoted
from mtl.recipe.text.scalars import plain_text
from mtl.starter.guess import Role
from mtl.starter.look import Look, Looks
from mtl.starter.settings import Settings


def head(file: TableFile, path: Path) -> Iterator[str]:
    """The lines above `data`: the header comment, the schema version, the name and the seed."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", path.stem).strip("_.-")[:80] or "table"
    yield "# yaml-language-server: $schema=recipe.schema.json"
    yield "#"
    yield f"# Written by `mtl init` from a look at {_comment(file.name)} ({file.n_rows:,} rows)."
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
        share = looks[most].missing / looks[most].n
        columns = "1 column has" if len(lacking) == 1 else f"{len(lacking)} columns have"
        yield f"      missing: mean     # {columns} missing numbers, {_comment(most)} most of all ({share:.0%})"
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
            why += f"; {seen.missing / seen.n:.0%} of labels are missing"
        body = ", ".join(f"{key}: {_scalar(value)}" for key, value in parts.items())
        yield f"  {_scalar(name)}: {{{body}}}    # {_comment(why)}"


def screen(settings: Settings, n_columns: int, n_rows: int) -> Iterator[str]:
    """The line of `data.screen`; no line if no column is left out."""
    if settings.screen is not None:
        why = f"{n_columns} inputs for {n_rows:,} rows: those that tell nothing are left out"
        yield f"  screen: {settings.screen}    # {why}"


def model(n_tasks: int, images: bool, settings: Settings) -> Iterator[str]:
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
    if settings.one_tower is not None:
        why = f"for {settings.one_tower}; per_task or a mapping of towers is the alternative"
        yield f"  towers: one        # {why}"
    else:
        yield "  towers: per_task"
    yield "  backbone:"
    yield "    kind: layers"
    for line in settings.backbone:
        yield f"    {line}"
    yield "    stages:"
    for stage in stages:
        yield f"      - {stage}"
    if n_tasks > 1 and settings.one_tower is None:
        yield f"  sharing: {{kind: cross_stitch, after: [{', '.join(sites)}], lr_scale: 10}}"
    if settings.dropout:
        yield f"  head: {{dropout: {settings.dropout}}}"


def training(settings: Settings) -> Iterator[str]:
    """The lines of the optimizer, the schedule and `train`."""
    decay = f"{settings.weight_decay:g}".replace("0.0001", "1e-4")
    yield f"optimizer: {{kind: adamw, lr: 2e-3, weight_decay: {decay}}}"
    yield "schedule: {kind: cosine}"
    yield (
        f"train: {{epochs: {settings.epochs}, batch_size: {settings.batch_size}, early_stopping: {{patience: 15}}}}"
    )


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
