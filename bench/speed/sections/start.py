"""How soon commands answer, each beside a Python that imports torch; the processes take turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.speed.measure import ROOT, cell, child, spread
from bench.speed.measure import table as markdown

ROUNDS = 5
TITLE = "Start"
RECIPE = str(ROOT / "recipes" / "synthetic_stitch.yaml")
IMPORT = "python -c 'import torch'"
COMMANDS: dict[str, list[str]] = {
    IMPORT: ["-c", "import torch"],
    "mtl --help": ["-m", "mtl", "--help"],
    "mtl validate": ["-m", "mtl", "validate", RECIPE],
    "mtl run, first step": ["-m", "bench.speed.children", "first_step", RECIPE, "--out"],
}
"""What is shown -> what follows `python`; after `--out` comes a folder of its own."""


def section(rounds: int, commands: Mapping[str, Sequence[str]] = COMMANDS) -> dict[str, Any]:
    """Command -> its seconds on the clock, and those of its threads."""
    wall: dict[str, list[float]] = {name: [] for name in commands}
    cpu: dict[str, list[float]] = {name: [] for name in commands}
    with TemporaryDirectory(prefix="mtl_bench_") as folder:
        for i in range(rounds + 1):  # files are read from the disk in the first round, which does not count
            for name, command in commands.items():
                out = [Path(folder, f"run{i}")] if command[-1] == "--out" else []
                ended = child([*command, *out])
                if i:
                    wall[name].append(ended.seconds)
                    cpu[name].append(ended.cpu)
    return {name: {"wall": spread(wall[name]), "cpu": spread(cpu[name])} for name in commands}


def table(found: Mapping[str, Any]) -> str:
    """The table of this section."""
    head = ["command", "seconds", f"to {IMPORT}", "seconds of CPU", f"to {IMPORT}"]
    first, rows = found[IMPORT], []
    for name, own in found.items():
        ratios = {how: f"{own[how]['median'] / first[how]['median']:.2f}" for how in ("wall", "cpu")}
        rows.append([f"`{name}`", cell(own["wall"]), ratios["wall"], cell(own["cpu"]), ratios["cpu"]])
    return markdown(head, rows)
