"""The processes that sections start: what they tell, and that busy ones end with whom they belong to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

from bench.speed import measure
from bench.speed.sections import busy, start

SMALL = "age_gender_stitch"


def is_alive(process: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_child_tells_its_figures_and_its_fault() -> None:
    ended = measure.child(["-c", "print('words'); print('{\"a\": 1}')"])
    assert ended.found == {"a": 1}
    assert ended.seconds > 0
    assert measure.child(["-c", "print('words')"]).found == {}
    with pytest.raises(RuntimeError, match=r"-c fault ended with 1:[\s\S]*NameError"):
        measure.child(["-c", "fault"])


def test_children_have_the_environment_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "2000")  # as start_process does
    seen = measure.environment_of({"MALLOC_IS_LEFT_ALONE": "1"})
    assert seen.get("GOMP_SPINCOUNT") == measure.ENVIRONMENT.get("GOMP_SPINCOUNT")
    assert seen["MALLOC_IS_LEFT_ALONE"] == "1"


def test_the_peak_of_memory_remembers_what_was_given_back() -> None:
    code = "from bench.speed.children import peak; a = bytearray(b'x') * {}; del a; print('{{\"peak\": %d}}' % peak())"
    little, much = (measure.child(["-c", code.format(n)]).found["peak"] for n in (1, 200_000_000))
    assert 190e6 < much - little < 250e6


def test_a_run_ends_after_its_first_step(tmp_path: Path) -> None:
    command = ["-m", "bench.speed.children", "first_step", start.RECIPE, "--out", str(tmp_path / "run")]
    measure.child(command)
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert record["status"] == "running"
    assert not (tmp_path / "run" / "timings.jsonl").exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc")
def test_busy_processes_end_with_the_bench_even_if_it_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "print('busy', flush=True); import time; time.sleep(60)"
    monkeypatch.setattr(busy, "BUSY", ["-c", code])
    inside: list[int] = []

    def interrupted() -> None:
        with busy.busy_processes(2, SMALL) as processes:
            inside.extend(processes)
            assert [is_alive(process) for process in processes] == [True, True]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [is_alive(process) for process in inside] == [False, False]


def test_a_busy_process_that_does_not_begin_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busy, "BUSY", ["-c", "print('not yet')"])
    with (
        pytest.raises(RuntimeError, match=f"{SMALL} did not begin to train"),
        busy.busy_processes(1, SMALL),
    ):
        raise AssertionError


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_busy_processes_end_with_the_command(how: signal.Signals, tmp_path: Path) -> None:
    """They see that their parent is gone even if it had no time to end them."""
    code = (
        "import signal, sys, time; from bench.speed.sections.busy import busy_processes\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        f"with busy_processes(2, {SMALL!r}) as processes:\n"
        "    print(*processes, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=measure.environment_of(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as bench:
        assert bench.stdout is not None
        processes = [int(word) for word in bench.stdout.readline().split()]
        assert len(processes) == 2
        os.kill(bench.pid, how)
    until = monotonic() + 20
    while any(map(is_alive, processes)) and monotonic() < until:
        sleep(0.1)
    assert [is_alive(process) for process in processes] == [False, False]
