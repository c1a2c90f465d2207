"""Learning curves and alpha heat maps as PNG."""

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
from mtl.runs.disk import write_whole
from mtl.runs.folder import RunFolder
from mtl.runs.logs import ALPHAS
from mtl.runs.record import PUT_BACK

GENERATED = "the data are generated, not measured"
SPLIT_COLOURS = {"train": "#8a8a8a", "validation": "#d95f02", "test": "#1b6ca8"}

MAX_PANEL, MAX_TICKS = 12.0, 25
"""Inches of one alpha map, and towers named on its sides."""
MAX_PIXELS = 2**14
"""On the longer side of a picture; matplotlib refuses 2**16."""


MAX_PANELS, MAX_PATHS = 12, 4
"""Tasks that have a panel each, and towers whose alphas have a line each; of more, all lines are in one panel."""


def plot_run(folder: RunFolder, metrics: Collection[str] | None = None) -> list[Path]:
    """Draw the plots of a run into its folder and return their paths.

    Args:
        folder: the run.
        metrics: whose curves are drawn beside those of the loss; default: all that were measured.

    Raises:
        UserError: `plots` is a link, or the alphas are not those of the run's towers.
        EnvironmentFault: the disk refused.
    """
    if folder.plots.is_symlink():  # pictures would land outside the run
        raise UserError(str(folder.plots), "is a link, not a folder", "remove it")
    folder.plots.mkdir(exist_ok=True)
    rows, alphas = folder.logs.rows(), folder.logs.rows(ALPHAS)
    note = GENERATED if folder.record.data.generated else ""
    paths = []
    for metric in dict.fromkeys(key.split("/")[-1] for row in rows for key in row if "/" in key):
        if metric != "labels" and (metrics is None or metric in (*metrics, "loss")):
            paths.append(_save(learning_curves(rows, metric), folder.plots / f"curves_{metric}.png", note))
    if alphas:
        towers = list(folder.record.towers)
        require_alphas_of(towers, alphas, folder.path / ALPHAS)
        selected = folder.record.selected
        step = selected.step if selected is not None else None
        shown = next((row for row in reversed(alphas) if row["step"] == step), alphas[-1])
        paths.append(_save(alpha_maps(shown, towers), folder.plots / "alpha.png", note))
        paths.append(_save(alpha_paths(alphas, towers), folder.plots / "alpha_history.png", note))
    return paths


def require_alphas_of(towers: Sequence[str], alphas: Sequence[dict[str, Any]], path: Path) -> None:
    """Each line has the same sites, and one row per tower.

    Raises:
        UserError: one has not.
    """
    sites = alphas[0]["alpha"].keys()
    for number, row in enumerate(alphas, start=1):
        if row["alpha"].keys() != sites or {len(alpha) for alpha in row["alpha"].values()} != {len(towers)}:
            raise UserError(f"{path}:{number}", "the alphas are not those of the run's towers", PUT_BACK)


def learning_curves(rows: Sequence[dict[str, Any]], metric: str) -> Figure:
    """One panel per task (and for their mean) with a line per split; of many tasks, one per split.

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
    columns, place = min(len(tasks), 4), _abscissa(rows)
    lines = -(-len(tasks) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
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
    """A panel per split: a thin line per task, and their median."""
    tasks = [task for task in tasks if task != "mean"]
    counts = Counter(row["split"] for row in rows)
    splits, place = [split for split in SPLIT_COLOURS if counts[split] > 1] or list(counts), _abscissa(rows)
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
        middle = np.nanmedian(values[known], axis=1)
        axis.plot(np.array(at)[known], middle, color="black", linewidth=2, label="median of tasks")
        axis.set_title(f"{split}, {len(tasks)} tasks")
        axis.set_xlabel(place)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel(metric.replace("_", " "))
    axes[0].legend(frameon=False)
    return figure


def alpha_maps(logged: dict[str, Any], towers: Sequence[str]) -> Figure:
    """The alpha of each site at one step: row i says what goes into tower i's new activation."""
    sites = logged["alpha"]
    size = min(max(2.6, 0.45 * len(towers) + 1.4), MAX_PANEL)
    ticks = range(0, len(towers), -(-len(towers) // MAX_TICKS))
    names = [towers[k] for k in ticks]
    figure = Figure(figsize=(size * len(sites) + 0.8, size + 1.2), layout="constrained")
    axes = figure.subplots(1, len(sites), squeeze=False)[0]
    limit = max(1.0, *(abs(v) for alpha in sites.values() for line in alpha for v in line))
    for axis, (site, alpha) in zip(axes, sites.items(), strict=True):
        image = axis.imshow(alpha, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set_title(f"after {site}")
        axis.set_xticks(ticks, names, rotation=45, ha="right")
        axis.set_yticks(ticks, names if axis is axes[0] else [""] * len(names))
        axis.set_xlabel("from tower")
        if len(towers) <= 8:
            for i, line in enumerate(alpha):
                for j, value in enumerate(line):
                    colour = "white" if abs(value) > 0.6 * limit else "black"
                    axis.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=9)
    axes[0].set_ylabel("into tower")
    figure.colorbar(image, ax=list(axes), shrink=0.8, label="alpha")
    figure.suptitle(f"step {logged['step']}")
    return figure


def alpha_paths(history: Sequence[dict[str, Any]], towers: Sequence[str]) -> Figure:
    """How each alpha moved, a panel per site."""
    sites = list(history[0]["alpha"])
    figure = Figure(figsize=(4.2 * len(sites) + 1.6, 3.4), layout="constrained")
    axes = figure.subplots(1, len(sites), squeeze=False, sharey=True)[0]
    place, n = _abscissa(history), len(towers)
    at = [row[place] for row in history]
    for axis, site in zip(axes, sites, strict=True):
        values = np.array([row["alpha"][site] for row in history])
        if n > MAX_PATHS:
            own = np.eye(n, dtype=bool)
            others = values[:, ~own]
            axis.plot(at, values[:, own], color="#1b6ca8", alpha=0.35, linewidth=0.8)
            axis.fill_between(at, others.min(1), others.max(1), color="#d95f02", alpha=0.2, linewidth=0)
            axis.plot(
                at, others.mean(1), color="#d95f02", linestyle="--", label="other towers: mean and range"
            )
        for i, j in np.ndindex(n, n) if n <= MAX_PATHS else ():
            style = {"label": f"{towers[i]} from {towers[j]}"} if n <= 3 else {"alpha": 0.5}
            axis.plot(at, values[:, i, j], linestyle="-" if i == j else "--", linewidth=1.3, **style)
        axis.set_title(f"after {site}")
        axis.set_xlabel(place)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("alpha (full lines: own tower)")
    if n <= 3 or n > MAX_PATHS:
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8
        )
    return figure


def _abscissa(rows: Sequence[dict[str, Any]]) -> str:
    """Curves run over epochs if all that was measured of an epoch was measured at one step; else over steps."""
    steps = {(row["epoch"], row["step"]) for row in rows}
    return "epoch" if len(steps) == len({epoch for epoch, _ in steps}) else "step"


def _save(figure: Figure, path: Path, note: str = "") -> Path:
    """Write a picture, with a note below it if there is one; a link of its name is replaced, not followed."""
    if note:
        figure.set_figheight(figure.get_figheight() + 0.3)
        figure.supxlabel(note, fontsize=9, color="#555555")
    FigureCanvasAgg(figure)
    png = BytesIO()
    figure.savefig(png, format="png", dpi=min(110.0, MAX_PIXELS / max(figure.get_size_inches())))
    write_whole(path, png.getvalue())
    return path
