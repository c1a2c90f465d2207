"""A tracker shows the measurements of a run in another program, and its Spec says what a member must give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from mtl.errors import EnvironmentFault
from mtl.recipe.base import Spec


@dataclass(frozen=True)
class TrackedRun:
    """The facts of a run that a tracker gets.

    Args:
        folder: the run folder.
        id: the id of the run; a resumed run keeps it.
        name: the name of the recipe.
        description: the description of the recipe.
        parameters: dotted key of the resolved recipe -> its value; a list of numbers or texts is one JSON text.
        resumed_from: the step that the run was resumed from; None for a run that begins.
    """

    folder: Path
    id: str
    name: str
    description: str
    parameters: Mapping[str, str | int | float | bool]
    resumed_from: int | None


class Tracker:
    """The calls that one run makes to a tracker, in a thread of the tracker's own.

    An OSError of a call (a connection, a timeout, a full disk) makes mtl repeat the same call later. Any other
    exception switches the tracker off. Neither stops the run.
    """

    def begin(self, run: TrackedRun) -> None:
        """The run begins or goes on.

        After this call mtl logs again all that the run has measured so far and still counts. A tracker therefore
        either begins afresh, or leaves out what it has already.
        """
        raise NotImplementedError

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Finite numbers of one optimizer step, such as `validation/garment/accuracy` -> 0.91."""
        raise NotImplementedError

    def artifact(self, path: Path) -> None:
        """A file of the run folder: a picture, a table or a page. By default it is ignored."""

    def end(self, status: str, results: Mapping[str, float]) -> None:
        """The run ends.

        Args:
            status: `finished`, `interrupted`, `diverged` or `failed`.
            results: the metrics of each split at the selected step; empty unless the run is finished.
        """


class TrackerSpec(Spec):
    """Where else the measurements of a run go; metrics.jsonl stays the record. Members: `mtl/trackers/`."""

    package: ClassVar[str] = ""
    """The imported name of a package that mtl itself does not need; empty if there is none."""
    install: ClassVar[str] = ""
    """The command that installs it."""

    def open(self) -> Tracker:
        """The tracker of one run; it connects to nothing before `begin`."""
        raise NotImplementedError

    def require_package(self) -> None:
        """Require that `package` is installed; it is not imported.

        Raises:
            EnvironmentFault: it is not.
        """
        if not self.package:
            return
        found = find_spec(self.package)
        if found is None or found.origin is None:  # a folder of that name, such as one of logs, has no origin
            raise EnvironmentFault("", f"{self.package} is not installed", self.install)
