"""A command called in this process, and the contract that each of its errors keeps: `refused` asserts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from mtl import cli
from mtl.commands import outcomes
from mtl.errors import USER
from mtl.recipe.specs import FAMILIES

Done = subprocess.CompletedProcess[str]
Capture = pytest.CaptureFixture[str]

SECONDS = 4.0
"""Of CPU time, in this process and those it started: 2 s, and room for the coverage tracer."""


def called(capsys: Capture, *arguments: str | Path) -> Done:
    """The command in this process: no interpreter to start, no torch to import again."""
    given = [str(argument) for argument in arguments]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    capsys.readouterr()
    try:
        code = cli.main(given)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    out, err = capsys.readouterr()
    return subprocess.CompletedProcess(given, code, out, err)


def cpu_seconds() -> float:
    """CPU time so far; unlike the clock on the wall, what other programs do does not count."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below `folder`, with what is in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def refused(
    start: Callable[[], Done], folder: Path, expected: Sequence[str], *, code: int = USER, out: str = ""
) -> None:
    """Run a command in `folder` and assert the contract of every error.

    The exit code; one line for each of `expected` on stderr, in order, after `error: `, at most ten and then
    `... and N more`; nothing on stdout; no traceback; nothing written; and soon.

    Args:
        expected: what each line contains; ` ... ` in it stands for anything.
    """
    before, began = contents(folder), cpu_seconds()
    done = start()
    seconds = cpu_seconds() - began
    assert done.returncode == code, done.stderr
    assert done.stdout == out
    assert contents(folder) == before
    assert seconds < SECONDS
    lines = done.stderr.splitlines()
    more = len(expected) - outcomes.SHOWN_ERRORS
    if more > 0:
        assert lines.pop() == f"... and {more} more"
    shown = expected[: outcomes.SHOWN_ERRORS]
    assert len(lines) == len(shown), done.stderr
    for line, text in zip(lines, shown, strict=True):
        assert line.startswith("error: ")
        assert line.isprintable()
        assert "Traceback" not in line
        at = len("error: ")
        for part in text.split(" ... "):
            assert part in line[at:], f"{part!r} is not in {line!r}"
            at = line.index(part, at) + len(part)


@contextmanager
def plugins_undone() -> Iterator[None]:
    """Forget afterwards what plug-ins register inside, so that the families' tests see only our own."""
    registries = list(FAMILIES.values())
    members = {id(registry): {name: registry[name] for name in registry.names()} for registry in registries}
    try:
        yield
    finally:
        for registry in registries:
            registry._members = members[id(registry)]
        for name in [name for name in sys.modules if name.startswith("mtl_plugin_")]:
            del sys.modules[name]
