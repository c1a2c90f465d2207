"""A command opens, checks, hashes and parses each file once, whatever asks for its header or its rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import mtl
from mtl.data.files.opening import opened_once
from mtl.errors import OK
from tests.support import recipes
from tests.support.assertions import Capture, called
from tests.support.file_counts import FileCounts, open_descriptors
from tests.support.file_kinds import KINDS, ONCE, idx_folder, vector_csv, write


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtl.report.plots.plot_run", lambda *_: [])


def run(how: str, capsys: Capture) -> None:
    """`mtl run` on `r.yaml`, by the command or in Python."""
    if how == "python":
        mtl.run("r.yaml", out="out")
        return
    done = called(capsys, "run", "r.yaml", "--out", "out", "--quiet")
    assert done.returncode == OK, done.stderr


both_ways = pytest.mark.parametrize("how", ["python", "command"])


@pytest.mark.parametrize("kind", KINDS)
@both_ways
def test_a_run_reads_each_file_once(
    how: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    expected = write(kind, tmp_path)
    monkeypatch.chdir(tmp_path)
    counts = FileCounts(tmp_path, monkeypatch)
    run(how, capsys)
    assert {name: counts.of(name) for name in expected} == expected


@both_ways
def test_a_run_reads_each_idx_file_once(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    expected = idx_folder(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    counts = FileCounts(tmp_path, monkeypatch)
    counts.count_idx()
    run(how, capsys)
    assert {name: counts.of(name) for name in expected} == expected


@both_ways
def test_several_sources_on_one_file(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Each takes its own columns in its own form, and so parses them; what is known of the file they share."""
    source, _ = vector_csv(tmp_path, 40)
    both = {"sources": {"a": source, "b": {**source, "na_values": ["", "?"]}}, "split": {"test": 0.25}}
    recipes.write(tmp_path, **{**recipes.around(source), "data": both})
    monkeypatch.chdir(tmp_path)
    counts = FileCounts(tmp_path, monkeypatch)
    run(how, capsys)
    assert counts.of("t.csv") == {**ONCE, "parsed": 2}


@both_ways
def test_patterns_of_tasks_look_into_the_same_opening(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    source, _ = vector_csv(tmp_path, 40)
    recipes.write(tmp_path, **{**recipes.around(source), "tasks": {"lab*": {"kind": "multiclass"}}})
    monkeypatch.chdir(tmp_path)
    counts = FileCounts(tmp_path, monkeypatch)
    run(how, capsys)
    assert counts.of("t.csv") == ONCE


@pytest.mark.parametrize("kind", ["vector_csv", "vector_parquet", "arrays"])
def test_a_prediction_reads_its_file_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    expected = write(kind, tmp_path)
    monkeypatch.chdir(tmp_path)
    mtl.run("r.yaml", out="out")
    (name, *_) = expected
    model = mtl.load("out")
    counts = FileCounts(tmp_path, monkeypatch)
    model.predict(name)
    unhashed = {what: n for what, n in ONCE.items() if what != "hashed"}
    assert counts.of(name) == ({"checked": 1, "opened": 1} if kind == "arrays" else unhashed)
    done = called(capsys, "predict", "out", "--input", name, "--output", "p.csv")
    assert done.returncode == OK, done.stderr
    assert counts.of(name)["opened"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_an_evaluation_reads_each_file_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    expected = write(kind, tmp_path)
    monkeypatch.chdir(tmp_path)
    mtl.run("r.yaml", out="out")
    counts = FileCounts(tmp_path, monkeypatch)
    mtl.load("out").evaluate()
    assert {name: counts.of(name) for name in expected} == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_run_in_one_process_reads_what_is_there_then(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of a file outlives a command: not in a notebook, where the recipe is the same object too."""
    write(kind, tmp_path)
    monkeypatch.chdir(tmp_path)
    recipe = mtl.load_recipe("r.yaml")
    first = mtl.run(recipe, out="one").record.data
    assert mtl.run(recipe, out="two").record.data == first
    write(kind, tmp_path, n=44)
    again = mtl.run(recipe, out="three").record.data
    assert sum(again.rows.values()) > sum(first.rows.values())
    assert again.sha256 != first.sha256


def test_a_source_that_is_asked_again_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in KINDS:
        folder = tmp_path / kind
        folder.mkdir()
        expected = write(kind, folder)
        source = mtl.load_recipe(folder / "r.yaml").data.only
        with monkeypatch.context() as patch:
            counts = FileCounts(folder, patch)
            with opened_once():
                first = source.header()
                assert source.header() == first
            found = {name: counts.of(folder / name) for name in expected if name and "png" not in name}
        assert {name: done["opened"] for name, done in found.items() if done} == {next(iter(expected)): 1}


def test_no_file_stays_open_while_a_network_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Disk space of a file that is removed meanwhile is free; the rows are in memory."""
    from mtl.experiment import run as experiment

    write("split_csv", tmp_path)
    monkeypatch.chdir(tmp_path)
    files = sorted(tmp_path.glob("*.csv"))
    original, open_then = experiment.train, []

    def train(*given: Any, **options: Any) -> Any:
        open_then.extend(map(open_descriptors, files))
        return original(*given, **options)

    monkeypatch.setattr(experiment, "train", train)
    for how in ("python", "command"):
        run(how, capsys)
        shutil.rmtree("out")
    assert (len(files), open_then) == (3, [0] * 6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_counts_can_fail(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two commands do everything twice."""
    expected = write(kind, tmp_path)
    monkeypatch.chdir(tmp_path)
    counts = FileCounts(tmp_path, monkeypatch)
    for out in ("one", "two"):
        mtl.run("r.yaml", out=out)
    twice = {name: {what: 2 * n for what, n in done.items()} for name, done in expected.items()}
    assert {name: counts.of(name) for name in expected} == twice
