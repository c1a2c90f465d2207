"""Sentences about what a run shared; each one says only what a number of links.json says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mtl.console import counted, number, percent

SHOWN = 5
"""Most links that have a sentence of their own."""
TRAINED_ON = "There is no validation split: these are rows that the network was trained on."


def sharing_words(links: Mapping[str, Any]) -> list[str]:
    """The sentences for the content of links.json; see `mtl/evaluation/links/document.py`.

    The first says on which rows the numbers were measured. Then come the links whose cut changes a loss beyond noise,
    the largest part of a loss first; those that are not used; and what the transfer table supports.
    """
    structure = _structure(links)
    if structure:
        return [structure]
    words = [_basis(links), *_of_masks(links), *_of_links(links)]
    if links["transfer"] is not None and links["transfer"]["indirect"]:
        words.append(
            "In the transfer table only the direct links between two towers are cut; what a tower gets from another "
            "one through a third stays."
        )
    return [*words, *_of_proposal(links)]


def with_error(delta: float | None, se: float | None) -> str:
    """A change with its sign and standard error, such as `+0.050 ± 0.011`: the error has two digits."""
    if delta is None:
        return "-"
    if se is None or se == 0:
        return "0" if delta == 0 else f"{'+' if delta > 0 else '-'}{number(abs(delta))}"
    digits = min(8, max(0, 1 - math.floor(math.log10(se))))
    return f"{delta:+.{digits}f} ± {se:.{digits}f}"


def _structure(links: Mapping[str, Any]) -> str:
    """The one line for a network without links that can be cut; empty if there are any."""
    shared, towers, scheme = links["shared"], links["towers"], links["sharing"]
    n_tasks, n_towers = len(links["tasks"]), len(towers)
    inside = "; ".join(f"{', '.join(t)} share tower {name}" for name, t in towers.items() if len(t) > 1)
    inside = f"; {inside}" if inside else ""
    if shared == "everything":
        rest = "its heads" if n_tasks > 1 else "its head"
        return f"{counted(n_tasks, 'task')} in one tower: everything but {rest} is shared."
    if shared == "nothing":
        return f"Nothing is shared between the {n_towers} towers{inside}."
    if shared == "penalty":
        return (
            f"The {n_towers} towers have no activation and no weight in common{inside}. Only the penalty that {scheme} "
            "adds to the loss can join them, and no link can be cut."
        )
    if shared == "trunk" and not links["sites"]:
        return (
            f"The {n_towers} towers take their features from one trunk, their only source, so that no link can be cut"
            f"{inside}. The readings are what the run logged."
        )
    if shared == "unknown" and not links["sites"]:
        return (
            f"Sharing scheme {scheme} lists no links, so that nothing can be observed or cut; its readings are what "
            "the run logged."
        )
    return ""


def _basis(links: Mapping[str, Any]) -> str:
    rows, of = links["rows"], links["rows_of_split"]
    read = counted(rows, "row") if rows == of else f"{rows:,} of {of:,} rows"
    groups = f" in {links['n_units']:,} groups" if links["units"] == "groups" else ""
    unseen = "" if links["split"] != "train" else f"{TRAINED_ON} "
    return (
        f"{unseen}Measured on {read} of {links['split']}{groups}, in evaluation mode; ± is a standard error over "
        f"{links['units']}. A cut shows what this network relies on; one trained without the link may do as well."
    )


def _of_masks(links: Mapping[str, Any]) -> list[str]:
    """The gates and masks on a single source, of which no link can be cut."""
    words = []
    for site in links["sites"]:
        if site["kind"] == "gate" and len(site["sources"]) == 1:
            means = [row[0] for row in site["shares"]]
            low, high = (means.index(value) for value in (min(means), max(means)))
            ends = [f"{number(means[i])} ({site['targets'][i]})" for i in (low, high)]
            lie = (
                f"lies between {' and '.join(ends)}"
                if low != high
                else f"is {number(means[low])} for each target"
            )
            words.append(
                f"At {site['site']}, the mean weight of {site['sources'][0]} {lie}; it is the only source, so that no "
                "link can be cut."
            )
    return words


def _of_links(links: Mapping[str, Any]) -> list[str]:
    found = [
        (link, task, change)
        for link in links["links"]
        for task, change in (link["changes"] or {}).items()
        if change["verdict"] in ("used", "hurts")
    ]
    found.sort(key=lambda one: -abs(one[2]["delta"]) / (abs(links["tasks"][one[1]]["loss"]) or 1.0))
    words = [_sentence(links, *one) for one in found[:SHOWN]]
    if len(found) > SHOWN:
        more = counted(len(found) - SHOWN, "more change")
        words.append(f"And {more} beyond noise {'is' if len(found) - SHOWN == 1 else 'are'} in the table.")
    own = [(link, _own(links, link)) for link in links["links"] if link["changes"] is not None]
    unused = [link for link, all_ in own if all_ and {c["verdict"] for c in all_.values()} == {"not used"}]
    used = {id(link) for link, *_ in found}
    untold = [link for link, _ in own if link not in unused and id(link) not in used]
    if unused:
        one = len(unused) == 1
        words.append(
            f"{_named(unused)} {'is' if one else 'are'} not used by the result, whatever {_weight_of(unused)}: "
            f"{'cutting it' if one else 'cutting one at a time'} moves the loss by less than 2%, noise included."
        )
    if untold:
        words.append(f"These rows cannot tell whether the result uses {_named(untold)}.")
    left = sum(link["changes"] is None for link in links["links"])
    if left:
        words.append(f"{counted(left, 'weaker link')} {'was' if left == 1 else 'were'} not cut.")
    return words


def _own(links: Mapping[str, Any], link: Mapping[str, Any]) -> dict[str, Any]:
    """The changes of the tasks that read the target of a link."""
    tasks = links["towers"].get(link["target"], [link["target"]])
    return {task: change for task, change in link["changes"].items() if task in tasks}


def _sentence(links: Mapping[str, Any], link: Mapping[str, Any], task: str, change: Mapping[str, Any]) -> str:
    target, source, spread = link["target"], link["source"], link["spread"]
    share = percent(link["share"], 1.0) if 0 <= link["share"] <= 1 else number(link["share"])
    if spread is None:
        takes = f"{target} takes {share} of its features from {source}"
    else:
        takes = f"the gate of {target} gives {share} to {source} (± {percent(spread, 1.0)} over rows)"
    whose = "its loss" if task == target else f"the loss of {task}"
    verb = "raises" if change["delta"] > 0 else "lowers"
    before, after = links["tasks"][task]["loss"], change["loss"]
    return (
        f"At {link['site']}, {takes}; cutting this link {verb} {whose} from {number(before)} to {number(after)} "
        f"({with_error(change['delta'], change['se'])})."
    )


def _weight_of(found: Sequence[Mapping[str, Any]]) -> str:
    """What the shares of some links come from."""
    kinds = {"alpha" if link["spread"] is None else "gate" for link in found}
    noun = kinds.pop() if len(kinds) == 1 else "alpha or gate"
    return f"its {noun}" if len(found) == 1 else f"their {noun}s"


def _named(found: Sequence[Mapping[str, Any]]) -> str:
    """Some links by name, or their number if they are many."""
    if len(found) > 3:
        return f"{len(found):,} links"
    names = [f"{link['target']} from {link['source']} at {link['site']}" for link in found]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _of_proposal(links: Mapping[str, Any]) -> list[str]:
    proposal = links["proposal"]
    if len(links["tasks"]) < 3:
        return []
    if proposal["towers"] is None:
        return [f"No grouping is suggested: {proposal['reason']}."]
    if len(proposal["towers"]) == 1:
        return [
            "All towers use each other beyond the noise of these rows: one tower for all tasks, towers: one, may do as "
            "well. It is the arm hard of mtl compare, which tells whether it does."
        ]
    return [
        f"A grouping to try: {proposal['reason']}. Whether one tower for each group is better, only a comparison tells."
    ]
