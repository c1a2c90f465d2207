"""The command that says what a finished run shared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from mtl.commands.options import (
    debug_option,
    load_plugins,
    plugin_option,
    run_argument,
    trained_device_option,
)
from mtl.commands.outcomes import require_torch
from mtl.console import complain, counted, number, percent, say, table

SMALL = 8
"""Most targets and sources of a matrix that is printed whole; of a larger one the strongest links are."""
MOST_COLUMNS = 5
"""Most towers that have a column each in the transfer table."""
SHOWN = 20
"""Most rows of a table of links."""


@click.command(
    "sharing",
    help="Say what RUN shared, and what each task loses without it, on validation rows; writes RUN/links.json.",
)
@run_argument
@click.option(
    "--rows", type=click.IntRange(2), default=2000, show_default=True, help="Most rows that are read."
)
@click.option(
    "--cuts",
    type=click.IntRange(0),
    default=2000,
    show_default=True,
    help="Most links that are cut one by one, the strongest first.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the content of links.json.")
@trained_device_option
@plugin_option
@debug_option
def sharing(
    run_folder: str,
    rows: int,
    cuts: int,
    as_json: bool,
    device: str,
    plugins: tuple[str, ...],
    debug: bool,
) -> None:
    load_plugins(plugins)
    from mtl.runs.folder import RunFolder, last_phase

    folder = last_phase(Path(run_folder))
    if str(folder) != run_folder:
        complain(f"note: {run_folder} holds the phases of a recipe; the last one is {folder}")
    RunFolder.open(folder)
    require_torch()
    from mtl.inference.links import links_of
    from mtl.inference.load import load_trained
    from mtl.runs.disk import write_whole
    from mtl.runs.folder import LINKS

    model = load_trained(folder, device)
    found = links_of(model, most_rows=rows, most_cuts=cuts, told=complain)
    text = json.dumps(found, indent=1, allow_nan=False)
    write_whole(model.folder.path / LINKS, f"{text}\n".encode())
    if as_json:
        say(text)
    else:
        say("\n\n".join([*_caveat(found), *_tables(found), "\n".join(found["words"]), *_proposal(found)]))


def _caveat(found: Mapping[str, Any]) -> list[str]:
    """What to know before the tables: whether the rows are those of training."""
    if found["split"] != "train" or not found["sites"]:
        return []
    return ["There is no validation split: all numbers below are of rows that the network was trained on."]


def _tables(found: Mapping[str, Any]) -> list[str]:
    """The shares of each place, the links with the effects of their cuts, and the transfer table."""
    small = [site for site in found["sites"] if max(len(site["targets"]), len(site["sources"])) <= SMALL]
    tables = [_shares(site) for site in small] or _readings(found)
    if any(link["changes"] for link in found["links"]):
        tables.append(_links(found))
    if found["transfer"] is not None:
        tables.append(_transfer(found))
    return tables


def _shares(site: Mapping[str, Any]) -> str:
    """What each target takes from each source at one place; of a gate, with the standard deviation over rows."""
    spread = site["spread"] or [[None] * len(row) for row in site["shares"]]
    rows = [
        [target, *(_share(value, wide) for value, wide in zip(values, wides, strict=True))]
        for target, values, wides in zip(site["targets"], site["shares"], spread, strict=True)
    ]
    return table([f"{site['site']}: from", *site["sources"]], rows)


def _share(value: float, spread: float | None) -> str:
    share = percent(value, 1.0) if 0 <= value <= 1 else number(value)
    return share if spread is None else f"{share} ± {100 * spread:.0f}"


def _readings(found: Mapping[str, Any]) -> list[str]:
    """What the run logged, where nothing was observed and the matrices are small."""
    if found["sites"]:
        return []
    return [
        table(
            [f"{place}: from", *one["sources"]],
            [
                [target, *map(number, values)]
                for target, values in zip(one["targets"], one["values"], strict=True)
            ],
        )
        for place, one in found["readings"].items()
        if max(len(one["targets"]), len(one["sources"])) <= SMALL
    ]


def _links(found: Mapping[str, Any]) -> str:
    from mtl.evaluation.links.words import with_error

    many = len(found["tasks"]) > SMALL  # of many tasks only those that read the link's target have a row
    own = {name: {name} for name in found["tasks"]} | {t: set(tasks) for t, tasks in found["towers"].items()}
    rows = [
        [
            link["site"],
            link["target"],
            link["source"],
            task,
            _share(link["share"], link["spread"]),
            number(found["tasks"][task]["loss"]),
            number(change["loss"]),
            with_error(change["delta"], change["se"]),
            found["tasks"][task]["metric"],
            number(found["tasks"][task]["value"]),
            number(change["value"]),
            change["verdict"],
        ]
        for link in found["links"]
        for task, change in (link["changes"] or {}).items()
        if not many or task in own[link["target"]]
    ]
    head = ["at", "into", "from", "task", "share", "loss", "cut", "change", "metric", "value", "cut", "link"]
    return _cut(head, rows, "link", left=4)


def _transfer(found: Mapping[str, Any]) -> str:
    from mtl.evaluation.links.words import with_error

    transfer = found["transfer"]
    entries = [
        [with_error(delta, se) for delta, se in zip(deltas, ses, strict=True)]
        for deltas, ses in zip(transfer["delta"], transfer["se"], strict=True)
    ]
    if len(transfer["towers"]) <= MOST_COLUMNS:
        rows = [[task, *own] for task, own in zip(transfer["tasks"], entries, strict=True)]
        return table(["loss without all links from", *transfer["towers"]], rows)
    strongest = sorted(
        (-abs(delta) / abs(found["tasks"][transfer["tasks"][n]]["loss"] or 1.0), n, k)
        for n, deltas in enumerate(transfer["delta"])
        for k, delta in enumerate(deltas)
        if delta
    )
    rows = [
        [transfer["tasks"][n], transfer["towers"][k], entries[n][k], transfer["verdict"][n][k]]
        for _, n, k in strongest
    ]
    return _cut(["task", "without all links from", "change of its loss", "links"], rows, "pair", left=2)


def _cut(head: Sequence[str], rows: Sequence[Sequence[str]], thing: str, left: int) -> str:
    """A table of the first rows; a line below says how many more links.json has."""
    more = len(rows) - SHOWN
    text = table(head, rows[:SHOWN], left=left)
    return f"{text}\n... and {counted(more, f'more {thing}')} in links.json" if more > 0 else text


def _proposal(found: Mapping[str, Any]) -> list[str]:
    """The grouping as YAML, with its rule and the override that gives it."""
    proposal = found["proposal"]
    if proposal["towers"] is None:
        return []
    override = proposal["override"].partition("=")[2]
    return [f"model:\n  towers: {override}", f"rule: {proposal['rule']}"]
