"""A pattern fits the files that `glob` finds, apart from names that are no data; it takes no time, whatever it is."""

from __future__ import annotations

import glob
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl.data.files.pattern import LONGEST, Pattern, is_pattern, split_pattern
from mtl.errors import UserError

FILES = (
    "a.parquet", "b.parquet", "sub/a.parquet", "sub/x.csv", "sub/deep/a.parquet", "year=2024/part-0.parquet",
    "year=2024/part-1.parquet", "year=2025/part-0.parquet", "year=2025/region=eu/part-0.parquet",
)  # fmt: skip
SIGNS = (
    "**",
    "*",
    "a*",
    "*.parquet",
    "year=*",
    "part-?.parquet",
    "[ab].parquet",
    "sub",
    "deep",
    "a.parquet",
    "*=*",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("rows")
    for name in FILES:
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).touch()
    return made


@given(st.lists(st.sampled_from(SIGNS), min_size=1, max_size=4).filter(lambda parts: parts[-1] != "**"))
def test_the_same_files_as_glob(folder: Path, parts: list[str]) -> None:
    found = glob.glob(os.path.join(*parts), root_dir=folder, recursive=True)
    expected = {name for name in found if (folder / name).is_file()}
    assert {name for name in FILES if Pattern(parts).fits(name)} == expected


@pytest.mark.parametrize(
    "name", ["_SUCCESS", "_metadata", ".x.crc", "_temporary/a.parquet", "sub/.hidden/a.parquet"]
)
def test_names_that_are_no_data(name: str) -> None:
    assert not Pattern(("**", "*")).fits(name)
    assert Pattern(("**", "*")).fits("sub/x_.parquet")


@pytest.mark.parametrize(
    ("path", "folder", "parts"),
    [
        ("rows/*.parquet", "rows", ("*.parquet",)),
        ("/d/rows/year=*/**/p.parquet", "/d/rows", ("year=*", "**", "p.parquet")),
        ("*.parquet", ".", ("*.parquet",)),
        ("/*/a", "/", ("*", "a")),
    ],
)
def test_the_folder_of_a_pattern(path: str, folder: str, parts: tuple[str, ...]) -> None:
    assert is_pattern(path)
    assert split_pattern(path) == (folder, parts)


def test_a_pattern_of_many_signs_takes_no_time() -> None:
    began = time.process_time()
    assert not Pattern(("**",) * 60 + ("b",)).fits("/".join("a" * 60))
    assert not Pattern(("*a" * 90 + "b",)).fits("a" * 1000)
    assert time.process_time() - began < 1


def test_a_long_pattern_is_refused() -> None:
    Pattern(("*" * LONGEST,))
    with pytest.raises(UserError, match=r"^the pattern '\*+\.\.\.' has more than 200 characters$"):
        Pattern(("*" * (LONGEST + 1),))
