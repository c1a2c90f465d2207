"""How errors read, and the contract that every error of a user keeps on the command line.

`refused` is the one place that says what that contract is; the tests of the command line use it too.
"""

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
from mtl.errors import (
    ENVIRONMENT,
    NOT_FINITE,
    USER,
    EnvironmentFault,
    ManyErrors,
    NotFinite,
    Place,
    UserError,
    did_you_mean,
    dotted,
    quoted,
    raise_all,
)
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


# --- the line ---


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            UserError(Place("r.yaml", 2, 5), "what", "todo", path=("a", "b", 0)),
            "r.yaml:2:5: a.b[0]: what; todo",
        ),
        (UserError(Place("r.yaml"), "what"), "r.yaml: what"),
        (UserError("train.csv:row 3", "what", "todo"), "train.csv:row 3: what; todo"),
        (UserError("", "what", path=("a",)), "a: what"),
        (UserError("", "what"), "what"),
        (EnvironmentFault("disk", "is full"), "disk: is full"),
        (NotFinite("", "task 'a': loss is nan at step 57"), "task 'a': loss is nan at step 57"),
    ],
)
def test_an_error_is_one_line(error: UserError, line: str) -> None:
    assert str(error) == line
    assert error.errors == (error,)


def test_codes() -> None:
    codes = [type_("", "what").code for type_ in (UserError, EnvironmentFault, NotFinite)]
    assert codes == [USER, ENVIRONMENT, NOT_FINITE] == [2, 3, 4]


def test_many_errors_are_a_line_each() -> None:
    errors = [UserError(Place("r.yaml", i, 1), f"fault {i}") for i in (1, 2)]
    many = ManyErrors(errors)
    assert str(many) == "r.yaml:1:1: fault 1\nr.yaml:2:1: fault 2"
    assert many.errors == tuple(errors)
    assert many.place == errors[0].place
    assert many.code == USER


def test_raise_all() -> None:
    one, two = UserError("", "one"), UserError("", "two")
    raise_all([])
    with pytest.raises(UserError) as caught:
        raise_all([one])
    assert caught.value is one
    with pytest.raises(ManyErrors) as both:
        raise_all([one, two])
    assert both.value.errors == (one, two)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "'plain'"),
        ("größe", "'größe'"),
        ("a\nb\x1b[31m\x00", "'a\\nb\\x1b[31m\\x00'"),
        ("\u2028\ud800", "'\\u2028\\ud800'"),
        (1.5, "1.5"),
        (None, "None"),
        ("x" * 38, "'" + "x" * 38 + "'"),
        ("x" * 39, "'" + "x" * 35 + "...'"),
        (("x" * 39,), "('" + "x" * 34 + "...)"),
    ],
)
def test_quoted(value: object, text: str) -> None:
    assert quoted(value) == text
    assert len(text) <= 40
    assert text.isprintable()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("model", "after", 0), "model.after[0]"),
        (("a", 0, 1, "b"), "a[0][1].b"),
        (("", "b"), "''.b"),
        (("a\n", "b"), "'a\\n'.b"),
        (("k" * 41,), "'" + "k" * 35 + "...'"),
        (("k" * 40,), "k" * 40),
    ],
)
def test_dotted(path: tuple[str | int, ...], text: str) -> None:
    assert dotted(path) == text


def test_did_you_mean() -> None:
    assert did_you_mean("sed", ["seed", "name"]) == " (did you mean 'seed'?)"
    assert did_you_mean("zzz", ["seed", "name"]) == ""
    assert did_you_mean(7, ["seed"]) == ""
    assert did_you_mean("s" * 10_000, ["seed"]) == ""
    assert did_you_mean("seed", []) == ""
    assert did_you_mean("LABEL", ["x", "label"]) == " (did you mean 'label'?)"
    assert did_you_mean("label", ["Labels", "LABEL"]) == " (did you mean 'LABEL'?)"
    assert did_you_mean("STRASSE", ["Straße"]) == " (did you mean 'Straße'?)"


# --- the helper can fail ---


def done(
    code: int = 2, out: str = "", err: str = "error: r.yaml:1:1: bad; do better\n"
) -> Callable[[], Done]:
    return lambda: subprocess.CompletedProcess([], code, out, err)


def test_the_contract_is_kept(tmp_path: Path) -> None:
    refused(done(), tmp_path, ["r.yaml:1:1: ... do better"])
    many = "".join(f"error: {i}\n" for i in range(10)) + "... and 2 more\n"
    refused(done(err=many), tmp_path, [str(i) for i in range(12)])


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (done(code=1), ["bad"]),
        (done(out="x"), ["bad"]),
        (done(), ["worse"]),
        (done(), ["do better ... bad"]),
        (done(), ["bad", "bad"]),
        (done(), []),
        (done(err="warning: bad\n"), ["bad"]),
        (done(err="error: a\x1b[0m\n"), ["a"]),
        (done(err="Traceback\nerror: a\n"), ["a"]),
        (done(err="error: a\n" * 11), ["a"] * 11),
    ],
    ids=["code", "stdout", "text", "order", "missing", "extra", "prefix", "escape", "traceback", "eleven"],
)
def test_a_broken_contract_is_found(start: Callable[[], Done], expected: list[str], tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        refused(start, tmp_path, expected)


def test_a_file_left_behind_is_found(tmp_path: Path) -> None:
    def start() -> Done:
        (tmp_path / "runs").mkdir()
        return done()()

    with pytest.raises(AssertionError):
        refused(start, tmp_path, ["bad"])
