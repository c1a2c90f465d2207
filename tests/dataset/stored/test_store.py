"""Rows in the store are those in memory, bit for bit; the store is whole or not there, and its key tells rows apart."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtl.data import room
from mtl.data.files import states
from mtl.dataset.stored import arrays, key, store
from mtl.dataset.stored.key import key_of
from mtl.dataset.stored.rows import StoredRows
from mtl.errors import EnvironmentFault
from mtl.experiment.run import run
from mtl.recipe.keys.recipe import Recipe
from tests.support import stored
from tests.support.lives import GROUPED, Life
from tests.support.lives import command as in_a_life


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(states, "QUIET", 0)
    return tmp_path / "cache"


def files_of(cache: Path) -> list[Path]:
    """Everything in the cache but locks."""
    return sorted(path for path in cache.rglob("*") if path.is_file() and path.name != ".lock")


@pytest.mark.parametrize("case", stored.CASES)
def test_rows_are_those_in_memory(tmp_path: Path, case: str) -> None:
    data, tasks = stored.CASES[case]
    data = data(tmp_path)
    in_memory, written, read = (
        stored.load(stored.recipe(tmp_path, held, data=data, tasks=tasks)) for held in (True, False, False)
    )
    assert not isinstance(in_memory.rows, StoredRows)
    for found, done in ((written, "were encoded into"), (read, "are read from")):
        assert isinstance(found.rows, StoredRows)
        stored.assert_same(in_memory, found)
        assert sum(done in line for line in found.notices) == 1


def test_a_warm_store_reads_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored.load(stored.recipe(tmp_path))
    monkeypatch.setattr("mtl.data.columns.tables.read_table", None)
    stored.load(stored.recipe(tmp_path))
    with pytest.raises(TypeError):
        stored.load(stored.recipe(tmp_path, True))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_computes_the_same_bits(tmp_path: Path, accumulate: int) -> None:
    outs = [tmp_path / "memory", tmp_path / "files"]
    for out in outs:
        made = stored.recipe(tmp_path, out.name == "memory", train__accumulate=accumulate, train__epochs=2)
        run(made, out=out, report=False)
    for name in ("metrics.jsonl", "checkpoints/*/model.safetensors", "checkpoints/*/optim.safetensors"):
        one, other = (next(out.glob(name)).read_bytes() for out in outs)
        assert one == other, name


def test_two_recipes_share_the_same_inputs(tmp_path: Path, cache: Path) -> None:
    stored.load(stored.recipe(tmp_path))
    before = {path.name for path in (cache / "rows/arrays").iterdir()}
    alone = {"yes": stored.TASKS["yes"]}
    stored.load(stored.recipe(tmp_path, tasks=alone))
    new = {path.name for path in (cache / "rows/arrays").iterdir()} - before
    inputs = stored.load(stored.recipe(tmp_path, True)).rows.inputs.numpy()
    assert arrays.digest(inputs) in before
    assert all((cache / "rows/arrays" / name).stat().st_size < inputs.nbytes for name in new)


# --- its key ---

CHANGES: dict[str, dict[str, Any]] = {
    "standardize": {"data": {"standardize": {"kind": "none"}}},
    "split": {"data": {"split": {"validation": 0.3, "test": 0.2}}},
    "inputs": {"data": {"source": {"inputs": {**stored.INPUTS, "missing": "median"}}}},
    "fraction": {"data": {"label_fraction": {"yes": 0.5}}},
    "target": {"tasks": {"yes": {"kind": "binary", "target": "other", "missing": "mask"}}},
    "missing": {"tasks": {"yes": {**stored.TASKS["yes"], "missing": "mask"}}},
    "fewer tasks": {"tasks": {"size": stored.TASKS["size"]}},
    "order of tasks": {"tasks": dict(reversed(stored.TASKS.items()))},
    "towers": {"model__towers": {"a": ["size"], "b": [task for task in stored.TASKS if task != "size"]}},
    "seed": {"seed": {"init": 0, "order": 0, "split": 1, "labels": 0}},
}
SAME: dict[str, dict[str, Any]] = {
    "nothing": {},
    "name": {"name": "another"},
    "batches": {"train__batch_size": 4},
    "optimizer": {"optimizer": {"kind": "adam", "lr": 0.01}},
    "seeds of the training": {"seed": {"init": 1, "order": 1, "split": 0, "labels": 0}},
}


def changed(folder: Path, change: dict[str, Any]) -> Recipe:
    data: dict[str, Any] = {"source": stored.table(folder), "split": stored.SPLIT}
    of_data = change.get("data", {})
    data = {**data, **of_data, "source": {**data["source"], **of_data.get("source", {})}}
    return stored.recipe(folder, **{**change, "data": data})


@pytest.mark.parametrize("name", CHANGES)
def test_what_decides_the_rows_is_in_the_key(tmp_path: Path, name: str) -> None:
    assert key_of(changed(tmp_path, CHANGES[name])) != key_of(stored.recipe(tmp_path))


@pytest.mark.parametrize("name", SAME)
def test_what_does_not_decide_them_is_not(tmp_path: Path, name: str) -> None:
    assert key_of(changed(tmp_path, SAME[name])) == key_of(stored.recipe(tmp_path))
    assert key_of(stored.recipe(tmp_path, True)) == key_of(stored.recipe(tmp_path))


def test_the_bytes_of_files_are_in_the_key(tmp_path: Path) -> None:
    made = stored.recipe(tmp_path)
    before = key_of(made)
    pq.write_table(pa.table(stored.columns(seed=5)), tmp_path / "t.parquet", row_group_size=17)
    assert key_of(made) != before


def test_an_image_that_was_written_again_is_in_the_key(tmp_path: Path) -> None:
    made = stored.recipe(tmp_path, data=stored.images(tmp_path), tasks=stored.LABEL)
    before, image = key_of(made), tmp_path / "3.png"
    was = image.stat()
    image.write_bytes(image.read_bytes())
    os.utime(image, ns=(was.st_atime_ns, was.st_mtime_ns))  # its size and its time of writing are as before
    assert key_of(made) != before


def test_versions_and_plugins_are_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stored.recipe(tmp_path)
    keys = [key_of(made)]
    monkeypatch.setattr(key, "FORMAT", key.FORMAT + 1)
    keys.append(key_of(made))
    plugin = tmp_path / "plugin.py"
    for text in ("A = 1", "A = 2"):
        plugin.write_text(text)
        module: ModuleType | SimpleNamespace = SimpleNamespace(__file__=str(plugin))
        monkeypatch.setattr(key, "plugin_modules", lambda module=module: [module])
        keys.append(key_of(made))
    assert len(set(keys)) == 4


# --- damage ---


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.mark.parametrize("which", ["store.json", "arrays"])
@pytest.mark.parametrize("harm", [truncate, flip, Path.unlink], ids=["truncated", "flipped", "removed"])
def test_a_damaged_store_is_written_anew(
    tmp_path: Path, cache: Path, harm: Callable[[Path], None], which: str
) -> None:
    in_memory = stored.load(stored.recipe(tmp_path, True))
    stored.load(stored.recipe(tmp_path))
    inputs = cache / "rows/arrays" / arrays.digest(in_memory.rows.inputs.numpy())
    harm(inputs if which == "arrays" else next(cache.glob("rows/*/store.json")))
    found = stored.load(stored.recipe(tmp_path))
    stored.assert_same(in_memory, found)
    anew = which == "arrays" or harm is not Path.unlink  # without its index, a store does not exist
    assert any("encoded anew" in line for line in found.notices) == anew
    again = stored.load(stored.recipe(tmp_path))
    stored.assert_same(in_memory, again)
    assert any("are read from" in line for line in again.notices)


def test_a_cache_that_was_moved_is_read_once_and_kept(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored.load(stored.recipe(tmp_path))
    shutil.copytree(cache, tmp_path / "copy")
    monkeypatch.setenv("MTL_CACHE", str(tmp_path / "copy"))
    looks = []
    digest = arrays._digest_of_file
    monkeypatch.setattr(arrays, "_digest_of_file", lambda path: looks.append(path) or digest(path))
    for again in (True, False):
        found = stored.load(stored.recipe(tmp_path))
        assert any("are read from" in line for line in found.notices)
        assert bool(looks) == again
        looks.clear()


def test_a_full_disk_is_told_before(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(EnvironmentFault) as caught:
        stored.load(stored.recipe(tmp_path))
    text = str(caught.value)
    assert "t.parquet: 60 rows of 3 inputs and 6 other columns take" in text
    assert "on disk, 1.0 kB are free; make room, or set MTL_CACHE to a folder on another disk" in text
    assert files_of(cache) == []


def test_a_disk_that_fills_up_leaves_no_store(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, beside: Path, pieces: Iterable[object]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(arrays, "write_file", full)
    with pytest.raises(EnvironmentFault, match="cannot write: No space left on device; set MTL_CACHE"):
        stored.load(stored.recipe(tmp_path))
    assert files_of(cache) == []


def test_faults_of_rows_are_those_in_memory(tmp_path: Path) -> None:
    tasks = {"colour": {**stored.TASKS["colour"], "missing": "error"}}
    texts = []
    for held in (True, False):
        with pytest.raises(Exception, match="no label in column 'colour'") as caught:
            stored.load(stored.recipe(tmp_path, held, tasks=tasks))
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


# --- several processes ---


def in_a_process(folder: str) -> None:
    stored.load(stored.recipe(Path(folder)))


def dies(n: int, folder: str) -> None:
    """Loads, and is killed in the middle of the n-th file of the store."""
    write, numbers = arrays.write_file, itertools.count()

    def write_or_die(path: Path, beside: Path, pieces: Iterable[bytes | memoryview]) -> None:
        if next(numbers) == n:
            (beside / (path.name + arrays.PART)).write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, beside, pieces)

    arrays.write_file = write_or_die
    in_a_process(folder)


@GROUPED
@pytest.mark.parametrize("n", [0, 2, -1], ids=["first", "third", "last"])
def test_a_process_that_is_killed_leaves_nothing_half(
    tmp_path: Path, cache: Path, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory = stored.load(stored.recipe(tmp_path, True))
    names = {arrays.digest(values) for _, values in store.arrays_of(in_memory)}
    with Life(dies, n if n >= 0 else len(names), str(tmp_path), folder=tmp_path) as life:
        assert life.end().returncode == -signal.SIGKILL
    (half,) = cache.rglob(f"*{arrays.PART}")
    assert not list(cache.glob("rows/*/store.json"))
    assert {path.name for path in (cache / "rows/arrays").iterdir()} <= names
    stored.load(stored.recipe(tmp_path, name="other", tasks={"yes": stored.TASKS["yes"]}))  # another store
    assert not half.exists()
    stored.assert_same(in_memory, stored.load(stored.recipe(tmp_path)))


@GROUPED
def test_of_two_processes_one_writes(tmp_path: Path, cache: Path) -> None:
    stored.table(tmp_path)
    with (
        Life(in_a_process, str(tmp_path), folder=tmp_path) as one,
        Life(in_a_process, str(tmp_path), folder=tmp_path) as other,
    ):
        ends = [one.end(), other.end()]
    assert [end.returncode for end in ends] == [0, 0], ends
    assert sum("encoding the rows once" in end.stderr for end in ends) == 1
    assert len(list(cache.glob("rows/*/store.json"))) == 1


@GROUPED
@pytest.mark.parametrize("keeps_store", [True, False], ids=["warm", "store gone"])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, cache: Path, keeps_store: bool) -> None:
    from mtl.recipe.load import to_yaml

    made = stored.recipe(tmp_path, train__epochs=3, train__checkpoint={"every": {"steps": 2}, "keep": 3})
    run(stored.recipe(tmp_path, True, train__epochs=3), out=tmp_path / "whole", report=False)
    (tmp_path / "r.yaml").write_text(to_yaml(made))
    arguments = (
        "run",
        tmp_path / "r.yaml",
        "--quiet",
        "--no-report",
        "--resume",
        "auto",
        "--out",
        tmp_path / "out",
    )
    with Life(in_a_life, *arguments, folder=tmp_path, fail="step:7:kill") as life:
        assert life.end().returncode == -signal.SIGKILL
    if not keeps_store:
        shutil.rmtree(cache)
    with Life(in_a_life, *arguments, folder=tmp_path) as life:
        end = life.end()
        assert end.returncode == 0, end.stderr
    for name in ("metrics.jsonl", "checkpoints/step-*/model.safetensors"):
        one, other = (sorted((tmp_path / out).glob(name))[-1].read_bytes() for out in ("whole", "out"))
        assert one == other, name
