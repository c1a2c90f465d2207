"""A save that is killed, refused or cut off from power at each of its system calls (F1, F2, F19, F20, F21, F25).

After every fault the folder is read by code that shares nothing with the code that wrote it, and the save is done
again. Three protocols that are wrong on purpose show that the tests can fail.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mtl.runs import checkpoint, retention
from mtl.runs.disk import write_whole
from tests.faults.protocols import BEFORE, KEEP, NEW_FILE, NEXT, OLD_FILE, PROTOCOLS, RUN, files
from tests.faults.strace import Call, Traced, power_cuts, require_strace, trace
from tests.faults.whole import checkpoints

ERRORS = {
    "EIO": "input/output error",
    "ENOSPC": "no space left on device",
    "EDQUOT": "disk quota exceeded",
    "EROFS": "read-only file system",
}
SCENARIOS = ("save", "replace", "file")
NEWEST = BEFORE[-1]


@pytest.fixture(autouse=True)
def _strace() -> None:
    require_strace()


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three committed checkpoints and a small file, as each save finds them."""
    folder = tmp_path_factory.mktemp("before") / "checkpoints"
    for step in BEFORE:
        checkpoint.commit(folder, step, files(step), RUN)
    (folder / "run.json").write_bytes(OLD_FILE)
    return folder


class Fresh:
    """Makes a new copy of `before` for each fault."""

    def __init__(self, before: Path, place: Path) -> None:
        self.before, self.place, self.numbers = before, place, itertools.count()

    def __call__(self) -> Path:
        folder = self.place / f"f{next(self.numbers)}" / "checkpoints"
        folder.parent.mkdir()
        shutil.copytree(self.before, folder)
        return folder


@pytest.fixture
def fresh(before: Path, tmp_path: Path) -> Fresh:
    return Fresh(before, tmp_path)


# --- what must hold after any fault ---


def broken(protocol: str, scenario: str, folder: Path) -> list[str]:
    """What does not hold of a folder that a fault left, then of the next start, then of the save done again."""
    retention.clean(folder)
    faults = [f"after the fault: {fault}" for fault in _lost(scenario, folder)]
    if scenario == "file":
        write_whole(folder / "run.json", NEW_FILE)
        return faults if (folder / "run.json").read_bytes() == NEW_FILE else [*faults, "not written again"]
    step, version = (NEXT, 0) if scenario == "save" else (NEWEST, 1)
    warning = PROTOCOLS[protocol](folder, step, files(step, version))
    kept = (NEWEST, NEXT) if scenario == "save" else BEFORE[-KEEP:]
    expected = {kept_step: files(kept_step, version if kept_step == step else 0) for kept_step in kept}
    if warning is not None or checkpoints(folder) != expected:
        faults.append(f"done again: {warning}, {checkpoints(folder).keys()}")
    names = {name for name in os.listdir(folder) if not name.startswith("step-")}
    return faults if names == {"run.json"} else [*faults, f"left over: {names}"]


def _lost(scenario: str, folder: Path) -> Iterator[str]:
    """Committed checkpoints that are missing or not as they were, although retention may not have them yet."""
    if (folder / "run.json").read_bytes() not in (OLD_FILE, *([NEW_FILE] if scenario == "file" else [])):
        yield "run.json is neither old nor new"
    found = checkpoints(folder)
    yield from (f"step {step} is not whole" for step, content in found.items() if content is None)
    new = {NEXT: [files(NEXT)]} if scenario == "save" else {}
    allowed = {**{step: [files(step)] for step in BEFORE}, **new}
    if scenario == "replace":
        allowed[NEWEST].append(files(NEWEST, 1))
    for step, content in found.items():
        if content is not None and content not in allowed.get(step, []):
            yield f"step {step} has bytes that nobody saved"
    if scenario == "file":
        needed: tuple[int, ...] = BEFORE
    elif scenario == "replace":
        needed = BEFORE[-KEEP:]
    else:
        needed = (NEWEST, NEXT) if NEXT in found else BEFORE[-KEEP:]
    yield from (f"step {step} is lost" for step in needed if found.get(step) is None)


def calls(protocol: str, scenario: str, fresh: Fresh, reads: bool = False) -> list[Call]:
    """Those of a save that nothing disturbs, without those that only open a file to read it."""
    folder = fresh()
    done = trace(protocol, scenario, folder)
    assert (done.code, done.complaint) == (0, "")
    return [call for call in done.calls if reads or call.name != "openat" or "O_CREAT" in call.flags]


def killed_at_each(protocol: str, scenario: str, fresh: Fresh) -> tuple[Counter[str], Counter[str]]:
    """How many kills and power cuts there were, and how many of either broke something."""
    tried, violations = Counter[str](), Counter[str]()
    for call in calls(protocol, scenario, fresh):
        folder = fresh()
        done = trace(protocol, scenario, folder, "signal=SIGKILL", call)
        for cut in power_cuts(folder, fresh.before, done.calls):
            tried["power cut"] += 1
            violations["power cut"] += bool(broken(protocol, scenario, cut))
        tried["kill"] += 1
        violations["kill"] += bool(broken(protocol, scenario, folder))
        shutil.rmtree(folder.parent)
    print(f"{protocol}, {scenario}: {dict(tried)}, broken by them: {dict(violations)}")
    return tried, violations


# --- our own ---

N_CALLS = {"save": 32, "replace": 24, "file": 5}
"""At least so many calls of each scenario are about its folder."""


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_each_call(scenario: str, fresh: Fresh) -> None:
    tried, violations = killed_at_each("ours", scenario, fresh)
    assert tried["power cut"] > tried["kill"] >= N_CALLS[scenario]
    assert violations.total() == 0, violations


def refusals(scenario: str, names: Callable[[int], list[str]], fresh: Fresh, reads: bool) -> Counter[int]:
    """Let each call fail with the errors of its number; how often the process ended with which code."""
    codes = Counter[int]()
    for number, call in enumerate(calls("ours", scenario, fresh, reads)):
        for name in names(number):
            folder = fresh()
            done = trace("ours", scenario, folder, f"error={name}", call)
            told(done, scenario, folder, ERRORS[name])
            assert broken("ours", scenario, folder) == [], (name, call)
            codes[done.code] += 1
            shutil.rmtree(folder.parent)
    return codes


def told(done: Traced, scenario: str, folder: Path, what: str) -> None:
    """The line that a refused save ends with, or the warning of one that only could not delete."""
    assert done.code in (0, 3)
    if done.code == 0:
        assert done.complaint in ("", f"cannot delete an old checkpoint: {what}\n")
        return
    step = NEXT if scenario == "save" else NEWEST
    save = rf"{folder}: cannot write checkpoint at step {step}: {what}; last good: step-0*(200|300)"
    line = rf"{folder}/run\.json: cannot write: {what}" if scenario == "file" else save
    assert re.fullmatch(line + "\n", done.complaint), done.complaint
    assert not [name for name in os.listdir(folder) if name.startswith((".tmp-", ".run.json-"))]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_refused_at_each_call(scenario: str, fresh: Fresh) -> None:
    """One of the four errors at each call, in turn."""
    names = list(ERRORS)
    codes = refusals(scenario, lambda number: [names[number % len(names)]], fresh, reads=False)
    assert codes.total() >= N_CALLS[scenario]
    assert codes[3] >= 5
    assert set(codes) <= {0, 3}


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_refused_at_each_call_with_each_error(scenario: str, fresh: Fresh) -> None:
    codes = refusals(scenario, lambda number: list(ERRORS), fresh, reads=True)
    print(f"{scenario}: exit codes {dict(codes)}")
    assert codes.total() >= len(ERRORS) * N_CALLS[scenario]


def test_order_of_the_calls(fresh: Fresh) -> None:
    """F19: write, sync the file, sync the folder, rename, sync the parent; and only then deletions."""
    folder = fresh()
    done = trace("ours", "save", folder)
    shown = [
        (
            call.name,
            *(re.sub(r"\.(tmp|del)-[^/]*", r"<\1>", os.path.relpath(path, folder)) for path in call.paths),
        )
        for call in done.calls
        if call.name != "openat"
    ]
    names = [*files(NEXT), "manifest.json"]
    pieces = {name: 2 if name.endswith(".safetensors") else 1 for name in names}
    written = [(kind, f"<tmp>/{n}") for n in names for kind in (*["write"] * pieces[n], "fsync")]
    expected = [
        *(("mkdir", "."), ("mkdir", "<tmp>"), *written, ("fsync", "<tmp>")),
        *(("rename", "<tmp>", f"step-{NEXT:08d}"), ("fsync", ".")),
        *(("rename", f"step-{step:08d}", "<del>") for step in BEFORE[:2]),
        ("fsync", "."),
    ]
    assert shown[: len(expected)] == expected
    rest = shown[len(expected) :]
    assert {call[0] for call in rest} <= {"unlink", "unlinkat", "rmdir"}
    assert all(call[1].startswith("<del>") for call in rest)
    assert len(rest) == 2 * (len(names) + 1)


# --- wrong on purpose ---


@pytest.mark.parametrize(
    ("protocol", "scenario", "kind"),
    [("without_syncs", "save", "power cut"), ("in_place", "replace", "kill"), ("room_first", "save", "kill")],
)
def test_a_wrong_protocol_is_found(protocol: str, scenario: str, kind: str, fresh: Fresh) -> None:
    tried, violations = killed_at_each(protocol, scenario, fresh)
    assert tried[kind] >= violations[kind] >= 5
