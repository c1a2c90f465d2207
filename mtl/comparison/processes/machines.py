"""The machines on which the runs of a comparison are made: this one, or those of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, Self
from urllib.parse import urlsplit

from mtl.comparison.processes.pool import Pool, Workers, cores
from mtl.comparison.processes.process import COMPARED
from mtl.errors import UserError, quoted
from mtl.recipe.keys.recipe import Recipe

MOST_JOBS = 8
"""Processes that run at once on this machine unless the user asks for more."""
RAY = "ray"


class Machines(Protocol):
    """Where runs are made; `with` machines, a connection to them ends when it does.

    Args:
        told: the machines in words, put behind the number of runs at a time; empty for this one.
    """

    told: str

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def looked_at(self, recipe: Recipe) -> Recipe:
        """The recipe as this machine looks at it before the runs begin."""

    def threads(self, recipe: Recipe, wanted: int, jobs: int) -> int:
        """The threads of each run.

        Args:
            recipe: the compared recipe.
            wanted: the threads that a run alone would take on this machine.
            jobs: the runs that this machine would make at a time.
        """

    def at_once(self, recipe: Recipe, threads: int, jobs: int) -> int:
        """The runs at a time where the user names no number; the arguments are those of `threads`."""

    def workers(
        self,
        n: int,
        threads: int,
        plugins: Sequence[str],
        folder: Path,
        says: Callable[[str], None],
        module: str = COMPARED,
        all_share: bool = False,
    ) -> Pool:
        """What makes the runs.

        Args:
            n: the runs at a time.
            threads: those of each run.
            plugins: the plug-ins that each process loads.
            folder: the folder of the comparison.
            says: is given facts that the user should know.
            module: what each process runs.
            all_share: whether every machine must see the folder.
        """


class ThisMachine:
    """Each run is made by a process on this machine."""

    told = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is to be ended."""

    def looked_at(self, recipe: Recipe) -> Recipe:
        """The recipe itself."""
        return recipe

    def threads(self, recipe: Recipe, wanted: int, jobs: int) -> int:
        """As many as there are cores for each run."""
        return max(1, min(wanted, cores() // jobs))

    def at_once(self, recipe: Recipe, threads: int, jobs: int) -> int:
        """As many as this machine makes."""
        return jobs

    def workers(
        self,
        n: int,
        threads: int,
        plugins: Sequence[str],
        folder: Path,
        says: Callable[[str], None],
        module: str = COMPARED,
        all_share: bool = False,
    ) -> Pool:
        """Processes, of which at most `n` run at a time."""
        return Workers(n, threads, plugins, folder, module)


def usual_jobs(device: str) -> int:
    """The runs that this machine makes at a time unless the user asks for more; a GPU makes one."""
    return min(MOST_JOBS, cores()) if device == "cpu" else 1


def machines_of(on: str | None) -> Machines:
    """The machines that `--on` names; None: this one.

    Raises:
        UserError: it names none, or Ray cannot be reached there.
        EnvironmentFault: Ray is not installed.
    """
    if on is None:
        return ThisMachine()
    require_machines(on)
    from mtl.comparison.processes.on_ray.cluster import RayMachines

    return RayMachines(None if on == RAY else on)


def require_machines(on: str | None) -> None:
    """Refuse a text that names no machines; nothing is connected.

    Raises:
        UserError: it is neither `ray` nor `ray://HOST:PORT`.
    """
    if on in (None, RAY):
        return
    try:
        parts = urlsplit(on)
        is_address = parts.scheme == RAY and bool(parts.hostname) and parts.port is not None
        is_address = is_address and on == f"{RAY}://{parts.netloc}"
    except ValueError:
        is_address = False
    if not is_address:
        raise UserError("--on", f"{quoted(on)} is neither ray nor an address such as ray://head:10001")
