"""Each file of tests/bad/data/ is refused with the line beside it; a new case is a new pair of files.

A case is a table, and a `.txt` of the same name with what the answer contains. Its first line may be `args: ` and
overrides of the recipe. Names begin with the row of the table of bad data, if they are in it. Parquet files, and
tables that are large or no file at all, are made here.
"""

from __future__ import annotations

import decimal
import gzip
import importlib
import json
import os
import shlex
import shutil
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.assertions import Capture, Done, called, refused
from tests.support.recipes import write

BAD = Path(__file__).parent / "bad" / "data"
TABLES = sorted(path for path in BAD.iterdir() if path.suffix != ".txt")
ROWS = {"D1", "D2", "D4", "D5", "D6", "D7", "D8", "D9", "D12", "D13", "D16", "D17", "D19", "D27"}
"""Those of the table of bad data that are refused; D3, D18 and D26 are accepted."""
INPUTS = {"numeric": ["x", "z"], "categorical": ["c"]}


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """What an import takes is no part of a case."""
    importlib.import_module("mtl.experiment.run")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_recipe(folder: Path, path: str) -> None:
    source = {"kind": "table", "path": path, "inputs": INPUTS}
    task = {"it": {"kind": "multiclass", "target": "label"}}
    write(folder, data={"source": source, "split": {"test": 0.25}}, tasks=task, train__batch_size=4)


def case_of(path: Path) -> tuple[list[str], list[str]]:
    """Overrides of the recipe, and what each line of the answer contains."""
    lines = path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    overrides = shlex.split(lines.pop(0).removeprefix("args: ")) if lines[0].startswith("args: ") else []
    return overrides, lines


def numbered(**columns: object) -> pa.Table:
    """Eight rows that are sound but for the columns given."""
    sound = {
        "x": [i / 2 for i in range(8)],
        "z": list(range(8)),
        "c": list("rbrbrbrb"),
        "label": list("abababab"),
    }
    return pa.table(sound | columns)


def test_the_cases_are_found_in_pairs() -> None:
    assert len(TABLES) >= 110
    assert sorted(path.with_suffix(".txt") for path in TABLES) == sorted(BAD.glob("*.txt"))
    assert {path.stem.split("-")[0] for path in TABLES} >= ROWS
    assert all(len(case_of(path)[1]) == 1 for path in TABLES)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_bad_table(path: Path, folder: Path, capsys: Capture) -> None:
    name = f"train{path.suffix}"
    shutil.copy(path, folder / name)
    write_recipe(folder, name)
    overrides, expected = case_of(path)
    refused(lambda: called(capsys, "run", "r.yaml", *overrides), folder, expected)


def test_in_a_process_of_its_own(folder: Path, run_mtl: Callable[..., Done]) -> None:
    """With the time that importing torch takes, which is no part of the cases above."""
    path = BAD / "D5-short.csv"
    shutil.copy(path, folder / "train.csv")
    write_recipe(folder, "train.csv")
    done = run_mtl("run", "r.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {case_of(path)[1][0]}\n"
    assert sorted(path.name for path in folder.iterdir()) == ["r.yaml", "train.csv"]


def test_a_sound_table_is_not_refused(folder: Path, capsys: Capture) -> None:
    """Else every case above could be refused for the recipe."""
    for name in ("train.csv", "train.parquet"):
        write_recipe(folder, name)
        if name.endswith(".csv"):
            lines = (f"{i / 2},{i},{'rb'[i % 2]},{'ab'[i * i // 7 % 2]}\n" for i in range(120))
            text = "x,z,c,label\n" + "".join(lines)
            (folder / name).write_text(text, encoding="utf-8")
        else:
            whole = pa.concat_tables([numbered()] * 15)  # rows of which none repeats another
            n = whole.num_rows
            whole = whole.set_column(0, "x", pa.array(range(n), pa.float64()))
            labels = pa.array(["ab"[i * i // 7 % 2] for i in range(n)])  # which no input tells
            pq.write_table(whole.set_column(3, "label", labels), folder / name)
        done = called(capsys, "run", "r.yaml", "--quiet")
        assert (done.returncode, done.stderr) == (0, "")


# --- files that are no table ---

HEAD = "x,z,c,label\n"


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content, encoding="utf-8")


def raw(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def parquet(table: pa.Table, compression: str = "snappy") -> Callable[[Path], object]:
    return lambda path: pq.write_table(table, path, compression=compression)


def beside(path: Path) -> None:
    text("x\n1\n")(path.with_name("train.csv"))


def truncated(path: Path) -> None:
    pq.write_table(numbered(), path)
    path.write_bytes(path.read_bytes()[:-20])


def damaged(path: Path) -> None:
    """Rows overwritten, the footer left as it was."""
    pq.write_table(numbered(), path)
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 60 + content[64:])


TWICE = numbered().append_column("x", numbered()["z"])
LONG = "r" * 131_073
FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    # what it is: its name, how it is made, the message after `data.source`
    "no such file": ("trian.csv", beside, ".path: ... trian.csv: no such file (did you mean 'train.csv'?)"),
    "a folder": ("train.csv", Path.mkdir, ".path: ... train.csv: is a directory"),
    "a pipe": ("train.csv", os.mkfifo, ".path: ... train.csv: is not a regular file"),
    "of another kind": (
        "train.xlsx",
        Path.touch,
        ".path: ... train.xlsx: a table is one of .csv, .tsv, .txt, .parquet, .pq, .npz, not '.xlsx'; "
        "save the sheet as CSV or Parquet",
    ),
    "no suffix": ("train", Path.touch, ".path: ... train: a table is one of"),
    "CSV named .parquet": (
        "train.parquet",
        text("x,z\n1,2\n"),
        ": train.parquet: is not a Parquet file (Parquet magic bytes not found in footer",
    ),
    "Parquet named .csv": (
        "train.csv",
        parquet(numbered(), "none"),
        ": train.csv:row 1: ... it is a Parquet file: name it .parquet",
    ),
    "gzip named .csv": (
        "train.csv",
        raw(gzip.compress(b"x,z,c,label\n1,2,r,a\n", mtime=0)),
        ": train.csv:row 1: not UTF-8 text (byte 0x8b); it is gzipped: unpack it",
    ),
    "spreadsheet named .csv": (
        "train.csv",
        raw(b"PK\x03\x04\x14\0\x08"),
        ": train.csv:row 1: holds a NUL byte; it is a zip archive or a spreadsheet: save it as CSV",
    ),
    "empty Parquet": (
        "train.parquet",
        Path.touch,
        ": train.parquet: is not a Parquet file (Parquet file size is 0",
    ),
    "truncated Parquet": ("train.parquet", truncated, ": train.parquet: is not a Parquet file ("),
    "damaged Parquet": ("train.parquet", damaged, ": train.parquet: cannot be read to its end ("),
    "D9 Parquet": ("train.parquet", parquet(numbered().slice(0, 0)), ": train.parquet: no rows"),
    "Parquet without columns": (
        "train.parquet",
        parquet(pa.table({})),
        ".inputs.numeric[0]: train.parquet: no column 'x'; columns: ",
    ),
    "D2 Parquet": (
        "train.parquet",
        parquet(TWICE),
        ": train.parquet: column 'x' appears twice; rename one of them",
    ),
    "D7 a long field": (
        "train.csv",
        text(f"{HEAD}1,2,{LONG},a\n"),
        ": train.csv:row 2: a field is longer than 131072 characters; maybe a quote is never closed",
    ),
    "D7 a long field of Parquet": (
        "train.parquet",
        parquet(numbered(c=[*"abcdefg", LONG])),
        ": train.parquet:row 7, column 'c': holds 131073 characters, at most 131072",
    ),
    "D6 a quote that swallows the rest": (
        "train.csv",
        text(f'{HEAD}1,2,r,a\n1,2,"r,a\n' + "1,2,r,a\n" * 40_000),
        ": train.csv:row 3: a field is longer than 131072 characters; maybe a quote is never closed",
    ),
    "more values than a category may have": (
        "train.csv",
        text(HEAD + "".join(f"1,2,{i},a\n" for i in range(100_001))),
        ": column 'c' has more than 100000 distinct values; is it an id, a number or free text?",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_bad_file(case: str, folder: Path, capsys: Capture) -> None:
    name, make, expected = FILES[case]
    make(folder / name)
    write_recipe(folder, name)
    if (folder / name).is_fifo():  # `refused` cannot read its bytes either
        assert "is not a regular file" in called(capsys, "run", "r.yaml").stderr
        (folder / name).unlink()
        (folder / name).symlink_to("/dev/zero")  # nor these, without end
        assert "is not a regular file" in called(capsys, "run", "r.yaml").stderr
    else:
        refused(lambda: called(capsys, "run", "r.yaml"), folder, [f"data.source{expected}"])


# --- types of Parquet that do not fit ---

OFFSETS = b"".join(i.to_bytes(4, "little") for i in range(9))
INVALID = pa.Array.from_buffers(pa.string(), 8, [None, pa.py_buffer(OFFSETS), pa.py_buffer(b"ab\xffdefgh")])
MOMENT = datetime(2024, 3, 1, 12)
TYPES: list[tuple[str, pa.Array, str]] = [
    # column, values, the message after `train.parquet:`; x is read as a number, c as a category, v as a vector
    ("x", pa.array([MOMENT] * 8), "column 'x' holds dates or times, not numbers"),
    ("x", pa.array([date(2024, 3, 1)] * 8), "column 'x' holds dates or times, not numbers"),
    ("x", pa.array([[1.0]] * 8), "column 'x' holds lists, not numbers"),
    ("x", pa.array([[1.0]] * 8, pa.list_(pa.float32(), 1)), "column 'x' holds lists, not numbers"),
    ("x", pa.array([{"a": 1}] * 8), "column 'x' holds compound values, not numbers"),
    ("x", pa.array([[("a", 1)]] * 8, pa.map_(pa.string(), pa.int8())), "column 'x' holds compound values, not numbers"),
    ("x", pa.array([timedelta(1)] * 8), "column 'x' holds compound values, not numbers"),
    ("x", pa.array([time(3)] * 8), "row 0, column 'x': holds time64 values, not numbers"),
    ("x", pa.array([*"1234567", "x"]), "row 7, column 'x': 'x' is not a number"),
    ("x", pa.array([*"1234567", "x"], pa.large_string()), "row 7, column 'x': 'x' is not a number"),
    ("x", pa.array([*"1234567", "x"]).dictionary_encode(), "row 7, column 'x': 'x' is not a number"),
    ("x", pa.array([1.0, 2, 3, float("inf"), 5, 6, 7, 8]), "row 3, column 'x': inf is not a finite number"),
    ("x", pa.array([1.0, 2, 3, 1e39, 5, 6, 7, 8]), "row 3, column 'x': the number is too large for float32"),
    ("x", pa.array([decimal.Decimal("1e39")] * 8, pa.decimal256(50, 2)), "row 0, column 'x': the number is too large"),
    ("x", pa.array([1.0, 2, float("nan"), None, 5, 6, 7, 8]), "row 2, column 'x': the value is missing"),
    ("x", pa.nulls(8), "row 0, column 'x': the value is missing"),
    ("c", pa.array([["a"]] * 8), "row 0, column 'c': holds list values, not single ones"),
    ("c", pa.array([{"a": 1}] * 8), "row 0, column 'c': holds struct values, not single ones"),
    ("c", pa.array([b"r", b"\xff"] * 4), "row 1, column 'c': not UTF-8 text"),
    ("c", INVALID, "row 2, column 'c': not UTF-8 text"),
    ("c", pa.nulls(8, pa.string()), "column 'c' has no value in any training row"),
    ("label", pa.array([["a"], ["b"]] * 4), "row 0, column 'label': holds list values, not single ones"),
    ("label", pa.array([b"\xfe"] * 8), "row 0, column 'label': not UTF-8 text"),
    ("v", pa.array([1.0] * 8), "row 0, column 'v': holds number values, not lists of numbers"),
    ("v", pa.array([["1"]] * 8), "row 0, column 'v': holds lists of text values, not lists of numbers"),
    ("v", pa.array([[[1]]] * 8), "row 0, column 'v': holds lists of list values, not lists of numbers"),
    ("v", pa.array([[1], [1], [1, 2]] + [[1]] * 5), "row 2, column 'v': the vector has 2 numbers, the first one 1"),
    ("v", pa.array([[1], [1], None] + [[1]] * 5), "row 2, column 'v': the vector is missing"),
    ("v", pa.array([[1], [1], [None]] + [[1]] * 5), "row 2, column 'v': the vector holds a number that is missing"),
    ("v", pa.array([[1.0], [float("nan")]] * 4), "row 1, column 'v': the vector holds a number that is not finite"),
    ("v", pa.array([[]] * 8, pa.list_(pa.int64())), "row 0, column 'v': the vector is empty"),
]  # fmt: skip


@pytest.mark.parametrize(("column", "values", "expected"), TYPES)
def test_bad_type(column: str, values: pa.Array, expected: str, folder: Path, capsys: Capture) -> None:
    pq.write_table(numbered(**{column: values}), folder / "train.parquet")
    write_recipe(folder, "train.parquet")
    more = ["data.source.inputs.vector=[v]"] if column == "v" else []
    refused(lambda: called(capsys, "run", "r.yaml", *more), folder, [expected])


# --- what stays accepted ---


def trained(folder: Path, capsys: Capture, *overrides: str) -> tuple[dict[str, list[str]], str]:
    """The classes of each task of a run that ends well, and what it warned of."""
    done = called(capsys, "run", "r.yaml", "--out", "run", *overrides)
    assert done.returncode == 0, done.stderr
    record = json.loads((folder / "run" / "run.json").read_text(encoding="utf-8"))
    return record["model"]["outputs"], done.stderr


def test_words_of_other_programs_are_classes(folder: Path, capsys: Capture) -> None:  # D18
    words = ["NA", "null", "None", "nan", "NA", "null", "None", "nan"]
    text = "x,z,c,label\n" + "".join(f"{i},{i},{word},{word}\n" for i, word in enumerate(words))
    (folder / "train.csv").write_text(text, encoding="utf-8")
    write_recipe(folder, "train.csv")
    outputs, _ = trained(folder, capsys)
    assert outputs == {"it": ["NA", "None", "nan", "null"]}


def test_an_id_among_the_inputs_is_warned_of(folder: Path, capsys: Capture) -> None:  # D26
    text = "x,z,c,label\n" + "".join(f"{16_777_214 + i},{i},r,{'ab'[i % 2]}\n" for i in range(8))
    (folder / "train.csv").write_text(text, encoding="utf-8")
    write_recipe(folder, "train.csv")
    _, warnings = trained(folder, capsys)
    # 2^24 + 1 is the first that float32 cannot hold, in the fourth row after the header
    assert (
        "train.csv:row 5, column 'x': float32 cannot hold this whole number exactly; is it an id" in warnings
    )
    assert warnings.count("float32") == 1


def test_a_label_that_is_missing_is_masked(folder: Path, capsys: Capture) -> None:  # D19
    text = "x,z,c,label\n" + "".join(f"{i},{i},r,{'ab'[i % 2] if i % 3 else ''}\n" for i in range(12))
    (folder / "train.csv").write_text(text, encoding="utf-8")
    write_recipe(folder, "train.csv")
    outputs, _ = trained(folder, capsys, "tasks.it.missing=mask")
    assert outputs == {"it": ["a", "b"]}


@pytest.mark.parametrize(
    ("labels", "rows", "warning"),
    [
        (["cat", "cat ", "dog", "cow"], 24, "task 'it': classes 'cat' and 'cat ' differ in case or spaces only"),
        (["Cat", "dog", "cat", "cow"], 24, "task 'it': classes 'Cat' and 'cat' differ in case or spaces only"),
        (["big cat", "big  cat", "dog"], 24, "task 'it': classes 'big  cat' and 'big cat' differ in case or"),
        ([f"{i}.5" for i in range(30)], 120, "task 'it': its 30 classes are numbers such as 0.5; kind: regression"),
        ([f"i{i}" for i in range(80)], 80, "task 'it': 60 of 60 rows of train have a class of their own; is it an id?"),
        (["cat", "dog", "catdog"], 24, ""),
        (["0.5", "1.0", "1.5", "2"], 24, ""),  # half stars
        ([str(i) for i in range(30)], 120, ""),
        ([f"i{i}" for i in range(4)], 80, ""),
    ],
    ids=["space", "case", "inner space", "fractions", "id", "words", "half stars", "whole numbers", "few classes"],
)  # fmt: skip
def test_classes_that_may_not_be_meant(
    labels: list[str], rows: int, warning: str, folder: Path, capsys: Capture
) -> None:
    lines = [f"{i},{i},r,{labels[i % len(labels)]}\n" for i in range(rows)]
    (folder / "train.csv").write_text("x,z,c,label\n" + "".join(lines), encoding="utf-8")
    write_recipe(folder, "train.csv")
    _, said = trained(folder, capsys)
    apart = ("no row of train has", "its results are rough")
    others = [line for line in said.splitlines() if not any(text in line for text in apart)]
    assert len(others) == bool(warning), said
    assert warning in said
