"""What MLflow's client is asked for, against a client that keeps it; test_mlflow_server.py has a real server."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from threading import Thread
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import mtl
from mtl.trackers.mlflow import (
    DEFAULTS,
    IDS,
    LONGEST_KEY,
    LONGEST_PARAMETER,
    ServerRun,
    cleaned,
    shortened,
)
from tests.support.listening import Watching
from tests.support.recipes import changed
from tests.support.small_run import RECIPE
from tests.trackers.interrupted import Interrupted

TRACKED: dict[str, Any] = changed(
    RECIPE, trackers=[{"kind": "mlflow", "uri": "http://here"}], train__checkpoint={"every": {"epochs": 2}}
)


class MlflowException(Exception):
    """What the client raises if there is no server."""


class RestException(MlflowException):
    """What the client raises if the server refuses."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(code)
        self.error_code, self.status = code, status

    def get_http_status_code(self) -> int:
        return self.status


@dataclass
class Metric:
    key: str
    value: float
    timestamp: int
    step: int


@dataclass
class Param:
    key: str
    value: str


@dataclass
class Server:
    """What a server keeps: runs by id, each with its status, parameters, metrics, tags and artifacts."""

    runs: dict[str, SimpleNamespace] = field(default_factory=dict)
    experiments: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    fails: dict[str, list[Exception]] = field(default_factory=dict)

    def asked(self, name: str) -> None:
        self.requests.append(name)
        if waiting := self.fails.get(name):
            raise waiting.pop(0)

    def points(self, run: str) -> list[tuple[str, int, float]]:
        return [(m.key, m.step, m.value) for m in self.runs[run].metrics]


class Client:
    server: Server

    def __init__(self, tracking_uri: str | None) -> None:
        self.uri = tracking_uri

    def get_experiment_by_name(self, name: str) -> Any:
        found = self.server.experiments.get(name)
        return None if found is None else SimpleNamespace(experiment_id=found)

    def create_experiment(self, name: str) -> str:
        self.server.asked("create_experiment")
        return self.server.experiments.setdefault(name, str(len(self.server.experiments) + 1))

    def create_run(self, experiment: str, tags: dict[str, str], run_name: str) -> Any:
        self.server.asked("create_run")
        name = f"run{len(self.server.runs)}"
        info = SimpleNamespace(run_id=name, status="RUNNING", lifecycle_stage="active", run_name=run_name)
        made = SimpleNamespace(
            info=info,
            data=SimpleNamespace(params={}, tags=tags),
            metrics=[],
            artifacts=[],
            experiment=experiment,
        )
        self.server.runs[name] = made
        return made

    def get_run(self, run: str) -> Any:
        self.server.asked("get_run")
        if run not in self.server.runs:
            raise RestException("RESOURCE_DOES_NOT_EXIST", 404)
        return self.server.runs[run]

    def update_run(self, run: str, status: str) -> None:
        self.server.runs[run].info.status = status

    def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
        assert len(metrics) <= 1000
        assert len(params) <= 100
        self.server.runs[run].metrics += metrics
        for param in params:
            assert self.server.runs[run].data.params.setdefault(param.key, param.value) == param.value
            assert len(param.key) <= 250
            assert len(param.value) <= 500
        self.server.asked("log_metrics" if metrics else "log_params")

    def get_metric_history(self, run: str, key: str) -> list[Metric]:
        self.server.asked("get_metric_history")
        return [metric for metric in self.server.runs[run].metrics if metric.key == key]

    def log_artifact(self, run: str, path: str, inside: str | None) -> None:
        self.server.runs[run].artifacts.append(f"{inside}/{Path(path).name}" if inside else Path(path).name)

    def set_tag(self, run: str, key: str, value: str) -> None:
        self.server.runs[run].data.tags[key] = value

    def set_terminated(self, run: str, status: str) -> None:
        self.server.runs[run].info.status = status


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A package `mlflow` with this client."""
    found = Server()
    monkeypatch.setattr(Client, "server", found, raising=False)
    for name, content in (
        ("mlflow", {"MlflowClient": Client}),
        ("mlflow.entities", {"Metric": Metric, "Param": Param}),
        ("mlflow.exceptions", {"MlflowException": MlflowException, "RestException": RestException}),
    ):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None, origin="a test")
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    for name in DEFAULTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("mtl.tracking.worker.FIRST_PAUSE", 0.01)
    yield found
    for name in DEFAULTS:
        monkeypatch.setenv(name, "0")  # so that it is taken back, for the tracker has set it


def wanted(path: Path) -> list[tuple[str, int, float]]:
    """(metric, step, value) of each point of metrics.jsonl."""
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return sorted((k, row["step"], v) for row in rows for k, v in row.items() if "/" in k and v is not None)


def logged(server: Server, run: str = "run0") -> list[tuple[str, int, float]]:
    return sorted(point for point in server.points(run) if point[0].startswith(("train/", "test/")))


def test_a_run_of_the_server(server: Server, tmp_path: Path) -> None:
    watching = Watching()
    result = mtl.run(TRACKED, out=tmp_path / "run", listeners=(watching,))
    assert [text for text in watching.warnings if "tracker" in text] == []
    (run,) = server.runs.values()
    assert server.experiments == {"small": "1"}
    assert run.info.run_name == "small run"
    assert run.info.status == "FINISHED"
    assert logged(server) == wanted(result.path)
    assert ("sharing/fc1/a from b", 0) in {point[:2] for point in server.points("run0")}
    assert {key: value for key, _, value in server.points("run0") if key.startswith("result/")} == {
        f"result/{name}": value for name, value in result.metrics.items()
    }
    assert run.data.params["optimizer.lr"] == "0.01"
    assert run.data.tags["mtl.run"] == result.record.id
    assert run.data.tags["mtl.status"] == "finished"
    assert {"plots/curves_loss.png", "metrics.csv", "recipe.resolved.yaml"} <= set(run.artifacts)
    assert json.loads((result.path / IDS).read_text(encoding="utf-8")) == {"http://here ": "run0"}


def test_a_resumed_run_goes_on_with_the_same_one(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        mtl.run(TRACKED, out=path, listeners=(Interrupted(3),))
    assert server.runs["run0"].info.status == "KILLED"
    mtl.resume(path / "checkpoints" / "step-00000008", ["train.epochs=5"])
    (run,) = server.runs.values()
    assert run.info.status == "FINISHED"
    assert logged(server) == wanted(path)
    assert run.data.params["train.epochs"] == "4"  # MLflow changes no parameter
    assert run.data.tags["changed.train.epochs"] == "5"


def test_a_run_that_the_server_has_no_more_is_begun_anew(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        mtl.run(TRACKED, out=path, listeners=(Interrupted(2),))
    server.runs["gone"] = server.runs.pop("run0")
    mtl.resume(path)
    assert set(server.runs) == {"gone", "run1"}
    assert json.loads((path / IDS).read_text(encoding="utf-8")) == {"http://here ": "run1"}
    assert logged(server, "run1") == wanted(path)


def test_a_lost_answer_repeats_no_point(server: Server, tmp_path: Path) -> None:
    """The server keeps the points of a request whose answer does not arrive."""
    server.fails["log_metrics"] = [MlflowException("API request failed"), RestException("BUSY", 503)]
    watching = Watching()
    result = mtl.run(TRACKED, out=tmp_path / "run", listeners=(watching,))
    (text,) = (text for text in watching.warnings if "tracker" in text)
    assert text.startswith("tracker 'mlflow': ConnectionError: API request failed; it is tried again")
    assert logged(server) == wanted(result.path)


def test_a_refusal_switches_it_off(server: Server, tmp_path: Path) -> None:
    server.fails["create_run"] = [RestException("PERMISSION_DENIED", 403)]
    watching = Watching()
    mtl.run(TRACKED, out=tmp_path / "run", listeners=(watching,))
    (text,) = (text for text in watching.warnings if "tracker" in text)
    assert text.startswith("tracker 'mlflow': RestException: PERMISSION_DENIED; it is switched off")
    assert server.runs == {}


def test_two_runs_that_make_an_experiment_at_once(server: Server, tmp_path: Path) -> None:
    class Raced(Client):
        def create_experiment(self, name: str) -> str:
            super().create_experiment(name)
            raise RestException("RESOURCE_ALREADY_EXISTS", 400)

    sys.modules["mlflow"].MlflowClient = Raced  # type: ignore[attr-defined]
    mtl.run(TRACKED, out=tmp_path / "run")
    assert logged(server) == wanted(tmp_path / "run")


def test_names_and_texts_fit_the_server() -> None:
    assert cleaned("sharing/fc1/a<-b") == "sharing/fc1/a from b"
    assert cleaned("tasks.a.groups.Für @ Frauen") == "tasks.a.groups.Für _ Frauen"
    assert len(cleaned("a" * 300)) == LONGEST_KEY
    assert shortened("a" * LONGEST_PARAMETER) == "a" * LONGEST_PARAMETER
    assert shortened("a" * (LONGEST_PARAMETER + 1)) == "a" * (LONGEST_PARAMETER - 3) + "..."


def test_the_users_own_settings_stand(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    mtl.run(TRACKED, out=tmp_path / "run")
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == DEFAULTS["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]


def kept_often(tracker: ServerRun, folder: Path, run: str) -> None:
    for _ in range(20):
        tracker._keep(folder, run)


def test_runs_of_trackers_that_begin_together_are_all_kept(tmp_path: Path) -> None:
    """Each tracker has a thread of its own, and all of them write into one file."""
    trackers = [ServerRun(f"http://here/{i}", None) for i in range(8)]
    threads = [Thread(target=kept_often, args=(one, tmp_path, f"run {i}")) for i, one in enumerate(trackers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = json.loads((tmp_path / IDS).read_text(encoding="utf-8"))
    assert ids == {f"http://here/{i} ": f"run {i}" for i in range(8)}


def test_each_server_and_experiment_has_its_own_run(server: Server, tmp_path: Path) -> None:
    both = [{"kind": "mlflow", "uri": "http://here", "experiment": name} for name in ("one", "two")]
    mtl.run(changed(TRACKED, trackers=both), out=tmp_path / "run")
    assert set(server.experiments) == {"one", "two"}
    ids = json.loads((tmp_path / "run" / IDS).read_text(encoding="utf-8"))
    assert set(ids) == {"http://here one", "http://here two"}
    for run in ids.values():
        assert logged(server, run) == wanted(tmp_path / "run")
