"""Planned faults: each happens once, at its time, and a plan that is none is refused."""

from __future__ import annotations

import errno
import os
import signal

import pytest
import torch

from mtl.stages import STAGES, Stage, reached
from tests.support import failpoints
from tests.support.failpoints import Faults, Injected, failing


def test_only_the_nth_time() -> None:
    with failing("save:3:raise,"):
        for stage in ("save", "load", "save"):
            reached(stage)
        with pytest.raises(Injected, match=r"^failpoint save:3$"):
            reached("save")
        reached("save")


def test_a_fault_that_does_not_happen_is_told() -> None:
    with pytest.raises(AssertionError, match="a fault did not happen"), failing("save:2:raise"):
        reached("save")
    with pytest.raises(AssertionError), failing(""):
        reached("save")


@pytest.mark.parametrize("stage", STAGES)
def test_errors(stage: Stage) -> None:
    with failing(f"{stage}:1:memory"), pytest.raises(MemoryError):
        reached(stage)
    with failing(f"{stage}:1:full"), pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
        reached(stage)
    assert caught.value.errno == errno.ENOSPC


SIGNALS = {
    "kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT, "hup": signal.SIGHUP,
    "pipe": signal.SIGPIPE, "stop": signal.SIGSTOP,
}  # fmt: skip


def test_every_action_is_tested_here() -> None:
    assert set(failpoints.ACTIONS) == {"raise", "memory", "full", "nan", *SIGNALS}


@pytest.mark.parametrize("action", SIGNALS)
def test_signals(action: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    with failing(f"load:1:{action}"):
        reached("load")
    assert sent == [(os.getpid(), SIGNALS[action])]


def test_layers_give_nan_until_the_next_stage() -> None:
    layer, x = torch.nn.Linear(2, 3), torch.ones(4, 2)
    whole = layer(x)
    seen = []
    with failing("forward:2:nan"):
        for stage in ("forward", "backward", "forward", "backward", "forward"):
            reached(stage)
            seen.append(layer(x))
    assert [bool(y.isnan().all()) for y in seen] == [False, False, True, False, False]
    assert all(torch.equal(y, whole) for y in (seen[0], seen[3]))


WRONG = ["save", "save:1", "save:0:kill", "save:-1:kill", "save:x:kill", "save:1:explode", "saves:1:kill", "save:1:nan",
         "forward:²:nan", "save::kill", ":1:kill", "save:1:kill:2"]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_plan(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not stage:n:action$") as caught:
        Faults(f"load:1:kill,{text}")
    assert str(caught.value).startswith(repr(text))


def test_the_command_line_with_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTL_FAIL", "load:1:raise")
    monkeypatch.setattr("mtl.__main__.main", lambda: reached("load"))
    with pytest.raises(Injected):
        failpoints.main()
    reached("load")
