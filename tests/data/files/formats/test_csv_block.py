"""Records that are found at once must be those that a parser finds, one by one."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass

import pytest

from mtl.data.files.formats import csv_structure
from mtl.data.files.formats.csv_block import Block, plain_block
from mtl.data.files.formats.csv_structure import Checked, check_csv
from mtl.errors import UserError


@dataclass
class Content:
    content: bytes
    buffer: int = 1 << 18

    def stream(self) -> io.BufferedReader:
        return io.BufferedReader(io.BytesIO(self.content), self.buffer)


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (b"1,2\n3,45\n", Block(2, 9, 5)),
        (b"1,2\n3,45", Block(1, 4, 4)),
        (b"1,2\r\n3,4\r\n5\r", Block(2, 10, 5)),
        (b'"1","2,\r\n\r"\r\n3,"4', Block(1, 13, 13)),
        (b'"","1""2"\n"""",""\n', Block(2, 18, 10)),
        ("ä,ö\n".encode(), Block(1, 6, 6)),
        (b",\n", Block(1, 2, 2)),
    ],
)
def test_whole_records(part: bytes, block: Block) -> None:
    assert plain_block(part, ",", 2) == block


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"1,2",
        b"1\n2,3\n",
        b"1,2,3\n",
        b"1,2\n\n3,4\n",
        b"1,2\n1,\0\n",
        b"1,2\n3\r,4\n",
        b"1,2\r\r\n",
        b'1"2",3\n',
        b'"1"2,3\n',
        b'"1" ,3\n',
        b"1,2\n\xff,3\n",
    ],
)
def test_a_parser_must_look(part: bytes) -> None:
    assert plain_block(part, ",", 2) is None


def test_a_file_of_one_column_may_have_blank_lines() -> None:
    assert plain_block(b"1\n\n2\n", ",", 1) is None
    assert check_csv(Content(b"a\n1\n\n2\n3\n\n"), "t.csv", ",").n_rows == 3


def checked(content: Content) -> Checked | str:
    try:
        return check_csv(content, "t.csv", ",")
    except UserError as error:
        return str(error)


def test_any_text_is_checked_as_a_parser_checks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 texts, sound ones and faulty ones, with few bytes ahead, so that records cross the border of a part."""
    rng = random.Random(0)
    usual = ["1", "", "ab", "é", '"a,b"', '"a""b"', '""', '"a\nb"', '"\r"']
    odd = ['a"b', '"a"b', "\r", "\0", '"', " "]
    weights = [30] * len(usual) + [1] * len(odd)
    contents = []
    for _ in range(20_000):
        end = rng.choice(["\n", "\r\n"])
        widths = [3 if rng.random() < 0.99 else rng.randrange(5) for _ in range(12)]
        rows = [rng.choices(usual + odd, weights, k=width) for width in widths]
        text = "h,i,j" + end + end.join(",".join(row) for row in rows) + rng.choice(["", end])
        content = text.encode()
        if rng.random() < 0.02:
            content = content.replace("é".encode(), b"\xe9")
        contents.append(Content(content, rng.choice([8, 16, 64, 1 << 18])))
    found = []

    def looked(part: bytes, delimiter: str, width: int) -> Block | None:
        found.append(plain_block(part, delimiter, width))
        return found[-1]

    monkeypatch.setattr(csv_structure, "plain_block", looked)
    at_once = [checked(content) for content in contents]
    monkeypatch.setattr(csv_structure, "plain_block", lambda *_: None)
    assert at_once == [checked(content) for content in contents]
    assert sum(block is not None and block.n_records > 1 for block in found) > 10_000
    n_sound = sum(isinstance(result, Checked) for result in at_once)
    assert 5_000 < n_sound < 19_000
    assert len({result.split("; ")[0].split(": ")[1] for result in at_once if isinstance(result, str)}) > 5
