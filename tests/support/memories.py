"""Where a user's part may remember something: each place is a memory that gives another number at each call.

`MEMORY` in the environment says which part remembers something and where, as in `weighting:numpy_generator`.
"""

from __future__ import annotations

import itertools
import os
import random
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from tests.support.recipes import write

GLOBAL = {"calls": 0}
FILE = Path(tempfile.gettempdir()) / f"mtl-calls-{os.getpid()}"


class Holder:
    """Something that holds a number, and shares one."""

    shared: ClassVar[int] = 0

    def __init__(self) -> None:
        self.n = 0


def counted(holder: Any, key: Any, number: type = int) -> Callable[[], float]:
    """Counts in an entry or an attribute of `holder`."""

    def next_one() -> float:
        if isinstance(holder, dict | list | np.ndarray):
            holder[key] += number(1)
            return float(holder[key])
        setattr(holder, key, getattr(holder, key) + number(1))
        return float(getattr(holder, key))

    return next_one


def in_deque() -> Callable[[], float]:
    kept = deque([0.0], maxlen=2)

    def next_one() -> float:
        kept.append(kept[-1] + 1)
        return kept[-1]

    return next_one


def in_set() -> Callable[[], float]:
    kept: set[int] = set()

    def next_one() -> float:
        kept.add(len(kept))
        return float(len(kept))

    return next_one


def in_tensor() -> Callable[[], float]:
    kept = torch.zeros(())
    return lambda: kept.add_(1).item()


def in_optimizer() -> Callable[[], float]:
    """Momentum of an optimizer of its own, whose number begins anew each time."""
    number = torch.zeros(1, requires_grad=True)
    own = torch.optim.SGD([number], lr=0.1, momentum=0.9)

    def next_one() -> float:
        number.data.zero_()
        number.grad = torch.ones(1)
        own.step()
        return number.item()

    return next_one


def in_average() -> Callable[[], float]:
    """The statistics of a batch norm that nobody registered."""
    norms = [nn.BatchNorm1d(1)]

    def next_one() -> float:
        norms[0](torch.tensor([[1.0], [2.0]]))
        mean = norms[0].running_mean
        assert mean is not None
        return float(mean)

    return next_one


def of_generator() -> Callable[[], float]:
    def numbers() -> Iterator[float]:
        yield from map(float, itertools.count())

    kept = numbers()
    return lambda: next(kept)


def of_file() -> Callable[[], float]:
    def next_one() -> float:
        n = int(FILE.read_text()) + 1 if FILE.exists() else 1
        FILE.write_text(str(n))
        return float(n)

    return next_one


def of_environment() -> Callable[[], float]:
    def next_one() -> float:
        n = int(os.environ.get("MTL_TEST_CALLS", "0")) + 1
        os.environ["MTL_TEST_CALLS"] = str(n)
        return float(n)

    return next_one


def of_torch() -> Callable[[], float]:
    own = torch.Generator()
    return lambda: torch.rand(1, generator=own).item()


def of_state() -> Callable[[], float]:
    own = np.random.RandomState(0)
    return lambda: float(own.rand())


def of_numpy() -> Callable[[], float]:
    own = np.random.default_rng(0)
    return lambda: float(own.random())


def of_python() -> Callable[[], float]:
    return random.Random(0).random


def of_count() -> Callable[[], float]:
    kept = itertools.count()
    return lambda: float(next(kept))


def of_cycle() -> Callable[[], float]:
    kept = itertools.cycle(range(11))
    return lambda: float(next(kept))


PLACES: dict[str, Callable[[], Callable[[], float]]] = {
    "attribute": lambda: counted(Holder(), "n"),
    "float": lambda: counted(Holder(), "n", float),
    "numpy_number": lambda: counted(Holder(), "n", np.int64),
    "list": lambda: counted([0], 0),
    "dict": lambda: counted({"n": 0}, "n"),
    "array": lambda: counted(np.zeros(1), 0),
    "deque": in_deque,
    "set": in_set,
    "tensor": in_tensor,
    "optimizer": in_optimizer,
    "average": in_average,
    "global": lambda: counted(GLOBAL, "calls"),
    "class": lambda: counted(Holder, "shared"),
    "generator": of_generator,
    "count": of_count,
    "cycle": of_cycle,
    "file": of_file,
    "environment": of_environment,
    "torch_generator": of_torch,
    "numpy_state": of_state,
    "numpy_generator": of_numpy,
    "python_generator": of_python,
}
"""Where a part may remember something that no checkpoint holds -> makes such a memory."""
ALLOWED: dict[str, Callable[[], Callable[[], float]]] = {
    "nothing": lambda: lambda: 1.0,
    "torch": lambda: lambda: torch.rand(1).item(),
    "numpy": lambda: lambda: float(np.random.rand()),
    "python": lambda: random.random,
}
"""What any part may draw from, since each step seeds it."""
PARTS = ("backbone", "sharing", "task", "metric", "weighting", "optimizer", "schedule")


class Memory:
    """What a part remembers, if it is the one that shall."""

    def __init__(self, part: str) -> None:
        asked, place = os.environ.get("MEMORY", "none:nothing").split(":")
        self.next = {**PLACES, **ALLOWED}[place]() if part == asked else lambda: 0.0

    def factor(self) -> float:
        """A number near 1, another one at each call."""
        return 1 + 0.01 * self.next()


def recipe_of_own_parts(folder: Path, **changes: Any) -> Path:
    """A recipe that has a part of tests/support/own_parts.py in every place."""
    return write(
        folder,
        data__source__kind="rows",
        task_defaults={"kind": "kind"},
        tasks={"a": {"target": "task0"}, "b": {"target": "task1"}},
        model__backbone__kind="stages",
        model__sharing={"kind": "units"},
        weighting={"kind": "weights"},
        optimizer={"kind": "steps", "lr": 0.1},
        schedule={"kind": "rate"},
        **changes,
    )
