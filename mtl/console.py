"""Text for people: tables, numbers and durations. Results go to stdout, complaints to stderr."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

from mtl.errors import printable


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Aligned columns as text; the first `left` columns are left-aligned, the others right-aligned."""
    widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row in [head, ["-" * width for width in widths], *rows]:
        cells = [
            str(cell).ljust(width) if i < left else str(cell).rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def number(value: float | None) -> str:
    """A metric with four digits; `-` if it is undefined."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def duration(seconds: float) -> str:
    """A duration in seconds as text: `9 s`, `4 min 10 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def say(text: str = "") -> None:
    """Print one line, or several, on stdout."""
    _print(text, sys.stdout)


def complain(text: str) -> None:
    """Print one line on stderr."""
    _print(text, sys.stderr)


def _print(text: str, stream: IO[str]) -> None:
    try:
        print(printable(text), file=stream, flush=True)
    except BrokenPipeError:  # nobody reads on (`| head -1`), but the work goes on
        mute(stream)


def mute(stream: IO[str]) -> None:
    """Discard all further output of a stream, and the output that is still in its buffer."""
    # a stream of a notebook has no number
    with suppress(io.UnsupportedOperation), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def results_table(metrics: Mapping[str, float | None], split: str, last: Sequence[str] = ()) -> str:
    """The results of one split: a row per task (and `mean`), a column per metric; the metrics in `last` come last."""
    cells: dict[str, dict[str, float | None]] = {}
    for name, value in metrics.items():
        of_split, task, metric = name.split("/")
        if of_split == split:
            cells.setdefault(task, {})[metric] = value
    columns = list(dict.fromkeys(metric for row in cells.values() for metric in row))
    columns.sort(key=lambda metric: metric in last)
    rows = [[task, *(number(row[c]) if c in row else "" for c in columns)] for task, row in cells.items()]
    return table([split, *(c.replace("_", " ") for c in columns)], rows)
