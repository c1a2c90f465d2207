"""Runs that are stopped, broken or starved at each stage, and then started again by the same command.

Each fault must have happened; the exit code and the line are those of the table in docs/reliability.md; and the run
that goes on must end with the bytes of one that nothing disturbed.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mtl.experiment.run
import mtl.report.plots
from mtl import signals
from mtl.errors import BUG, ENVIRONMENT, HUNG_UP, INTERRUPTED, NOT_FINITE, OK, TERMINATED, USER
from mtl.runs import checkpoint, retention
from mtl.stages import STAGES
from mtl.training.events import EpochEnded
from tests.experiment.test_resume import recipe
from tests.faults.whole import checkpoints, final_bytes
from tests.support.assertions import Capture, Done, called, contents
from tests.support.failpoints import failing

ROOT = Path(__file__).parents[2]
EPOCHS, STEPS = 3, 3
"""Of the run below: 45 rows in batches of 15, evaluated on 15 after each epoch."""
RECIPE = recipe(
    train__epochs=EPOCHS, train__batch_size=15, train__device="cpu", data__split={"validation": 0.25},
    train__checkpoint={"every": {"epochs": 1}, "keep": 2},
)  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No figures, tracebacks of bugs where the test can see them, and no signal that whoever started us ignores."""
    monkeypatch.setattr(mtl.report.plots, "plot_run", lambda *given: [])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = {number: signal.getsignal(number) for number in signals.STOPPING}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing disturbs, and beside it `r.yaml`."""
    folder = tmp_path_factory.mktemp("straight")
    (folder / "r.yaml").write_text(json.dumps(RECIPE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mtl.report.plots, "plot_run", lambda *given: [])
        mtl.run(str(folder / "r.yaml"), out=folder / "run")
    assert max(checkpoints(folder / "run/checkpoints")) == EPOCHS * STEPS
    return folder


class Command:
    """`mtl run r.yaml --resume auto --out DIR`, in this process."""

    def __init__(self, capsys: Capture, straight: Path, out: Path) -> None:
        self.capsys, self.straight, self.out = capsys, straight, out

    def __call__(self, *more: str) -> Done:
        recipe = self.straight / "r.yaml"
        return called(self.capsys, "run", recipe, *more, "--quiet", "--resume", "auto", "--out", self.out)

    def saved(self) -> list[int]:
        """The steps of the checkpoints, all of which must be whole."""
        found = checkpoints(self.out / "checkpoints")
        assert None not in found.values()
        return list(found)

    def goes_on(self, *warnings: str) -> None:
        """Start it again; it must end as if nothing had happened, and leave nothing behind."""
        done = self()
        assert done.returncode == OK, done.stderr
        assert done.stderr.splitlines() == [f"warning: {warning}" for warning in warnings]
        one, two = final_bytes(self.straight / "run"), final_bytes(self.out)
        assert list(one) == list(two)
        assert len(one) >= 7
        assert [name for name in one if one[name] != two[name]] == []
        assert json.loads((self.out / "run.json").read_bytes())["status"] == "finished"
        assert [name for name in os.listdir(self.out / "checkpoints") if not name.startswith("step-")] == []
        assert [name for name in os.listdir(self.out) if name.startswith(".")] == [".lock"]


@pytest.fixture
def command(capsys: Capture, straight: Path, tmp_path: Path) -> Command:
    return Command(capsys, straight, tmp_path / "out")


def begins_again(command: Command) -> list[str]:
    """The warning of a run that had no checkpoint yet."""
    if not (command.out / "run.json").exists() or command.saved():
        return []
    return [f"{command.out}: no checkpoint found; starting from the beginning"]


# --- stop signals (F7, F9, F11) ---

STOPS = {  # stage: when -> optimizer steps done at the stop
    "forward:1": 1, "forward:5": 5, "backward:4": 4, "step:6": 6, "step:9": 9, "evaluate:1": 3, "evaluate:2": 6,
    "log:2": 3, "save:1": 3, "save:2": 6, "retain:1": 3, "retain:3": 9, "log:1": 0,
}  # fmt: skip


@pytest.mark.parametrize("when", STOPS)
def test_stopped_at_the_next_edge(when: str, command: Command) -> None:
    """One checkpoint of just that step, exit code 143, and a run that goes on to the same bytes."""
    step = STOPS[when]
    with failing(f"{when}:term"):
        done = command()
    at = f"stopped at step {step}, which is saved; `mtl run --resume {command.out}` goes on"
    assert (done.returncode, done.stdout) == (TERMINATED, "")
    assert done.stderr.splitlines() == [f"warning: {at}", "interrupted"]
    assert command.saved()[-1] == step
    edges = list(range(STEPS, step, STEPS))
    assert command.saved() == [*edges[-1:], step]
    record = json.loads((command.out / "run.json").read_bytes())
    assert (record["status"], record["step"]) == ("interrupted", step)
    command.goes_on()


@pytest.mark.parametrize(("name", "code"), [("int", INTERRUPTED), ("hup", HUNG_UP)])
def test_other_stop_signals(name: str, code: int, command: Command) -> None:
    with failing(f"backward:5:{name}"):
        done = command()
    assert (done.returncode, done.stdout, command.saved()) == (code, "", [3, 5])
    command.goes_on()


def test_stopped_at_the_last_look(command: Command) -> None:
    """Within the evaluation of the test split: the last checkpoint is there, and the end is done again."""
    with failing("finish:1:term"):
        done = command()
    assert (done.returncode, done.stdout, command.saved()[-1]) == (TERMINATED, "", EPOCHS * STEPS)
    command.goes_on()


def test_stopped_while_plots_are_drawn(command: Command) -> None:
    with failing("plot:1:term"):
        done = command()
    ends = f"warning: stopped after the end of the run at step {EPOCHS * STEPS}; its results are saved"
    assert (done.returncode, done.stderr.splitlines()) == (TERMINATED, [ends, "interrupted"])
    command.goes_on(f"{command.out}: already finished at step {EPOCHS * STEPS}")


def test_nobody_reads_the_pipe(command: Command) -> None:
    with failing("forward:4:pipe"):
        command.goes_on()


def test_a_second_interrupt_breaks_off(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last checkpoint stands: the state within a step is not saved."""
    monkeypatch.setattr(signals, "REPEATED", 0)
    with failing("forward:5:int,backward:5:int"):
        done = command()
    assert (done.returncode, done.stdout, command.saved()) == (INTERRUPTED, "", [3])
    assert done.stderr.splitlines()[0].startswith("warning: stopped at step 4; step 3 is saved; ")
    command.goes_on()


# --- bugs and memory (F14, F15) ---

MIDDLE = {
    "load": 1, "forward": 5, "backward": 5, "step": 5, "evaluate": 2, "log": 5, "save": 2, "retain": 2, "finish": 1,
    "plot": 1,
}  # fmt: skip


def test_every_stage_is_broken_here() -> None:
    assert set(MIDDLE) == set(STAGES)
    named = {
        name
        for path in (ROOT / "mtl").rglob("*.py")
        for name in re.findall(r"stages\.reached\(\"(\w+)\"\)", path.read_text(encoding="utf-8"))
    }
    assert named == set(STAGES)


@pytest.mark.parametrize("stage", MIDDLE)
def test_a_bug_in_a_stage(stage: str, command: Command, tmp_path: Path) -> None:
    """Exit code 1, a file with the traceback, the last checkpoint as it was and none on top of it."""
    with failing(f"{stage}:{MIDDLE[stage]}:raise"):
        done = command()
    assert (done.returncode, done.stdout) == (BUG, "")
    what = re.escape(f"error: a bug in mtl: Injected: 'failpoint {stage}:{MIDDLE[stage]}'; traceback in ")
    match = re.fullmatch(what + r"(\S+)\n", done.stderr)
    assert match, done.stderr
    assert "Injected" in Path(match[1]).read_text()
    saved = {"load": [], "finish": [6, 9], "plot": [6, 9], "retain": [3, 6]}.get(stage, [3])
    assert [step for step in command.saved() if step in (6, 9) or stage not in ("finish", "plot")] == saved
    finished = [f"{command.out}: already finished at step {EPOCHS * STEPS}"] if stage == "plot" else []
    command.goes_on(*finished)


@pytest.mark.parametrize("stage", MIDDLE)
def test_no_memory(stage: str, command: Command) -> None:
    with failing(f"{stage}:{MIDDLE[stage]}:memory"):
        done = command()
    assert (done.returncode, done.stdout) == (ENVIRONMENT, "")
    step = {"forward": 4, "backward": 4, "step": 4, "log": 3, "finish": 9, "plot": 9}.get(stage, 6)
    line = (
        rf"error: not enough memory at step {step} with batches of 15 rows \(peak [\d.]+ [MG]B\); "
        r"lower train\.batch_size and raise train\.accumulate; the last checkpoint stands"
    )
    if stage == "load":
        line = r"error: not enough memory; lower train\.batch_size or the model's size"
    assert re.fullmatch(line + "\n", done.stderr), done.stderr
    command.goes_on(*([f"{command.out}: already finished at step 9"] if stage == "plot" else []))


# --- disks (F2 to F5, F21, F24, F25) ---


@pytest.mark.parametrize(("n", "last"), [(1, "none was saved before"), (2, "last good: step-00000003")])
def test_no_room_for_a_checkpoint(n: int, last: str, command: Command) -> None:
    with failing(f"save:{n}:full"):
        done = command()
    what = f"cannot write checkpoint at step {n * STEPS}: no space left on device; {last}"
    assert (done.returncode, done.stdout) == (ENVIRONMENT, "")
    assert done.stderr == f"error: {command.out}/checkpoints: {what}\n"
    command.goes_on(*begins_again(command))


def test_a_disk_that_takes_a_part(command: Command) -> None:
    """F3: the limit lies within optim.safetensors; a write takes what fits and the next one fails."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        done = command()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    what = f"cannot write checkpoint at step 3: {os.strerror(errno.EFBIG).lower()}; none was saved before"
    assert (done.returncode, done.stderr) == (ENVIRONMENT, f"error: {command.out}/checkpoints: {what}\n")
    assert os.listdir(command.out / "checkpoints") == []
    command.goes_on(*begins_again(command))


@pytest.mark.parametrize("n", [1, 2, 4])
def test_no_room_for_a_line_of_a_log(n: int, command: Command) -> None:
    """F4: one warning, checkpoints all the same, and the line is written when there is room again."""
    name = {1: "sharing", 2: "metrics", 4: "sharing"}[n]
    with failing(f"log:{n}:full"):
        command.goes_on(
            f"{command.out}/{name}.jsonl: cannot write: no space left on device; training goes on without it"
        )


def test_a_log_that_stays_full(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from mtl.runs import logs

    def append(file: Any, line: bytes) -> None:
        if Path(os.readlink(f"/proc/self/fd/{file.fileno()}")).name == "metrics.jsonl":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file, line)

    real = logs._append_line
    monkeypatch.setattr(logs, "_append_line", append)
    done = command()
    told = f"warning: {command.out}/metrics.jsonl: cannot write: no space left on device; training goes on without it"
    assert (done.returncode, done.stderr) == (OK, told + "\n")
    assert command.saved()[-1] == EPOCHS * STEPS
    assert (command.out / "metrics.jsonl").read_bytes() == b""
    assert json.loads((command.out / "run.json").read_bytes())["results"]


def test_little_room(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """F5: told once at the start; nothing is deleted for it."""
    usage = namedtuple("usage", "total used free")
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or usage(10**9, 10**9, 1000))
    done = command()
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(
        rf"warning: {command.out}/checkpoints: 1\.0 kB are free, and a checkpoint takes [\d.]+ [kM]B; make room",
        line,
    )
    assert (done.returncode, command.saved()[-1]) == (OK, EPOCHS * STEPS)
    assert len(asked) == 1 + EPOCHS


def test_a_file_system_that_turns_read_only(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """F25: from the second checkpoint on nothing can be created."""
    with monkeypatch.context() as patch:
        saves = itertools.count(1)
        refused = []

        def read_only(*given: Any, **named: Any) -> None:
            refused.append(given)
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        real = checkpoint.commit

        def commit(*given: Any) -> Path:
            if next(saves) == 2:
                for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "open"):
                    patch.setattr(os, name, read_only)
            return real(*given)

        patch.setattr(checkpoint, "commit", commit)
        done = command()
    what = "cannot write checkpoint at step 6: read-only file system; last good: step-00000003"
    assert (done.returncode, done.stderr) == (ENVIRONMENT, f"error: {command.out}/checkpoints: {what}\n")
    assert refused
    command.goes_on()


def test_old_checkpoints_that_cannot_be_deleted(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """F21: one warning, whatever is left is deleted by the next start or the next save."""
    with monkeypatch.context() as patch:
        real, refused = shutil.rmtree, []

        def rmtree(path: Any, *given: Any, **named: Any) -> None:
            if ".del-" in str(path):
                refused.append(path)
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            real(path, *given, **named)

        patch.setattr(shutil, "rmtree", rmtree)
        done = command("train.checkpoint.every={steps: 1}")
    assert (done.returncode, done.stderr) == (
        OK, "warning: cannot delete an old checkpoint: operation not permitted\n"
    )  # fmt: skip
    left = [name for name in os.listdir(command.out / "checkpoints") if name.startswith(".del-")]
    assert len(left) >= 5
    assert len(refused) > len(left)  # tried again at each save
    assert retention.retain(command.out / "checkpoints", "another", 2, []) is None
    assert not [name for name in os.listdir(command.out / "checkpoints") if name.startswith(".del-")]


@pytest.mark.parametrize("what", ["newest", "checkpoints"])
def test_checkpoints_that_the_user_deletes(
    what: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F24: in the middle of the second epoch; the next save makes what it needs."""
    folder, real, calls = command.out / "checkpoints", mtl.experiment.run.fit, itertools.count()

    def fit(trainer: Any, between: Any) -> Iterator[Any]:
        for event in real(trainer, between):
            yield event
            if isinstance(event, EpochEnded) and next(calls) == 0:
                shutil.rmtree(folder / f"step-{STEPS:08d}" if what == "newest" else folder)

    with monkeypatch.context() as patch, failing("forward:8:term"):
        patch.setattr(mtl.experiment.run, "fit", fit)
        done = command()
    told = f"warning: {folder}: was deleted; it is made again"
    assert done.returncode == TERMINATED
    assert (told in done.stderr.splitlines()) == (what == "checkpoints")
    assert command.saved() == [6, 8]
    assert (
        command().returncode == OK
    )  # the best epoch may be the one that is gone: the bytes are not compared


# --- numbers (F16, F17) ---


def test_a_loss_that_is_nan(command: Command) -> None:
    with failing("forward:6:nan"):
        done = command()
    assert (done.returncode, done.stdout, command.saved()) == (NOT_FINITE, "", [3])
    assert re.fullmatch(
        r"error: task 'a': loss is nan; task 'b': loss is nan at step 5 \(epoch 2, lr 0\.01, batch of rows "
        r"(\d+, ){5}\.\.\.\); lower optimizer\.lr, set train\.clip_norm, or check the inputs\n",
        done.stderr,
    ), done.stderr
    facts = json.loads((command.out / "diverged.json").read_bytes())
    assert (facts["step"], facts["epoch"], facts["losses"]) == (5, 2, {"a": "nan", "b": "nan"})
    assert len(facts["rows"]) == 15
    assert json.loads((command.out / "run.json").read_bytes())["status"] == "diverged"
    command.goes_on()


def test_a_loss_that_is_nan_on_a_full_disk(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong is still the loss: exit 4, and a warning that the file about it could not be written."""

    def full(path: Path, content: bytes) -> None:
        raise mtl.errors.EnvironmentFault(str(path), "cannot write: no space left on device")

    monkeypatch.setattr("mtl.experiment.recorder.write_whole", full)
    with failing("forward:6:nan"):
        done = command()
    warning, error = done.stderr.splitlines()
    assert done.returncode == NOT_FINITE
    assert warning == f"warning: {command.out}/diverged.json: cannot write: no space left on device"
    assert error.startswith("error: task 'a': loss is nan; ")


def test_a_loss_that_is_nan_is_skipped(command: Command) -> None:
    with failing("forward:6:nan"):
        done = command("train.on_nonfinite=skip")
    assert (done.returncode, done.stderr) == (OK, "")
    assert json.loads((command.out / "run.json").read_bytes())["skipped_steps"] == 1


def test_a_first_metric_that_is_undefined_is_not_the_best(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl.training import loop as fit

    real, calls = fit.evaluate_split, itertools.count()

    def evaluate(trainer: Any, split: str, *_: Any) -> dict[str, float | None]:
        values = dict(real(trainer, split))
        if split == "validation" and next(calls) == 0:
            values["validation/mean/accuracy"] = None
        return values

    monkeypatch.setattr(fit, "evaluate_split", evaluate)
    assert command().returncode == OK
    assert json.loads((command.out / "run.json").read_bytes())["selected"]["epoch"] >= 2
    assert next(calls) == EPOCHS


# --- who holds a run (F26) ---


def test_temporary_folders_of_a_run_that_lives(command: Command) -> None:
    """They are removed by the process that holds the run, and by no other; a stale lock is none."""
    with failing("forward:5:raise"):
        assert command().returncode == BUG
    leftover = command.out / "checkpoints" / ".tmp-00000006-1-0123abcd"
    leftover.mkdir()
    (command.out / ".lock").write_text("pid 1 on host h\n")
    with (command.out / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = contents(command.out)
        done = command()
        assert (done.returncode, done.stdout) == (USER, "")
        assert done.stderr == f"error: {command.out}: is in use by pid 1 on host h\n"
        assert contents(command.out) == before
    command.goes_on()


def test_a_run_that_was_copied(command: Command, tmp_path: Path) -> None:
    """F23: the copy and then the first go on, each in its own place."""
    with failing("forward:5:raise"):
        assert command().returncode == BUG
    copy = Command(command.capsys, command.straight, tmp_path / "elsewhere" / "copy")
    shutil.copytree(command.out, copy.out)
    copy.goes_on()
    command.goes_on()


# --- in processes of their own ---


def process(command: Command, fail: str) -> subprocess.Popen[str]:
    arguments = ["run", command.straight / "r.yaml", "--quiet", "--resume", "auto", "--out", command.out]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.failpoints", *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "MTL_FAIL": fail}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_killed_before_retention_and_held_for_a_while(command: Command) -> None:
    """F12: stopped by SIGSTOP and continued. F20: killed between a save and its retention, and started again."""
    with process(command, "retain:3:kill") as held:
        lock, mine = command.out / ".lock", f"pid {held.pid} "
        while not (lock.is_file() and lock.read_text().startswith(mine)):
            assert held.poll() is None
            time.sleep(0.002)
        held.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, held.pid, os.WSTOPPED | os.WNOWAIT)
        before = contents(command.out)
        time.sleep(0.2)
        assert held.poll() is None
        assert contents(command.out) == before
        held.send_signal(signal.SIGCONT)
        assert held.communicate()[1] == ""
    assert held.returncode == -signal.SIGKILL
    assert command.saved() == [3, 6, 9]  # one more than is kept
    command.goes_on()
    record = json.loads((command.out / "run.json").read_bytes())
    assert record["step"] == EPOCHS * STEPS
    assert command.saved() == sorted({record["selected"]["step"], 6, 9})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "kills", "epochs"),
    [
        ("plain", 100, 800),
        ("accumulate", 75, 1200),
        ("evaluations", 75, 500),
        ("phases", 75, 90),
        ("memory", 75, 300),
    ],
)
def test_killed_again_and_again(kind: str, kills: int, epochs: int, tmp_path: Path) -> None:
    from tests.faults.many_kills import attempt

    seconds = 2.5 if kind == "plain" else 1.5
    figures = attempt(tmp_path, kills, seed=0, epochs=epochs, every=10, seconds=seconds, kind=kind)
    print(figures)
    assert figures["kills"] == kills
