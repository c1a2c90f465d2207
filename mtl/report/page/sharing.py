"""What was shared: a heat map for each place of the network at any epoch, and sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from mtl.console import percent
from mtl.errors import UserError
from mtl.report.charts.marks import Figure, cut, shown
from mtl.report.page.facts import LINKS, Facts
from mtl.report.sharing_plots import own_weights, require_one_form
from mtl.runs.logs import SHARING, Matrix
from mtl.runs.record import PUT_BACK, fault_in

MOST_NUMBERS = 60_000
"""Most numbers of all epochs in a page; epochs are left out evenly beyond."""
MOST_FRAMES = 200
MOST_NAMED = 40
"""Most rows or columns of a map; a larger matrix is told by its largest weights."""
MOST_WRITTEN = 8
MOST_TOLD = 12
"""Most rows and columns of a map whose cells tell their names and values to a pointer; those of many take much room."""
STRONGEST = 30
DEPTH = 4
"""Objects of links.json within each other that are searched for matrices."""
FAINTEST = 0.72
"""The opacity of the largest weight; text on it can still be read."""


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
        links: maps of what the run itself measured about its links.
    """

    maps: Sequence[Figure]
    frames: Sequence[Mapping[str, Any]]
    first: int
    limit: float
    strongest: Sequence[tuple[str, str, str, float]]
    words: Sequence[str]
    links: Sequence[Figure]


def sharing_of(facts: Facts) -> Sharing | None:
    """What was shared in a run; None if nothing is recorded.

    Raises:
        UserError: the lines of what was shared do not fit together, or links.json has a malformed matrix.
    """
    words, links = _links(facts)
    if not facts.shared:
        return Sharing((), (), 0, 1.0, (), words, links) if words or links else None
    require_one_form(facts.shared, facts.path / SHARING)
    chosen = facts.record.selected
    step = chosen.step if chosen is not None else facts.shared[-1]["step"]
    at = next((k for k, line in enumerate(facts.shared) if line["step"] == step), len(facts.shared) - 1)
    line = facts.shared[at]
    places: Mapping[str, Any] = line["sharing"]
    small = {place: m for place, m in places.items() if _is_small(m)}
    large = {place: m for place, m in places.items() if not _is_small(m)}
    limit = (
        max((_largest(one["sharing"][place]) for one in facts.shared for place in small), default=0) or 1.0
    )
    maps = [heat_map(place, matrix, limit, k) for k, (place, matrix) in enumerate(small.items())]
    kept = _kept(facts.shared, list(small), at)
    frames = [_frame(facts.shared[k], list(small)) for k in kept] if small else []
    told = words or [*_sentences(facts.shared[0], line)]
    first = kept.index(at) if small else 0
    return Sharing(maps, frames, first, limit, _strongest(large), told, links)


def _largest(matrix: Mapping[str, Any]) -> float:
    return max(abs(float(value)) for row in matrix["values"] for value in row)


def _is_small(matrix: Mapping[str, Any]) -> bool:
    return max(len(matrix["targets"]), len(matrix["sources"])) <= MOST_NAMED


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


def heat_map(place: str, matrix: Mapping[str, Any], limit: float, number_of_map: int | None = None) -> Figure:
    """A row for each target and a column for each source; blue is positive, orange is negative."""
    targets, sources, values = matrix["targets"], matrix["sources"], matrix["values"]
    n = max(len(targets), len(sources))
    figure = Figure(f"{place}: how much each of {len(targets)} targets takes from each source", title=place)
    figure.width = 340 if n <= MOST_TOLD else 480
    figure.wide = n > 20
    left, top = 96.0, 24.0
    cell = min(64.0, (figure.width - left - 8) / len(sources))
    height = min(cell, 40.0)
    figure.text(2, 12, "into ↓   from →", "name", "start")
    for i, target in enumerate(targets):
        y = top + i * height
        figure.text(left - 6, y + height / 2 + 4, cut(target, 14), "tick", "end")
        for j, source in enumerate(sources):
            x, value = left + j * cell, float(values[i][j])
            figure.add(
                "rect", "", f"{target} from {source}: {shown(value)}" if n <= MOST_TOLD else "",
                css="weight" if value >= 0 else "weight negative", x=x, y=y, width=cell, height=height,
                fill_opacity=f"{FAINTEST * min(abs(value) / limit, 1):.3f}",
            )  # fmt: skip
            if n <= MOST_WRITTEN:
                figure.text(x + cell / 2, y + height / 2 + 4, f"{value:.2f}", "count")
    bottom = top + len(targets) * height
    for j, source in enumerate(sources):
        x, y = left + (j + 0.5) * cell + 3, bottom + 10
        figure.add(
            "text", cut(source, 12), css="tick", x=x, y=y, text_anchor="end",
            transform=f"rotate(-40 {x:.1f} {y:.1f})",
        )  # fmt: skip
    figure.height = bottom + 60
    return figure


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
                f"{place}: {percent(after, 1)} of the weight is on other towers' activations, on average over "
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


def _links(facts: Facts) -> tuple[list[str], list[Figure]]:
    """The sentences and the matrices of links.json, wherever in it a matrix stands."""
    if facts.links is None:
        return [], []
    words = facts.links.get("words")
    told = [word for word in words if isinstance(word, str)] if isinstance(words, list) else []
    maps = []
    for name, values in _matrices(facts.links):
        try:
            matrix = Matrix.model_validate(values).model_dump()
        except ValidationError as error:
            raise UserError(str(facts.path / LINKS), f"{name}: {fault_in(error)}", PUT_BACK) from None
        if _is_small(matrix) and matrix["values"]:
            limit = float(np.abs(np.array(matrix["values"])).max()) or 1.0
            maps.append(heat_map(name, matrix, limit))
    return told, maps


def _matrices(
    values: Mapping[str, Any], above: Sequence[str] = ()
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the name and the content of each matrix, down to `DEPTH` objects deep."""
    for key, value in values.items():
        if isinstance(value, dict) and len(above) < DEPTH:
            names = [*above, key.replace("_", " ")]
            if {"targets", "sources", "values"} <= value.keys():
                yield ", ".join(names), value
            else:
                yield from _matrices(value, names)
