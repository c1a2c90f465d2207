"""Learning curves, precision and recall, and results over numbers of labels: lines over an axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mtl.report.charts.marks import SERIES, Figure, Scale, axes, box, cut, range_of, shown
from mtl.runs.results.details import Curve

POINTS = 100
"""Most points of a line; a longer one is thinned evenly."""
FEW_POINTS = 20
"""Most points that are marked one by one."""
LINES = 6
"""Most precision-recall curves in one figure."""
Line = Sequence[tuple[float, float]]


def learning_curve(lines: Mapping[str, Line], name: str, place: str, selected: float | None) -> Figure:
    """A metric over epochs or steps, one line per split; a dashed line marks the selected one.

    Args:
        lines: split -> its points.
        name: the metric, as text.
        place: `epoch` or `step`.
        selected: the epoch or step whose weights are the result.
    """
    lasts = ", ".join(f"{split} {shown(line[-1][1])}" for split, line in lines.items())
    figure = Figure(f"{name} over each {place}; at the end {lasts}", title=name)
    values = [value for line in lines.values() for _, value in line]
    places = [at for line in lines.values() for at, _ in line]
    low, high = min(places), max(places)
    x, y = box(figure, (low, high) if high > low else (low - 1, high + 1), range_of(values))
    axes(figure, x, y, place, "", whole=True)
    if selected is not None and x.low <= selected <= x.high:
        at = x(selected)
        figure.add("line", css="selected", x1=at, x2=at, y1=y.start, y2=y.end)
        anchor = "end" if at > (x.start + x.end) / 2 else "start"
        figure.text(at + (-4 if anchor == "end" else 4), y.end - 3, "selected", "tick", anchor)
    for split, line in lines.items():
        drawn = [(x(at), y(value)) for at, value in _thinned(line)]
        figure.line(drawn, f"split-{split}")
        for px, py in drawn if len(drawn) <= FEW_POINTS else ():
            figure.add("circle", css=f"dot split-{split}", cx=px, cy=py, r=2.4 if len(drawn) > 1 else 4)
    figure.legend = [(f"split-{split}", split) for split in lines]
    return figure


def _thinned(line: Line) -> Line:
    kept = np.unique(np.linspace(0, len(line) - 1, min(len(line), POINTS)).round().astype(int))
    return [line[k] for k in kept]


def precision_recall(curves: Sequence[Curve | None], names: Sequence[str], shares: Sequence[float]) -> Figure:
    """Precision over recall; a dotted line shows the precision of chance where there is one curve.

    Args:
        curves: a curve for each name, or None.
        names: classes or labels; an empty name for a yes-or-no task.
        shares: the share of positive rows of each.
    """
    known = [(curve, name, share) for curve, name, share in zip(curves, names, shares, strict=True) if curve]
    drawn = sorted(known, key=lambda one: -one[2])[:LINES]
    figure = Figure("precision over recall at every threshold", title="Precision and recall")
    x, y = box(figure, (0, 1), (0, 1))
    axes(figure, x, y, "recall", "precision")
    for k, (curve, name, _) in enumerate(drawn):
        steps = [(x(0), y(curve.precision[0]))] if curve.precision else []
        points = list(zip(curve.recall, curve.precision, strict=True))
        steps += [(x(recall), y(precision)) for recall, precision in _thinned(points)]
        figure.line(steps, f"series-{k % SERIES}")
        if name:
            figure.legend.append((f"series-{k % SERIES}", cut(name, 40)))
    if len(drawn) == 1:
        chance = y(drawn[0][2])
        figure.add("line", css="chance", x1=x.start, x2=x.end, y1=chance, y2=chance)
        figure.text(x.end, chance - 4, f"chance {shown(drawn[0][2])}", "tick", "end")
    if len(known) > LINES:
        figure.note = f"the {LINES} most frequent of {len(known)}"
    return figure


def label_curve(arms: Mapping[str, Sequence[tuple[float, float, float, float]]], metric: str) -> Figure:
    """Results over numbers of labels, one line per arm, with the spread over seeds.

    Args:
        arms: arm -> (labels, mean, lowest, highest) at each number of labels.
        metric: the metric, as text.
    """
    points = [point for line in arms.values() for point in line]
    ends = [f"{arm} {shown(line[-1][1])}" for arm, line in arms.items()]
    figure = Figure(f"{metric} over the number of labels; with all of them {', '.join(ends)}")
    values = [value for point in points for value in point[1:]]
    labels = [point[0] for point in points]
    low, high = range_of(values)
    few, many = min(labels), max(labels)
    x = Scale(few / 1.1, many * 1.1, 44, figure.width - 14, log=few > 0)
    y = Scale(low, high, figure.height - 38, 22)
    axes(figure, x, y, "labels (logarithmic)" if x.log else "labels", metric)
    for k, (arm, line) in enumerate(arms.items()):
        css = f"series-{k % SERIES}"
        figure.line([(x(n), y(mean)) for n, mean, *_ in line], css)
        for n, mean, lowest, highest in line:
            figure.add("line", css=f"line {css}", x1=x(n), x2=x(n), y1=y(lowest), y2=y(highest))
            figure.add("circle", css=f"dot {css}", cx=x(n), cy=y(mean), r=3)
        figure.legend.append((css, arm))
    return figure
