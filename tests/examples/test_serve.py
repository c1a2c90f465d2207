"""examples/serve answers many requests at once with what the run predicts, in a process without mtl and torch."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import mtl
from mtl.export.write import export
from mtl.inference.load import load_trained
from tests.inference.shop import recipe, shop_rows, write_csv

pytest.importorskip("fastapi")
SERVE = Path(__file__).parents[2] / "examples" / "serve"
REQUESTS = 200
COLUMNS = ("x", "y", "city")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    path = write_csv(folder / "shop.csv", shop_rows(240))
    mtl.run(recipe(path), out=folder / "run", report=False)
    export(load_trained(folder / "run", "cpu"), folder / "model.onnx", "onnx")
    return folder / "run"


@pytest.fixture(scope="module")
def address(run: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    without = "import sys; sys.modules['torch'] = sys.modules['mtl'] = None; import uvicorn; "
    serve = f"uvicorn.run('app:app', port={port}, log_level='warning')"
    environment = {"PATH": os.environ["PATH"], "MODEL": str(run.parent / "model.onnx")}
    process = subprocess.Popen([sys.executable, "-c", without + serve], cwd=SERVE, env=environment)
    try:
        for _ in range(600):
            assert process.poll() is None
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/describe", timeout=5).close()
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/predict"
    finally:
        process.terminate()
        process.wait(20)


def asked(address: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    body = json.dumps({"rows": rows}).encode()
    request = urllib.request.Request(address, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: list[dict[str, Any]] = json.load(answer)
    return found


def test_many_requests_at_once(address: str, run: Path) -> None:
    rows = [{name: row[name] for name in COLUMNS} for row in shop_rows(REQUESTS, seed=4)]
    rows[7]["city"] = "Nowhere"
    said = mtl.load(run).predict({name: [row[name] for row in rows] for name in COLUMNS})
    seconds = []

    def one(row: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        (found,) = asked(address, [row])
        seconds.append(time.perf_counter() - began)
        return found

    with ThreadPoolExecutor(REQUESTS) as pool:
        answers = list(pool.map(one, rows))
    seconds.sort()
    print(f"median {seconds[REQUESTS // 2]:.3f} s, slowest {seconds[-1]:.3f} s")
    for i, found in enumerate(answers):
        for task in ("sort", "grade", "yes"):
            assert found[task]["value"] == said[task][i]
        assert found["tags"]["value"] == said["tags"][i]
        assert math.isclose(found["amount"]["value"], said["amount"][i], rel_tol=1e-6)
        assert math.isclose(found["yes"]["p"]["yes"], said["yes_p"][i], abs_tol=1e-5)
        assert math.isclose(found["sort"]["p"]["red"], said["sort_p_red"][i], abs_tol=1e-5)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"x": 1.0, "y": 2.0}], "a row has no 'city'; columns: x, y, city"),
        ([{"x": "one", "y": 2.0, "city": "Bern"}], "'x' is the text 'one', not a number"),
    ],
)
def test_a_wrong_row(rows: list[dict[str, Any]], said: str, address: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        asked(address, rows)
    assert (caught.value.code, json.load(caught.value)["detail"]) == (422, said)
