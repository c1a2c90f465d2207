"""Figures of test rows from counts: confusions, reliability, residuals, and predictions beside labels."""

from __future__ import annotations

from collections.abc import Sequence

from mtl.report.charts.marks import Figure, amount, axes, box, cut, range_of, shown
from mtl.runs.results.details import Residuals

MOST_WRITTEN = 12
"""Most classes of a matrix whose counts are written into its cells."""
LETTER = 7.0
"""Pixels of a letter of a name below a matrix, with room around it."""
FAINT, STRONG = 0.06, 0.72
"""The opacity of an empty and of a full cell; text on a full one can still be read."""


def confusion(counts: Sequence[Sequence[float]], names: Sequence[str]) -> Figure:
    """A row for each true class and a column for each predicted one; colours are shares of the row."""
    n = len(counts)
    right = sum(counts[k][k] for k in range(n))
    total = sum(map(sum, counts))
    figure = Figure(
        f"confusion matrix of {n} classes: {amount(right)} of {amount(total)} rows are predicted right",
        title="Confusions",
    )
    left, top, cell = 96.0, 26.0, (figure.width - 104) / n
    height = min(cell, 34.0) if n <= MOST_WRITTEN else cell
    for i, row in enumerate(counts):
        whole = sum(row)
        y = top + i * height
        for j, count in enumerate(row):
            share = count / whole if whole else 0.0
            title = f"true {names[i]}, predicted {names[j]}: {amount(count)}"
            figure.add(
                "rect", "", title, css="cell" if i == j else "cell wrong", x=left + j * cell, y=y,
                width=cell, height=height, fill_opacity=f"{_opacity(share, count):.2f}",
            )  # fmt: skip
            if n <= MOST_WRITTEN:
                figure.text(
                    left + (j + 0.5) * cell,
                    y + height / 2 + 4,
                    _brief(count),
                    "count" if count else "count zero",
                )
        if n <= MOST_WRITTEN or height >= 9:
            figure.text(left - 6, y + height / 2 + 4, cut(names[i], 14), "tick", "end")
    bottom = top + n * height
    if max(map(len, names)) * LETTER <= cell:
        for j in range(n):
            figure.text(left + (j + 0.5) * cell, bottom + 14, names[j], "tick")
        figure.text(2, 12, "true ↓   predicted →", "name", "start")
        figure.height = bottom + 24
        return figure
    for j in range(n):
        x, y = left + (j + 0.5) * cell, bottom + 10
        if n <= MOST_WRITTEN or cell >= 9:
            most = 12 if n <= 4 else 10
            figure.add(
                "text", cut(names[j], most), css="tick", x=x + 3, y=y, text_anchor="end",
                transform=f"rotate(-40 {x + 3:.1f} {y:.1f})",
            )  # fmt: skip
    figure.text(2, 12, "true ↓   predicted →", "name", "start")
    figure.height = bottom + 62
    return figure


def _opacity(share: float, count: float) -> float:
    return FAINT + (STRONG - FAINT) * share if count else 0.0


def _brief(count: float) -> str:
    """A count that fits into a cell."""
    if count < 10_000:
        return amount(round(count, 1))
    return f"{count / 1000:.0f}k"


def reliability(bins: Sequence[Sequence[float]]) -> Figure:
    """The share of hits over the predicted probability; the area of a dot is the number of its rows."""
    total = sum(n for n, *_ in bins)
    gap = sum(n * abs(p - hits) for n, p, hits in bins) / total
    figure = Figure(
        f"reliability: probabilities differ from shares of hits by {shown(gap)} on average",
        title="Reliability of probabilities",
        note=f"mean distance from the diagonal {shown(gap)}; a larger dot has more rows",
    )
    x, y = box(figure, (0, 1), (0, 1))
    axes(figure, x, y, "predicted probability", "share that is right")
    figure.add("line", css="chance", x1=x(0), y1=y(0), x2=x(1), y2=y(1))
    largest = max(n for n, *_ in bins)
    figure.line([(x(p), y(hits)) for _, p, hits in bins], "split-test thin")
    for n, p, hits in bins:
        title = f"{amount(n)} rows: probability {shown(p)}, right {shown(hits)}"
        radius = 2 + 5 * (n / largest) ** 0.5
        figure.add("circle", "", title, css="dot split-test", cx=x(p), cy=y(hits), r=radius)
    return figure


def residual_histogram(residuals: Residuals, unit: str) -> Figure:
    """Counts of prediction - label."""
    beyond = residuals.below + residuals.above
    name = f"prediction - label{f' ({unit})' if unit else ''}"
    figure = Figure(
        f"histogram of prediction minus label, from {shown(residuals.edges[0])} to {shown(residuals.edges[-1])}",
        title="Residuals",
        note=f"{amount(beyond)} {'row lies' if beyond == 1 else 'rows lie'} beyond the ends"
        if beyond
        else "",
    )
    x, y = box(figure, (residuals.edges[0], residuals.edges[-1]), (0, max(residuals.counts) * 1.05 or 1))
    axes(figure, x, y, name, "rows")
    for low, high, count in zip(residuals.edges, residuals.edges[1:], residuals.counts, strict=False):
        title = f"{shown(low)} to {shown(high)}: {amount(count)} rows"
        figure.add(
            "rect", "", title, css="bar", x=x(low), y=y(count), width=max(x(high) - x(low) - 0.6, 0.4),
            height=y(0) - y(count),
        )  # fmt: skip
    if x.low < 0 < x.high:
        figure.add("line", css="chance", x1=x(0), x2=x(0), y1=y.start, y2=y.end)
    return figure


def predicted_beside_labels(groups: Sequence[Sequence[float]], unit: str) -> Figure:
    """For each tenth of the rows by label: the median of the predictions, and the middle 80% of them."""
    in_unit = f" ({unit})" if unit else ""
    figure = Figure(
        "predictions over labels: the median and the middle 80% for each tenth of the rows",
        title="Predictions beside labels",
        note="dots: medians of tenths of the rows; bars: the middle 80% of predictions",
    )
    values = [value for group in groups for value in group[1:]]
    low, high = range_of(values)
    x, y = box(figure, (low, high), (low, high))
    axes(figure, x, y, f"label{in_unit}", f"prediction{in_unit}")
    figure.add("line", css="chance", x1=x(low), y1=y(low), x2=x(high), y2=y(high))
    for n, label, lowest, middle, highest in groups:
        title = f"{amount(n)} rows, mean label {shown(label)}: median prediction {shown(middle)}"
        at = x(label)
        figure.add("line", css="line split-test", x1=at, x2=at, y1=y(lowest), y2=y(highest))
        figure.add("circle", "", title, css="dot split-test", cx=at, cy=y(middle), r=3.5)
    return figure
