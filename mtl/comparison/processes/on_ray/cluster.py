"""The connection to a Ray cluster, and what its machines can do."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from mtl.comparison.arms.arm import changed
from mtl.comparison.processes.pool import Pool, cores
from mtl.comparison.processes.process import COMPARED
from mtl.console import counted
from mtl.errors import EnvironmentFault, UserError
from mtl.recipe.keys.recipe import Recipe
from mtl.signals import STOPPING

INSTALL = "pip install 'mtl-recipes[ray]'"
OBJECTS = 1 << 28
"""Bytes of the store of a Ray that is started here: it holds pieces of files only."""
REACHED = 10.0
"""Seconds in which the head of a cluster has to accept a connection."""
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # without it Ray warns that its own default will change
}
"""Variables of Ray that are set unless the user has."""


class RayMachines:
    """The machines of a Ray cluster.

    Args:
        address: `ray://HOST:PORT` of a Ray client server; None: the cluster of this machine, or one that is started
            here for the time of the comparison.

    Raises:
        EnvironmentFault: Ray is not installed, or no cluster is at this address.
    """

    def __init__(self, address: str | None) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        try:
            import ray
            import ray._private.worker
        except ImportError as error:
            raise EnvironmentFault("--on ray", f"{error.name or 'ray'} is not installed", INSTALL) from None
        self._ray: Any = ray
        self._is_own = not ray.is_initialized()
        if self._is_own:
            _connect(ray, address)
            _let_daemons_speak(ray, False)
        self.told = ""

    def __enter__(self) -> Self:
        n = counted(len(self._nodes()), "node")
        self.told = f" on {n} of Ray"
        return self

    def __exit__(self, *error: object) -> None:
        """End the connection, and a Ray that was started for it; a program that uses Ray itself keeps its own."""
        if self._is_own:
            with _own_signals(), suppress(ConnectionError):
                self._ray.shutdown()
            _let_daemons_speak(self._ray, True)

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def looked_at(self, recipe: Recipe) -> Recipe:
        """The recipe on the CPU, where its GPU is on other machines.

        Raises:
            UserError: the recipe names a GPU by its number, and Ray decides which one a run gets.
        """
        device = recipe.train.device
        if not device.startswith("cuda"):
            return recipe
        if device != "cuda":
            with recipe.at("train", "device"):
                raise UserError("", "Ray chooses the GPU of each run", "train.device=cuda")
        import torch

        return recipe if torch.cuda.is_available() else changed(recipe, ["train.device=cpu"])

    def threads(self, recipe: Recipe, wanted: int, jobs: int) -> int:
        """Those of the recipe, else as many as on this machine, so that the bits are the same."""
        asked = recipe.train.threads
        return asked if asked != "auto" else max(1, min(wanted, cores() // jobs))

    def at_once(self, recipe: Recipe, threads: int, jobs: int) -> int:
        """As many runs as the CPUs of the nodes, and their GPUs where the recipe trains on one, are enough for."""
        n = 0
        for node in self._nodes():
            has = node["Resources"]
            fit = int(has.get("CPU", 0)) // threads
            n += min(fit, int(has.get("GPU", 0))) if recipe.train.device.startswith("cuda") else fit
        return max(1, n)

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
        """Actors of Ray, of which at most `n` run at a time."""
        from mtl.comparison.processes.on_ray.pool import RayWorkers

        return RayWorkers(n, threads, plugins, folder, says, module, all_share)


def _let_daemons_speak(ray: Any, speak: bool) -> None:
    """Whether Ray prints what its daemons say, as it does whatever `log_to_driver` is; its debugger does the same."""
    ray._private.worker._worker_logs_enabled = speak


def _connect(ray: Any, address: str | None) -> None:
    """Connect to the cluster at an address; without one to that of this machine, or to one that is started here.

    Raises:
        EnvironmentFault: no cluster answers.
    """
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    named = address or os.environ.get("RAY_ADDRESS", "")
    if named not in _UNNAMED and (why := _not_reached(named)):
        raise EnvironmentFault(f"--on {named}", f"no cluster answers: {why}", _START)
    found = ray._private.utils.read_ray_address() if named in _UNNAMED else named  # of the last `ray start`
    with _own_signals(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what matters of them comes as an exception too
        try:
            if found and (found == named or not _not_reached(found)):
                ray.init(found, **quiet)
            else:
                ray.init("local", include_dashboard=False, object_store_memory=OBJECTS, **quiet)
        except ConnectionError as error:
            raise EnvironmentFault(f"--on {found}", f"no cluster answers: {_said(error)}", _START) from error
        except (RuntimeError, ValueError) as error:
            raise EnvironmentFault(f"--on {found or 'ray'}", f"Ray refused: {_said(error)}") from error


_UNNAMED = ("", "auto", "local")
"""Values of RAY_ADDRESS that name no cluster."""


def _not_reached(address: str) -> str:
    """Why nothing accepts connections at an address; empty if something does. Ray itself would try for minutes."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        socket.create_connection((str(parts.hostname), int(parts.port or 0)), REACHED).close()
    except (OSError, ValueError) as error:
        return (getattr(error, "strerror", None) or str(error)).lower()
    return ""


_START = "docs/clusters.md says how to start one"


def _said(error: BaseException) -> str:
    """What Ray says, on one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


class _own_signals:
    """Keeps the handlers of stop signals, since Ray sets some of its own."""

    def __enter__(self) -> None:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in STOPPING}

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
