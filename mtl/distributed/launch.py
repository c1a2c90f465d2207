"""Processes that torchrun has started find each other, and part again."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

from mtl.errors import EnvironmentFault, UserError, quoted

MEETING = timedelta(minutes=5)
"""All processes must have found each other by then."""
LONGEST = timedelta(days=7)
"""An exchange may wait so long, as while rank 0 writes a checkpoint; a rank that is gone is noticed in other ways."""


@dataclass(frozen=True)
class Place:
    """The place of a process among those that torchrun has started.

    Args:
        rank: its number.
        n: the number of processes.
        local_rank: its number on its machine.
        host: the address where the processes meet.
        port: the port there.
        key: names this start of the processes among others at the same address.
    """

    rank: int
    n: int
    local_rank: int
    host: str
    port: int
    key: str


def place_of_process(environment: Mapping[str, str] | None = None) -> Place | None:
    """The place that the variables of torchrun give; None for a process that trains alone.

    Raises:
        UserError: some of the variables are missing, or are no numbers.
    """
    given = os.environ if environment is None else environment
    if given.get("WORLD_SIZE", "1") == "1":
        return None
    try:
        rank, n, port = (int(given[name]) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
        local = int(given.get("LOCAL_RANK", "0"))
        host = given["MASTER_ADDR"]
    except (KeyError, ValueError) as error:
        which = error.args[0] if isinstance(error, KeyError) else quoted(str(error))
        what = f"WORLD_SIZE is {quoted(given['WORLD_SIZE'])}, and the variables of torchrun are incomplete: {which}"
        raise UserError("mtl run", what, "start it by torchrun, or unset WORLD_SIZE") from None
    if not (0 <= rank < n and local >= 0 and 0 < port < 65536):
        what = f"rank {rank} of {n} at port {port} cannot be"
        raise UserError("mtl run", what, "start it by torchrun, or unset WORLD_SIZE")
    key = f"{given.get('TORCHELASTIC_RUN_ID', '')}/{given.get('TORCHELASTIC_RESTART_COUNT', '')}"
    return Place(rank, n, local, host, port, key)


@contextmanager
def meeting(place: Place) -> Iterator[None]:
    """The process group of torch.distributed: nccl between CUDA devices, gloo between CPUs.

    Raises:
        EnvironmentFault: the processes do not find each other.
    """
    import torch
    import torch.distributed as dist

    if place.host in ("localhost", "127.0.0.1", "::1", socket.gethostname()) and _all_here():
        os.environ.setdefault(
            "GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo"
        )  # a machine without a network has no other
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=MEETING, rank=place.rank, world_size=place.n)
        dist.distributed_c10d._set_pg_timeout(LONGEST)
    except (RuntimeError, ValueError, TimeoutError) as error:
        raise unreachable(place, error) from None
    try:
        yield
    finally:
        with suppress(RuntimeError):
            dist.destroy_process_group()


def unreachable(place: Place, error: Exception) -> EnvironmentFault:
    """The fault of a rank that does not find the others."""
    what = f"rank {place.rank} of {place.n} does not reach the others at {place.host}:{place.port}"
    reason = quoted(str(error).splitlines()[0] if str(error) else type(error).__name__)
    return EnvironmentFault("torchrun", f"{what}: {reason}", "see docs/distributed.md")


def _all_here() -> bool:
    """Whether all processes are on this machine."""
    return os.environ.get("LOCAL_WORLD_SIZE", "") == os.environ.get("WORLD_SIZE")
