"""What is free, by files like those that Linux and its containers show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mtl.data import memory
from mtl.data.memory import available_memory, is_out_of_memory, require_memory
from mtl.errors import ENVIRONMENT, EnvironmentFault

GB = 1 << 30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 GiB free and no container."""
    (tmp_path / "meminfo").write_text(
        f"MemTotal: 99999999 kB\nMemAvailable:   {8 * GB // 1024} kB\nSwapFree: 1 kB\n"
    )
    (tmp_path / "memory").mkdir()
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    return tmp_path


def container(folder: Path, version: int, limit: int | str, used: int, droppable: int = 0) -> None:
    names = (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    )[2 - version]
    for name, text in zip(
        names, (f"{limit}\n", f"{used}\n", f"anon 7\n{names[3]} {droppable}\nother 3\n"), strict=False
    ):
        (folder / name).write_text(text)


def test_of_the_machine(machine: Path) -> None:
    assert available_memory() == 8 * GB


@pytest.mark.parametrize("version", [1, 2])
def test_of_a_container_that_has_less(machine: Path, version: int) -> None:
    container(machine, version, 4 * GB, 3 * GB)
    assert available_memory() == GB
    container(
        machine, version, 4 * GB, 3 * GB, droppable=2 * GB
    )  # files that were read are dropped when needed
    assert available_memory() == 3 * GB
    container(machine, version, 4 * GB, 5 * GB)
    assert available_memory() == 0


@pytest.mark.parametrize(("version", "limit"), [(2, "max"), (1, 9223372036854771712)])
def test_a_container_without_a_limit(machine: Path, version: int, limit: int | str) -> None:
    container(machine, version, limit, GB)
    assert available_memory() == 8 * GB


def test_of_a_process_with_a_limit(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "statm").write_text(f"{GB // os.sysconf('SC_PAGE_SIZE')} 5 5 1 0 5 0\n")
    monkeypatch.setattr(memory, "STATM", machine / "statm")
    monkeypatch.setattr(memory.resource, "getrlimit", lambda which: (3 * GB, memory.resource.RLIM_INFINITY))
    assert available_memory() == 2 * GB
    (machine / "statm").write_text("?")
    assert available_memory() == 3 * GB


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:131] DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError("can't start new thread"),
        ImportError("libfreetype.so: failed to map segment from shared object"),
        ImportError("libgfortran.so: cannot allocate memory in static TLS block"),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=str,
)
def test_a_lack_of_memory_has_many_names(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_out_of_memory(
        type(error)(2, "another") if isinstance(error, OSError) else ValueError("memory")
    )


def test_where_linux_is_not(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "meminfo").unlink()
    assert available_memory() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def unknown(_: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", unknown)
    assert available_memory() == 1 << 62


def test_what_does_not_fit_is_refused() -> None:
    require_memory(100, "a.npz", "its arrays", "use less", free=100)
    with pytest.raises(EnvironmentFault) as caught:
        require_memory(2_560_000_000, "a.npz", "its arrays", "use less", free=1_300_000_000)
    assert str(caught.value) == "a.npz: its arrays take 2.6 GB, 1.3 GB are free; use less"
    assert caught.value.code == ENVIRONMENT


def test_a_container_that_does_not_say_all_is_no_limit(machine: Path) -> None:
    container(machine, 2, 3 * GB, GB)
    assert available_memory() == 2 * GB
    (machine / "memory.stat").write_text("anon 7\n")
    assert available_memory() == 8 * GB
