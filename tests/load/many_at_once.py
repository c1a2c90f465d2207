"""Many runs that begin at the same moment, on one empty cache and one folder of runs.

    python -m tests.load.many_at_once --processes 64

A server on this machine has a data set of four small files in the place of Fashion-MNIST's. Each run is a process of
its own, forked from one that has imported everything: it waits for the others, fetches the data and trains two steps.
Prints how often each file was asked for, how many run folders there are, and what went wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from time import perf_counter
from typing import Any

from mtl.data.files import download, idx
from mtl.sources import fashion_mnist
from tests.data.files.test_download import Server
from tests.support.recipes import linear, small

SAMPLE = files("mtl.sources") / "fashion_mnist_sample"


def recipe() -> dict[str, Any]:
    """Two steps on the 300 images of the sample."""
    return small(
        data={"source": {"kind": "fashion_mnist"}},
        tasks={
            "garment": {"kind": "fashion.garment"},
            "shoe": {"kind": "binary", "target": "label", "positive": [7]},
        },
        model__backbone__stages=linear(2),
        optimizer={"kind": "adam", "lr": 1e-3},
        train={"max_steps": 2, "batch_size": 150, "device": "cpu", "threads": 1},
    )


def small_files() -> tuple[fashion_mnist._File, ...]:
    """The four files of the sample as if they were those that were published."""
    found = []
    for file in fashion_mnist.FILES:
        packed = (SAMPLE / file.remote.name).read_bytes()
        with (SAMPLE / file.remote.name).open("rb") as stream:
            unpacked = hashlib.sha256(idx.read(stream, file.name)).hexdigest()
        remote = download.Remote(file.remote.name, len(packed), hashlib.sha256(packed).hexdigest())
        found.append(replace(file, sha256=unpacked, remote=remote))
    return tuple(found)


def settings(url: str) -> list[tuple[object, str, object]]:
    """What is another than in earnest: (module, name, value)."""
    return [
        (fashion_mnist, "FILES", small_files()),
        (fashion_mnist, "COUNTS", dict(fashion_mnist.SAMPLE_COUNTS)),
        (fashion_mnist, "MIRRORS", (url,)),
        (fashion_mnist, "DEBIAN", Path("/nowhere")),
        (download, "ALLOWED", (url,)),
    ]


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        for file in fashion_mnist.FILES:
            server.on(file.remote.name, (200, (SAMPLE / file.remote.name).read_bytes()))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def one(place: Path, url: str, barrier: Any) -> None:
    """One run, with a file for what went wrong."""
    from mtl.experiment import run as experiment
    from mtl.report import plots

    os.chdir(place)
    os.environ["MTL_CACHE"] = str(place / "cache")
    os.environ.pop("MTL_OFFLINE", None)
    for module, name, value in settings(url):
        setattr(module, name, value)
    plots.plot_run = lambda *given: []
    with (place / f"{os.getpid()}.txt").open("w", encoding="utf-8") as said, redirect_stderr(said):
        try:
            barrier.wait()
            experiment.run(recipe())
        except BaseException as error:
            fault = place / f"{os.getpid()}.fault"
            fault.write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
            raise


@dataclass
class Found:
    """What came of it: file -> times asked for, folders of runs, their states, their data, faults, seconds."""

    asked: dict[str, int]
    folders: int
    statuses: dict[str, int]
    fingerprints: int
    faults: list[str]
    seconds: float


def crowd(place: Path, processes: int) -> Found:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mtl.experiment.run", "pooch", "requests", __name__])
    barrier = context.Barrier(processes)
    began = perf_counter()
    with serving() as server:
        children = [context.Process(target=one, args=(place, server.url, barrier)) for _ in range(processes)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        asked = dict(Counter(server.asked))
    records = [json.loads(path.read_bytes()) for path in place.glob("runs/*/*/run.json")]
    faults = [path.read_text(encoding="utf-8") for path in place.glob("*.fault")]
    faults += [f"exit code {child.exitcode}" for child in children if child.exitcode]
    return Found(
        asked=asked,
        folders=len(records),
        statuses=dict(Counter(record["status"] for record in records)),
        fingerprints=len({record["data"]["sha256"] for record in records}),
        faults=faults,
        seconds=round(perf_counter() - began, 1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Many runs that begin at the same moment.")
    parser.add_argument("--processes", type=int, default=64)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asdict(crowd(Path(folder), given.processes))))


if __name__ == "__main__":
    main()
