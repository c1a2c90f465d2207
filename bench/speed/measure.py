"""Steps timed in turn, processes of their own, tables of Markdown, and the machine that the figures come from."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

ENVIRONMENT = dict(os.environ)
"""As the user gave it: children take it, and not what `start_process` adds for this process."""
ROOT = Path(__file__).parents[2]
WARMUP = 5
MEGABYTE = 1e6


def timed(
    loops: Mapping[str, Iterator[None]], rounds: int, warmup: int = WARMUP, settle: int = 0
) -> dict[str, list[float]]:
    """Name -> milliseconds of its step in each round; the order of the loops changes from round to round.

    Args:
        loops: each `next` of a loop takes one step.
        rounds: steps of each loop that count.
        warmup: rounds before them.
        settle: steps of a loop before each that is timed, where the loops have different numbers of threads.
    """
    found: dict[str, list[float]] = {name: [] for name in loops}
    names = list(loops)
    for i in range(warmup + rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            for _ in range(settle):
                next(loops[name])
            began = perf_counter()
            next(loops[name])
            if i >= warmup:
                found[name].append(1000 * (perf_counter() - began))
    return found


def spread(values: Iterable[float]) -> dict[str, float]:
    """The median, and the least."""
    known = list(values)
    return {"median": median(known), "least": min(known)}


@dataclass(frozen=True)
class Ended:
    """A child that has ended.

    Args:
        seconds: from its start to its end, on the clock.
        cpu: seconds of all its threads.
        found: what its last line of output says in JSON, or {}.
    """

    seconds: float
    cpu: float
    found: dict[str, Any]


def child(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Ended:
    """Run a command of Python's to its end: `-m mtl ...`, or `-m bench.speed.children ...`.

    Args:
        command: what follows `python`.
        environment: additions to the environment of the user.

    Raises:
        RuntimeError: the command failed.
    """
    began, before = perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env=environment_of(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds, after = perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr}")
    last = (done.stdout.splitlines() or [""])[-1]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ended(seconds, cpu, json.loads(last) if last.startswith("{") else {})


def environment_of(additions: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child, which finds bench/ and mtl wherever it starts."""
    paths = [str(ROOT), *filter(None, [ENVIRONMENT.get("PYTHONPATH")])]
    return {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths), **(additions or {})}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell(own: Mapping[str, float], digits: int = 2) -> str:
    """A spread as text: the median, and in parentheses the least."""
    return f"{own['median']:.{digits}f} ({own['least']:.{digits}f})"


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    model = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def name_of(found: Mapping[str, Any]) -> str:
    """The name of a machine's results, such as `epyc_avx512_2_cores`."""
    words = re.findall(r"[a-z0-9]+", re.sub(r"\([^)]*\)|@.*", " ", found["processor"].lower()))
    makers = {"amd", "intel", "apple", "cpu", "processor"}
    processor = [word for word in words if word not in makers] or ["processor"]
    cores = found["cores"]
    instructions = re.sub(r"[^a-z0-9]+", "", found["instructions"].lower())
    return "_".join([*processor, instructions, str(cores), "core" if cores == 1 else "cores"])
