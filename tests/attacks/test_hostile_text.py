"""No text of a file reaches the terminal with characters that it would obey, and none breaks a line in two."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import numpy as np
import pytest

from mtl import console
from mtl.errors import OK, USER, printable
from tests.support.assertions import Capture, called
from tests.support.recipes import around, write

ESCAPES = {
    "colour": "\x1b[31m",
    "title": "\x1b]0;owned\x07",
    "bell": "a\x07",
    "backspace": "error\x08\x08\x08\x08\x08ok",
    "carriage_return": "error\rok",
    "line_end": "a\nerror: b",
    "separator": "a\u2028b",
    "reversed": "a\u202eb",
    "c1": "a\x9b31m",
    "nul": "a\x00b",
    "half": "a\ud800b",
}


def escapes(*without: str) -> pytest.MarkDecorator:
    """Every evil text but those that the place cannot hold at all."""
    assert set(without) <= set(ESCAPES)
    kept = {name: text for name, text in ESCAPES.items() if name not in without}
    return pytest.mark.parametrize("evil", kept.values(), ids=kept)


every_escape = escapes()
N = 24
X, Y = np.random.default_rng(0).standard_normal((N, 3)).astype(np.float32), np.arange(N) % 2


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mtl.report.plots.plot_run", lambda *_: [])
    return tmp_path


def one_clean_line(capsys: Capture, *arguments: str) -> str:
    done = called(capsys, *arguments)
    assert done.returncode == USER
    assert done.stdout == ""
    assert done.stderr.endswith("\n")
    (line,) = done.stderr[:-1].split("\n")
    assert line.startswith("error: ")
    assert line.isprintable(), line
    return line


@every_escape
def test_printable(evil: str) -> None:
    text = f"x {evil} y\nsecond line"
    shown = printable(text)
    assert shown.replace("\n", "").isprintable()
    assert codecs.decode(shown, "unicode_escape") == text, "nothing is lost"
    assert printable(shown) == shown


def test_what_is_printable_stays_as_it_is() -> None:
    for text in ("größe 日本 🙂", "a\nb", ""):
        assert printable(text) is text
    assert printable("\x1b[31m\t\x7f\u202e") == "\\x1b[31m\\t\\x7f\\u202e"


@pytest.mark.parametrize("write", [console.say, console.complain])
def test_everything_that_is_printed_is_printable(write: object, capsys: Capture) -> None:
    assert callable(write)
    write("\x1b[31m red\nsecond\x07")
    out, err = capsys.readouterr()
    assert out + err == "\\x1b[31m red\nsecond\\x07\n"


@every_escape
def test_names_of_a_tables_columns(evil: str, folder: Path, capsys: Capture) -> None:
    """A CSV that cannot hold the text is refused in one clean line as well."""
    head = ["x", f'"{evil}"', "other"]
    body = [f"{i},{i},{i % 2}" for i in range(N)]
    (folder / "t.csv").write_bytes("\n".join([",".join(head), *body]).encode("utf-8", "surrogatepass"))
    source: dict[str, object] = {"kind": "table", "path": "t.csv", "inputs": {"numeric": ["x"]}}
    write(folder, **around(source))
    one_clean_line(capsys, "run", "r.yaml")
    write(folder, **around(source | {"inputs": {"numeric": ["y"]}}))
    one_clean_line(capsys, "run", "r.yaml")


@escapes("half")
def test_values_of_a_table(evil: str, folder: Path, capsys: Capture) -> None:
    rows = [f'"{evil if i == 5 else i}",{i % 2}' for i in range(N)]
    (folder / "t.csv").write_text("\n".join(["x,label", *rows]), encoding="utf-8", newline="")
    write(folder, **around({"kind": "table", "path": "t.csv", "inputs": {"numeric": ["x"]}}))
    one_clean_line(capsys, "run", "r.yaml")
    rows = [f'{i},"{evil if i == 5 else i % 2}"' for i in range(N)]
    (folder / "t.csv").write_text("\n".join(["x,label", *rows]), encoding="utf-8", newline="")
    write(folder, **around({"kind": "table", "path": "t.csv", "inputs": {"numeric": ["x"]}}, task={
        "kind": "multiclass", "target": "label", "classes": ["0", "1"],
    }))  # fmt: skip
    one_clean_line(capsys, "run", "r.yaml")


@escapes("nul", "half")
def test_names_of_arrays(evil: str, folder: Path, capsys: Capture) -> None:
    np.savez(folder / "d.npz", **{"inputs": X, evil: Y})
    write(folder, **around({"kind": "npz", "path": "d.npz"}))
    assert "no label column 'label'" in one_clean_line(capsys, "run", "r.yaml")
    write(folder, **around({"kind": "npz", "path": "d.npz", "inputs": "nothing"}))
    assert "no array 'nothing'" in one_clean_line(capsys, "run", "r.yaml")


@every_escape
def test_labels_of_arrays(evil: str, folder: Path, capsys: Capture) -> None:
    np.savez(folder / "d.npz", inputs=X, label=np.array(["a", evil])[Y])
    write(folder, **around({"kind": "npz", "path": "d.npz"}, task={
        "kind": "multiclass", "target": "label", "classes": ["a", "b"],
    }))  # fmt: skip
    one_clean_line(capsys, "run", "r.yaml")


@escapes("half")
def test_paths_of_images(evil: str, folder: Path, capsys: Capture) -> None:
    rows = [f'"{evil}",{i % 2}' for i in range(N)]
    (folder / "t.csv").write_text("\n".join(["x,label", *rows]), encoding="utf-8", newline="")
    write(folder, **around({"kind": "table", "path": "t.csv", "inputs": {"image": {"column": "x"}}}))
    one_clean_line(capsys, "run", "r.yaml")


@every_escape
def test_a_path_in_a_recipe(evil: str, folder: Path, capsys: Capture) -> None:
    for kind in ("npz", "table", "fashion_mnist", "face_embeddings", "overlaid_garments"):
        own: dict[str, object] = {"inputs": {"numeric": ["x"]}} if kind == "table" else {}
        suffix = {"npz": ".npz", "table": ".csv"}.get(kind, "")
        write(folder, **around({"kind": kind, "path": evil + suffix, **own}))
        one_clean_line(capsys, "run", "r.yaml")


@escapes("half")
def test_a_description_and_the_classes_of_a_good_run(evil: str, folder: Path, capsys: Capture) -> None:
    np.savez(folder / "d.npz", inputs=X, label=np.array(["a", evil])[Y])
    path = write(folder, **around({"kind": "npz", "path": "d.npz"}))
    path.write_text(path.read_text() + f"description: {json.dumps(evil)}\n")
    done = called(capsys, "run", "r.yaml", "--out", "out")
    assert done.returncode == OK, done.stderr
    assert (done.stdout + done.stderr).replace("\n", "").isprintable()
    assert json.loads((folder / "out" / "run.json").read_text())["classes"]["a"] == sorted(["a", evil])
