"""Stop signals as they come in earnest: to a process group, from a terminal, while things are imported or fetched.

F7 and F9, in processes of their own.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import mtl.experiment.run
from mtl.data.files import download
from mtl.errors import HUNG_UP, INTERRUPTED, TERMINATED
from mtl.signals import REPEATED
from mtl.sources import fashion_mnist
from tests.faults.test_runs import EPOCHS, ROOT, STEPS, Command, _quick, command, straight
from tests.support.assertions import contents
from tests.support.lives import GROUPED, Life
from tests.support.lives import command as in_a_life
from tests.support.recipes import write

__all__ = ["_quick", "command", "straight"]
pytestmark = GROUPED
CODES = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED, signal.SIGHUP: HUNG_UP}
LIMIT = 60.0


def begin(command: Command, folder: Path, fail: str, terminal: str = "") -> Life:
    """The command in a process of its own, held where `fail` says `stop`."""
    arguments = ["run", command.straight / "r.yaml", "--quiet", "--resume", "auto", "--out", command.out]
    return Life(in_a_life, *arguments, folder=folder, fail=fail, terminal=terminal)


def stopped_at(command: Command, step: int) -> str:
    return f"warning: stopped at step {step}, which is saved; `mtl run --resume {command.out}` goes on\n"


# --- to the whole group ---


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_to_the_whole_group(number: signal.Signals, command: Command, tmp_path: Path) -> None:
    """One save, the exit code, and two lines; although it comes twice at once, as a parent may pass it on."""
    with begin(command, tmp_path, "backward:5:stop") as life:
        life.await_stop()
        assert command.saved() == [STEPS]
        life.send(number)
        life.send(signal.SIGCONT)
        done = life.end()
    assert (done.returncode, done.stdout) == (CODES[number], "")
    assert done.stderr == stopped_at(command, 5) + "interrupted\n"
    assert command.saved() == [STEPS, 5]
    command.goes_on()


def test_at_once_twice_is_once(command: Command, tmp_path: Path) -> None:
    """The second comes while the first is being obeyed: at the next failpoint, which is within the same step."""
    with begin(command, tmp_path, "backward:5:stop,step:5:stop") as life:
        for _ in range(2):
            life.await_stop()
            life.send(signal.SIGINT)
            life.send(signal.SIGCONT)
        done = life.end()
    assert (done.returncode, done.stderr) == (INTERRUPTED, stopped_at(command, 5) + "interrupted\n")
    assert command.saved() == [STEPS, 5]
    command.goes_on()


def test_a_second_interrupt_to_the_group(command: Command, tmp_path: Path) -> None:
    """Later, and within the step in which the first came: the last checkpoint stands."""
    with begin(command, tmp_path, "backward:5:stop,step:5:stop") as life:
        life.await_stop()
        life.send(signal.SIGINT)
        life.send(signal.SIGCONT)
        life.await_stop()
        time.sleep(REPEATED + 0.1)
        life.send(signal.SIGINT)
        life.send(signal.SIGCONT)
        done = life.end()
    assert (done.returncode, done.stdout) == (INTERRUPTED, "")
    stands = f"warning: stopped at step 4; step 3 is saved; `mtl run --resume {command.out}` goes on\n"
    assert done.stderr == stands + "interrupted\n"
    assert command.saved() == [STEPS]
    command.goes_on()


def test_a_second_interrupt_in_the_save(command: Command, tmp_path: Path) -> None:
    """Of the first one; what was there before stands, and what the save left is removed by the next start."""
    with begin(command, tmp_path, "backward:5:stop,save:2:stop") as life:
        life.await_stop()
        life.send(signal.SIGINT)
        life.send(signal.SIGCONT)
        life.await_stop()
        time.sleep(REPEATED + 0.1)
        life.send(signal.SIGINT)
        life.send(signal.SIGCONT)
        done = life.end()
    stands = f"warning: stopped at step 5; step 3 is saved; `mtl run --resume {command.out}` goes on\n"
    assert (done.returncode, done.stdout, done.stderr) == (INTERRUPTED, "", stands + "interrupted\n")
    assert command.saved() == [STEPS]
    assert json.loads((command.out / "run.json").read_bytes())["status"] == "interrupted"
    command.goes_on()


def test_from_a_terminal(command: Command, tmp_path: Path) -> None:
    """^C is typed; what follows begins on a line of its own."""
    ours, terminal = os.openpty()
    seen = b""
    try:
        with begin(command, tmp_path, "backward:5:stop", os.ttyname(terminal)) as life:
            life.await_stop()
            os.close(terminal)
            os.write(ours, b"\x03")
            while b"^C" not in seen:  # the terminal sends the signal before it echoes
                seen += os.read(ours, 1000)
            life.send(signal.SIGCONT)
            with suppress(OSError):  # EIO: the other end was closed
                while part := os.read(ours, 1000):
                    seen += part
            done = life.end()
    finally:
        os.close(ours)
    assert done.returncode == INTERRUPTED
    assert seen.decode().replace("\r\n", "\n") == "^C\n" + stopped_at(command, 5) + "interrupted\n"
    assert command.saved() == [STEPS, 5]
    command.goes_on()


@pytest.mark.skipif(
    shutil.which("make") is None, reason="NOT TESTED: a run below make; make is not installed"
)
def test_below_make_and_a_shell(command: Command, tmp_path: Path) -> None:
    """All three get the signal; make waits for the save, and tells on its own account only."""
    run = [
        sys.executable,
        "-m",
        "tests.support.failpoints",
        "run",
        str(command.straight / "r.yaml"),
        "--quiet",
        "--out",
        str(command.out),
    ]
    (tmp_path / "Makefile").write_text(f"run:\n\t@cd {ROOT} && {' '.join(run)}; exit $$?\n")
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    environment = {**own, "MTL_FAIL": "backward:5:stop", "OMP_NUM_THREADS": "1", "LC_ALL": "C"}
    with subprocess.Popen(
        ["make", "-f", tmp_path / "Makefile", "run"], cwd=tmp_path, env=environment, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as make:  # fmt: skip
        try:
            mtl_pid = held_process(command.out / ".lock")
            assert mtl_pid != make.pid
            os.killpg(make.pid, signal.SIGINT)
            os.kill(mtl_pid, signal.SIGCONT)
            out, err = make.communicate(timeout=LIMIT)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(make.pid, signal.SIGKILL)
    assert out == ""
    ours = [line for line in err.splitlines(keepends=True) if not line.startswith("make: ")]
    assert "".join(ours) == stopped_at(command, 5) + "interrupted\n"
    assert command.saved() == [STEPS, 5]
    command.goes_on()


def held_process(lock: Path) -> int:
    """The process that holds the run, once it has stopped itself."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        match = re.match(r"pid (\d+) ", lock.read_text()) if lock.is_file() else None
        if match and Path(f"/proc/{match[1]}/stat").read_text().rpartition(")")[2].split()[0] == "T":
            return int(match[1])
        time.sleep(0.01)
    raise AssertionError("it did not stop itself")


# --- before a run trains ---


def started(folder: Path, module: str, text: str) -> subprocess.CompletedProcess[str]:
    """`mtl run` in a new interpreter that finds this text in the place of a module."""
    (folder / f"{module}.py").write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "mtl", "run", "synthetic_stitch", "--out", folder / "out"], cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
@pytest.mark.parametrize("module", ["click", "torch"])
def test_while_it_imports(module: str, number: signal.Signals, tmp_path: Path) -> None:
    """At once, without a traceback: click comes before the command line has begun, torch after the recipe was read."""
    began = time.monotonic()
    done = started(
        tmp_path, module, f"import os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep({LIMIT})\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (CODES[number], "", "interrupted\n")
    assert time.monotonic() - began < LIMIT / 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_while_a_library_guards_its_import(number: signal.Signals, tmp_path: Path) -> None:
    """As C code and bare excepts do, which lose an exception that a handler raises."""
    text = f"import os\ntry:\n    os.kill(os.getpid(), {int(number)})\nexcept BaseException:\n    pass\n"
    done = started(tmp_path, "torch", text)
    assert (done.returncode, done.stderr) == (CODES[number], "interrupted\n")


@pytest.mark.parametrize("name", ["int", "term", "hup"])
def test_while_the_data_load(name: str, command: Command, tmp_path: Path) -> None:
    """At once: no run folder is there yet."""
    with begin(command, tmp_path, f"load:1:{name}") as life:
        done = life.end()
    code = CODES[signal.Signals[f"SIG{name.upper()}"]]
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "interrupted\n")
    assert not command.out.exists()
    command.goes_on()


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_at_any_time_of_the_start(number: signal.Signals, tmp_path: Path) -> None:
    """From a tenth of the time that it takes, for the interpreter has to come as far as to mtl, until it trains."""
    draw = random.Random(int(number))
    began = time.monotonic()
    with starts(tmp_path / "first") as process:
        while not (tmp_path / "first/.lock").exists():
            assert process.poll() is None
            time.sleep(0.01)
        start = time.monotonic() - began
        os.killpg(process.pid, signal.SIGKILL)
    before = 0
    for n in range(20):
        out = tmp_path / f"{n}"
        with starts(out) as process:
            time.sleep(draw.uniform(0.1, 1.5) * start)
            os.killpg(process.pid, number)
            said, told = process.communicate(timeout=LIMIT)
        *warning, last = told.splitlines()
        assert (process.returncode, said, last) == (CODES[number], "", "interrupted")
        if out.exists():
            assert re.fullmatch(r"warning: stopped at step \d+, which is saved; .* goes on", *warning), told
            assert list((out / "checkpoints").glob("step-*/manifest.json"))
        else:
            assert warning == []
            before += 1
    print(f"{number.name}: {before} before the run folder was there, {20 - before} after")
    assert 0 < before < 20


def starts(out: Path) -> subprocess.Popen[str]:
    """A run that does not end by itself, in an interpreter and a session of its own."""
    command = [
        sys.executable,
        "-m",
        "mtl",
        "run",
        "synthetic_stitch",
        "--quiet",
        "--out",
        out,
        "train.epochs=100000",
    ]
    return subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def test_while_the_run_folder_is_made(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is obeyed once the folder is whole, as before the first step."""
    real = mtl.experiment.run.RunFolder.create

    def create(*given: object) -> mtl.experiment.run.RunFolder:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(mtl.experiment.run.RunFolder, "create", create)
        done = command()
    assert (done.returncode, done.stderr) == (TERMINATED, stopped_at(command, 0) + "interrupted\n")
    assert command.saved() == [0]
    command.goes_on()
    assert command.saved()[-1] == EPOCHS * STEPS


# --- while it downloads ---


@pytest.fixture
def half() -> Iterator[tuple[str, threading.Event]]:
    """A server that sends a thousand bytes of a file and then nothing; and whether it has."""
    sent, over = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.recv(10_000)
                    size = fashion_mnist.FILES[0].remote.size
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(1000))
                    sent.set()
                    over.wait(LIMIT)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/", sent
        over.set()
        server.close()
        thread.join(LIMIT)


def small_fashion(folder: Path) -> str:
    """A small network for Fashion-MNIST; what its recipe is called."""
    data = {"source": {"kind": "fashion_mnist"}}
    tasks = {"garment": {"kind": "fashion.garment"}}
    return str(write(folder, "f.yaml", name="f", data=data, tasks=tasks, train__batch_size=100))


def fetches(url: str, recipe: str, out: str) -> int:
    """`mtl run` with no Fashion-MNIST on this machine, in a process of its own."""
    download.ALLOWED, fashion_mnist.MIRRORS, fashion_mnist.DEBIAN = (url,), (url,), Path("nowhere")
    return in_a_life("run", recipe, "--quiet", "--out", out)


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_while_it_downloads(
    number: signal.Signals, half: tuple[str, threading.Event], tmp_path: Path
) -> None:
    """At once; nothing half is left in the cache, and no run folder."""
    url, sent = half
    cache, out = tmp_path / "cache", tmp_path / "out"
    environment = {"MTL_CACHE": str(cache), "MTL_OFFLINE": ""}
    with Life(
        fetches, url, small_fashion(tmp_path), str(out), folder=tmp_path, environment=environment
    ) as life:
        assert sent.wait(LIMIT)
        part = cache / "fashion_mnist" / f"{fashion_mnist.FILES[0].remote.name}.part"
        life.await_that(part.exists)
        began = time.monotonic()
        life.send(number)
        done = life.end()
    assert time.monotonic() - began < download.READ_SECONDS / 2
    name, size = fashion_mnist.FILES[0].remote.name, fashion_mnist.FILES[0].remote.size
    fetching = f"fetching {name} ({size / 1e6:.1f} MB) from 127.0.0.1\n"
    assert (done.returncode, done.stdout, done.stderr) == (CODES[number], "", fetching + "interrupted\n")
    assert contents(cache) == {"fashion_mnist": None, "fashion_mnist/.lock": b""}
    assert not out.exists()
