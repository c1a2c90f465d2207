"""A node of Ray without Ray: its process, what it brings back, and a run that goes on elsewhere."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtl import __version__
from mtl.comparison.processes.on_ray.copies import Incoming, Outgoing
from mtl.comparison.processes.on_ray.node import Node, Plugin, Setup
from mtl.experiment.run import run
from mtl.recipe.keys.recipe import Recipe
from mtl.runs.lock import RunLock
from tests.support.recipes import recipe

pytestmark = pytest.mark.xdist_group("node")


def setup(folder: Path, **changes: Any) -> Setup:
    given: dict[str, Any] = {
        "threads": 1, "plugins": (), "folder": str(folder), "marker": ".here", "token": "42",
        "working": str(folder), "has_gpu": False,
    }  # fmt: skip
    return Setup(**(given | changes))


def order(made: Recipe, out: Path) -> dict[str, Any]:
    return {"do": "run", "recipe": made.plain(), "out": str(out)}


def saving(**changes: Any) -> Recipe:
    """A recipe that saves every 20 steps."""
    return recipe(train__checkpoint={"every": {"steps": 20}}, **changes)


def end_of(node: Node, copy: Path) -> Any:
    """Follow a run to its end, and keep a copy of what comes; returns the last report, or the exit code."""
    incoming = Incoming(copy)
    while True:
        news = node.news(0.5)
        for piece in news.pieces:
            incoming.take(piece)
        if news.lost is not None:
            return news.lost
        if news.said and "ended" in news.said[-1]:
            return news.said[-1]


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Node]:
    """A node that does not see the folder of the comparison."""
    node = Node(setup(tmp_path / "elsewhere", working=str(tmp_path / "none")))
    yield node
    node.close()
    assert not node._own.exists()


def test_a_run_goes_on_elsewhere_from_a_checkpoint_that_was_brought_back(tmp_path: Path, apart: Node) -> None:
    made, copy = saving(train__epochs=30), tmp_path / "copy"
    first = Node(setup(tmp_path / "elsewhere"))
    assert first.hello().is_shared is False
    first.expect("run")
    first.begin(order(made, tmp_path / "elsewhere/run"))
    incoming = Incoming(copy)
    while not list(copy.glob("checkpoints/step-*")):
        for piece in first.news(0.5).pieces:
            incoming.take(piece)
    incoming.close()
    first.close()  # what it saves now, nobody hears of
    assert b'"status": "running"' in (copy / "run.json").read_bytes()

    apart.expect("run")
    apart.take(list(Outgoing(copy).round(is_over=True)))
    apart.begin(order(made, tmp_path / "elsewhere/run"))
    assert end_of(apart, copy) == {"ended": "finished"}
    whole = run(made, out=tmp_path / "whole", report=False).path
    for name in ("metrics.jsonl", "bootstrap.json"):
        assert (copy / name).read_bytes() == (whole / name).read_bytes()
    assert len(list(copy.glob("checkpoints/step-*"))) == 1  # as in a comparison on one machine


def test_a_process_that_was_killed(tmp_path: Path, apart: Node) -> None:
    made, copy = saving(train__epochs=2000), tmp_path / "copy"
    apart.expect("run")
    apart.begin(order(made, tmp_path / "run"))
    while not list(apart._run.glob("checkpoints/step-*")):
        apart.news(0.1)
    assert apart._process is not None
    os.kill(apart._process._process.pid, signal.SIGKILL)
    assert end_of(apart, copy) == -signal.SIGKILL
    assert list(copy.glob("checkpoints/step-*"))
    short = saving(train__epochs=1)
    apart.expect("other")
    apart.begin(order(short, tmp_path / "other"))  # in a new process
    assert end_of(apart, tmp_path / "other") == {"ended": "finished"}


def test_a_run_that_is_stopped_is_saved_and_brought_back(tmp_path: Path, apart: Node) -> None:
    apart.expect("run")
    apart.begin(order(recipe(train__epochs=2000), tmp_path / "run"))
    while not any("step" in said for said in apart.news(0.5).said):
        pass
    apart.stop()
    assert end_of(apart, tmp_path / "copy") == 1  # the exit code of an interrupt that nobody catches
    assert list((tmp_path / "copy").glob("checkpoints/step-*"))


def test_a_shared_folder_is_written_to_once_it_is_free(tmp_path: Path) -> None:
    folder = tmp_path / "comparison"
    folder.mkdir()
    (folder / ".here").write_text("42", encoding="ascii")
    node = Node(setup(folder))
    assert node.hello().is_shared is True
    out = folder / "run"
    out.mkdir()
    lock = RunLock(out)
    lock.take()  # as a process that still saves, after its node was lost
    node.begin(order(recipe(), out))
    assert node.news(0.2).said == []
    assert node._waiting is not None
    lock.release()
    assert end_of(node, tmp_path / "copy") == {"ended": "finished"}
    assert (out / "bootstrap.json").is_file()
    assert not (tmp_path / "copy").exists()
    node.close()
    assert out.is_dir()


def test_what_a_process_prints_comes_too(tmp_path: Path, apart: Node) -> None:
    apart.setup = setup(
        tmp_path, plugins=(Plugin("/nowhere/shouting.py", b"print('loud')\nraise SystemExit(5)\n"),)
    )
    apart.expect("run")
    apart.begin(order(recipe(), tmp_path / "run"))
    log, lost = b"", None
    while lost is None:
        news = apart.news(0.5)
        log, lost = log + news.log, news.lost
    assert lost == 1
    assert b"loud" in log
    assert b"shouting.py" in log


def test_versions_and_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".here").write_text("42", encoding="ascii")
    node = Node(setup(tmp_path))
    assert node.hello().versions["mtl"] == __version__
    assert node.hello().versions.keys() == {"mtl", "torch", "python"}
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert node.hello().is_shared is None
    node.close()


def test_plugins_are_sent_along(tmp_path: Path, apart: Node) -> None:
    same, changed = tmp_path / "same.py", tmp_path / "changed.py"
    same.write_bytes(b"a = 1\n")
    changed.write_bytes(b"a = 2\n")
    assert apart._plugin(0, Plugin("installed", None)) == "installed"
    assert apart._plugin(1, Plugin(str(same), b"a = 1\n")) == str(same)
    for i, path in ((2, changed), (3, tmp_path / "none/missing.py")):
        copy = Path(apart._plugin(i, Plugin(str(path), b"a = 1\n")))
        assert copy != path
        assert (copy.name, copy.read_bytes()) == (
            path.name,
            b"a = 1\n",
        )  # a run knows its plug-ins by their names


OTHER = """
import json, sys
for line in sys.stdin:
    print(json.dumps({"ended": "finished", "order": json.loads(line)}), flush=True)
"""


def test_a_process_may_run_another_module(tmp_path: Path, apart: Node) -> None:
    (tmp_path / "echoing.py").write_text(OTHER, encoding="utf-8")
    apart.setup = setup(tmp_path, module="echoing")  # found in the working folder
    apart.begin({"trial": 3})
    assert end_of(apart, tmp_path / "copy") == {"ended": "finished", "order": {"trial": 3}}
    assert not (tmp_path / "copy").exists()  # it has no run folder that could be brought back
