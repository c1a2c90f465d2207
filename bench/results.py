"""The tables and plots of RESULTS.md, from the folders that `mtl compare` leaves.

    python bench/results.py FOLDER... [--plots docs/results]

For each folder it prints a table in Markdown (arms, parameters, networks, median minutes, metrics over seeds), the
verdicts in words, and writes `<name of the folder>.svg`: a dot for each seed of each arm, and for a comparison over
numbers of labels the metric against the labels.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

COLOURS = ("#0072b2", "#ad4600", "#007a5e", "#8f4b7a", "#6b6b6b", "#b8860b", "#4b3f9e", "#3c7d22")
"""Dark enough for white paper, and apart for colour-blind eyes."""


def main() -> None:
    """Print the tables of all folders and write their plots."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--plots", type=Path, default=Path("docs/results"))
    given = parser.parse_args()
    given.plots.mkdir(parents=True, exist_ok=True)
    plt.rcParams.update(
        {"font.size": 9, "svg.hashsalt": "mtl", "axes.spines.top": False, "axes.spines.right": False}
    )
    for folder in given.folders:
        found = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
        times = json.loads((folder / "timings.json").read_text(encoding="utf-8"))
        print(f"\n## {folder.name}\n")
        print(table(found, times))
        print("\n".join(f"- {line}" for line in found["summary"]))
        figure = curve(found) if found["label_curve"] else dots(found)
        figure.savefig(given.plots / f"{folder.name}.svg", bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)


def table(found: Mapping[str, Any], times: Mapping[str, Any]) -> str:
    """A row for each arm: its size, its cost, and mean and standard deviation of each task."""
    tasks = found["tasks"]
    lines = [
        "| arm | parameters | networks | minutes a run | "
        + " | ".join(f"{task} ({own['metric'].replace('_', ' ')})" for task, own in tasks.items())
        + " |",
        "|---|---|---|---|" + "---|" * len(tasks),
    ]
    for name, arm in found["arms"].items():
        seconds = [s for s in times.get(name, {}).get("seconds", []) if s is not None]
        minutes = f"{statistics.median(seconds) / 60:.1f}" if seconds else ""
        size = f"{arm['parameters']:,}" if arm["parameters"] else ""
        cells = [measured(arm["results"].get(task)) for task in tasks]
        lines.append(f"| `{name}` | {size} | {arm['models'] or ''} | {minutes} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def measured(own: Mapping[str, Any] | None) -> str:
    """Mean and standard deviation over seeds."""
    if own is None or own["mean"] is None:
        return ""
    return f"{own['mean']:.4f}" + (f" ± {own['sd']:.4f}" if own["sd"] is not None else "")


def dots(found: Mapping[str, Any]) -> Any:
    """A panel for each task: a dot for each seed, a bar at the mean, arms from top to bottom."""
    tasks, arms = list(found["tasks"]), list(found["arms"])
    figure, panels = plt.subplots(
        1, len(tasks), figsize=(3.1 * len(tasks) + 1.2, 0.32 * len(arms) + 0.9), sharey=True, squeeze=False
    )
    for panel, task in zip(panels[0], tasks, strict=True):
        for y, arm in enumerate(arms):
            own = found["arms"][arm]["results"].get(task)
            values = [v for v in own["values"] if v is not None] if own else []
            colour = COLOURS[y % len(COLOURS)]
            panel.plot(values, [y] * len(values), "o", ms=4, alpha=0.6, color=colour)
            if values:
                mean = statistics.fmean(values)
                panel.plot([mean, mean], [y - 0.3, y + 0.3], color=colour, lw=2)
        panel.set_title(f"{task}: {found['tasks'][task]['metric'].replace('_', ' ')}", loc="left", fontsize=9)
        panel.grid(axis="x", color="#e5e5e5", lw=0.6)
        panel.set_axisbelow(True)
        panel.xaxis.set_major_locator(MaxNLocator(4))
    panels[0][0].set_yticks(range(len(arms)), arms)
    panels[0][0].invert_yaxis()
    return figure


def curve(found: Mapping[str, Any]) -> Any:
    """The metric of the thinned out task against its labels: mean and standard deviation of each arm."""
    points: Sequence[Mapping[str, Any]] = found["label_curve"]
    figure, panel = plt.subplots(figsize=(4.6, 3.0))
    for i, arm in enumerate(dict.fromkeys(point["arm"] for point in points)):
        own = sorted((p for p in points if p["arm"] == arm), key=lambda p: p["labels"])
        known = [[v for v in point["values"] if v is not None] for point in own]
        panel.errorbar(
            [p["labels"] * 1.03 ** (i - 2) for p in own],
            [statistics.fmean(values) for values in known],
            [statistics.stdev(values) if len(values) > 1 else 0.0 for values in known],
            label=arm, color=COLOURS[i % len(COLOURS)], marker="o", ms=4, lw=1.3, capsize=2,
        )  # fmt: skip
    task = points[0]["task"]
    panel.set_xscale("log")
    labels = sorted({point["labels"] for point in points})
    panel.set_xticks(labels, [f"{n:,}" for n in labels])
    panel.minorticks_off()
    panel.set_xlabel(f"labels of {task}")
    panel.set_ylabel(f"{task}: {found['tasks'][task]['metric'].replace('_', ' ')}")
    panel.grid(color="#e5e5e5", lw=0.6)
    panel.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    main()
