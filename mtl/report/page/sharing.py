"""What was shared: a heat map for each place of the network at any epoch, and sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl.console import percent
from mtl.report.charts.heat import MOST_WRITTEN, heat_map, is_small, largest
from mtl.report.charts.marks import Figure, shown
from mtl.report.page.facts import Facts
from mtl.report.page.links import Measured, measured_links
from mtl.report.sharing_plots import own_weights, require_one_form
from mtl.runs.logs import SHARING

MOST_NUMBERS = 60_000
"""Most numbers of all epochs in a page; epochs are left out evenly beyond."""
MOST_FRAMES = 200
OF_WEIGHTS = "of the weight is"
CAVEAT = "A weight alone says little, since activations differ in size and a norm may undo its scale"
STRONGEST = 30
"""Rows of the table of the largest weights."""


@dataclass(frozen=True)
class Sharing:
    """What a page shows of the sharing.

    Args:
        maps: a figure for each place, at the step that is shown first.
        frames: the epoch, step and numbers of each position of the slider.
        first: the position that is shown first.
        limit: the largest absolute weight, whose colour is the strongest.
        strongest: (target, source, place, weight) of matrices that are too large for a map.
        words: sentences.
        measured: what `mtl sharing` measured of the links.
    """

    maps: Sequence[Figure]
    frames: Sequence[Mapping[str, Any]]
    first: int
    limit: float
    strongest: Sequence[tuple[str, str, str, float]]
    words: Sequence[str]
    measured: Measured | None


def sharing_of(facts: Facts) -> Sharing | None:
    """What was shared in a run; None if nothing is recorded.

    Raises:
        UserError: the lines of what was shared do not fit together, or links.json is not what `mtl sharing` writes.
    """
    measured = measured_links(facts)
    if not facts.shared:
        return None if measured is None else Sharing((), (), 0, 1.0, (), (), measured)
    require_one_form(facts.shared, facts.path / SHARING)
    chosen = facts.record.selected
    step = chosen.step if chosen is not None else facts.shared[-1]["step"]
    at = next((k for k, line in enumerate(facts.shared) if line["step"] == step), len(facts.shared) - 1)
    line = facts.shared[at]
    places: Mapping[str, Any] = line["sharing"]
    small = {place: m for place, m in places.items() if is_small(m)}
    large = {place: m for place, m in places.items() if not is_small(m)}
    limit = max((largest(one["sharing"][place]) for one in facts.shared for place in small), default=0) or 1.0
    maps = [heat_map(place, matrix, limit, k) for k, (place, matrix) in enumerate(small.items())]
    kept = _kept(facts.shared, list(small), at)
    frames = [_frame(facts.shared[k], list(small)) for k in kept] if small else []
    told = [] if measured is not None else [*_sentences(facts.shared[0], line)]
    if any(OF_WEIGHTS in one for one in told):
        told.append(f"{CAVEAT}: mtl sharing {facts.path} measures how much is used.")
    first = kept.index(at) if small else 0
    return Sharing(maps, frames, first, limit, _strongest(large), told, measured)


def _kept(lines: Sequence[Mapping[str, Any]], places: Sequence[str], at: int) -> list[int]:
    """The lines that the slider shows: all, or evenly spaced ones with the first, the last and the chosen one."""
    size = sum(np.size(lines[0]["sharing"][place]["values"]) for place in places) or 1
    most = max(3, min(MOST_FRAMES, MOST_NUMBERS // size))
    spaced = np.linspace(0, len(lines) - 1, min(len(lines), most)).round().astype(int)
    return sorted({*spaced.tolist(), at})


def _frame(line: Mapping[str, Any], places: Sequence[str]) -> dict[str, Any]:
    values = [
        [round(float(v), 4) for row in line["sharing"][place]["values"] for v in row] for place in places
    ]
    return {"epoch": line["epoch"], "step": line["step"], "values": values}


def _strongest(places: Mapping[str, Any]) -> list[tuple[str, str, str, float]]:
    """The largest weights between different names, over all places."""
    found = [
        (target, source, place, float(value))
        for place, matrix in places.items()
        for target, row in zip(matrix["targets"], matrix["values"], strict=True)
        for source, value in zip(matrix["sources"], row, strict=True)
        if target != source
    ]
    return sorted(found, key=lambda one: -abs(one[3]))[:STRONGEST]


def _sentences(start: Mapping[str, Any], end: Mapping[str, Any]) -> Iterator[str]:
    """Yield how much of what a tower reads came from others, at the start and at the step of the results."""
    for place, matrix in end["sharing"].items():
        own = own_weights(matrix)
        if not own.any() and len(matrix["sources"]) > 1:
            yield from _strongest_sources(place, matrix)
        if len(matrix["targets"]) < 2 or not own.any():
            continue
        before, after = (_from_others(line["sharing"][place], own) for line in (start, end))
        if before is not None and after is not None:
            yield (
                f"{place}: {percent(after, 1)} {OF_WEIGHTS} on other towers' activations, on average over "
                f"{len(matrix['targets'])} towers; at the start it was {percent(before, 1)}."
            )


def _strongest_sources(place: str, matrix: Mapping[str, Any]) -> Iterator[str]:
    """Yield which source a target takes most from, where sources are no towers, such as experts."""
    for target, row in list(zip(matrix["targets"], matrix["values"], strict=True))[:MOST_WRITTEN]:
        k = int(np.argmax(np.abs(row)))
        yield f"{place}: {target} takes most from {matrix['sources'][k]} (weight {shown(float(row[k]))})."


def _from_others(matrix: Mapping[str, Any], own: Any) -> float | None:
    size = np.abs(np.array(matrix["values"], dtype=float))
    whole = size.sum(axis=1)
    return float((np.where(own, 0, size).sum(axis=1) / whole).mean()) if (whole > 0).all() else None
