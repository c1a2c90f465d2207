"""Processes of their own, which the sections start: `python -m bench.speed.children WHAT ...`.

Each prints its figures as JSON in its last line. Nothing heavy is imported at the top, since imports are measured too.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

BUSY_THREADS, BUSY_ROWS, BUSY_WARMUP = 1, 1_280, 3


def peak() -> int:
    """The most bytes of memory that this process has had so far."""
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss of a child may be that of its parent at the fork
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def imported() -> dict[str, Any]:
    """The memory of a process that imports torch and does nothing."""
    import torch  # noqa: F401

    return {"peak": peak()}


def trained(case: str, steps: str) -> dict[str, Any]:
    """The memory of a process that trains a case, after each of its stages, and the bytes that its steps need."""
    from mtl.training.process import load_torch, start_process

    start_process()
    load_torch()
    from bench.speed.cases import CASES
    from bench.speed.cases import steps_of as loop_of
    from bench.speed.sections.memory import needed
    from mtl.experiment.run import prepare
    from mtl.training import devices

    imported, recipe = peak(), CASES[case]()
    with devices.settings(recipe.train.deterministic):
        trainer, _ = prepare(recipe)
        prepared, loop = peak(), loop_of(trainer)
        for _ in range(int(steps)):
            next(loop)
        stages = {"imported": imported, "prepared": prepared, "trained": peak()}
        return {"stages": stages, "needed": needed(trainer, loop)}


def commanded(*arguments: str) -> dict[str, Any]:
    """The memory of a process that carries out a command of mtl."""
    from mtl.__main__ import main

    sys.argv = ["mtl", *arguments]
    code = main()
    if code:
        sys.exit(code)
    return {"peak": peak()}


def commanded_on_one_core(*arguments: str) -> dict[str, Any]:
    """The same on a single core, where the platform can hold a process to one; torch then takes a single thread."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return commanded(*arguments)


def first_step(*arguments: str) -> dict[str, Any]:
    """`mtl run` up to the end of its first step, where the process ends as if killed."""
    from mtl import stages
    from mtl.__main__ import main

    reached: list[stages.Stage] = []

    def ends(stage: stages.Stage) -> None:
        if "step" in reached:  # the first stage after a step
            os._exit(0)
        reached.append(stage)

    sys.argv = ["mtl", "run", *arguments]
    with stages.listening(ends):
        main()
    raise RuntimeError("the run ended without a step")


def busy(case: str) -> dict[str, Any]:
    """Train a case in plain PyTorch until the parent is gone; a line of output tells that training has begun."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this process
    parent = os.getppid()
    import torch

    from bench.speed import reference
    from bench.speed.cases import CASES, with_rows
    from mtl.experiment.run import prepare

    loop = reference.steps_of(prepare(with_rows(CASES[case](), BUSY_ROWS))[0])
    torch.set_num_threads(BUSY_THREADS)
    for step, _ in enumerate(loop):
        if step == BUSY_WARMUP:
            print("busy", flush=True)
        if os.getppid() != parent:
            break
    return {}


WHAT: dict[str, Callable[..., dict[str, Any]]] = {
    "import": imported,
    "train": trained,
    "mtl_on_one_core": commanded_on_one_core,
    "first_step": first_step,
    "busy": busy,
}


def main(arguments: Sequence[str]) -> None:
    """Do what the first argument names, with the others."""
    what, *others = arguments
    print(json.dumps(WHAT[what](*others)))


if __name__ == "__main__":
    main(sys.argv[1:])
