"""Places at which a test may make a run fail: `MTL_FAIL=stage:n:action` in the environment.

At the n-th time (from 1) that a stage is reached, the action happens: `raise` an error, `memory`, `kill`, `term`,
`int`, `hup`, `pipe` or `stop` to this process (`stop` holds it until SIGCONT), `nan` (at `forward`, whose losses the
caller then poisons), or `full`, a disk without room. Several are parted by commas. Without the variable, a place costs
one look at an empty dict.
"""

from __future__ import annotations

import errno
import os
import signal

from mtl.errors import UserError, quoted

STAGES = ("load", "forward", "backward", "step", "evaluate", "log", "save", "retain", "finish", "plot")
ACTIONS = ("raise", "memory", "kill", "term", "int", "hup", "pipe", "stop", "nan", "full")
VARIABLE = "MTL_FAIL"


class Injected(Exception):
    """What the action `raise` raises."""


def _planned() -> dict[str, tuple[int, str]]:
    """Stage -> (time, action).

    Raises:
        UserError: the variable is not of the form `stage:n:action`.
    """
    plan = {}
    for part in filter(None, os.environ.get(VARIABLE, "").split(",")):
        stage, _, rest = part.partition(":")
        n, _, action = rest.partition(":")
        known = stage in STAGES and action in ACTIONS and n.isascii() and n.isdecimal() and int(n) >= 1
        if not known or (action == "nan" and stage != "forward"):
            raise UserError(VARIABLE, f"{quoted(part)} is not stage:n:action")
        plan[stage] = (int(n), action)
    return plan


_plan = _planned()
_times: dict[str, int] = {}


def hit(stage: str) -> bool:
    """Do what is planned for this time; True if that is `nan`."""
    if stage not in _plan:
        return False
    _times[stage] = _times.get(stage, 0) + 1
    n, action = _plan[stage]
    if _times[stage] != n:
        return False
    if action == "raise":
        raise Injected(f"failpoint {stage}:{n}")
    if action == "memory":
        raise MemoryError
    if action == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if action != "nan":
        os.kill(os.getpid(), getattr(signal, f"SIG{action.upper()}"))
    return action == "nan"
