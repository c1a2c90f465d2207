"""An .npz file as a source: what becomes of its arrays, and its faults through the command line."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mtl.data import memory
from mtl.data.types import Array, Wanted
from mtl.errors import ENVIRONMENT, OK
from mtl.sources.npz import Npz
from tests.support.assertions import Capture, called, refused
from tests.support.recipes import PLACE, around, write

N = 24
X = np.random.default_rng(0).standard_normal((N, 5)).astype(np.float32)
LABEL = np.arange(N) % 3
SOURCE: dict[str, object] = {"kind": "npz", "path": "d.npz"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; runs draw no plots."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mtl.report.plots.plot_run", lambda *_: [])
    return tmp_path


def source(folder: Path, **arrays: Array) -> Npz:
    np.savez(folder / "d.npz", **arrays)
    return Npz(path=str(folder / "d.npz"))


def run(capsys: Capture, *more: str) -> dict[str, object]:
    """The record of a run of `r.yaml`."""
    done = called(capsys, "run", "r.yaml", "--out", "out", "--quiet", *more)
    assert done.returncode == OK, done.stderr
    record: dict[str, object] = json.loads(Path("out/run.json").read_text())
    return record | {"stderr": done.stderr}


# --- what becomes of arrays ---


def test_the_header_comes_from_headers_alone(folder: Path) -> None:
    header = source(folder, inputs=X.reshape(N, 1, 5, 1), label=LABEL, names=np.array(["a", "b"])).header()
    assert header.input_shape == (1, 5, 1)
    assert header.labels == {"label": None, "names": None}
    assert header.columns == ("label", "names")
    assert header.row_counts == {}
    assert header.note == ""


def test_columns_takes_every_array_that_has_a_value_a_row(folder: Path) -> None:
    columns = source(folder, inputs=X, label=LABEL, names=np.array(["a", "b"])).columns(0)
    assert set(columns.labels) == {"label"}


def test_rows_labels_and_further_columns(folder: Path) -> None:
    wanted = Wanted(
        {"label": "classes", "word": "classes", "size": "numbers"},
        {"weight": "numbers", "site": "codes", "day": "times"},
    )
    size = np.where(np.arange(N) == 4, np.nan, np.arange(N) / 2)
    arrays = {
        "inputs": X.astype(">f8"),
        "label": LABEL.astype(">i2"),
        "word": np.array(["b", "a", ""])[LABEL],
        "size": size,
        "weight": np.arange(N, dtype=np.float16),
        "site": np.arange(N) // 4 * 10,
        "day": np.arange(N).astype("M8[D]"),
    }
    columns = source(folder, **arrays).read(0, wanted)
    assert columns.inputs.dtype == np.float32
    np.testing.assert_array_equal(columns.inputs, X)
    np.testing.assert_array_equal(columns.labels["label"], LABEL)
    assert columns.labels["word"].tolist() == [[1, 0, -1][k] for k in LABEL]
    np.testing.assert_array_equal(columns.labels["size"], size)
    assert set(columns.present) == {"word", "size"}
    np.testing.assert_array_equal(columns.present["word"], LABEL != 2)
    assert np.flatnonzero(~columns.present["size"]).tolist() == [4]
    np.testing.assert_array_equal(columns.extra["weight"], np.arange(N))
    np.testing.assert_array_equal(columns.extra["day"], np.arange(N) * 86_400)
    assert columns.extra_names == {"site": ("0", "10", "20", "30", "40", "50")}
    assert columns.extra["site"].tolist() == [k // 4 for k in range(N)]
    assert columns.header is not None
    assert columns.header.labels["word"] == ("a", "b")
    assert columns.header.text == {"word"}
    assert columns.place(7) == "d.npz:row 7"
    assert columns.splits == {}


def test_any_changed_array_that_is_used_changes_the_fingerprint(folder: Path) -> None:
    wanted = Wanted({"label": "classes"}, {"weight": "numbers"})
    arrays = {"inputs": X, "label": LABEL, "weight": np.ones(N), "unused": LABEL}
    marks = {source(folder, **arrays).read(0, wanted).fingerprint}
    for name in ("inputs", "label", "weight"):
        marks.add(source(folder, **arrays | {name: arrays[name] * 2}).read(0, wanted).fingerprint)
    assert len(marks) == 4
    assert source(folder, **arrays | {"unused": LABEL * 2}).read(0, wanted).fingerprint in marks


@pytest.mark.parametrize("dtype", ["u1", "f2", ">f4", "u2", "i8", "f8", "?"])
def test_a_run_on_every_kind_of_number(dtype: str, folder: Path, capsys: Capture) -> None:
    source(folder, inputs=np.asfortranarray(np.abs(X * 10).astype(dtype)), label=LABEL.astype(dtype))
    write(folder, **around(SOURCE))
    data = run(capsys)["data"]
    assert isinstance(data, dict)
    assert data["rows"] == {"train": 18, "test": 6}
    assert data["generated"] is False


def test_runs_by_groups_times_and_split_words(folder: Path, capsys: Capture) -> None:
    words = np.array(["train"] * 16 + ["val"] * 4 + ["test"] * 4)
    source(folder, inputs=X, label=LABEL, g=np.arange(N) // 4, t=np.arange(N).astype("M8[h]"), s=words)
    for split, rows in (
        ({"test": 0.25, "group": "g"}, {"train": 20, "test": 4}),
        ({"test": 0.25, "by_time": "t"}, {"train": 18, "test": 6}),
        ({"column": "s"}, {"train": 16, "validation": 4, "test": 4}),
    ):
        write(folder, **around(SOURCE, split=split))
        done = called(capsys, "run", "r.yaml", "--quiet", "--out", f"out-{len(split)}-{list(split)[-1]}")
        assert done.returncode == OK, done.stderr
        record = json.loads((folder / f"out-{len(split)}-{list(split)[-1]}" / "run.json").read_text())
        assert record["data"]["rows"] == rows


def test_large_whole_numbers_are_told(folder: Path, capsys: Capture) -> None:
    ids = np.arange(N * 2).reshape(N, 2)
    ids[5, 1] = 2**24 + 1
    source(folder, inputs=ids, label=LABEL)
    write(folder, **around(SOURCE))
    text = "float32 cannot hold this row's whole numbers exactly; are they ids rather than quantities?"
    told, few = run(capsys)["stderr"].splitlines()
    assert told == f"warning: d.npz:row 5, array 'inputs': {text}"
    assert few.startswith("warning: split 'test' has ")


# --- faults ---


def written(folder: Path, data: bytes) -> None:
    (folder / "d.npz").write_bytes(data)


def doubled(folder: Path) -> None:
    source(folder, inputs=X, label=LABEL)
    with zipfile.ZipFile(folder / "d.npz", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("label.npy", archive.read("label.npy"))


INPUTS = "r.yaml:3:16: data.source.inputs: "
BAD = {
    "missing": (None, {}, "r.yaml:3:34: data.source.path: ... d.npz: no such file"),
    "empty": (b"", {}, "data.source.path: d.npz: the file is empty"),
    "html": (b"<!DOCTYPE html>", {}, "data.source.path: d.npz: is not an .npz file (it starts with b'<!DOCT')"),
    "no_inputs": ({"input": X}, {}, f"{INPUTS}d.npz: no array 'inputs' (did you mean 'input'?); arrays: input"),
    "no_label": ({"inputs": X, "lable": LABEL}, {}, "tasks.a.target: no label column 'label' (did you mean 'lable'?)"),
    "short": ({"inputs": X, "label": LABEL[1:]}, {}, f"{PLACE}d.npz: array 'label' has 23 rows, the inputs have 24"),
    "wide": ({"inputs": X, "label": X}, {}, f"{PLACE}d.npz: array 'label' has shape (24, 5), a column is (n,)"),
    "shape": ({"inputs": X[:, None]}, {}, f"{INPUTS}d.npz: array 'inputs' has shape (24, 1, 5); inputs are (n, F)"),
    "scalar": ({"inputs": X[0, 0]}, {}, f"{INPUTS}d.npz: array 'inputs' has shape (); inputs are (n, F)"),
    "no_rows": ({"inputs": X[:0], "label": LABEL[:0]}, {}, f"{INPUTS}d.npz: no rows"),
    "no_width": ({"inputs": X[:, :0], "label": LABEL}, {}, f"{INPUTS}d.npz: array 'inputs' has shape (24, 0)"),
    "text": ({"inputs": X.astype(str), "label": LABEL}, {}, f"{INPUTS}d.npz: array 'inputs' holds text, not real"),
    "complex": ({"inputs": X + 1j, "label": LABEL}, {}, f"{INPUTS}d.npz: array 'inputs' holds complex numbers"),
    "objects": ({"inputs": X.astype(object)}, {}, f"{PLACE}d.npz: array 'inputs' holds Python objects, which"),
    "fields": ({"inputs": X, "label": np.zeros(N, "i4,f4")}, {}, f"{PLACE}d.npz: array 'label' is structured; save"),
    "dates": ({"inputs": X, "label": LABEL.astype("M8[D]")}, {}, f"{PLACE}d.npz: array 'label' holds times, not real"),
    "gap": ({"inputs": X, "label": np.where(LABEL == 2, np.nan, LABEL)}, {}, "target: d.npz:row 2: no label in column"),
    "nan": ({"inputs": np.where(np.arange(N)[:, None] == 7, np.nan, X), "label": LABEL}, {}, "row 7: holds nan"),
    "inf": ({"inputs": np.where(np.arange(N)[:, None] == 7, 1e300, X.astype(float)), "label": LABEL}, {},
            "row 7: holds inf"),
    "weight": (
        {"inputs": X, "label": LABEL, "w": np.array(["1"] * 9 + ["?"] * 15)},
        {"task": {"kind": "multiclass", "target": "label", "sample_weight": "w"}},
        f"{PLACE}d.npz:row 9: array 'w' holds '?', not a number",
    ),
    "time": (
        {"inputs": X, "label": LABEL, "t": np.array(["2024-01-01"] * 9 + ["soon"] * 15)},
        {"split": {"test": 0.25, "by_time": "t"}},
        f"{PLACE}d.npz:row 9: array 't' holds 'soon', not a number or a date such as 2024-03-01",
    ),
    "group": (
        {"inputs": X, "label": LABEL, "g": np.where(np.arange(N) == 9, np.nan, 1)},
        {"split": {"test": 0.25, "group": "g"}},
        "data.split.group: d.npz:row 9: no group in column 'g'",
    ),
    "ids": (
        {"inputs": X, "label": LABEL, "i": np.arange(N) // 2},
        {"source": SOURCE | {"id": "i"}},
        "data.split: ... ids are in both train and test, first '",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_faults_on_the_command_line(case: str, folder: Path, capsys: Capture) -> None:
    content, options, text = BAD[case]
    if isinstance(content, dict):
        np.savez(folder / "d.npz", allow_pickle=True, **content)
    elif content is not None:
        written(folder, content)
    write(folder, **around(**{"source": SOURCE, **options}))
    refused(lambda: called(capsys, "run", "r.yaml"), folder, [text])


def test_an_array_twice(folder: Path, capsys: Capture) -> None:
    doubled(folder)
    write(folder, **around(SOURCE))
    text = f"{PLACE}d.npz: array 'label' is in the file twice; write the file again"
    refused(lambda: called(capsys, "run", "r.yaml"), folder, [text])
    refused(lambda: called(capsys, "validate", "r.yaml"), folder, [text])


def test_arrays_that_do_not_fit_into_memory(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source(folder, inputs=np.zeros((400_000, 50), np.float32), label=np.zeros(400_000, np.int8))
    write(folder, **around(SOURCE))
    monkeypatch.setattr(memory, "available_memory", lambda: 10_000_000)
    text = f"{PLACE}d.npz: its arrays take 80.4 MB, 10.0 MB are free; set data.in_memory: false, or use a part of them"
    refused(lambda: called(capsys, "run", "r.yaml"), folder, [text], code=ENVIRONMENT)


class Executed:
    """An object that makes a folder `marker` when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("marker",)


@pytest.mark.parametrize("form", ["pickle", "object array"])
def test_a_pickle_by_another_name_is_not_run(form: str, folder: Path, capsys: Capture) -> None:
    if form == "pickle":
        written(folder, pickle.dumps(Executed()))
    else:
        array = np.empty(1, dtype=object)
        array[0] = Executed()
        np.savez(folder / "d.npz", allow_pickle=True, inputs=array)
    write(folder, **around(SOURCE))
    for command in ("run", "validate", "summary"):
        refused(
            lambda command=command: called(capsys, command, "r.yaml"),  # type: ignore[misc]
            folder,
            ["holds Python objects, which are never loaded"],
        )
    pickle.loads(pickle.dumps(Executed()))
    assert (folder / "marker").is_dir(), "it would have been"


def test_one_training_row(folder: Path, capsys: Capture) -> None:
    source(folder, inputs=X[:2], label=np.array([1.0, 2.0]))
    task: dict[str, object] = {"kind": "regression", "target": "label"}
    write(folder, **around(SOURCE, task, {"test": 0.5}), model__backbone__norm={"kind": "none"})
    assert run(capsys)["status"] == "finished"
