"""What the reader of recipes accepts, with its places; and every text that it refuses, by the message.

A file of tests/bad/text/ is such an input, and the .txt beside it a part of the line that it must give. The
codes in front (R7, R12, ...), also those in comments here, are explained in docs/reliability.md.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtl.errors import USER, KeyPath, Place, UserError
from mtl.recipe.text import yaml as reader
from mtl.recipe.text.yaml import Document, place_of, read_bytes, read_file, read_value

ROOT = Path(__file__).parents[3]
BAD = sorted((ROOT / "tests" / "bad" / "text").glob("*.yaml"))
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
N_BAD = 88

SHORT = """\
# a comment
name: short
tasks:
  a: {kind: binary, groups: {"x y": [1, 2]}}
  'b':
    - 1e-3
    - |
      text
optimizer: {kind: sgd, lr: 0.1}
"""


def fault(data: bytes | str) -> str:
    """The message for a text that must be refused; one printable line."""
    with pytest.raises(UserError) as caught:
        read_bytes(data.encode() if isinstance(data, str) else data, "r.yaml")
    assert caught.value.code == USER
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 250
    return text


def value_of(text: str) -> Any:
    return read_bytes(f"a: {text}\n".encode(), "r.yaml").value["a"]


# --- what is refused ---


def test_the_bad_texts_are_found_in_pairs() -> None:
    assert len(BAD) >= N_BAD
    assert [path.with_suffix(".txt") for path in BAD] == sorted(BAD[0].parent.glob("*.txt"))


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_text(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = path.with_suffix(".txt").read_text(encoding="utf-8").removesuffix("\n")
    assert expected
    assert expected in fault(path.read_bytes())
    assert os.listdir(tmp_path) == []  # the marker of R18


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: " + "[" * 5000, "r.yaml:1:35: nested deeper than 32"),
        ("a: [" + "[" * 31 + "]" * 32, "r.yaml:1:35: nested deeper than 32"),
        ("".join(" " * i + "a:\n" for i in range(40)), "r.yaml:33:33: nested deeper than 32"),
        ("a: " + "[{b: " * 3000, "r.yaml:1:80: nested deeper than 32"),
    ],
    ids=["unclosed", "closed", "indented", "mixed"],
)
def test_depth_is_capped(text: str, expected: str) -> None:  # R23
    assert fault(text) == expected


def test_32_levels_are_read() -> None:
    value: tuple[Any, ...] = ()
    for _ in range(30):
        value = (value,)
    assert value_of("[" * 31 + "]" * 31) == value


def test_the_number_of_values_is_capped() -> None:  # R24; the top and the keys count
    lines = [f"k{i}: 1" for i in range(30_000)]
    assert fault("\n".join(lines)) == "r.yaml:10000:8: more than 20000 values"
    assert len(read_bytes("\n".join(lines[:9999]).encode(), "r.yaml").value) == 9999
    assert len(value_of("[" + "1," * 19_997 + "]")) == 19_997
    assert "more than 20000 values" in fault("a: [" + "1," * 19_998 + "]")


# --- files ---


def refused_file(path: Path, shown: str | None = "r.yaml") -> str:
    with pytest.raises(UserError) as caught:
        read_file(path, shown)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_missing_file(tmp_path: Path) -> None:  # R1
    assert refused_file(tmp_path / "r.yaml") == "r.yaml: no such file"
    assert refused_file(tmp_path / "none" / "r.yaml") == "r.yaml: no such file"
    (tmp_path / "recipe.yaml").touch()
    (tmp_path / "recipe.txt").touch()
    assert refused_file(tmp_path / "recip.yaml") == "r.yaml: no such file (did you mean 'recipe.yaml'?)"


def test_folder(tmp_path: Path) -> None:  # R2
    assert refused_file(tmp_path).startswith("r.yaml: is a directory")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # R3; root may read all
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "r.yaml").write_text("a: 1")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert refused_file(tmp_path / "r.yaml") == "r.yaml: permission denied"


def test_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # R5
    with open(tmp_path / "r.yaml", "wb") as file:
        file.truncate(2_097_155)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("the file was read"))
    expected = "r.yaml: file is 2097155 bytes; a recipe may have at most 1048576"
    assert refused_file(tmp_path / "r.yaml") == expected
    assert fault(b" " * 2_097_155) == expected


def test_other_things_than_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refused_file(tmp_path / "pipe") == "r.yaml: is not a regular file"
    (tmp_path / "file").touch()
    assert refused_file(tmp_path / "file" / "r.yaml") == "r.yaml: cannot be read (Not a directory)"
    assert refused_file(tmp_path / ("x" * 300)) == "r.yaml: cannot be read (File name too long)"


@pytest.mark.parametrize("name", ["a\nb.yaml", "\x1b[31m.yaml", "a\0.yaml", "\udce9.yaml", "\u2028.yaml"])
def test_a_name_that_would_spoil_the_line(name: str) -> None:
    assert ": the name has a character that cannot be printed" in refused_file(Path(name), None)


def test_the_name_shown_is_the_path_unless_another_is_given(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("a: 1")
    assert read_file(path).file == str(path)
    assert read_file(path, "r.yaml") == read_bytes(b"a: 1", "r.yaml")


# --- what is accepted ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("false", False),
        ("0", 0),
        ("-7", -7),
        ("+12", 12),
        (str(2**64), 2**64),
        *((text, 0.001) for text in ("1e-3", "1E-3", "1.e-3", ".001", "0.001", "+.1e-2")),  # R31
        ("1e3", 1000.0),
        ("1.", 1.0),
        ("-0.5", -0.5),
        ("2026-01-01", "2026-01-01"),
        ("12:00:00x", "12:00:00x"),
        ("1.2.3", "1.2.3"),
        ("1e", "1e"),
        (".", "."),
        ("-x", "-x"),
        ("nan", "nan"),
        ("yesterday", "yesterday"),
        ("x # comment", "x"),
        ("a\n  b", "a b"),
        ("'yes'", "yes"),
        ('"017"', "017"),
        ("'1'", "1"),
        ("''", ""),
        ('"\\u00e9\\n"', "é\n"),
        ("'<<'", "<<"),
        ("|\n  1\n  2\n", "1\n2\n"),
        (">-\n  x\n  y\n", "x y"),
        ("[]", ()),
        ("{}", {}),
        ("[1, [a, {b: c}]]", (1, ("a", {"b": "c"}))),
        ("\n- 1\n-\n- x: 2\n", (1, None, {"x": 2})),
        ("{'1': 2, \"no\": 3}", {"1": 2, "no": 3}),
        ("é 字 😀", "é 字 😀"),
        ("1" + "_" * 4000 + "x", "1" + "_" * 4000 + "x"),
    ],
)
def test_values(text: str, value: object) -> None:
    read = value_of(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfa: 1\nb: [x]\n",
        b"a: 1\r\nb: [x]\r\n",
        b"a: 1\rb: [x]",
        b"\xef\xbb\xbf---\r\na: 1\r\nb: [x]\r\n...\r\n",
        b"# a\na: 1\nb:\n- x\n",
    ],
    ids=["bom", "crlf", "cr", "bom-crlf-marks", "comment"],
)
def test_byte_order_marks_and_line_ends(data: bytes) -> None:  # R11
    assert read_bytes(data, "r.yaml").value == {"a": 1, "b": ("x",)}


def test_the_shipped_recipes_are_read() -> None:
    assert len(RECIPES) >= 5
    for path in RECIPES:
        assert isinstance(read_file(path).value["name"], str)


def test_each_value_has_its_place() -> None:
    document = read_bytes(SHORT.encode(), "r.yaml")
    expected: dict[KeyPath, tuple[int, int, int, int]] = {
        (): (2, 1, 2, 1),
        ("name",): (2, 1, 2, 7),
        ("tasks",): (3, 1, 4, 3),
        ("tasks", "a"): (4, 3, 4, 6),
        ("tasks", "a", "kind"): (4, 7, 4, 13),
        ("tasks", "a", "groups"): (4, 21, 4, 29),
        ("tasks", "a", "groups", "x y"): (4, 30, 4, 37),
        ("tasks", "a", "groups", "x y", 0): (4, 38, 4, 38),
        ("tasks", "a", "groups", "x y", 1): (4, 41, 4, 41),
        ("tasks", "b"): (5, 3, 6, 5),
        ("tasks", "b", 0): (6, 7, 6, 7),
        ("tasks", "b", 1): (7, 7, 7, 7),
        ("optimizer",): (9, 1, 9, 12),
        ("optimizer", "kind"): (9, 13, 9, 19),
        ("optimizer", "lr"): (9, 24, 9, 28),
    }
    found = {
        path: (mark.key.line, mark.key.column, mark.value.line, mark.value.column)
        for path, mark in document.marks.items()
    }
    assert found == expected
    assert {mark.value.file for mark in document.marks.values()} == {"r.yaml"}


def test_the_place_of_what_was_not_written_is_that_of_what_is_around_it() -> None:
    document = read_bytes(b"a: {b: 1}", "r.yaml")
    assert place_of(document.marks, ("a", "b", "c")) == Place("r.yaml", 1, 8)
    assert place_of(document.marks, ("x",)) == Place("r.yaml", 1, 1)
    assert place_of({}, ("x",)) == ""


# --- one value ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2),
        (" 1e-3 ", 0.001),
        ("x.npz", "x.npz"),
        ("/tmp/a b.npz", "/tmp/a b.npz"),
        ("null", None),
        ("''", ""),
        ("[a, 1]", ("a", 1)),
        ("{kind: sgd, lr: 0.1}", {"kind": "sgd", "lr": 0.1}),
        ("kind: sgd", {"kind": "sgd"}),
        ("a=b", "a=b"),
    ],
)
def test_one_value(text: str, value: object) -> None:
    assert read_value(text, Place("here")) == value


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "the value is missing; write null for none, or '' for an empty text"),
        ("  # nothing", "the value is missing"),
        ("yes", "ambiguous word 'yes'"),
        ("017", "the leading zero of '017' is ambiguous; write 17"),
        ("[1", "expected ',' or ']', but got '<stream end>'"),
        ("{a: 1, a: 2}", "key 'a' is given twice"),
        ("!!python/name:os.system", "tags (tag:yaml.org,2002:python/"),
        ("*x", "anchors and aliases are not allowed"),
        ("a\n---\nb", "more than one YAML document"),
        ("\x1b", "the character 0x1b is not allowed in YAML"),
        ("\udce9", "the character 0xdce9 is not allowed in YAML"),
        ("[" * 40, "nested deeper than 32"),
    ],
)
def test_one_bad_value(text: str, what: str) -> None:
    with pytest.raises(UserError) as caught:
        read_value(text, Place("here"))
    assert str(caught.value).startswith(f"here: {what}")


# --- load ---


@pytest.fixture
def _untraced() -> Iterator[None]:
    """Times are of the reader, not of the coverage that may be measured with it."""
    trace = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(trace)


@pytest.mark.usefixtures("_untraced")
@pytest.mark.parametrize(
    "data",
    [
        b"".join(b"k%05d: %s\n" % (i, b"x" * 90) for i in range(9998)),
        b"a: [" + b",".join([b"1" + b"_" * 4000 + b"x"] * 250) + b"]",  # was 21 s with a careless pattern
    ],
    ids=["20000 values", "long numbers"],
)
def test_a_megabyte_takes_less_than_2_seconds(data: bytes) -> None:  # L3
    assert 980_000 < len(data) <= reader.MAX_BYTES
    taken = []
    while len(taken) < 3 and min(taken, default=2.0) >= 2:  # a busy machine is slower, never faster
        start = time.process_time()
        read_bytes(data, "r.yaml")
        taken.append(time.process_time() - start)
    assert min(taken) < 2


NASTY = (
    b"\t _ \n _ \r _ \0 _ \x1b _ \xff _ \xef\xbb\xbf _ \xc2\x85 _ \xe2\x80\xa8 _ \xf0\x9f _ ' _ [ _ ] _ {"
    b' _ } _ , _ # _ - _ : _ ? _ " _ "\\U0011FFFF" _ "\\ud800" _ ---\n _ ...\n _ %YAML 1.1\n _ &a  _ *a'
    b" _ !!python/name:os  _ !<x>  _ <<:  _ |2\n _ >+\n _ 1_0 _ 017 _ 1:30 _ 1e999 _ .nan _ yes _ True _ ~"
)
PIECES = (*NASTY.split(b" _ "), b"k" * 300, b"[" * 40, b"9" * 30)


def mutated(text: bytes, draw: random.Random) -> bytes:
    for _ in range(draw.randint(1, 4)):
        i = draw.randrange(len(text) + 1)
        j = min(len(text), i + draw.randint(0, 12))
        new = draw.choice([b"", text[i:j] * 2, bytes([draw.randrange(256)]), *draw.choices(PIECES, k=3)])
        text = text[:i] + new + text[j:]
    return text


def outcome_of(data: bytes) -> Document | str:
    try:
        return read_bytes(data, "r.yaml")
    except UserError as error:
        return str(error)


@pytest.mark.usefixtures("_untraced")
def test_mutations_give_a_document_or_a_line() -> None:  # R34
    draw = random.Random(0)
    texts = [SHORT.encode()] * 40 + [path.read_bytes() for path in RECIPES]
    n_read, slowest = 0, 0.0
    n = 10_000
    for _ in range(n):
        data = mutated(draw.choice(texts), draw)
        start = time.process_time()
        outcome = outcome_of(data)
        slowest = max(slowest, time.process_time() - start)
        n_read += isinstance(outcome, Document)
        assert isinstance(outcome, Document) or (outcome.isprintable() and len(outcome) < 250), data
    assert n / 20 < n_read < n * 19 / 20  # both happen
    assert slowest < 0.1
