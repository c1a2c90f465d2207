"""The bars of several runs at once, and how long the others take."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtl.console import duration, forgiving, giving_up

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bars:
    """A bar for all runs and one for each run under way, on a terminal that can show them.

    Args:
        title: what stands before the bar of all runs.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._progress: Progress | None = None
        self._of: dict[str, TaskID] = {}

    @property
    def shown(self) -> bool:
        """Whether there are bars; elsewhere lines tell the progress."""
        return self._progress is not None

    def start(self, n: int) -> None:
        """Show the bar of `n` runs."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        if n == 0 or not sys.stderr.isatty() or console.is_dumb_terminal:
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[left]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._of = {"": self._progress.add_task(self.title, total=n, left="")}
        self._progress.start()

    def moved(self, name: str, step: int | None, of: int | None) -> None:
        """A run is at a step of so many."""
        if self._progress is not None:
            if name not in self._of:
                self._of[name] = self._progress.add_task(name, total=of, left="")
            self._progress.update(self._of[name], completed=step, total=of)

    def ended(self, name: str, n_done: int, left: str) -> None:
        """A run has ended; `n_done` have, and `left` says how long the others take."""
        if self._progress is not None:
            if name in self._of:
                self._progress.remove_task(self._of.pop(name))
            self._progress.update(self._of[""], completed=n_done, left=left)

    def close(self) -> None:
        """End the bars."""
        progress, self._progress = self._progress, None
        if progress is not None:
            with forgiving([]), giving_up(sys.stderr):
                progress.stop()


@dataclass
class Pace:
    """How fast runs end; the first of each process are left out, since they wait for its start.

    Args:
        n: all runs.
        jobs: runs at the same time.
    """

    n: int
    jobs: int
    n_done: int = 0
    since: float = 0.0

    def ended(self, now: float) -> str:
        """Count a run, and say how long the others take; empty while it is not known, and at the end."""
        self.n_done += 1
        if self.n_done <= self.jobs:
            self.since = now
            return ""
        left = self.n - self.n_done
        seconds = (now - self.since) / (self.n_done - self.jobs) * left
        return f"about {duration(seconds)} left" if left > 0 else ""
