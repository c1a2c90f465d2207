"""How much memory is free, so that data too large for it are refused before the machine stops the process."""

from __future__ import annotations

import os
from pathlib import Path

from mtl.errors import EnvironmentFault

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
"""Where a container sees its own limits."""
VERSIONS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)  # fmt: skip
"""Of cgroups version 2 and version 1: what may be used, what is, and of that, files that can be dropped."""
UNKNOWN = 1 << 62


def available_memory() -> int:
    """Bytes that are free, as far as the system tells: of the machine, or of the container if that is less."""
    return min(_of_machine(), *(_of_container(*names) for names in VERSIONS))


def require_memory(needed: int, place: str, what: str, todo: str, free: int | None = None) -> None:
    """Refuse what does not fit.

    Args:
        needed: bytes.
        what: what takes them, as the subject of a sentence in the plural.
        free: bytes that are free; default: what the system tells.

    Raises:
        EnvironmentFault: more is needed than is free.
    """
    free = available_memory() if free is None else free
    if needed > free:
        raise EnvironmentFault(
            place, f"{what} take {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free", todo
        )


def _of_machine() -> int:
    try:
        return _entry(MEMINFO, "MemAvailable:") * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return UNKNOWN


def _of_container(most: str, used: str, detail: str, droppable: str) -> int:
    """No limit is the word `max` in version 2, and a number near 2^63 in version 1."""
    try:
        limit, usage = (int((CGROUP / name).read_text(encoding="ascii")) for name in (most, used))
        return max(0, limit - usage + _entry(CGROUP / detail, droppable))
    except (OSError, ValueError):
        return UNKNOWN


def _entry(path: Path, name: str) -> int:
    for line in path.read_text(encoding="ascii").splitlines():
        if line.split()[:1] == [name]:
            return int(line.split()[1])
    raise ValueError(name)
