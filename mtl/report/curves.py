"""Learning curves: a panel per task, or a heat map and a dot plot if there are many tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mtl.console import counted, number
from mtl.errors import UserError, quoted

SPLIT_COLOURS = {"train": "#8a8a8a", "validation": "#d95f02", "test": "#1b6ca8"}
SPLIT_MARKERS = {"train": "o", "validation": "s", "test": "D"}
MAX_PANELS = 12
"""Most tasks that have a panel each."""
NO_VALUE = "#e4e4e4"
"""The colour of a cell of a heat map whose value is undefined."""
MAX_NAMED_PLACES = 8
"""Most epochs or steps that are named below a heat map."""
LABEL_UNIT, SHARE, PERFECT = "in the unit of the label", "0 to 1", "1 is perfect"
UNITS = {
    "loss": "mean per label",
    "loss_weight": "factor",
    **dict.fromkeys(("rmse", "mae", "bias"), LABEL_UNIT),
    "mse": "in the square of the label's unit",
    **dict.fromkeys(("r2", "quadratic_kappa", "cohen_kappa"), PERFECT),
    **dict.fromkeys(
        (
            *("accuracy", "balanced_accuracy", "f1", "macro_f1", "micro_f1", "precision", "recall"),
            *("macro_precision", "macro_recall", "specificity", "brier"),
            *("auroc", "macro_auroc", "average_precision", "macro_average_precision", "calibration_error"),
        ),
        SHARE,
    ),
}
"""Metric -> its unit or range; a metric of a plug-in has none."""

NO_UNITS: Mapping[str, str] = {}
Rows = Sequence[dict[str, Any]]


def learning_curves(
    rows: Rows, metric: str, step: int | None = None, units: Mapping[str, str] = NO_UNITS
) -> Figure:
    """One panel per task (and one for their mean) with a line per split; many tasks are one heat map and one dot plot.

    Args:
        rows: the lines of metrics.jsonl.
        metric: the metric to draw.
        step: the step whose values the dot plot of many tasks shows; the last one if None.
        units: task -> the unit of its labels, where they have one.

    Raises:
        UserError: no row has the metric.
    """
    tasks = list(
        dict.fromkeys(key.split("/")[1] for row in rows for key in row if key.endswith(f"/{metric}"))
    )
    if not tasks:
        raise UserError("", f"no row has a metric {quoted(metric)}")
    if len(tasks) > MAX_PANELS:
        return _many_tasks(rows, metric, [task for task in tasks if task != "mean"], step, units)
    place, lines = abscissa(rows), -(-len(tasks) // 4)
    columns = -(-len(tasks) // lines)
    figure = Figure(figsize=(max(4.2 * columns, 6.4), 3.2 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharey=_has_one_scale(metric)).ravel()
    shown: dict[str, Any] = {}
    for axis, task in zip(axes, tasks, strict=False):
        for split, colour in SPLIT_COLOURS.items():
            key = f"{split}/{task}/{metric}"
            points = [(row[place], row[key]) for row in rows if row.get(key) is not None]
            if points:
                marker = SPLIT_MARKERS[split] if len(points) < 15 else None
                (line,) = axis.plot(
                    *zip(*points, strict=True), color=colour, marker=marker, markersize=3.5, label=split
                )
                shown.setdefault(split, line)
        axis.set_title(_in_unit(task, metric, units), fontsize=11)
        whole_numbers(axis, place)
    for axis in axes[len(tasks) :]:
        axis.set_visible(False)
    for axis in axes[: len(tasks) : columns]:
        axis.set_ylabel(with_unit(metric))
    if shown:
        figure.legend(
            shown.values(), shown.keys(), loc="outside lower center", ncols=len(shown), frameon=False
        )
    return figure


def _has_one_scale(metric: str) -> bool:
    """Whether the values of different tasks can be compared, so that their panels have one range."""
    return metric == "loss_weight" or UNITS.get(metric) in (SHARE, PERFECT)


def abscissa(rows: Rows) -> str:
    """The unit of the x axis: epochs if each epoch was measured at a single step, else steps."""
    steps = {(row["epoch"], row["step"]) for row in rows}
    return "epoch" if len(steps) == len({epoch for epoch, _ in steps}) else "step"


def with_unit(metric: str) -> str:
    """The name of a metric with its unit or range: `rmse (in the unit of the label)`."""
    unit = UNITS.get(metric)
    return metric.replace("_", " ") + (f" ({unit})" if unit else "")


def _in_unit(task: str, metric: str, units: Mapping[str, str]) -> str:
    """The name of a task with the unit of its labels, if the metric is in that unit: `spend (CHF)`."""
    return f"{task} ({units[task]})" if task in units and UNITS.get(metric) == LABEL_UNIT else task


def whole_numbers(axis: Axes, place: str) -> None:
    """Name the x axis by epochs or steps, with ticks at whole numbers only."""
    axis.set_xlabel(place)
    axis.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, min_n_ticks=1))
    axis.grid(alpha=0.25)


def heat_map(
    axis: Axes, values: NDArray[np.float64], names: Sequence[str], at: Sequence[int], scale: str = "linear"
) -> Any:
    """Draw a row per name and a column per epoch or step; returns the image, for a colour bar."""
    from matplotlib import colormaps

    colours = colormaps["viridis"].with_extremes(bad=NO_VALUE)
    image = axis.imshow(
        np.ma.masked_invalid(values), cmap=colours, aspect="auto", interpolation="none", norm=scale
    )
    every = -(-len(at) // MAX_NAMED_PLACES)
    named = range(0, len(at), every)
    axis.set_xticks(list(named), [f"{at[k]:,}" for k in named])
    axis.set_yticks(range(len(names)), names, fontsize=row_font(len(names)))
    return image


def row_height(n_rows: int) -> float:
    """Inches of a row of many: from 0.2 for a few down to 0.11, at which names can still be read."""
    return min(0.2, max(0.11, 12 / n_rows))


def row_font(n_rows: int) -> float:
    """Points of the name of a row, so that names do not touch each other."""
    return min(9.0, 72 * row_height(n_rows) * 0.75)


def _many_tasks(
    rows: Rows, metric: str, tasks: Sequence[str], step: int | None, units: Mapping[str, str]
) -> Figure:
    """The course of each task as a row of colours, and its value in each split at one step; the highest is on top."""
    place = abscissa(rows)
    split = _shown_split(rows, metric, tasks)
    course = [row for row in rows if row["split"] == split]
    values = _values(course, split, metric, tasks)
    ends = _at_step(rows, metric, tasks, step)
    key = ends[split]
    order = np.argsort(np.where(np.isnan(key), np.inf, -key), kind="stable")
    names = [_in_unit(tasks[k], metric, units) for k in order]
    height = row_height(len(tasks)) * len(tasks) + 1.4
    figure = Figure(figsize=(11.0, height), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.2))
    scale = _scale([values, *ends.values()])
    image = heat_map(left, values[:, order].T, names, [row[place] for row in course], scale)
    right.set_xscale(scale)
    left.set_xlabel(place)
    left.set_title(f"{split}, each {place}", fontsize=11)
    figure.colorbar(image, ax=left, label=with_unit(metric), location="bottom", aspect=40, pad=0.02)
    ends = {name: found for name, found in ends.items() if not np.isnan(found).all()}
    always = ~np.isnan(list(ends.values())).any(axis=0)  # medians of different tasks could not be compared
    of = f" of {always.sum()}" if always.sum() < len(tasks) else ""
    for name, found in ends.items():
        median = f", median {number(float(np.median(found[always])))}{of}" if always.any() else ""
        right.plot(
            found[order], range(len(names)), linestyle="", marker=SPLIT_MARKERS[name], markersize=4,
            color=SPLIT_COLOURS[name], label=name + median,
        )  # fmt: skip
    right.grid(alpha=0.25)
    right.set_xlabel(with_unit(metric))
    at = course[-1]["step"] if step is None else step
    right.set_title(f"{counted(len(tasks), 'task')} at step {at:,}, sorted by {split}", fontsize=11, pad=26)
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=9)
    return figure


def _scale(found: Sequence[NDArray[np.float64]]) -> str:
    """A logarithmic scale for positive values of very different size, such as errors in several units."""
    values = np.concatenate([part.ravel() for part in found])
    values = values[~np.isnan(values)]
    return "log" if values.size and values.min() > 0 and values.max() > 1000 * values.min() else "linear"


def _shown_split(rows: Rows, metric: str, tasks: Sequence[str]) -> str:
    """Validation if the metric was measured on it; else the split that was measured most often."""
    counts = {
        split: sum(
            row["split"] == split and any(_known(row, split, t, metric) for t in tasks) for row in rows
        )
        for split in ("validation", "test", "train")
    }
    return "validation" if counts["validation"] else max(counts, key=lambda split: counts[split])


def _known(row: dict[str, Any], split: str, task: str, metric: str) -> bool:
    return row.get(f"{split}/{task}/{metric}") is not None


def _values(rows: Rows, split: str, metric: str, tasks: Sequence[str]) -> NDArray[np.float64]:
    """Row x task; NaN where a value is undefined."""
    found = [[row.get(f"{split}/{task}/{metric}") for task in tasks] for row in rows]
    return np.array([[np.nan if v is None else v for v in line] for line in found], float).reshape(
        -1, len(tasks)
    )


def _at_step(
    rows: Rows, metric: str, tasks: Sequence[str], step: int | None
) -> dict[str, NDArray[np.float64]]:
    """Split -> the values of the tasks at a step, or in the last row of the split if it has none at that step."""
    ends = {}
    for split in SPLIT_COLOURS:
        own = [row for row in rows if row["split"] == split]
        chosen = [row for row in own if row["step"] == step][-1:] or own[-1:]
        values = _values(chosen, split, metric, tasks)
        ends[split] = values[0] if len(values) else np.full(len(tasks), np.nan)
    return ends
