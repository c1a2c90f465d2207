"""Pictures of what was shared: how much each target takes from each source, at one step and over a run.

A line of the log is {"epoch", "step", "sharing": {place: {"targets", "sources", "values"}}}; values[i][j] is what
target i takes from source j.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mtl.errors import UserError
from mtl.runs.record import PUT_BACK

MAX_PANEL, MAX_TICKS, MAX_NUMBERS = 12.0, 25, 8
"""Most inches of one map, most names on a side, and most rows and columns of a map with written numbers."""
MAX_PATHS = 9
"""Most numbers of one place that have a line each; more numbers are drawn as a mean and a range."""


def require_one_form(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Refuse lines that have different places, or different names at a place.

    Raises:
        UserError: a line differs from the first one.
    """

    def form(line: Mapping[str, Any]) -> dict[str, Any]:
        return {place: (m["targets"], m["sources"]) for place, m in line["sharing"].items()}

    first = form(lines[0])
    for number, line in enumerate(lines, start=1):
        if form(line) != first:
            raise UserError(f"{path}:{number}", "what is shared here is not what line 1 has", PUT_BACK)


def sharing_maps(line: Mapping[str, Any]) -> Figure:
    """A map for each place at one step; row i shows what target i takes from each source."""
    places: Mapping[str, Any] = line["sharing"]
    rows = max(len(m["targets"]) for m in places.values())
    columns = max(len(m["sources"]) for m in places.values())
    height = min(max(2.6, 0.45 * rows + 1.4), MAX_PANEL)
    width = min(max(2.6, 0.45 * columns + 1.4), MAX_PANEL)
    figure = Figure(figsize=(width * len(places) + 1.2, height + 1.2), layout="constrained")
    axes = figure.subplots(1, len(places), squeeze=False)[0]
    values = np.concatenate([np.ravel(m["values"]) for m in places.values()])
    limit = max(1.0, np.abs(values).max())
    lowest, colours = (0.0, "Blues") if values.min() >= 0 else (-limit, "RdBu_r")
    for axis, (place, matrix) in zip(axes, places.items(), strict=True):
        image = axis.imshow(matrix["values"], cmap=colours, vmin=lowest, vmax=limit, aspect="auto")
        axis.set_title(place)
        axis.set_xticks(*_ticks(matrix["sources"]), rotation=45, ha="right")
        at, names = _ticks(matrix["targets"])
        axis.set_yticks(at, names if axis is axes[0] else [""] * len(names))
        axis.set_xlabel("from")
        if max(rows, columns) <= MAX_NUMBERS:
            for (i, j), value in np.ndenumerate(np.array(matrix["values"])):
                colour = "white" if abs(value) > 0.6 * limit else "black"
                axis.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=9)
    axes[0].set_ylabel("into")
    figure.colorbar(image, ax=list(axes), shrink=0.8, label="weight")
    figure.suptitle(f"step {line['step']}")
    return figure


def _ticks(names: Sequence[str]) -> tuple[list[int], list[str]]:
    """Positions and names; some are left out if they would not be readable."""
    at = list(range(0, len(names), -(-len(names) // MAX_TICKS)))
    return at, [names[k] for k in at]


def sharing_paths(lines: Sequence[Mapping[str, Any]], abscissa: str) -> Figure:
    """The course of each number, in a panel for each place; a full line shows what a tower keeps of itself."""
    places = list(lines[0]["sharing"])
    figure = Figure(figsize=(4.2 * len(places) + 1.6, 3.4), layout="constrained")
    axes = figure.subplots(1, len(places), squeeze=False, sharey=True)[0]
    at = [line[abscissa] for line in lines]
    named, any_own = 0, False
    for axis, place in zip(axes, places, strict=True):
        first = lines[0]["sharing"][place]
        targets, sources = first["targets"], first["sources"]
        values = np.array([line["sharing"][place]["values"] for line in lines])
        own = np.array([[target == source for source in sources] for target in targets])
        if values[0].size > MAX_PATHS:
            if own.any():
                axis.plot(at, values[:, own], color="#1b6ca8", alpha=0.35, linewidth=0.8)
            others = values[:, ~own]
            axis.fill_between(at, others.min(1), others.max(1), color="#d95f02", alpha=0.2, linewidth=0)
            label = "others: mean and range" if own.any() else "mean and range"
            axis.plot(at, others.mean(1), color="#d95f02", linestyle="--", label=label)
        else:
            for i, j in np.ndindex(*own.shape):
                style = "-" if own[i, j] else "--"
                axis.plot(
                    at,
                    values[:, i, j],
                    linestyle=style,
                    linewidth=1.3,
                    label=f"{targets[i]} from {sources[j]}",
                )
        named = max(named, len(axis.get_legend_handles_labels()[1]))
        axis.set_title(place)
        axis.set_xlabel(abscissa)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25)
        any_own = any_own or bool(own.any())
    axes[0].set_ylabel("weight (full lines: of itself)" if any_own else "weight")
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside right center",
        frameon=False,
        fontsize=8 if named < 10 else 6,
    )
    return figure
