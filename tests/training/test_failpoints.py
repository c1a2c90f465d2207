"""Planned faults: each happens once, at its time, and a plan that is none is refused."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable

import pytest

from mtl.errors import USER, UserError
from mtl.training import failpoints

Plan = Callable[[str], None]


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    def set_plan(text: str) -> None:
        monkeypatch.setenv(failpoints.VARIABLE, text)
        monkeypatch.setattr(failpoints, "_plan", failpoints._planned())
        monkeypatch.setattr(failpoints, "_times", {})

    return set_plan


def test_nothing_is_planned_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(failpoints.VARIABLE, raising=False)
    assert failpoints._planned() == {}
    assert not any(failpoints.hit(stage) for stage in failpoints.STAGES)


def test_only_the_nth_time(plan: Plan) -> None:
    plan("save:3:raise,forward:2:nan,")
    assert [failpoints.hit("forward") for _ in range(4)] == [False, True, False, False]
    assert [failpoints.hit(stage) for stage in ("save", "load", "save")] == [False] * 3
    with pytest.raises(failpoints.Injected, match=r"^failpoint save:3$"):
        failpoints.hit("save")
    assert failpoints.hit("save") is False


@pytest.mark.parametrize("stage", failpoints.STAGES)
def test_errors(stage: str, plan: Plan) -> None:
    plan(f"{stage}:1:memory")
    with pytest.raises(MemoryError):
        failpoints.hit(stage)
    plan(f"{stage}:1:full")
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
        failpoints.hit(stage)
    assert caught.value.errno == errno.ENOSPC


SIGNALS = {
    "kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT, "hup": signal.SIGHUP,
    "pipe": signal.SIGPIPE, "stop": signal.SIGSTOP,
}  # fmt: skip


def test_every_action_is_tested_here() -> None:
    assert set(failpoints.ACTIONS) == {"raise", "memory", "full", "nan", *SIGNALS}


@pytest.mark.parametrize("action", SIGNALS)
def test_signals(action: str, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    plan(f"load:1:{action}")
    assert failpoints.hit("load") is False
    assert sent == [(os.getpid(), SIGNALS[action])]


WRONG = ["save", "save:1", "save:0:kill", "save:-1:kill", "save:x:kill", "save:1:explode", "saves:1:kill", "save:1:nan",
         "forward:²:nan", "save::kill", ":1:kill", "save:1:kill:2"]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_plan(text: str, plan: Plan) -> None:
    with pytest.raises(UserError) as caught:
        plan(f"load:1:kill,{text}")
    assert str(caught.value) == f"MTL_FAIL: {text!r} is not stage:n:action"
    assert caught.value.code == USER
