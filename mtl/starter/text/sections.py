"""The lines of each section of a first recipe; a comment gives the reason for every guess."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mtl.console import counted, percent
from mtl.data.files.formats.form import ColumnForm
from mtl.data.files.parts import is_data_set
from mtl.data.files.table import TableFile
from mtl.starter.guess.roles import Role
from mtl.starter.guess.settings import Settings
from mtl.starter.look.columns import Look
from mtl.starter.look.opening import Opening
from mtl.starter.plan import Plan
from mtl.starter.text.remarks import UNNAMED_VALUES, is_code, of_copies, of_form, of_totals
from mtl.starter.text.yaml_lines import comment, scalar, wrapped

STRONG = 0.1
"""A weight decay from here on looks like a slip, so that a comment says that it is none."""
RARE = 20
"""A class is rare if its rows are fewer than one to so many others."""
FEW_FORMS = 8
"""Most columns whose words for a missing value are written for each of them, although they are the same."""
PLAIN = ColumnForm()


def head(file: TableFile) -> Iterator[str]:
    """The lines above `data`: the header comment, the schema version, the name and the seed."""
    called = file.folder.absolute().name if is_data_set(file.path) else file.path.stem
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", called).strip("_.-")[:80] or "table"
    yield "# yaml-language-server: $schema=recipe.schema.json"
    yield "#"
    yield f"# Written by `mtl init` from a look at {comment(file.name)} ({counted(file.n_rows, 'row')})."
    yield "# Each guess says why; change what is wrong."
    yield "schema_version: 1"
    yield f"name: {scalar(name)}"
    yield "seed: 0"
    yield ""


def source(opening: Opening, folder: Path, plan: Plan, first_row: int) -> Iterator[str]:
    """The lines of `data.source`, except its inputs."""
    for line in of_totals(plan, first_row):
        yield f"  # {comment(line)}"
    where, root = opening.path.resolve(), folder.resolve()
    shown = opening.address or str(where.relative_to(root) if where.is_relative_to(root) else where)
    yield "  source:"
    yield "    kind: table"
    yield f"    path: {scalar(shown)}"
    if opening.delimiter is not None:
        yield f"    delimiter: {scalar(opening.delimiter)}"
    if opening.encoding != "utf-8":
        why = f"    # {comment(opening.note)}" if opening.note else ""
        yield f"    encoding: {opening.encoding}{why}"
    shared = _shared(plan)
    if shared:
        yield f"    na_values: {scalar(shared)}    # seen in columns that else hold numbers"
    forms = {name: _settings(plan, name, shared) for name in plan.used}
    forms = {name: settings for name, settings in forms.items() if settings}
    if forms:
        yield "    formats:"
    for name, settings in forms.items():
        why = of_form(plan.looks[name], first_row)
        yield f"      {scalar(name)}: {scalar(settings)}{f'    # {comment(why)}' if why else ''}"


def _parsed(plan: Plan, name: str) -> bool:
    return plan.looks[name].parsed is not None or plan.looks[name].type != "text"


def _shared(plan: Plan) -> tuple[str, ...]:
    """The texts that mean a missing value in most columns, if they are in more columns than hold text; else none.

    One line then does for a table of thousands of columns. Columns of text keep such a text as a value.
    """
    usual = Counter(form.na_values for name in plan.used if (form := plan.looks[name].form).na_values)
    if not usual:
        return ()
    texts, rows = usual.most_common(1)[0]
    words = sum(not _parsed(plan, name) for name in plan.used)
    return texts if texts is not None and rows > max(FEW_FORMS, words) else ()


def _settings(plan: Plan, name: str, shared: tuple[str, ...]) -> dict[str, Any]:
    """What differs in a column from a plain one: its entry in `formats`."""
    form = plan.looks[name].form
    found: dict[str, Any] = {}
    if form.na_values is not None and form.na_values != shared:
        found["na_values"] = form.na_values
    elif form.na_values is None and shared and not _parsed(plan, name):
        found["na_values"] = ("",)
    for key in ("decimal", "thousands", "unit", "date_format"):
        if getattr(form, key) != getattr(PLAIN, key):
            found[key] = getattr(form, key)
    return found


def ids(plan: Plan) -> Iterator[str]:
    """The line that names the column of row ids; no line if there is none."""
    for name in plan.named("id")[:1]:
        yield f"    id: {scalar(name)}    # {plan.roles[name][1]}; not an input"


def inputs(plan: Plan) -> Iterator[str]:
    """The lines of the inputs: an image, or columns of the table with the rule for missing numbers."""
    yield "    inputs:"
    if not plan.tabular:
        column = scalar(plan.named("image")[0])
        yield f"      image: {{column: {column}, size: [64, 64], mode: rgb}}    # paths of images"
        return
    roles: tuple[Role, ...] = ("numeric", "categorical", "vector", "dates")
    for role in roles:
        if plan.named(role):
            yield from wrapped(f"      {role}: ", plan.named(role))
        if role == "dates" and plan.named(role):
            yield "      # each date gives its year, month, weekday and days since 1970"
    for name in plan.named("categorical"):
        if is_code(plan.looks[name]):
            yield f"      # {comment(name)} is a category: {plan.roles[name][1]}"
    lacking = [name for name in (*plan.named("numeric"), *plan.named("dates")) if plan.looks[name].missing]
    if lacking:
        most = max(lacking, key=lambda name: plan.looks[name].missing)
        looked = plan.looks[most]
        columns = counted(len(lacking), "column has", "columns have")
        share = percent(looked.missing, looked.n)
        yield f"      missing: mean     # {columns} missing numbers, {comment(most)} most of all ({share})"
        yield "      indicator: true   # and a 0/1 input beside each of them says where"


def left_out(plan: Plan) -> Iterator[str]:
    """A comment for each column that is no input, with the reason."""
    if plan.unnamed:
        yield f"    # {UNNAMED_VALUES}"
    used = set(plan.used)
    for name, (_, why) in plan.roles.items():
        if name not in used:
            yield f"    # left out: {comment(name)} ({comment(why)})"


def split(n_rows: int, plan: Plan, stratify: str | None) -> Iterator[str]:
    """The lines of `data.split`: a column that names splits, else rows held out by time, by group, or by classes."""
    if plan.copies:
        yield f"  # {of_copies(plan.copies)}"
    fractions = {"validation": 0.1 if n_rows >= 500 else 0.2, "test": 0.2}
    held_out = ", ".join(f"{name}: {part}" for name, part in fractions.items() if name not in plan.splits)
    if plan.split_column is not None:
        more = f", {held_out}" if held_out else ""
        yield f"  split: {{column: {scalar(plan.split_column)}{more}}}    # its words name the split of each row"
    elif plan.time is not None:
        yield f"  split: {{{held_out}, by_time: {scalar(plan.time)}}}    # the latest rows are held out"
    elif plan.group is not None:
        yield f"  split: {{{held_out}, group: {scalar(plan.group)}}}    # no {comment(plan.group)} on two sides"
    elif stratify is not None:
        yield "  # if rows belong together (people, sites), write group: COLUMN instead of stratify"
        yield f"  split: {{{held_out}, stratify: {scalar(stratify)}}}    # the same shares of classes"
    else:
        yield f"  split: {{{held_out}}}    # if rows belong together (people, sites), add group: COLUMN"


def tasks(names: Sequence[str], plan: Plan, stratify: str | None) -> Iterator[str]:
    """The lines of `tasks`, with the reason for the kind of each."""
    yield "tasks:"
    for name, target in zip(names, plan.targets, strict=True):
        kind, options, why = plan.kinds[target]
        parts: dict[str, Any] = {"kind": kind, "target": target, **options}
        seen = plan.looks[target]
        if seen.blank and kind == "multilabel" and seen.type == "text":
            parts["empty"] = "none"
            yield (
                f"  # {percent(seen.blank, seen.n)} of cells are empty: "
                "write empty: missing if that means that the labels of a row are not known"
            )
            if seen.typed:
                parts["missing"] = "mask"  # rows without any text
        elif seen.missing:
            parts["missing"] = "mask"
            why += f"; {percent(seen.missing, seen.n)} of labels are missing"
        yield from _rare(name, kind, seen, options, stratify)
        yield f"  {scalar(name)}: {scalar(parts)}    # {comment(why)}"


def _rare(name: str, kind: str, seen: Look, options: dict[str, Any], stratify: str | None) -> Iterator[str]:
    """Comments on a class with few rows: what to try."""
    if kind not in ("binary", "multiclass"):
        return
    counts = seen.counts
    yes = options.get("positive")
    if isinstance(yes, list):
        positive = sum(counts[value] for value in yes)
        counts = {"yes": positive, "no": sum(counts.values()) - positive}
    rare, rows = min(counts.items(), key=lambda pair: pair[1])
    others = sum(counts.values()) - rows
    if rows * RARE >= others:
        return
    weight = "positive_weight" if kind == "binary" else "class_weights"
    by = "" if stratify == name else f", and stratify: {scalar(name)} in data.split"
    yield f"  # {comment(rare)} has {rows:,} of {counted(rows + others, 'row')}: try {weight}: balanced{by}"


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
        yield f"  towers: one        # for {settings.one_tower}; per_task or a mapping of towers is the alternative"
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
        sharing = f"{{kind: cross_stitch, after: [{', '.join(sites)}], lr_scale: 10}}"
        yield f"  sharing: {sharing}    # alphas learn 10 times as fast as weights"
    if settings.dropout:
        yield f"  head: {{dropout: {settings.dropout}}}"


def training(settings: Settings) -> Iterator[str]:
    """The lines of the optimizer, the schedule and `train`."""
    decay = f"{settings.weight_decay:g}".replace("0.0001", "1e-4")
    strong = "no slip, though 0.01 is usual: a weaker one lets the network learn its rows by heart"
    why = f"    # {strong}" if settings.weight_decay >= STRONG else ""
    yield "# The size of the table decides decay, epochs and batch; docs/data.md has the measurements."
    yield "optimizer:"
    yield "  kind: adamw"
    yield "  lr: 2e-3    # the rate of the first step"
    yield f"  weight_decay: {decay}{why}"
    yield "schedule: {kind: cosine}    # the rate falls to 0 by the last epoch"
    yield "train:"
    yield (
        f"  epochs: {settings.epochs}    # so many that there are about {settings.steps:,} steps, "
        f"from {settings.fewest_epochs} to 100"
    )
    yield f"  batch_size: {settings.batch_size}    # {settings.why_batch}"
    yield "  early_stopping: {patience: 15}    # ends after 15 epochs that are not better on validation rows"
