"""Faults at the stages of a run: `stage:n:action`, several parted by commas.

At the n-th time (from 1) that a stage is reached, the action happens: `raise` an error, `memory`, `kill`, `term`,
`int`, `hup`, `pipe` or `stop` to this process (`stop` holds it until SIGCONT), `full`, a disk without room, or, at
`forward` only, `nan`: each layer's output is NaN until the next stage.

`MTL_FAIL=backward:5:term python -m tests.support.failpoints run ...` is `mtl run ...` with such a fault.
"""

from __future__ import annotations

import errno
import math
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mtl.stages import STAGES, Stage, listening

ACTIONS = ("raise", "memory", "kill", "term", "int", "hup", "pipe", "stop", "nan", "full")
VARIABLE = "MTL_FAIL"


class Injected(Exception):
    """What the action `raise` raises."""


class Faults:
    """A listener that makes the planned faults happen.

    Args:
        text: the plan.

    Raises:
        ValueError: it is none.
    """

    def __init__(self, text: str) -> None:
        self.plan = dict(_parsed(part) for part in text.split(",") if part)
        self.times: Counter[str] = Counter()
        self.happened: list[str] = []
        self._poison: Any = None

    def __call__(self, stage: Stage) -> None:
        if self._poison is not None:
            self._poison.remove()
            self._poison = None
        self.times[stage] += 1
        n, action = self.plan.get(stage, (0, ""))
        if self.times[stage] == n:
            self.happened.append(stage)
            self._act(stage, n, action)

    def _act(self, stage: Stage, n: int, action: str) -> None:
        if action == "raise":
            raise Injected(f"failpoint {stage}:{n}")
        if action == "memory":
            raise MemoryError
        if action == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if action == "nan":
            from torch.nn.modules.module import register_module_forward_hook

            self._poison = register_module_forward_hook(_poisoned)
        else:
            os.kill(os.getpid(), getattr(signal, f"SIG{action.upper()}"))

    @property
    def missed(self) -> list[str]:
        """Stages at which a fault is planned that has not happened."""
        return [stage for stage in self.plan if stage not in self.happened]


def _parsed(part: str) -> tuple[str, tuple[int, str]]:
    stage, _, rest = part.partition(":")
    n, _, action = rest.partition(":")
    known = stage in STAGES and action in ACTIONS and n.isascii() and n.isdecimal() and int(n) >= 1
    if not known or (action == "nan" and stage != "forward"):
        raise ValueError(f"{part!r} is not stage:n:action")
    return stage, (int(n), action)


def _poisoned(module: object, inputs: object, output: Any) -> Any:
    return output * math.nan if hasattr(output, "is_floating_point") and output.is_floating_point() else None


@contextmanager
def failing(text: str) -> Iterator[None]:
    """`with failing("save:2:raise"):` plans faults for this process; at its end each of them must have happened."""
    faults = Faults(text)
    with listening(faults):
        yield
    assert faults.plan
    assert faults.missed == [], "a fault did not happen"


def main() -> int:
    from mtl.__main__ import main

    with listening(Faults(os.environ[VARIABLE])):
        return main()


if __name__ == "__main__":
    sys.exit(main())
