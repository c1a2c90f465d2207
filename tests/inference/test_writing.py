"""Files of predictions: what is in them, that they appear whole, and that memory does not grow with rows."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pv
import pyarrow.parquet as pq
import pytest

from mtl.errors import EnvironmentFault, Terminated, UserError
from mtl.inference import feeding
from mtl.inference.predict import TrainedModel, load
from mtl.inference.writers import WRITERS, Texts
from mtl.inference.writing import check_output, require_free, write_predictions
from mtl.signals import end_at_once
from tests.inference.shop import COLUMNS, as_texts, shop_rows, write_csv, write_parquet

ROOT = Path(__file__).parents[2]
NO_LISTS = Texts({}, frozenset())
ROWS = shop_rows(50, seed=9)
NAMES = [name for names in COLUMNS.values() for name in names]


@pytest.fixture(scope="module")
def model(shop: Path) -> TrainedModel:
    return load(shop / "run")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "ROWS", 8)  # so that files are written in seven parts


def read(path: Path) -> dict[str, list[Any]]:
    """A file of predictions, read by somebody else's code."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name].tolist() for name in file.files}
    if path.suffix == ".parquet":
        columns: dict[str, list[Any]] = pq.read_table(path).to_pydict()
        return columns
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_what_can_be_written() -> None:
    assert list(WRITERS) == [".csv", ".parquet", ".npz"]


@pytest.mark.parametrize("source", [write_csv, write_parquet])
@pytest.mark.parametrize("suffix", WRITERS)
def test_a_file_holds_what_memory_does(suffix: str, source: Any, model: TrainedModel, tmp_path: Path) -> None:
    data = source(tmp_path / ("in.csv" if source is write_csv else "in.parquet"), ROWS)
    output = tmp_path / f"out{suffix}"
    assert write_predictions(model, str(data), str(output), keep=["id", "city", "y"]) == 50
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([data.name, output.name])
    found = read(output)
    assert list(found) == ["id", "city", "y", *NAMES]
    assert found["id"] == [row["id"] for row in ROWS]
    none = None if suffix == ".parquet" else ""
    assert found["city"] == [row["city"] or none for row in ROWS]
    numbers = [float("nan") if v in ("", None) else float(v) for v in found["y"]]
    np.testing.assert_array_equal(numbers, [np.nan if row["y"] is None else row["y"] for row in ROWS])
    expected = model.predict(data)
    for name, values in expected.items():
        if isinstance(values, list) and suffix == ".parquet":
            assert found[name] == values
        elif isinstance(values, list) or values.dtype == object:
            assert found[name] == as_texts(values)
        else:
            np.testing.assert_array_equal(np.array(found[name], dtype=values.dtype), values)


def test_the_types_of_a_parquet_file(model: TrainedModel, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "in.csv", ROWS)
    write_predictions(model, str(data), str(tmp_path / "out.parquet"))
    schema = pq.read_schema(tmp_path / "out.parquet")
    assert schema.names == NAMES
    types = {name: str(schema.field(name).type) for name in ("sort", "sort_p_red", "yes_p", "amount")}
    assert types == {"sort": "string", "sort_p_red": "float", "yes_p": "float", "amount": "double"}
    assert str(schema.field("tags").type).startswith("list<")


def test_a_csv_is_plain(model: TrainedModel, tmp_path: Path) -> None:
    rows = [{**ROWS[0], 'a "b", c': 'say "hi", you\nthere'}]
    data = write_csv(tmp_path / "in.csv", rows)
    write_predictions(model, str(data), str(tmp_path / "out.csv"), keep=['a "b", c'])
    text = (tmp_path / "out.csv").read_text(encoding="utf-8")
    assert text.startswith('"a ""b"", c",sort,sort_p_blue,')
    assert read(tmp_path / "out.csv")['a "b", c'] == ['say "hi", you\nthere']
    assert (
        pv.read_csv(tmp_path / "out.csv", parse_options=pv.ParseOptions(newlines_in_values=True)).num_rows
        == 1
    )


@pytest.mark.parametrize(
    ("keep", "names"),
    [
        (["id,city"], ["id", "city"]),
        (["id, city", "x"], ["id", "city", "x"]),
        (["id", "id,x"], ["id", "x"]),
        (["a,b"], ["a,b"]),  # a column of this name
        (['"a,b",id'], ["a,b", "id"]),
    ],
)
@pytest.mark.parametrize("source", [write_csv, write_parquet])
def test_commas_between_columns_to_keep(
    keep: list[str], names: list[str], source: Any, model: TrainedModel, tmp_path: Path
) -> None:
    data = source(tmp_path / f"in.{source.__name__[6:]}", [{**row, "a,b": "7"} for row in ROWS])
    write_predictions(model, str(data), str(tmp_path / "out.csv"), keep)
    found = read(tmp_path / "out.csv")
    assert list(found) == [*names, *NAMES]


def test_each_unknown_name_of_a_list_is_told(model: TrainedModel, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "in.csv", ROWS)
    for keep, name in ((["id,cty"], "'cty' (did you mean 'city'?)"), (["a\nb"], r"'a\nb'"), ([","], "','")):
        with pytest.raises(UserError) as caught:
            write_predictions(model, str(data), str(tmp_path / "out.csv"), keep)
        assert str(caught.value) == f"in.csv: no column {name}; --keep names columns of the input"


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_kept_label_stands_beside_its_prediction(suffix: str, model: TrainedModel, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "in.csv", ROWS)
    write_predictions(model, str(data), str(tmp_path / f"out{suffix}"), keep=["id", "yes"])
    found = read(tmp_path / f"out{suffix}")
    assert list(found) == ["id", "yes_given", *NAMES]
    assert found["yes_given"] == [row["yes"] for row in ROWS]
    assert found["yes"] == as_texts(model.predict(data)["yes"])


ODD = {
    "list": (pa.array([[1.5, 2.0], None, []]), ["[1.5, 2.0]", "", "[]"], ["[1.5, 2.0]", "", "[]"]),
    "words": (pa.array([["a", "b"], [], None]), ["a|b", "|", ""], ["a|b", "|", ""]),
    "truth": (pa.array([True, None, False]), ["true", "", "false"], [1.0, np.nan, 0.0]),
    "whole": (pa.array([1, None, 3]), ["1", "", "3"], [1.0, np.nan, 3.0]),
    "nothing": (pa.nulls(3), ["", "", ""], [np.nan] * 3),
    "dictionary": (pa.array(["u", None, "v"]).dictionary_encode(), ["u", "", "v"], ["u", "", "v"]),
    "large": (pa.array(["u", None, "v"], pa.large_string()), ["u", "", "v"], ["u", "", "v"]),
    "day": (pa.array([0, 1, None], pa.date32()), ["1970-01-01", "1970-01-02", ""], None),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_columns_of_any_type_are_carried_through(kind: str, model: TrainedModel, tmp_path: Path) -> None:
    array, in_csv, in_npz = ODD[kind]
    table = pa.table({"x": [0.5] * 3, "y": [0.5] * 3, "city": ["Rome"] * 3, "k": array})
    pq.write_table(table, tmp_path / "in.parquet")
    for suffix in WRITERS:
        write_predictions(model, str(tmp_path / "in.parquet"), str(tmp_path / f"out{suffix}"), keep=["k"])
    assert read(tmp_path / "out.csv")["k"] == in_csv
    assert read(tmp_path / "out.parquet")["k"] == array.to_pylist()
    if in_npz is not None:
        np.testing.assert_array_equal(read(tmp_path / "out.npz")["k"], in_npz)


def test_a_column_that_no_csv_can_hold(model: TrainedModel, tmp_path: Path) -> None:
    table = pa.table({"x": [0.5], "y": [0.5], "city": ["Rome"], "k": [{"a": 1}]})
    pq.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(UserError) as caught:
        write_predictions(model, str(tmp_path / "in.parquet"), str(tmp_path / "out.csv"), keep=["k"])
    assert str(caught.value) == "--keep: column 'k' holds struct<a: int64> values, which a CSV cannot hold"
    assert os.listdir(tmp_path) == ["in.parquet"]
    write_predictions(model, str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet"), keep=["k"])
    assert read(tmp_path / "out.parquet")["k"] == [{"a": 1}]


class Answers:
    """A model of another kind, for what plug-ins may predict."""

    def __init__(self, parts: list[dict[str, Any]]) -> None:
        self.parts = parts
        self.recipe = SimpleNamespace(tasks={})
        self.feed = SimpleNamespace(source=SimpleNamespace())

    def batches(
        self, data: Any, keep: Any = (), unseen: Any = None
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        yield from (({}, part) for part in self.parts)


@pytest.mark.parametrize("suffix", WRITERS)
def test_what_plug_ins_may_predict(suffix: str, tmp_path: Path) -> None:
    parts = [
        {
            "tags": [[], []],
            "box": np.zeros((2, 2), np.float32),
            "n": np.array([1, 2]),
            "word": np.array(["é", "a"]),
        },
        {
            "tags": [["a", 1]],
            "box": np.ones((1, 2), np.float32),
            "n": np.array([3]),
            "word": np.array(["longer"]),
        },
    ]
    answers: Any = Answers(parts)
    assert write_predictions(answers, "none", str(tmp_path / f"o{suffix}")) == 3
    found = read(tmp_path / f"o{suffix}")
    assert found["word"] == ["é", "a", "longer"]
    assert [int(n) for n in found["n"]] == [1, 2, 3]
    assert found["tags"] == ([[], [], ["a", "1"]] if suffix == ".parquet" else ["|", "|", "a|1"])
    boxes = [json.loads(box) if suffix == ".csv" else box for box in found["box"]]
    assert boxes == [[0, 0], [0, 0], [1, 1]]


# --- a file appears when it is whole, or not at all ---


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize(
    "fault", [OSError(28, "No space left on device"), KeyboardInterrupt(), UserError("", "bad")]
)
def test_what_breaks_off_leaves_nothing(
    fault: BaseException, suffix: str, model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_csv(tmp_path / "in.csv", ROWS)
    output = tmp_path / f"out{suffix}"
    output.write_bytes(b"as before")
    original = WRITERS[suffix].write
    calls = []

    def write(self: Any, columns: dict[str, Any]) -> None:
        calls.append(len(columns["yes"]))
        if len(calls) == 4:
            raise fault
        original(self, columns)

    monkeypatch.setattr(WRITERS[suffix], "write", write)
    expected = EnvironmentFault if isinstance(fault, OSError) else type(fault)
    with pytest.raises(expected) as caught:
        write_predictions(model, str(data), str(output))
    assert calls == [8] * 4
    if isinstance(fault, OSError):
        assert str(caught.value) == f"{output}: cannot write: no space left on device"
    assert output.read_bytes() == b"as before"
    assert sorted(os.listdir(tmp_path)) == sorted(["in.csv", output.name])


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_signal_to_the_command_leaves_nothing(
    suffix: str, model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it would else end the process at once."""
    data = write_csv(tmp_path / "in.csv", ROWS)
    original = WRITERS[suffix].write

    def write(self: Any, columns: dict[str, Any]) -> None:
        original(self, columns)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(WRITERS[suffix], "write", write)
    before = signal.signal(signal.SIGTERM, end_at_once)
    try:
        with pytest.raises(Terminated):
            write_predictions(model, str(data), str(tmp_path / f"out{suffix}"))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert os.listdir(tmp_path) == ["in.csv"]


def test_what_was_there_is_replaced(model: TrainedModel, tmp_path: Path) -> None:
    data, output = write_csv(tmp_path / "in.csv", ROWS), tmp_path / "out.csv"
    output.write_text("old", encoding="utf-8")
    write_predictions(model, str(data), str(output))
    assert len(read(output)["yes"]) == 50


@pytest.mark.parametrize(
    ("output", "keep", "fault", "text"),
    [
        ("out.txt", [], UserError, "--output: 'out.txt' is none of .csv, .parquet, .npz"),
        ("out", [], UserError, "--output: 'out' is none of .csv, .parquet, .npz"),
        ("d.csv", [], UserError, "--output: 'd.csv' is a directory"),
        ("in.csv", [], UserError, "--output: 'in.csv' is the input; give another name"),
        ("d.csv/../in.csv", [], UserError, "--output: 'd.csv/../in.csv' is the input; give another name"),
        ("out.csv", ["yes", "yes_given"], UserError,
         "--keep: column 'yes' is the name of a prediction, and 'yes_given' is taken too; "
         "keep one of the two, or rename a column of the input"),
        ("out.csv", ["idd"], UserError,
         "in.csv: no column 'idd' (did you mean 'id'?); --keep names columns of the input"),
        ("no/such/out.csv", [], EnvironmentFault, "no/such/out.csv: cannot write: no such file or directory"),
        ("in.csv/out.npz", [], EnvironmentFault, "in.csv/out.npz: cannot write: not a directory"),
    ],
)  # fmt: skip
def test_what_cannot_be_written(
    output: str, keep: list[str], fault: type[UserError], text: str, model: TrainedModel, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write_csv(Path("in.csv"), [{**row, "yes_given": 1} for row in ROWS])
    Path("d.csv").mkdir()
    with pytest.raises(fault) as caught:
        write_predictions(model, "in.csv", output, keep)
    assert type(caught.value) is fault
    assert str(caught.value) == text
    assert sorted(os.listdir()) == ["d.csv", "in.csv"]


def test_a_table_without_rows(model: TrainedModel, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("x,y,city\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"^in\.csv: no rows$"):
        write_predictions(model, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"))
    assert os.listdir(tmp_path) == ["in.csv"]


# --- memory ---

MEASURE = """
import re, sys
from mtl.data.files.formats import csv
from mtl.inference.predict import load
from mtl.inference.writing import write_predictions

run, output, *inputs = sys.argv[1:]
csv.BLOCK = 1 << 18  # the reader of CSVs is up to 32 blocks ahead
model = load(run)
for data in inputs:
    n_rows = write_predictions(model, data, output)
    status = open("/proc/self/status").read()
    print(n_rows, re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])
"""


def peaks(run: Path, output: Path, *inputs: Path) -> list[tuple[int, int]]:
    """Rows, and the largest memory so far in kB, after predicting for each file in one process."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, (run, output, *inputs))],
        capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"},
    )  # fmt: skip
    found = [line.split() for line in done.stdout.splitlines()]
    return [(int(n_rows), int(peak)) for n_rows, peak in found]


def many_rows(path: Path, n: int) -> Path:
    rng = np.random.default_rng(0)
    columns = {
        "x": rng.standard_normal(n),
        "y": rng.standard_normal(n),
        "city": np.resize(["Bern", "Oslo"], n),
    }
    if path.suffix == ".csv":
        pv.write_csv(pa.table(columns), path)
    else:
        pq.write_table(pa.table(columns), path, row_group_size=50_000)
    return path


SIZES = {
    "quick": ("in.parquet", ".csv", 20_000, 200_000),
    **{f"Parquet to {suffix}": ("in.parquet", suffix, 50_000, 500_000) for suffix in WRITERS},
    "CSV to .csv": (
        "in.csv",
        ".csv",
        500_000,
        1_000_000,
    ),  # both larger than the 16 MB that are parsed at once
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "case", ["quick", *(pytest.param(name, marks=pytest.mark.slow) for name in SIZES if name != "quick")]
)
def test_memory_does_not_grow_with_rows(case: str, shop: Path, tmp_path: Path) -> None:
    """All rows at once would take 330 bytes each as inputs and predictions."""
    source, suffix, few, many = SIZES[case]
    files = [many_rows(tmp_path / f"{n}{source}", n) for n in (few, many)]
    (n_before, before), (n_after, after) = peaks(shop / "run", tmp_path / f"out{suffix}", *files)
    assert (n_before, n_after) == (few, many)
    assert after - before < 0.1 * (many - few), (before, after)  # kB: 100 bytes a row


def test_an_output_takes_the_place_of_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "old.csv").write_text("a\n1\n")
    (tmp_path / "link.csv").symlink_to("nowhere.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "null.csv").symlink_to("/dev/null")
    require_free(tmp_path / "new.csv", run, force=False)
    require_free(tmp_path / "old.csv", run, force=True)
    for path, force, said in (
        (tmp_path / "old.csv", False, "is there already; give another name, or --force"),
        (tmp_path / "link.csv", True, "is not a regular file; give another name"),
        (tmp_path / "pipe.csv", True, "is not a regular file; give another name"),
        (tmp_path / "null.csv", True, "is not a regular file; give another name"),
        (run / "metrics.csv", True, "is in the run folder; write it elsewhere"),
        (run / "plots" / "p.csv", False, "is in the run folder; write it elsewhere"),
    ):
        with pytest.raises(UserError) as error:
            require_free(path, run, force)
        assert str(error.value).endswith(said)


def test_a_name_that_an_archive_cannot_hold(tmp_path: Path) -> None:
    """A class of a task may have such a name, and its probability is a column."""
    longest = "p" * (2**16 - 1 - len(".npy"))
    for name, fits in ((longest, True), (longest + "p", False)):
        writer = WRITERS[".npz"](tmp_path / "out.npz", NO_LISTS)
        try:
            if fits:
                writer.write({name: np.ones(2)})
                writer.finish()
                assert np.load(tmp_path / "out.npz")[name].tolist() == [1.0, 1.0]
            else:
                with pytest.raises(
                    UserError, match=r"65532 bytes; an npz holds 65531; write \.csv or \.parquet"
                ):
                    writer.write({name: np.ones(2)})
        finally:
            writer.close()


RUN = ["=1+1", "+1+cmd", "-2+3", "@SUM(A1)", "\tx", "\rx", "=cmd|' /C calc'!A0"]
HARMLESS = ["a=1", "", "-5.25", "+7", "-1e9", "1,5", "'=1"]


def test_no_text_that_a_spreadsheet_would_run(model: TrainedModel, tmp_path: Path) -> None:
    """Texts get an apostrophe in front, names of columns too; numbers and all other texts stay as they are."""
    rows = [{**ROWS[0], "=note": text, "=n": str(-i)} for i, text in enumerate([*RUN, *HARMLESS])]
    data, output = write_parquet(tmp_path / "in.parquet", rows), tmp_path / "out.csv"
    write_predictions(model, str(data), str(output), keep=["=note", "=n"])
    plain = read(output)
    assert plain["=note"] == [*RUN, *HARMLESS]
    write_predictions(model, str(data), str(output), keep=["=note", "=n"], spreadsheet_safe=True)
    safe = read(output)
    assert safe["'=note"] == [*(f"'{text}" for text in RUN), *HARMLESS]
    assert safe["'=n"] == plain["=n"]
    assert {name: safe[name] for name in NAMES} == {name: plain[name] for name in NAMES}


@pytest.mark.parametrize("name", ["out.parquet", "out.npz"])
def test_only_a_csv_is_for_spreadsheets(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^--spreadsheet-safe: '{name}' is no \.csv; leave it out$"):
        check_output(name, "in.csv", spreadsheet_safe=True)


@pytest.mark.parametrize("name", ["self.csv", "loop/x.csv"])
def test_an_output_behind_a_circle_of_links(name: str, tmp_path: Path) -> None:
    (tmp_path / "self.csv").symlink_to("self.csv")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match=r"leads nowhere; give another name$"):
        require_free(tmp_path / name, tmp_path / "run", force=False)
