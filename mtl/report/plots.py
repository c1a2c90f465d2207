"""The plots of a run: learning curves, and what was shared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mtl.errors import UserError, quoted
from mtl.report.sharing_plots import require_one_form, sharing_maps, sharing_paths
from mtl.runs.disk import write_whole
from mtl.runs.folder import RunFolder
from mtl.runs.logs import SHARING

GENERATED = "the data are generated, not measured"
SPLIT_COLOURS = {"train": "#8a8a8a", "validation": "#d95f02", "test": "#1b6ca8"}

MAX_PIXELS = 2**14
"""Most pixels on the longer side of a picture; matplotlib refuses 2**16."""


MAX_PANELS = 12
"""Most tasks that have a panel each; the lines of more tasks are drawn in one panel."""


def plot_run(folder: RunFolder, metrics: Collection[str] | None = None) -> list[Path]:
    """Draw the plots of a run into its folder and return their paths.

    Args:
        folder: the run.
        metrics: the metrics with curves besides those of the loss; by default all that were measured.

    Raises:
        UserError: `plots` is a link, or the lines of what was shared do not fit together.
        EnvironmentFault: the files cannot be written.
    """
    if folder.plots.is_symlink():  # pictures would be written outside the run
        raise UserError(str(folder.plots), "is a link, not a folder", "remove it")
    folder.plots.mkdir(exist_ok=True)
    rows, shared = folder.logs.rows(), folder.logs.rows(SHARING)
    note = GENERATED if folder.record.data.generated else ""
    paths = []
    for metric in dict.fromkeys(key.split("/")[-1] for row in rows for key in row if "/" in key):
        if metric == "loss_weight" and not varies(rows, metric):
            continue
        if metric != "labels" and (metrics is None or metric in (*metrics, "loss", "loss_weight")):
            paths.append(_save(learning_curves(rows, metric), folder.plots / f"curves_{metric}.png", note))
    if shared:
        require_one_form(shared, folder.path / SHARING)
        selected = folder.record.selected
        step = selected.step if selected is not None else None
        shown = next((row for row in reversed(shared) if row["step"] == step), shared[-1])
        paths.append(_save(sharing_maps(shown), folder.plots / "sharing.png", note))
        paths.append(
            _save(sharing_paths(shared, abscissa(shared)), folder.plots / "sharing_history.png", note)
        )
    return paths


def varies(rows: Sequence[dict[str, Any]], metric: str) -> bool:
    """Whether a metric of any task differs between the rows that have it."""
    values: dict[str, set[float]] = {}
    for row in rows:
        for key, value in row.items():
            if key.endswith(f"/{metric}"):
                values.setdefault(key, set()).add(value)
    return any(len(found) > 1 for found in values.values())


def learning_curves(rows: Sequence[dict[str, Any]], metric: str) -> Figure:
    """One panel per task (and one for their mean) with a line per split; for many tasks, one panel per split.

    Raises:
        UserError: no row has the metric.
    """
    tasks = list(
        dict.fromkeys(key.split("/")[1] for row in rows for key in row if key.endswith(f"/{metric}"))
    )
    if not tasks:
        raise UserError("", f"no row has a metric {quoted(metric)}")
    if len(tasks) > MAX_PANELS:
        return _curves_of_many(rows, metric, tasks)
    columns, place = min(len(tasks), 4), abscissa(rows)
    lines = -(-len(tasks) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharey=metric == "loss_weight").ravel()
    for axis, task in zip(axes, tasks, strict=False):
        for split, colour in SPLIT_COLOURS.items():
            key = f"{split}/{task}/{metric}"
            points = [(row[place], row[key]) for row in rows if row.get(key) is not None]
            if points:
                marker = "o" if len(points) < 15 else None
                axis.plot(
                    *zip(*points, strict=True), color=colour, marker=marker, markersize=3.5, label=split
                )
        axis.set_title(task)
        axis.set_xlabel(place)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25)
    for axis in axes[len(tasks) :]:
        axis.set_visible(False)
    axes[0].set_ylabel(metric.replace("_", " "))
    drawn = next((axis for axis in axes if axis.lines), None)
    if drawn is not None:
        drawn.legend(frameon=False)
    return figure


def _curves_of_many(rows: Sequence[dict[str, Any]], metric: str, tasks: Sequence[str]) -> Figure:
    """A panel per split, with a thin line per task and the median of the tasks that always have a value."""
    tasks = [task for task in tasks if task != "mean"]
    counts = Counter(row["split"] for row in rows)
    splits, place = [split for split in SPLIT_COLOURS if counts[split] > 1] or list(counts), abscissa(rows)
    figure = Figure(figsize=(5.2 * len(splits), 4.2), layout="constrained")
    axes = figure.subplots(1, len(splits), squeeze=False, sharey=True)[0]
    for axis, split in zip(axes, splits, strict=True):
        own = [row for row in rows if row["split"] == split]
        at = [row[place] for row in own]
        values = np.array(
            [[np.nan if row.get(f"{split}/{t}/{metric}") is None else row[f"{split}/{t}/{metric}"] for t in tasks]
             for row in own], dtype=float,
        )  # fmt: skip
        axis.plot(at, values, color=SPLIT_COLOURS[split], alpha=0.35, linewidth=0.8)
        known = ~np.isnan(values).all(axis=1)
        always = ~np.isnan(values[known]).any(axis=0)  # of the same tasks throughout, or the line would jump
        if always.any():
            middle, label = np.median(values[known][:, always], axis=1), f"median of {always.sum()} tasks"
            axis.plot(np.array(at)[known], middle, color="black", linewidth=2, label=label)
        axis.set_title(f"{split}, {len(tasks)} tasks")
        axis.set_xlabel(place)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel(metric.replace("_", " "))
    if axes[0].get_legend_handles_labels()[0]:
        axes[0].legend(frameon=False)
    return figure


def abscissa(rows: Sequence[dict[str, Any]]) -> str:
    """The unit of the x axis: epochs if each epoch was measured at a single step, else steps."""
    steps = {(row["epoch"], row["step"]) for row in rows}
    return "epoch" if len(steps) == len({epoch for epoch, _ in steps}) else "step"


def _save(figure: Figure, path: Path, note: str = "") -> Path:
    """Write a picture, with `note` below it; if its name is a link, the link is replaced, not followed."""
    if note:
        figure.set_figheight(figure.get_figheight() + 0.3)
        figure.supxlabel(note, fontsize=9, color="#555555")
    FigureCanvasAgg(figure)
    png = BytesIO()
    figure.savefig(png, format="png", dpi=min(110.0, MAX_PIXELS / max(figure.get_size_inches())))
    write_whole(path, png.getvalue())
    return path
