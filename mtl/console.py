"""Text for people: tables, numbers and durations. Results go to stdout, complaints to stderr."""

from __future__ import annotations

import io
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, suppress
from typing import IO

from mtl.errors import EnvironmentFault, printable

SMALLEST, LARGEST = 1e-4, 1e9
"""Numbers below and from here on are written with a power of ten."""
NUMBER = re.compile(r"-?[0-9][0-9,]*(\.[0-9]+)?(e-?[0-9]+)?|-|")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Aligned columns as text; the first `left` columns are left-aligned, the others right-aligned.

    A cell is one line: line ends in it are written as `\\n`, as other characters that steer a terminal are.

    The numbers of a right-aligned column have their decimal points below each other.
    """
    columns = [list(map(on_one_line, column)) for column in zip(*rows, strict=True)] or [[] for _ in head]
    columns = [column if i < left else _on_the_point(column) for i, column in enumerate(columns)]
    rows = list(zip(*columns, strict=True))
    widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row in [head, ["-" * width for width in widths], *rows]:
        cells = [
            str(cell).ljust(width) if i < left else str(cell).rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def on_one_line(text: str) -> str:
    """The text as it is if it can be printed on one line, and otherwise as Python writes it, without quotes."""
    return text if text.isprintable() else repr(text)[1:-1]


def _on_the_point(cells: Sequence[str]) -> list[str]:
    """The cells of a column of numbers, with spaces behind the shorter decimals; other columns as they are."""
    if not all(NUMBER.fullmatch(cell) for cell in cells):
        return list(cells)
    behind = [len(cell) - len(re.split(r"[.e]", cell)[0]) for cell in cells]
    most = max(behind, default=0)
    return [cell + " " * (most - n) if cell else "" for cell, n in zip(cells, behind, strict=True)]


def number(value: float | None) -> str:
    """A number with four significant digits; an int is exact, and an undefined number is `-`.

    Numbers from 0.0001 up to a thousand million are written out, as in `0.9151`, `31.40` and `2,974,000`, and others
    with a power of ten, as in `1.000e-9`.
    """
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0 or not math.isfinite(value):
        return f"{abs(value) if value == 0 else value:g}"
    mantissa, _, power = f"{value:.3e}".partition("e")
    if SMALLEST <= abs(float(f"{mantissa}e{power}")) < LARGEST:
        return f"{float(f'{mantissa}e{power}'):,.{max(0, 3 - int(power))}f}"
    return f"{mantissa}e{int(power)}"


def counted(n: int, thing: str, things: str | None = None) -> str:
    """A number of things: `1 task`, `2,000 rows`; `things` is the plural if it is not `thing` with an s."""
    return f"{n:,} {thing if n == 1 else things or f'{thing}s'}"


def rows_of_splits(splits: Mapping[str, Sized]) -> str:
    """The numbers of rows of splits: `40 train, 1 test row`."""
    numbers = ", ".join(f"{len(rows):,} {split}" for split, rows in splits.items())
    last = len(list(splits.values())[-1])
    return f"{numbers} row" if last == 1 else f"{numbers} rows"


def percent(part: float, whole: float) -> str:
    """A share as a percentage. It is 0% only if nothing is in it and 100% only if everything is.

    Shares below 10% have one decimal, and so do those above 99%.
    """
    share = 100 * part / whole
    if part == 0 or part == whole:
        return f"{share:.0f}%"
    if share < 0.1:
        return "under 0.1%"
    if share > 99.9:
        return "over 99.9%"
    return f"{share:.1f}%" if share < 9.95 or share > 99 else f"{share:.0f}%"


def file_size(n_bytes: float) -> str:
    """A number of bytes in units of powers of 1000: `812 bytes`, `25.9 MB`, `1.2 GB`."""
    from rich.filesize import decimal

    return decimal(int(n_bytes))


def duration(seconds: float) -> str:
    """A duration in seconds as text: `40 ms`, `9.1 s`, `4 min 10 s`, `2 h 05 min`."""
    whole = round(seconds)
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
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
    with giving_up(stream):
        print(printable(text), file=stream, flush=True)


_unread: list[list[str]] = []
"""For each open `forgiving` context: the outputs that were lost inside."""


@contextmanager
def forgiving(lost: list[str]) -> Iterator[None]:
    """Inside, a stream that refuses its output is muted and the work goes on; `lost` gets the stream and the reason.

    A run needs nobody who reads its lines: its terminal may be gone, and the disk of its output may be full.
    """
    _unread.append(lost)
    try:
        yield
    finally:
        _unread.pop()


@contextmanager
def giving_up(stream: IO[str]) -> Iterator[None]:
    """Mute a stream that refuses what is printed inside. A refusal of results of a command is an error of it."""
    try:
        yield
    except BrokenPipeError:  # nobody reads on (`| head -1`), but the work goes on
        mute(stream)
    except OSError as error:
        mute(stream)
        if _unread:
            name = {id(sys.stdout): "stdout", id(sys.stderr): "stderr"}.get(id(stream), "output")
            _unread[-1].append(f"{name}: {(error.strerror or str(error)).lower()}")
        elif stream is not sys.stderr:  # there is nobody to whom it could be said
            raise EnvironmentFault("stdout", (error.strerror or str(error)).lower()) from error


def mute(stream: IO[str]) -> None:
    """Discard all further output of a stream, and the output that is still in its buffer."""
    # a stream of a notebook has no number, and that of another program may be closed
    with suppress(io.UnsupportedOperation, OSError, ValueError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def results_table(
    metrics: Mapping[str, float | None],
    split: str,
    units: Mapping[str, str] | None = None,
    last: Sequence[str] = (),
    heading: str | None = None,
) -> str:
    """The results of one split: a row per task (and `mean`) with the unit of its labels, a column per metric.

    The metrics in `last` come last. `heading` stands above the tasks in place of the split's name.
    """
    cells: dict[str, dict[str, float | None]] = {}
    for name, value in metrics.items():
        of_split, task, metric = name.split("/")
        if of_split == split:
            cells.setdefault(task, {})[metric] = value
    columns = list(dict.fromkeys(metric for row in cells.values() for metric in row))
    columns.sort(key=lambda metric: metric in last)
    names = {task: f"{task} ({unit})" for task, unit in (units or {}).items()}
    rows = [
        [names.get(task, task), *(number(row[c]) if c in row else "" for c in columns)]
        for task, row in cells.items()
    ]
    return table([heading or split, *(c.replace("_", " ") for c in columns)], rows)


def traceback_file(error: BaseException) -> str:
    """The path of a new file with the traceback of an exception."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="mtl-traceback-", suffix=".txt", delete=False) as file:
        traceback.print_exception(error, file=file)
    return file.name
