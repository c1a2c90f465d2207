"""Pictures of what was shared: how much each target takes from each source, at one step and over a run.

A line of the log is {"epoch", "step", "sharing": {place: {"targets", "sources", "values"}}}; values[i][j] is what
target i takes from source j.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mtl.console import number
from mtl.errors import UserError
from mtl.runs.record import PUT_BACK

CELL = 0.45
"""Inches of a row of a map with written numbers."""
MAX_WIDTH = 16.0
"""Most inches of maps beside each other; more maps go into further rows."""
MAX_NUMBERS = 8
"""Most rows and columns of a map with written numbers."""
MAX_NAMED = 40
"""Most rows and columns of a map that names all of them."""
STRONGEST = 30
"""Number of weights that are listed below larger maps."""
OWN = "#9a9a9a"
"""The colour of what a tower keeps of itself on a map whose colours show what it takes from others."""


def require_one_form(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Refuse lines that have different places, or different names at a place.

    Raises:
        UserError: a line differs from the first one.
    """

    def form(line: Mapping[str, Any]) -> dict[str, Any]:
        return {place: (m["targets"], m["sources"]) for place, m in line["sharing"].items()}

    first = form(lines[0])
    for at, line in enumerate(lines, start=1):
        if form(line) != first:
            raise UserError(f"{path}:{at}", "what is shared here is not what line 1 has", PUT_BACK)


def sharing_maps(line: Mapping[str, Any]) -> Figure:
    """A map for each place at one step; row i shows what target i takes from each source.

    The colours of a large map cover what targets take from others, and what they keep of themselves is grey: it is
    many times larger, and would leave the rest white. If a side has more names than can be read, the largest weights
    are listed below the maps.
    """
    places: Mapping[str, Any] = line["sharing"]
    n = max(max(len(m["targets"]), len(m["sources"])) for m in places.values())
    width = _side(max(len(m["sources"]) for m in places.values()))
    height = _side(max(len(m["targets"]) for m in places.values()))
    beside = max(1, min(len(places), int(MAX_WIDTH / width)))
    below = -(-len(places) // beside)
    heights = [height + 0.4] * below + ([STRONGEST * 0.2 + 1] if n > MAX_NAMED else [])
    figure = Figure(figsize=(width * beside + 1.2, sum(heights) + 0.8), layout="constrained")
    grid = figure.add_gridspec(len(heights), beside, height_ratios=heights)
    axes = [figure.add_subplot(grid[divmod(k, beside)]) for k in range(len(places))]
    coloured = [_coloured(matrix, n <= MAX_NUMBERS) for matrix in places.values()]
    limit, lowest, colours = _scale(coloured, n <= MAX_NUMBERS)
    for axis, (place, matrix), values in zip(axes, places.items(), coloured, strict=True):
        axis.set_facecolor(OWN)
        image = axis.imshow(
            values, cmap=colours, vmin=lowest, vmax=limit, aspect="auto", interpolation="none"
        )
        _name(axis, matrix["targets"], matrix["sources"], height, width)
        axis.set_title(place + _kept(matrix, n <= MAX_NUMBERS), fontsize=11)
        axis.set_xlabel("from")
        if n <= MAX_NUMBERS:
            for (i, j), value in np.ndenumerate(np.array(matrix["values"])):
                colour = "white" if abs(value) > 0.6 * limit else "black"
                axis.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=9)
    for axis in axes[::beside]:
        axis.set_ylabel("into")
    figure.colorbar(image, ax=axes, shrink=0.8, label="weight", aspect=30)
    if n > MAX_NAMED:
        _list_strongest(figure.add_subplot(grid[-1, :]), places, coloured)
    figure.suptitle(f"step {line['step']:,}")
    return figure


def _side(n: int) -> float:
    """Inches of a map with n rows or columns, names included."""
    if n > MAX_NAMED:
        return 5.2
    return max(2.6, (CELL if n <= MAX_NUMBERS else 0.2) * n + 1.4)


def _scale(coloured: Sequence[Any], small: bool) -> tuple[float, float, str]:
    """The highest and the lowest value of the colours, and their name."""
    found = np.concatenate([values.compressed() for values in coloured])
    limit = float(np.abs(found).max()) if found.size else 1.0
    limit = max(1.0, limit) if small else limit or 1.0
    return (limit, 0.0, "Blues") if not found.size or found.min() >= 0 else (limit, -limit, "RdBu_r")


def _list_strongest(axis: Axes, places: Mapping[str, Any], coloured: Sequence[Any]) -> None:
    """The weights from others that are largest in size, over all places, as a dot plot."""
    found = []
    for (place, matrix), values in zip(places.items(), coloured, strict=True):
        of_others = np.flatnonzero(~np.ma.getmaskarray(values))
        weights = values.data.ravel()
        for k in sorted(of_others, key=lambda k: -abs(weights[k]))[:STRONGEST]:
            i, j = divmod(int(k), len(matrix["sources"]))
            name = f"{matrix['targets'][i]} from {matrix['sources'][j]}, {place}"
            found.append((float(weights[k]), name))
    found = sorted(found, key=lambda one: -abs(one[0]))[:STRONGEST]
    weights, names = [weight for weight, _ in found], [name for _, name in found]
    axis.axvline(0, color="black", linewidth=0.8)
    axis.hlines(range(len(found)), 0, weights, color=OWN, linewidth=1)
    axis.plot(weights, range(len(found)), linestyle="", marker="o", markersize=5, color="#1b6ca8")
    axis.set_yticks(range(len(found)), names, fontsize=9)
    axis.invert_yaxis()
    axis.grid(alpha=0.25)
    axis.set_xlabel("weight")
    axis.set_title(f"the {len(found)} largest weights of what is taken from others", fontsize=11)


def own_weights(matrix: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Where a target takes from itself."""
    return np.array([[target == source for source in matrix["sources"]] for target in matrix["targets"]])


def _coloured(matrix: Mapping[str, Any], small: bool) -> Any:
    """The values that colours show; those that are masked are grey."""
    values = np.array(matrix["values"], dtype=float)
    return np.ma.array(values, mask=np.zeros_like(values, dtype=bool) if small else own_weights(matrix))


def _kept(matrix: Mapping[str, Any], small: bool) -> str:
    """What targets keep of themselves, in words, where no colour shows it."""
    own = np.array(matrix["values"])[own_weights(matrix)]
    if small or not own.size:
        return ""
    return f" (grey: of itself, {number(float(own.min()))} to {number(float(own.max()))})"


def _name(axis: Axes, targets: Sequence[str], sources: Sequence[str], height: float, width: float) -> None:
    """Write the names of rows and columns; some are left out if they would touch each other."""
    turned: dict[str, Any] = {"rotation": 45, "ha": "right"}
    axis.set_yticks(**_ticks(targets, height))
    axis.set_xticks(**_ticks(sources, width), **(turned if len(sources) <= MAX_NUMBERS else {"rotation": 90}))


def _ticks(names: Sequence[str], inches: float) -> dict[str, Any]:
    """Positions, names and their size in points, for a side of a map of so many inches."""
    cell = (inches - 1.4) / len(names)
    every = math.ceil(0.15 / cell)
    at = list(range(0, len(names), every))
    return {"ticks": at, "labels": [names[k] for k in at], "fontsize": min(10.0, 72 * cell * every * 0.7)}
