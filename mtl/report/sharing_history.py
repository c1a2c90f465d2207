"""The course of what was shared, over the epochs or steps of a run.

Shape letters: L lines of the log, T targets, S sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mtl.report.curves import heat_map, row_height, whole_numbers
from mtl.report.sharing_plots import own_weights

MAX_LINES = 9
"""Most lines of one place; with more, the history of what is shared is a heat map."""
LINES = (
    *("#332288", "#CC6677", "#117733", "#88CCEE", "#882255"),
    *("#999933", "#AA4499", "#44AA99", "#DDCC77"),
)
"""Paul Tol's muted colours, which the colour-blind can tell apart: https://personal.sron.nl/~pault/"""


def sharing_paths(lines: Sequence[Mapping[str, Any]], abscissa: str) -> Figure:
    """What is shared over the course of a run, in a panel for each place.

    Up to nine numbers of a place have a line each. More numbers become one for each target: the share that it takes
    from others, sum_j!=i |w_ij| / sum_j |w_ij|, or where no source is the target itself, the largest weight of one
    source. Up to nine targets have a line each, and more targets a row of a heat map.
    """
    places = list(lines[0]["sharing"])
    at = [line[abscissa] for line in lines]
    values = {place: np.array([line["sharing"][place]["values"] for line in lines]) for place in places}
    sizes = [values[place][0].size for place in places]
    if max(sizes) <= MAX_LINES:
        return _each_number(lines[0]["sharing"], values, at, abscissa)
    first = lines[0]["sharing"]
    own = {place: own_weights(matrix) for place, matrix in first.items()}
    if any(mask.any() for mask in own.values()):
        label = "share taken from others (%)"
        found = {place: 100 * _from_others(values[place], own[place]) for place in places}
    else:
        label = "largest weight of one source"
        found = {place: values[place].max(axis=2) for place in places}
    if max(found[place].shape[1] for place in places) <= MAX_LINES:
        return _each_target(first, found, at, abscissa, label)
    return _many_targets(first, found, at, abscissa, label)


def _from_others(values_LTS: NDArray[np.float64], own_TS: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Line x target: the share of absolute weights that a target takes from others; 0 if all its weights are 0."""
    size = np.abs(values_LTS)
    whole = size.sum(axis=2)
    others = np.where(own_TS, 0.0, size).sum(axis=2)
    share: NDArray[np.float64] = np.divide(others, whole, out=np.zeros_like(whole), where=whole > 0)
    return share


Numbers = Mapping[str, NDArray[np.float64]]


def _panels(n: int, abscissa: str, label: str) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(4.2 * n + 1.6, 3.4), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, n, squeeze=False, sharey=True)[0]
    for axis in axes:
        whole_numbers(axis, abscissa)
    axes[0].set_ylabel(label)
    return figure, axes


def _each_number(places: Mapping[str, Any], values: Numbers, at: Sequence[int], abscissa: str) -> Figure:
    own = {place: own_weights(matrix) for place, matrix in places.items()}
    kept = " (full lines: of itself)" if any(mask.any() for mask in own.values()) else ""
    lines = {
        place: [
            (
                f"{matrix['targets'][i]} from {matrix['sources'][j]}",
                values[place][:, i, j],
                "-" if own[place][i, j] else "--",
            )
            for i, j in np.ndindex(*own[place].shape)
        ]
        for place, matrix in places.items()
    }
    return _named_lines(lines, at, abscissa, f"weight{kept}")


def _each_target(
    places: Mapping[str, Any], found: Numbers, at: Sequence[int], abscissa: str, label: str
) -> Figure:
    lines = {
        place: [(target, found[place][:, t], "-") for t, target in enumerate(matrix["targets"])]
        for place, matrix in places.items()
    }
    return _named_lines(lines, at, abscissa, label)


def _named_lines(
    lines: Mapping[str, Sequence[tuple[str, Any, str]]], at: Sequence[int], abscissa: str, label: str
) -> Figure:
    """A panel for each place, with its lines (name, values, style); a name stands once in the legend."""
    figure, axes = _panels(len(lines), abscissa, label)
    shown: dict[str, Any] = {}
    for axis, (place, own) in zip(axes, lines.items(), strict=True):
        for k, (name, values, style) in enumerate(own):
            (line,) = axis.plot(at, values, style, color=LINES[k], linewidth=1.5, label=name)
            shown.setdefault(name, line)
        axis.set_title(place, fontsize=11)
    figure.legend(shown.values(), shown.keys(), loc="outside right center", frameon=False, fontsize=8)
    return figure


def _many_targets(
    places: Mapping[str, Any], found: Numbers, at: Sequence[int], abscissa: str, label: str
) -> Figure:
    """A heat map for each place; the target with the highest value at the end, over all places, is on top."""
    names = list(next(iter(places.values()))["targets"])
    alike = all(list(matrix["targets"]) == names for matrix in places.values())
    order = (
        np.argsort(-np.mean([found[place][-1] for place in places], axis=0), kind="stable") if alike else None
    )
    rows = max(len(matrix["targets"]) for matrix in places.values())
    figure = Figure(figsize=(3.6 * len(places) + 1.8, row_height(rows) * rows + 1.2), layout="constrained")
    axes = figure.subplots(1, len(places), squeeze=False, sharey=alike)[0]
    highest = max(float(values.max()) for values in found.values())
    for axis, (place, matrix) in zip(axes, places.items(), strict=True):
        own = np.arange(len(matrix["targets"])) if order is None else order
        image = heat_map(axis, found[place][:, own].T, [matrix["targets"][k] for k in own], at)
        image.set_clim(0, highest or 1)
        axis.set_xlabel(abscissa)
        axis.set_title(place, fontsize=11)
    figure.colorbar(image, ax=list(axes), label=label, aspect=40)
    return figure
