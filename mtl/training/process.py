"""What a process of mtl's own sets before it loads torch: threads that wait, memory that stays, imports left out.

A program that imports mtl keeps its own settings. None of them changes a result.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from types import ModuleType

SPINS = 2_000
"""How often a waiting thread of GNU OpenMP looks for work before it sleeps."""
KEPT = 1 << 30
"""Bytes: the C library keeps smaller blocks for the next step, and asks for at least a quarter of this at once."""
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's mallopt(3)."""
USUAL, STARTING = gc.get_threshold(), 50_000
"""New objects after which Python looks for garbage, as it does by itself and until torch is there."""


def start_process() -> None:
    """Set how threads wait and what memory is kept, unless the user has; look for garbage seldom until torch is there.

    A thread that spins while it waits takes the core that another process needs, and glibc gives large tensors back
    to the system after each step, so that the next step has to clear the same pages again.
    """
    gc.set_threshold(STARTING)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
    if any(name.startswith("MALLOC_") for name in os.environ) or not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # a C library without it, as musl
        return
    for parameter, value in ((MMAP_THRESHOLD, KEPT), (TRIM_THRESHOLD, KEPT), (TOP_PAD, KEPT // 4)):
        mallopt(parameter, value)


def load_torch() -> None:
    """Import torch and torchmetrics without what they import beside, which takes longer than they do.

    torchmetrics imports matplotlib for plots of metrics and scipy.signal for a name that scipy has dropped; the
    optimizers of torch import the compiler at their first step.

    Modules hold hundreds of thousands of objects and no garbage. After `start_process` Python does not look for it
    among them, which takes 0.4 s off each command.
    """
    import torch

    if "torch._dynamo" not in sys.modules:
        _optimizers_without_compiler(torch)
    if "torchmetrics" not in sys.modules:
        _import_torchmetrics()
    if gc.get_threshold()[0] == STARTING:
        gc.freeze()
        gc.set_threshold(*USUAL)


def _optimizers_without_compiler(torch: ModuleType) -> None:
    """Take the marks off the optimizers' methods that tell the compiler to leave these methods out."""
    for name in dir(torch.optim.Optimizer):
        plain = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if plain is not None:
            plain.__dynamo_disable = plain
    for kind in (torch.optim.Adam, torch.optim.SGD):  # AdamW is an Adam
        if (plain := getattr(kind.step, "__wrapped__", None)) is not None:
            kind.step = torch.no_grad()(plain)


def _import_torchmetrics() -> None:
    try:
        from lightning_utilities.core.imports import RequirementCache
    except ImportError:  # torchmetrics checks its requirements in another way, or is not there
        return
    is_there, stub = RequirementCache.__bool__, ModuleType("scipy.signal")
    stub.hamming = None  # type: ignore[attr-defined]

    def lean(requirement: RequirementCache) -> bool:
        if requirement.requirement == "matplotlib" and "matplotlib" not in sys.modules:
            requirement.available, requirement.message = False, "the command line of mtl does without it"
        return bool(is_there(requirement))

    given = sys.modules.setdefault("scipy.signal", stub)
    RequirementCache.__bool__ = lean  # type: ignore[method-assign, assignment]
    try:
        import torchmetrics  # noqa: F401
    finally:
        RequirementCache.__bool__ = is_there  # type: ignore[method-assign]
        if given is stub:
            del sys.modules["scipy.signal"]
