"""A real MLflow server keeps what metrics.jsonl says, and a run survives its end.

The server and the client live in environments of their own, which `pip install` makes: the whole of MLflow asks for
other versions of packages than mtl uses. `MTL_MLFLOW_SERVER` and `MTL_MLFLOW_CLIENT` may name the `python` of
environments that exist: one with mlflow, one with mlflow-skinny and what mtl needs.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.recipes import changed, write
from tests.support.small_run import RECIPE

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("mlflow")]
ROOT = Path(__file__).parents[2]
TROUBLE = re.compile("tried again|switched off")
"""What mtl says of a tracker that fails; that one is slow is no fault of it on a busy machine."""
SECONDS = 120.0
"""After which a server that does not answer is none."""


def environment(folder: Path, variable: str, *packages: str, above: bool = False) -> Path:
    """The python of an environment with these packages; `above` adds the packages of this one."""
    if given := os.environ.get(variable):
        return Path(given)
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    if above:
        (library,) = folder.glob("lib/python*/site-packages")
        paths = [path for path in sys.path if path.endswith("-packages")]
        (library / "above.pth").write_text("\n".join(paths) + "\n", encoding="utf-8")
    command = [python, "-m", "pip", "install", "-q", *packages]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip fails"])[-1]
        pytest.skip(f"no environment with {packages[-1]} can be made: {reason}")
    return python


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    constraints = ("-c", str(ROOT / "constraints.txt"))
    folder = tmp_path_factory.mktemp("client")
    return environment(folder, "MTL_MLFLOW_CLIENT", *constraints, "mlflow-skinny", above=True)


class Server:
    """A server on this machine, with a database of its own."""

    def __init__(self, python: Path, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        arguments = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1"]
        arguments += ["--artifacts-destination", str(folder / "artifacts"), "--port", str(self.port)]
        with (folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                [python, "-m", "mlflow", "server", *arguments], stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                self.send(signal.SIGKILL)
                pytest.skip(f"the MLflow server does not start; see {folder / 'server.log'}")
            time.sleep(0.5)

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.uri}/health", timeout=2).ok
        except requests.RequestException:
            return False

    def send(self, number: signal.Signals) -> None:
        """A signal to the server and the processes that it has started."""
        os.killpg(self.process.pid, number)

    def end(self) -> None:
        self.send(signal.SIGKILL)
        self.process.wait(20)

    def ask(self, what: str, **given: Any) -> dict[str, Any]:
        answer = requests.get(f"{self.uri}/api/2.0/mlflow/{what}", params=given, timeout=20)
        assert answer.ok, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def points(self, run: str) -> list[tuple[str, int, float]]:
        """(metric, step, value) of all points of a run."""
        data = self.ask("runs/get", run_id=run)["run"]["data"]
        return sorted(
            (metric["key"], int(point["step"]), point["value"])
            for metric in data["metrics"]
            for point in self.ask("metrics/get-history", run_id=run, metric_key=metric["key"])["metrics"]
        )


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if "python" not in MADE:
        MADE["python"] = environment(tmp_path_factory.mktemp("server"), "MTL_MLFLOW_SERVER", "mlflow")
    running = Server(MADE["python"], tmp_path_factory.mktemp("data"))
    yield running
    if running.process.poll() is None:
        running.send(signal.SIGCONT)
        running.end()


MADE: dict[str, Path] = {}
"""The environment of the server, which is made once."""


@pytest.fixture
def start(client: Path, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """`start(*arguments)` runs `mtl *arguments` where MLflow's client is installed."""

    def run(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [client, "-m", "mtl", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


def recipe(folder: Path, uri: str, **changes: Any) -> None:
    write(folder, **changed(RECIPE, trackers=[{"kind": "mlflow", "uri": uri}], **changes))


def begun(run: Path) -> None:
    """Wait until a run has begun its run of the server."""
    end = time.monotonic() + SECONDS
    while not (run / "mlflow.json").exists():
        assert time.monotonic() < end
        time.sleep(0.05)


def wanted(path: Path) -> list[tuple[str, int, float]]:
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return sorted((k, row["step"], v) for row in rows for k, v in row.items() if "/" in k and v is not None)


def measured(server: Server, run: str) -> list[tuple[str, int, float]]:
    return [point for point in server.points(run) if point[0].startswith(("train/", "test/"))]


def test_a_server_keeps_a_run_and_goes_on_with_it(
    server: Server, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    recipe(tmp_path, server.uri, data__source__rows=2000, train__epochs=30)
    stopped = start("run", "r.yaml", "--out", "run")
    begun(tmp_path / "run")
    stopped.send_signal(signal.SIGINT)
    _, err = stopped.communicate(timeout=600)
    assert stopped.returncode == 130, err
    assert TROUBLE.search(err) is None
    (run,) = json.loads((tmp_path / "run" / "mlflow.json").read_text()).values()
    assert server.ask("runs/get", run_id=run)["run"]["info"]["status"] == "KILLED"

    done = start("run", "--resume", "run", "train.epochs=31")
    out, err = done.communicate(timeout=600)
    assert done.returncode == 0, err
    assert TROUBLE.search(err) is None
    assert "did not get there" not in out
    assert "View run" not in out  # which MLflow prints by itself
    assert list(json.loads((tmp_path / "run" / "mlflow.json").read_text()).values()) == [run]
    found = server.ask("runs/get", run_id=run)["run"]
    assert found["info"]["status"] == "FINISHED"
    assert found["info"]["run_name"] == "small run"
    assert measured(server, run) == wanted(tmp_path / "run")
    parameters = {entry["key"]: entry["value"] for entry in found["data"]["params"]}
    assert parameters["train.epochs"] == "30"
    assert {entry["key"]: entry["value"] for entry in found["data"]["tags"]}["changed.train.epochs"] == "31"
    assert ("sharing/fc1/a from b", 31 * 200) in {point[:2] for point in server.points(run)}
    plots = server.ask("artifacts/list", run_id=run, path="plots")["files"]
    assert {file["path"] for file in plots} >= {"plots/curves_loss.png", "plots/sharing.png"}
    assert {file["path"] for file in server.ask("artifacts/list", run_id=run)["files"]} >= {"metrics.csv"}


@pytest.mark.parametrize("fate", ["gone", "hanging", "gone during the run"])
def test_a_run_outlives_its_server(
    fate: str, server: Server, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    recipe(tmp_path, server.uri, train__epochs=400 if fate.endswith("run") else 2)
    if fate == "gone":
        server.end()
    if fate == "hanging":
        server.send(signal.SIGSTOP)
    going = start("run", "r.yaml", "--out", "run", "--quiet")
    if fate == "gone during the run":
        begun(tmp_path / "run")
        server.end()
    _, err = going.communicate(timeout=600)
    assert going.returncode == 0, err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "finished"
    (line,) = (line for line in err.splitlines() if "tracker" in line)
    assert line.startswith("warning: tracker 'mlflow': ")
    if fate == "hanging":
        server.send(signal.SIGCONT)
