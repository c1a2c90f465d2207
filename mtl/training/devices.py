"""This module alone names devices; it also holds the threads of a run and the settings that make it repeatable."""

from __future__ import annotations

import math
import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from mtl.data.memory import available_memory
from mtl.errors import UserError, quoted
from mtl.model.stitched import StitchedMultiTower
from mtl.model.towers import Towers
from mtl.recipe.keys.train import Train

LEAST_WORK = 20_000_000
"""Multiplications in the forward pass of a batch; with fewer of them a run takes one thread."""

_seeded: list[dict[torch.Generator, torch.Tensor]] = []
"""For each open `settings` context: the CUDA generators that were seeded inside, and their states before."""

_memory: Any = torch.utils.deterministic
"""Has the setting `fill_uninitialized_memory`, which its class hides from type checkers."""

NAME = re.compile(r"auto|cpu|mps|cuda(:[0-9]{1,3})?")


def resolve(asked: str, local_rank: int | None = None) -> torch.device:
    """The device of a name; `auto` takes the first CUDA device, else MPS, else the CPU.

    Args:
        asked: the name.
        local_rank: the number of this process on its machine, where several train together: `cuda` is the CUDA device
            of that number then, and MPS is not taken.

    Raises:
        UserError: the name is unknown, this machine does not have the device, or several processes cannot take it.
    """
    if NAME.fullmatch(asked) is None:
        raise UserError("", f"no device {quoted(asked)}", "one of auto, cpu, cuda, cuda:1, mps")
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    has_mps = torch.backends.mps.is_available()
    if local_rank is not None:
        if asked.startswith("cuda:") or asked == "mps":
            what = f"several processes train together, and {asked} is one device"
            raise UserError("", what, "use auto, cuda or cpu")
        has_mps = False
        if n_cuda and asked in ("auto", "cuda"):
            asked = f"cuda:{local_rank}"
    if asked == "auto":
        return torch.device("cuda" if n_cuda else "mps" if has_mps else "cpu")
    device = torch.device(asked)
    if local_rank is not None and n_cuda and device.type == "cuda" and local_rank >= n_cuda:
        what = f"process {local_rank + 1} on this machine has no CUDA device, {n_cuda} found"
        raise UserError("", what, "start as many processes as there are devices, or use cpu")
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


def threads_of(train: Train, model: StitchedMultiTower) -> int:
    """The recipe's threads; `auto`: one where a batch has little work, else as many as torch has by itself."""
    if train.threads != "auto":
        return train.threads
    return 1 if train.batch_size * work_of_row(model) < LEAST_WORK else torch.get_num_threads()


def work_of_row(model: StitchedMultiTower) -> int:
    """The multiplications by weights in the forward pass of one row: the weights of each stage times its positions."""
    positions = {
        parameter: math.prod(part.shapes[name][1:])
        for part in model.trunk.modules()
        if isinstance(part, Towers)
        for name, stage in part.stages.items()
        for parameter in stage.parameters()
    }
    mapped: list[nn.Module] = [model.trunk, model.task_modules]  # looking up embeddings multiplies nothing
    weights = [parameter for part in mapped for parameter in part.parameters() if parameter.ndim > 1]
    return sum(weight.numel() * positions.get(weight, 1) for weight in weights)
