"""What goes wrong in a tracker is one warning, and a run goes on, ends as fast, and stops when it is told to."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar

import pytest

import mtl
from mtl.errors import ENVIRONMENT, EnvironmentFault, ManyErrors, NotFinite
from mtl.experiment.run import Result
from mtl.recipe.load import load_recipe
from mtl.recipe.specs import TRACKERS, TrackedRun, Tracker, TrackerSpec
from mtl.tracking import listener, worker
from mtl.tracking.listener import MOST_SHARED, _joined, _shared, require_trackers
from mtl.tracking.parameters import parameters_of
from mtl.training.events import EpochEnded, Event, Noted, Stepped
from tests.support.assertions import Capture, called, plugins_undone, refused
from tests.support.failpoints import failing
from tests.support.listening import Watching
from tests.support.recipes import recipe, small, stitched, write

METHODS = ("open", "begin", "log", "artifact", "end")


class Spy(Tracker):
    """Keeps the calls that it gets; `at` does something in one of them."""

    def __init__(self, at: Mapping[str, Callable[[], object]]) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.at = at

    def _called(self, name: str, *given: Any) -> None:
        self.at.get(name, lambda: None)()
        self.calls.append((name, *given))

    def begin(self, run: TrackedRun) -> None:
        self._called("begin", run)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._called("log", dict(values), step)

    def artifact(self, path: Path) -> None:
        self._called("artifact", path)

    def end(self, status: str, results: Mapping[str, float]) -> None:
        self._called("end", status, dict(results))


class Listening(Watching):
    """Keeps what is noted too, and does something after a number of steps."""

    def __init__(self, after: int = 10**9, do: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.after, self.do = after, do

    def on(self, event: Event) -> None:
        super().on(event)
        if isinstance(event, Noted):
            self.notes.append(event.text)

    def stepped(self, event: Stepped) -> None:
        if self.trainer.progress.step == self.after:
            self.do()

    @property
    def of_trackers(self) -> list[str]:
        return [text for text in self.warnings if text.startswith("tracker")]


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Spy]]:
    """`spy(log=f)` registers the tracker `spy`, which calls `f` in each `log`; the spy of the one run."""
    made: dict[str, Any] = {}
    monkeypatch.setattr(worker, "FIRST_PAUSE", 0.01)

    def register(**at: Callable[[], object]) -> Spy:
        made["spy"] = Spy(at)

        @TRACKERS.register("spy")
        class Spec(TrackerSpec):
            reference: ClassVar[str] = "ours"

            def open(self) -> Tracker:
                at.get("open", lambda: None)()
                return made["spy"]

        return made["spy"]

    with plugins_undone():
        yield register


def raising(error: BaseException) -> Callable[[], None]:
    def throw() -> None:
        raise error

    return throw


def ran(folder: Path, **changes: Any) -> tuple[Result, Listening]:
    watching = Listening()
    result = mtl.run(small(trackers=["spy"], **changes), out=folder / "run", listeners=(watching,))
    return result, watching


# -- what a tracker gets -------------------------------------------------------------------------------------


def test_the_calls_of_a_run(spy: Callable[..., Spy], tmp_path: Path) -> None:
    tracker = spy()
    result, watching = ran(tmp_path, train__epochs=2, model__sharing=stitched("fc1"))
    (first, run), *logs = (call for call in tracker.calls if call[0] in ("begin", "log"))
    assert first == "begin"
    assert (run.folder, run.id, run.name) == (result.path, result.record.id, "small")
    assert run.resumed_from is None
    assert run.parameters["train.batch_size"] == 8
    points = {(name, step): value for _, values, step in logs for name, value in values.items()}
    for line in (result.path / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        wanted = {key: value for key, value in row.items() if "/" in key and value is not None}
        assert wanted == {key: points[key, row["step"]] for key in wanted}
        assert wanted
    assert points["sharing/fc1/a<-b", 0] == pytest.approx(0.1)
    assert ("timing/train_seconds", 10) in points
    assert [call[1].name for call in tracker.calls if call[0] == "artifact"] == [
        *sorted(path.name for path in (result.path / "plots").glob("*.png")),
        *("report.html", "metrics.csv", "recipe.resolved.yaml"),
    ]
    known = {name: value for name, value in result.metrics.items() if value is not None}
    assert tracker.calls[-1] == ("end", "finished", known)
    assert watching.of_trackers == watching.notes == []


def test_a_resumed_run_begins_again_with_what_still_counts(spy: Callable[..., Spy], tmp_path: Path) -> None:
    first = spy()
    watching = Listening(7, raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        mtl.run(small(trackers=["spy"], train__epochs=2), out=tmp_path / "run", listeners=(watching,))
    assert first.calls[-1] == ("end", "interrupted", {})
    again = spy()
    mtl.resume(tmp_path / "run")
    assert again.calls[0][1].resumed_from == 5
    steps = [step for name, *_, step in again.calls if name == "log"]
    assert steps[0] == 5
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {row["step"] for row in lines} == set(steps)
    timed = [
        step
        for call in again.calls
        if call[0] == "log" and "timing/train_seconds" in call[1]
        for step in call[2:]
    ]
    assert timed == [5, 10]


def test_a_diverged_run_ends_as_diverged(spy: Callable[..., Spy], tmp_path: Path) -> None:
    tracker = spy()
    with failing("forward:2:nan"), pytest.raises(NotFinite):
        ran(tmp_path)
    assert tracker.calls[-1] == ("end", "diverged", {})


def test_a_run_that_a_bug_ends_is_a_failed_one(spy: Callable[..., Spy], tmp_path: Path) -> None:
    tracker = spy()
    watching = Listening(2, raising(ZeroDivisionError("ours")))
    with pytest.raises(ZeroDivisionError):
        mtl.run(small(trackers=["spy"]), out=tmp_path / "run", listeners=(watching,))
    assert tracker.calls[-1] == ("end", "failed", {})


# -- trouble -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "error",
    [ValueError("no such thing"), SystemExit("bye"), KeyboardInterrupt(), MemoryError()],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_is_one_warning(
    method: str, error: BaseException, spy: Callable[..., Spy], tmp_path: Path
) -> None:
    tracker = spy(**{method: raising(error)})
    result, watching = ran(tmp_path, train__epochs=3)
    assert result.record.status == "finished"
    (text,) = watching.of_trackers
    assert text.startswith(f"tracker 'spy': {type(error).__name__}: {error}".rstrip())
    assert text.endswith("; it is switched off, and the run goes on without it")
    assert not any(call[0] == method for call in tracker.calls)


def test_a_server_that_is_away_for_a_while_gets_all_calls_in_order(
    spy: Callable[..., Spy], tmp_path: Path
) -> None:
    away = [3]

    def sometimes() -> None:
        away[0] -= 1
        if away[0] >= 0:
            raise ConnectionError("refused")

    tracker = spy(log=sometimes)
    _, watching = ran(tmp_path, train__epochs=2)
    steps = [call[2] for call in tracker.calls if call[0] == "log"]
    assert tracker.calls[0][0] == "begin"
    assert steps[:1] == [5]
    assert steps[-1] == 10
    expected = "tracker 'spy': ConnectionError: refused; it is tried again, and the run goes on without it"
    assert watching.of_trackers == [expected]
    assert watching.notes == []
    assert tracker.calls[-1][0] == "end"


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_server_that_stays_away_costs_one_warning(
    method: str, spy: Callable[..., Spy], tmp_path: Path
) -> None:
    spy(**{method: raising(TimeoutError("no answer"))})
    began = monotonic()
    result, watching = ran(tmp_path)
    assert monotonic() - began < 60
    assert result.record.status == "finished"
    assert len(watching.of_trackers) == 1
    assert "TimeoutError: no answer; it is tried again" in watching.of_trackers[0]
    (note,) = watching.notes
    assert note.startswith("tracker 'spy': ")
    assert note.endswith(" did not get there")


@pytest.mark.parametrize("method", METHODS)
def test_a_server_that_hangs_delays_only_the_end(
    method: str, spy: Callable[..., Spy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "PATIENCE", 0.2)
    over = threading.Event()
    spy(**{method: lambda: over.wait(60)})
    result, watching = ran(tmp_path)
    alive = [thread for thread in threading.enumerate() if thread.name == "tracker spy"]
    over.set()
    assert result.record.status == "finished"
    assert watching.of_trackers == ["tracker 'spy': has not answered for 0 s; the run ends without it"]
    assert len(alive) == 1
    alive[0].join(5)
    assert not alive[0].is_alive()


def test_a_hanging_server_is_told_while_the_run_goes_on(
    spy: Callable[..., Spy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "SLOW", 0.0)
    over = threading.Event()
    tracker = spy(begin=lambda: over.wait(60))
    told: list[int] = []

    class Telling(Listening):
        def stepped(self, event: Stepped) -> None:
            if self.of_trackers and not told:
                told.append(self.trainer.progress.step)
                over.set()

    mtl.run(small(trackers=["spy"], train__epochs=4), out=tmp_path / "run", listeners=(Telling(),))
    assert told
    assert tracker.calls[-1][0] == "end"


def test_the_others_go_on_when_one_fails(spy: Callable[..., Spy], tmp_path: Path) -> None:
    spy(begin=raising(ValueError("mine")))
    watching = Listening()
    path = tmp_path / "run"
    mtl.run(small(trackers=["spy", "tensorboard"]), out=path, listeners=(watching,))
    assert len(watching.of_trackers) == 1
    (events,) = (path / "tensorboard").iterdir()
    assert events.stat().st_size > 1000


def test_a_stop_signal_is_obeyed_while_a_run_waits_for_a_tracker(
    spy: Callable[..., Spy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import signal

    over = threading.Event()

    def hang() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        over.wait(60)

    spy(artifact=hang)
    began = monotonic()
    watching = Listening()
    with pytest.raises(KeyboardInterrupt):
        mtl.run(small(trackers=["spy"]), out=tmp_path / "run", listeners=(watching,))
    over.set()
    assert monotonic() - began < listener.PATIENCE + 50
    assert any("its results are saved" in text for text in watching.warnings)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "finished"


def test_calls_beyond_the_most_are_lost_and_told(
    spy: Callable[..., Spy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MOST_CALLS", 2)
    monkeypatch.setattr(listener, "PATIENCE", 0.2)
    over = threading.Event()
    spy(begin=lambda: over.wait(60))
    _, watching = ran(tmp_path, train__epochs=5)
    over.set()
    assert len(watching.of_trackers) == 1
    assert watching.notes[0].startswith("tracker 'spy': ")


# -- packages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow"])
def test_an_absent_package_is_one_line_before_anything_is_written(
    kind: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, kind, None)
    write(tmp_path, trackers=[kind])
    (tmp_path / kind).mkdir()  # a folder of logs is no package
    expected = [f"r.yaml:11:12: trackers[0]: {kind} is not installed; pip install 'mtl-recipes[{kind}]'"]
    for command in (["validate", "r.yaml"], ["run", "r.yaml", "--out", "run"]):
        refused(lambda given=command: called(capsys, *given), tmp_path, expected, code=ENVIRONMENT)


def test_a_folder_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no_package").mkdir()
    monkeypatch.syspath_prepend(tmp_path)

    class Spec(TrackerSpec):
        package: ClassVar[str] = "no_package"
        install: ClassVar[str] = "pip install it"

    with pytest.raises(EnvironmentFault, match="no_package is not installed; pip install it"):
        Spec().require_package()


def test_all_absent_packages_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("tensorboard", "mlflow"):
        monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(ManyErrors) as caught:
        require_trackers(load_recipe(small(trackers=["tensorboard", {"kind": "mlflow", "uri": "x"}])))
    assert caught.value.code == ENVIRONMENT
    assert [error.path for error in caught.value.errors] == [("trackers", 0), ("trackers", 1)]


def test_a_run_without_trackers_starts_no_thread_and_loads_no_package(tmp_path: Path) -> None:
    threads: list[int] = []
    watching = Listening(2, lambda: threads.append(threading.active_count()))
    before = threading.active_count()
    mtl.run(small(), out=tmp_path / "run", listeners=(watching,))
    assert threads == [before]


# -- parts ---------------------------------------------------------------------------------------------------


def test_what_is_shared_is_bounded() -> None:
    names = [f"t{i}" for i in range(40)]
    matrix = {"targets": names, "sources": names, "values": [[0.5] * 40] * 40}
    found = list(_shared({"fc1": matrix}))
    assert len(found) == MOST_SHARED
    assert found[1] == ("sharing/fc1/t0<-t1", 0.5)


def test_points_of_one_step_are_joined() -> None:
    points = [(1, {"a": 1.0}), (1, {"b": 2.0}), (1, {"a": 3.0}), (2, {"a": 4.0})]
    assert list(_joined(points)) == [(1, {"a": 1.0, "b": 2.0}), (1, {"a": 3.0}), (2, {"a": 4.0})]
    assert list(_joined([])) == []


def test_the_parameters_of_a_recipe() -> None:
    found = parameters_of(recipe(model__sharing=stitched("fc1"), trackers=["tensorboard"]))
    assert found["model.sharing.after"] == '["fc1"]'
    assert found["model.backbone.stages.0.features"] == 4
    assert found["train.deterministic"] is True
    assert found["tasks.a.target"] == "task0"
    assert not any(name.startswith("trackers") for name in found)
    assert all(isinstance(value, (str, int, float)) for value in found.values())


def test_epochs_are_not_waited_for(spy: Callable[..., Spy], tmp_path: Path) -> None:
    """A tracker that takes its time does not hold up the steps."""
    over = threading.Event()
    tracker = spy(log=lambda: over.wait(60))
    ended: list[int] = []

    class Counting(Listening):
        def epoch_ended(self, event: EpochEnded) -> None:
            ended.append(len(tracker.calls))
            if event.is_last:
                over.set()

    mtl.run(small(trackers=["spy"], train__epochs=3), out=tmp_path / "run", listeners=(Counting(),))
    assert len(ended) == 3
    assert max(ended) <= 1
    assert tracker.calls[-1][0] == "end"
