"""`refused` finds each way in which a command can break the contract of errors."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.assertions import Done, refused


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
