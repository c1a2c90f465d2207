"""The plots of a run: learning curves, and what was shared."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mtl.errors import UserError
from mtl.report.curves import abscissa, learning_curves
from mtl.report.sharing_history import sharing_paths
from mtl.report.sharing_plots import require_one_form, sharing_maps
from mtl.runs.disk import write_whole
from mtl.runs.folder import RunFolder
from mtl.runs.logs import SHARING

GENERATED = "the data are generated, not measured"
MAX_PIXELS = 2**14
"""Most pixels on the longer side of a picture; matplotlib refuses 2**16."""


def plot_run(
    folder: RunFolder, metrics: Collection[str] | None = None, units: Mapping[str, str] | None = None
) -> list[Path]:
    """Draw the plots of a run into its folder and return their paths.

    Args:
        folder: the run.
        metrics: the metrics with curves besides those of the loss; by default all that were measured.
        units: task -> the unit of its labels, where they have one.

    Raises:
        UserError: `plots` is a link, or the lines of what was shared do not fit together.
        EnvironmentFault: the files cannot be written.
    """
    if folder.plots.is_symlink():  # pictures would be written outside the run
        raise UserError(str(folder.plots), "is a link, not a folder", "remove it")
    folder.plots.mkdir(exist_ok=True)
    rows, shared = folder.logs.rows(), folder.logs.rows(SHARING)
    selected = folder.record.selected
    step = selected.step if selected is not None else None
    figures: dict[str, Figure] = {}
    for metric in dict.fromkeys(key.split("/")[-1] for row in rows for key in row if "/" in key):
        if metric == "loss_weight" and not varies(rows, metric):
            continue
        if metric != "labels" and (metrics is None or metric in (*metrics, "loss", "loss_weight")):
            figures[f"curves_{metric}"] = learning_curves(rows, metric, step, units or {})
    if shared:
        require_one_form(shared, folder.path / SHARING)
        shown = next((row for row in reversed(shared) if row["step"] == step), shared[-1])
        figures["sharing"] = sharing_maps(shown)
        figures["sharing_history"] = sharing_paths(shared, abscissa(shared))
    note = GENERATED if folder.record.data.generated else ""
    return [
        _save(figure, folder.plots / f"{name}.png", title_of(folder), note)
        for name, figure in figures.items()
    ]


def title_of(folder: RunFolder) -> str:
    """The run of a picture: the name of its recipe, its folder, and the beginning of its id."""
    return f"{folder.record.name}\nrun {folder.path.resolve().name}, id {folder.record.id[:8]}"


def varies(rows: Sequence[dict[str, Any]], metric: str) -> bool:
    """Whether a metric of any task differs between the rows that have it."""
    values: dict[str, set[float]] = {}
    for row in rows:
        for key, value in row.items():
            if key.endswith(f"/{metric}"):
                values.setdefault(key, set()).add(value)
    return any(len(found) > 1 for found in values.values())


def _save(figure: Figure, path: Path, title: str = "", note: str = "") -> Path:
    """Write a picture with `title` above it and `note` below it; a link of its name is replaced, not followed."""
    shown = [title, figure.get_suptitle()]
    if any(shown):
        figure.set_figheight(figure.get_figheight() + 0.5)
        figure.suptitle(", ".join(filter(None, shown)), fontsize=11)
    if note:
        figure.set_figheight(figure.get_figheight() + 0.3)
        figure.supxlabel(note, fontsize=9, color="#555555")
    FigureCanvasAgg(figure)
    png = BytesIO()
    figure.savefig(png, format="png", dpi=min(110.0, MAX_PIXELS / max(figure.get_size_inches())))
    write_whole(path, png.getvalue())
    return path
