"""Measures free memory; data that do not fit are refused before the system stops the process."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

from mtl.console import file_size
from mtl.errors import EnvironmentFault

MEMINFO = Path("/proc/meminfo")
STATM = Path("/proc/self/statm")
CGROUP = Path("/sys/fs/cgroup")
"""The folder in which a container sees its own limits."""
VERSIONS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)  # fmt: skip
"""cgroups versions 2 and 1: the files of the limit, the use and its details, and the entry of droppable files."""
UNKNOWN = 1 << 62
BYTES_PER_ROW = 30
"""What each row takes beside inputs and labels: it is shuffled, split and ordered. 20 million rows took 34."""


NOT_ENOUGH = "not enough memory; lower train.batch_size or the model's size"
"""What a process says if memory failed while it trained."""


def available_memory() -> int:
    """Free bytes according to the system: those of the machine, of the container, or of the process's own limit."""
    return min(_of_machine(), _of_process(), *(_of_container(*names) for names in VERSIONS))


def require_memory(needed: int, place: str, what: str, todo: str, free: int | None = None) -> None:
    """Refuse what does not fit into memory.

    Args:
        needed: bytes.
        place: the place in the message, such as a file.
        what: the things that need the bytes, as a plural subject of a sentence.
        todo: advice to the user.
        free: free bytes; by default those that the system reports.

    Raises:
        EnvironmentFault: more bytes are needed than are free.
    """
    free = available_memory() if free is None else free
    if needed > free:
        raise EnvironmentFault(place, f"{what} take {file_size(needed)}, {file_size(free)} are free", todo)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error reports a lack of memory.

    torch's CPU allocator raises a plain RuntimeError for that, and the loader of libraries an ImportError.
    """
    texts = ("can't allocate memory", "cannot allocate memory", "failed to map segment", "not enough memory",
             "can't start new thread")  # fmt: skip
    if isinstance(error, RuntimeError | ImportError):
        said = str(error).lower()
        return type(error).__name__ == "OutOfMemoryError" or any(text in said for text in texts)
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)


def _of_machine() -> int:
    try:
        return _entry(MEMINFO, "MemAvailable:") * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return UNKNOWN


def _of_process() -> int:
    """Free bytes below the limit of addresses (`ulimit -v`), less those that are taken."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return UNKNOWN
    try:
        return max(0, limit - int(STATM.read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError):
        return limit


def _of_container(most: str, used: str, detail: str, droppable: str) -> int:
    """Free bytes of a container. Version 2 writes `max` where there is no limit, version 1 a number near 2^63."""
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
