"""Heat maps of what each target takes from each source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtl.report.charts.marks import Figure, cut, shown

MOST_NAMED = 40
"""Most rows or columns of a map; a larger matrix is told by its largest weights."""
MOST_WRITTEN = 8
"""Most rows and columns of a map whose cells have their number written in them."""
MOST_TOLD = 12
"""Most rows and columns of a map whose cells tell their names and values to a pointer; those of many take much room."""
FAINTEST = 0.72
"""The opacity of the largest weight; text on it can still be read."""


def largest(matrix: Mapping[str, Any]) -> float:
    """The largest absolute value of a matrix."""
    return max(abs(float(value)) for row in matrix["values"] for value in row)


def is_small(matrix: Mapping[str, Any]) -> bool:
    """Whether a map can name all rows and columns."""
    return max(len(matrix["targets"]), len(matrix["sources"])) <= MOST_NAMED


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
