"""A process whose system calls are listed, and one of which is made to fail or to be its last.

What `strace` says is parsed into `Call`s. `power_cuts` gives the folders that a power cut may leave at that point:
bytes that nobody synced are torn, names that nobody synced are as before.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

REQUIRED = "MTL_REQUIRE_STRACE"
"""Set where tests that need strace must not be left out, as in `.ci/run`."""
NAMES = ("mkdir", "openat", "write", "fsync", "rename", "unlink", "unlinkat", "rmdir")
SCRIPT = Path(__file__).with_name("protocols.py")
LINE = re.compile(
    r"(?P<pid>\d+) +(?P<name>\w+)\((?P<arguments>.*?)(?:\) += (?P<result>-?\d+).*|<unfinished.*)?$"
)


@dataclass(frozen=True)
class Call:
    """One system call.

    Args:
        name: of the call.
        nth: how many of this name the process has made until then, from 1.
        paths: what it is about, absolute.
        flags: the rest of the line.
        done: whether it came back without an error.
    """

    name: str
    nth: int
    paths: tuple[str, ...]
    flags: str
    done: bool


@dataclass(frozen=True)
class Traced:
    """How a traced process ended: exit code, stderr, its calls below the folder, and strace's own text."""

    code: int
    complaint: str
    calls: list[Call]
    text: str


@cache
def lacking() -> str | None:
    """Why strace cannot be used here, if it cannot."""
    if shutil.which("strace") is None:
        return "strace is not installed (apt-get install strace)"
    try:
        traced = subprocess.run(
            ["strace", "-f", "-e", "trace=mkdir", "-o", os.devnull, "true"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    except OSError as error:
        return f"strace does not start: {error}"
    return None if traced.returncode == 0 else f"strace may not trace here: {traced.stderr.strip()[:200]}"


def require_strace() -> None:
    """Skip the test where strace cannot be used, with the reason; fail instead where it must be there."""
    reason = lacking()
    if reason is None:
        return
    if os.environ.get(REQUIRED):
        pytest.fail(f"{reason}, and {REQUIRED} is set")
    pytest.skip(f"NOT TESTED: faults in the middle of a save; {reason}")


def calls_of(text: str, folder: Path) -> list[Call]:
    """The calls of the main thread that are about something below `folder`."""
    found: list[Call] = []
    counts: dict[str, int] = {}
    main = ""
    for line in text.splitlines():
        match = LINE.match(line)
        if match is None or match["name"] not in NAMES:
            continue
        main = main or match["pid"]
        if match["pid"] != main:
            continue
        name, arguments = match["name"], match["arguments"]
        counts[name] = counts.get(name, 0) + 1
        paths = re.findall(rf"[\"<]({re.escape(str(folder))}[^\">]*)[\">]", arguments)
        if name == "unlinkat" and paths:  # a folder's descriptor, and a name in it
            paths = [f"{paths[0]}/{re.findall(chr(34) + '([^' + chr(34) + ']*)' + chr(34), arguments)[-1]}"]
        if paths:
            done = match["result"] is not None and int(match["result"]) >= 0
            found.append(Call(name, counts[name], tuple(paths), arguments, done))
    return found


def trace(protocol: str, scenario: str, folder: Path, fault: str = "", at: Call | None = None) -> Traced:
    """Run one save of `protocols.py`, with a fault (`signal=SIGKILL`, `error=EIO`) at one of its calls."""
    log = folder.with_name(folder.name + ".strace")
    inject = [] if at is None else ["-e", f"inject={at.name}:{fault}:when={at.nth}"]
    done = subprocess.run(
        ["strace", "-f", "-y", "-qq", "-o", log, "-e", f"trace={','.join(NAMES)}", *inject,
         sys.executable, "-B", "-S", "-E", SCRIPT, protocol, scenario, folder],
        cwd=folder.parent, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    text = log.read_text(errors="replace")
    fired = done.returncode == -signal.SIGKILL if "SIGKILL" in fault else "(INJECTED)" in text
    assert at is None or fired, f"{fault} at {at} did not happen: {done}"
    return Traced(done.returncode, done.stderr, calls_of(text, folder), text)


@dataclass
class Unsynced:
    """What of a folder is not on the disk for good.

    Args:
        torn: files with bytes that were written since their last fsync.
        created: files and folders whose parent was not synced since.
        renamed: (before, after) whose parent was not synced since, in order.
    """

    torn: set[str] = field(default_factory=set)
    created: set[str] = field(default_factory=set)
    renamed: list[tuple[str, str]] = field(default_factory=list)

    def see(self, call: Call) -> None:
        if not call.done:
            return
        path = call.paths[-1]
        if call.name == "openat" and "O_CREAT" in call.flags:
            path = call.paths[0]
            self.torn.add(path)
            if not Path(path).exists() or "O_EXCL" in call.flags:
                self.created.add(path)
        elif call.name == "write":
            self.torn.add(path)
        elif call.name == "fsync":
            self.torn.discard(path)
            self.created = {name for name in self.created if os.path.dirname(name) != path}
            self.renamed = [pair for pair in self.renamed if os.path.dirname(pair[1]) != path]
        elif call.name == "rename":
            before, after = call.paths
            self.renamed.append((before, after))
            self.torn = {_moved(name, before, after) for name in self.torn}
            self.created = {_moved(name, before, after) for name in self.created} - {after}


def _moved(name: str, before: str, after: str) -> str:
    return after + name[len(before) :] if name == before or name.startswith(before + "/") else name


def power_cuts(folder: Path, before_calls: Path, calls: list[Call]) -> Iterator[Path]:
    """Copies of a folder as a power cut after these calls may leave it: torn bytes, and 0, 1, ... names undone.

    `before_calls` is the folder as it was; a file that a rename replaced comes back from there.
    """
    state = Unsynced()
    for call in calls:
        state.see(call)
    for undone in range(len(state.renamed) + 1):
        copy = folder.with_name(f"{folder.name}-cut{undone}")
        shutil.copytree(folder, copy)

        def at(path: str, copy: Path = copy) -> Path:
            return copy / os.path.relpath(path, folder)

        for name in state.torn:
            if at(name).is_file():
                os.truncate(at(name), at(name).stat().st_size // 2)
        for name in state.created if undone else ():
            if at(name).is_file():
                at(name).unlink()
        for before, after in reversed(state.renamed[len(state.renamed) - undone :]):
            if at(after).exists() and not at(before).exists():
                os.rename(at(after), at(before))
                old = before_calls / os.path.relpath(after, folder)
                if old.is_file():
                    shutil.copyfile(old, at(after))
        yield copy
        shutil.rmtree(copy)
