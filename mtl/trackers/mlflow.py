"""A run of an MLflow server."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, TypeVar

from pydantic import Field

from mtl.recipe.specs import TRACKERS, Text, TrackedRun, Tracker, TrackerSpec

T = TypeVar("T")

IDS = "mlflow.json"
"""The file in the run folder that holds the id of the MLflow run, for each server and experiment."""
KEEPING = Lock()
"""Held while the ids are written, since each tracker of a run has a thread of its own."""
LONGEST_KEY, LONGEST_PARAMETER, LONGEST_TAG = 250, 500, 5000
"""Characters that every MLflow server since 2.0 takes; longer texts are cut."""
MOST_PARAMETERS, MOST_METRICS = 100, 1000
"""Entries that an MLflow server takes in one request."""
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds; with MLflow's defaults a call to a dead server takes minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for results
}
"""MLflow's own settings, unless the user has set them."""
STATUSES = {"finished": "FINISHED", "interrupted": "KILLED"}


@TRACKERS.register("mlflow")
class MLflow(TrackerSpec):
    """A run of an MLflow server: parameters, metrics, and the plots and tables as artifacts.

    User name, password and token of a server belong into MLflow's environment variables, since a recipe is copied into
    its run folder.
    """

    reference: ClassVar[str] = "Zaharia et al. 2018, IEEE Data Engineering Bulletin 41 (4)"
    package: ClassVar[str] = "mlflow"
    install: ClassVar[str] = "pip install 'mtl-recipes[mlflow]'"

    uri: Text | None = Field(
        None,
        min_length=1,
        description="the server, as in `http://localhost:5000`; else `MLFLOW_TRACKING_URI`",
    )
    experiment: Text | None = Field(
        None, min_length=1, max_length=500, description="the experiment; else the name of the recipe"
    )

    def open(self) -> Tracker:
        return ServerRun(self.uri, self.experiment)


class ServerRun(Tracker):
    """One run of the server. A resumed run goes on with it, and logs no point again that is there.

    Args:
        uri: the server; None: the one of MLflow's environment.
        experiment: the experiment; None: the name of the recipe.
    """

    def __init__(self, uri: str | None, experiment: str | None) -> None:
        self._uri, self._experiment = uri, experiment
        self._client: Any = None
        self._run = ""
        self._folder = Path()
        self._asks = False
        self._known: dict[str, set[tuple[int, float]]] = {}

    def begin(self, run: TrackedRun) -> None:
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self._folder = run.folder
        with _connection():
            self._client = MlflowClient(tracking_uri=self._uri)
            there = self._found(run.folder)
            self._asks = there is not None
            if there is None:
                there = self._made(run)
                self._keep(run.folder, there.info.run_id)
            else:
                self._client.update_run(there.info.run_id, status="RUNNING")
            self._run = there.info.run_id
            self._parameters(run.parameters, there.data.params)

    def log(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        now = int(1000 * time.time())
        named = {cleaned(name): value for name, value in values.items()}
        with _connection():
            new = {name: value for name, value in named.items() if not self._has(name, step, value)}
            metrics = [Metric(name, value, now, step) for name, value in new.items()]
            try:
                for part in _parts(metrics, MOST_METRICS):
                    self._client.log_batch(self._run, metrics=part)
            except MlflowException:  # the points may be there and only the answer be lost: the next call asks
                self._asks = True
                self._known.clear()
                raise
        for name, value in new.items():
            if name in self._known:
                self._known[name].add((step, value))

    def artifact(self, path: Path) -> None:
        inside = path.parent.relative_to(self._folder)
        with _connection():
            self._client.log_artifact(self._run, str(path), None if inside == Path() else inside.as_posix())

    def end(self, status: str, results: Mapping[str, float]) -> None:
        self.log({f"result/{name}": value for name, value in results.items()}, 0)
        with _connection():
            self._client.set_tag(self._run, "mtl.status", status)
            self._client.set_terminated(self._run, STATUSES.get(status, "FAILED"))

    def _key(self) -> str:
        return f"{self._uri or os.environ.get('MLFLOW_TRACKING_URI', '')} {self._experiment or ''}"

    def _found(self, folder: Path) -> Any:
        """The MLflow run that this run began; None if there is none, or if the server has it no more."""
        from mlflow.exceptions import RestException

        name = self._ids(folder).get(self._key())
        if name is None:
            return None
        try:
            found = self._client.get_run(name)
        except RestException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return found if found.info.lifecycle_stage == "active" else None

    def _ids(self, folder: Path) -> dict[str, str]:
        try:
            ids = json.loads((folder / IDS).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return ids if isinstance(ids, dict) else {}

    def _keep(self, folder: Path, run: str) -> None:
        with KEEPING:
            text = json.dumps({**self._ids(folder), self._key(): run}, indent=1) + "\n"
            temporary = folder / f".{IDS}.new"
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(folder / IDS)

    def _made(self, run: TrackedRun) -> Any:
        from mlflow.exceptions import MlflowException

        name = self._experiment or run.name
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                experiment = self._client.create_experiment(name)
            except MlflowException:  # another run has made it meanwhile, or the server refuses the name
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        experiment = found.experiment_id if found is not None else experiment
        tags = {"mtl.run": run.id, "mtl.folder": str(run.folder.resolve())[:LONGEST_TAG]}
        if run.description:
            tags["mlflow.note.content"] = run.description[:LONGEST_TAG]
        return self._client.create_run(experiment, tags=tags, run_name=f"{run.name} {run.folder.name}")

    def _parameters(self, parameters: Mapping[str, object], there: Mapping[str, str]) -> None:
        """Log the parameters that are not there; MLflow changes none, so that a changed one becomes a tag."""
        from mlflow.entities import Param

        texts = {cleaned(name): shortened(str(value)) for name, value in parameters.items()}
        new = [Param(name, text) for name, text in texts.items() if name not in there]
        for part in _parts(new, MOST_PARAMETERS):
            self._client.log_batch(self._run, params=part)
        for name, text in texts.items():
            if there.get(name, text) != text:
                self._client.set_tag(self._run, f"changed.{name}"[:LONGEST_KEY], text)

    def _has(self, name: str, step: int, value: float) -> bool:
        """Whether the server has a point; the first question on a metric asks for all of its points."""
        if not self._asks:
            return False
        if name not in self._known:
            history = self._client.get_metric_history(self._run, name)
            self._known[name] = {(point.step, point.value) for point in history}
        return (step, value) in self._known[name]


def cleaned(name: str) -> str:
    """A name in the characters that MLflow takes: `sharing/fc1/a<-b` becomes `sharing/fc1/a from b`."""
    return re.sub(r"[^\w\-. /]", "_", name.replace("<-", " from "))[:LONGEST_KEY]


def shortened(text: str) -> str:
    """A text of at most `LONGEST_PARAMETER` characters; a longer one ends in dots."""
    return text if len(text) <= LONGEST_PARAMETER else text[: LONGEST_PARAMETER - 3] + "..."


def _parts(entries: Sequence[T], size: int) -> Iterator[list[T]]:
    rest = iter(entries)
    while part := list(islice(rest, size)):
        yield part


@contextmanager
def _connection() -> Iterator[None]:
    """Raise a ConnectionError, which is worth another attempt, unless the server itself has refused a request."""
    from mlflow.exceptions import MlflowException, RestException

    try:
        yield
    except MlflowException as error:
        refused = isinstance(error, RestException) and 400 <= error.get_http_status_code() < 500
        if refused and error.get_http_status_code() not in (408, 429):
            raise
        raise ConnectionError(str(error)) from error
