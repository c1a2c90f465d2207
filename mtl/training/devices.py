"""This module alone names devices; it also holds the settings that make a run repeatable."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from mtl.data.memory import available_memory
from mtl.errors import UserError, quoted

_seeded: list[dict[torch.Generator, torch.Tensor]] = []
"""For each open `settings` context: the CUDA generators that were seeded inside, and their states before."""

_memory: Any = torch.utils.deterministic
"""Has the setting `fill_uninitialized_memory`, which its class hides from type checkers."""

NAME = re.compile(r"auto|cpu|mps|cuda(:[0-9]{1,3})?")


def resolve(asked: str) -> torch.device:
    """The device of a name; `auto` takes the first CUDA device, else MPS, else the CPU.

    Raises:
        UserError: the name is unknown, or this machine does not have the device.
    """
    if NAME.fullmatch(asked) is None:
        raise UserError("", f"no device {quoted(asked)}", "one of auto, cpu, cuda, cuda:1, mps")
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    has_mps = torch.backends.mps.is_available()
    if asked == "auto":
        return torch.device("cuda" if n_cuda else "mps" if has_mps else "cpu")
    device = torch.device(asked)
    missing = device.type == "cuda" and (device.index or 0) >= n_cuda
    if missing or (device.type == "mps" and not has_mps):
        found = f"{n_cuda} CUDA device{'s' if n_cuda != 1 else ''} found"
        raise UserError(
            "",
            f"{asked} asked, {found if device.type == 'cuda' else 'no MPS device found'}",
            "use auto or cpu",
        )
    return device


def free_memory(device: torch.device) -> int:
    """Free bytes on a device; those of the machine, if the device has no memory of its own."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory()


def memory_format(device: torch.device) -> torch.memory_format:
    """Channels last on devices whose convolutions are faster with it: measured on CPU, documented for CUDA."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def seed(device: torch.device, number: int) -> None:
    """Seed the generators of torch on the CPU and on the device, of Python, and of numpy (30 microseconds).

    A plug-in may draw from the last two. `torch.manual_seed` would also seed unused backends and format a stack trace
    for each backend that has not started, which costs a tenth of a small step.
    """
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        generator = _cuda_generator(device)
        for known in _seeded[-1:]:
            if generator not in known:
                known[generator] = generator.get_state()
        generator.manual_seed(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)


def _cuda_generator(device: torch.device) -> torch.Generator:
    """The generator of this device; `torch.cuda.manual_seed` would seed that of the current device instead."""
    torch.cuda.init()  # the generators exist only after this call
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]


@contextmanager
def settings(deterministic: bool, threads: int | None = None) -> Iterator[None]:
    """Set determinism, and threads if they are known, for one run; on exit all is restored, also the random state.

    Among CUDA's generators, only those that `seed` touched are restored, since reading one starts its device and
    takes memory there.
    """
    drawn = random.getstate(), np.random.get_state()
    before = (
        torch.get_deterministic_debug_mode(),
        _memory.fill_uninitialized_memory,
        torch.backends.cudnn.benchmark,
        torch.get_num_threads(),
    )
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA reads this when it starts
    # the same as torch.use_deterministic_algorithms, which also imports the compiler to tell it
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    # no operation reads memory before it has written there; filling it first takes 7% of a step of images
    _memory.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = not deterministic
    if threads is not None:
        torch.set_num_threads(threads)
    seeded: dict[torch.Generator, torch.Tensor] = {}
    _seeded.append(seeded)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        _seeded.pop()
        for generator, state in seeded.items():
            generator.set_state(state)
        random.setstate(drawn[0])
        np.random.set_state(drawn[1])
        torch.set_deterministic_debug_mode(before[0])
        _memory.fill_uninitialized_memory = before[1]
        torch.backends.cudnn.benchmark = before[2]
        torch.set_num_threads(before[3])
