"""How long files and functions are, and how many files lie in a folder: `python -m tests.support.sizes` prints it."""

from __future__ import annotations

import ast
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LONGEST_FILE, MOST_FILES = 300, 12
FIRST_HOUSE = {"file": (132, 258, 419), "function": (7, 23, 65)}
"""Median, 90th percentile and maximum before the files were moved into rooms."""


@dataclass(frozen=True)
class Sizes:
    """What was counted.

    Args:
        files: lines of each file.
        functions: lines of each function, as (file, name).
        folders: Python files in each folder.
    """

    files: dict[str, int]
    functions: dict[tuple[str, str], int]
    folders: dict[str, int]


def measured() -> Sizes:
    """All Python files of the package, those behind the link to tasks/ too."""
    files: dict[str, int] = {}
    functions: dict[tuple[str, str], int] = {}
    folders: dict[str, int] = {}
    for folder, _, names in os.walk(ROOT / "mtl", followlinks=True):
        python = [name for name in sorted(names) if name.endswith(".py")]
        if python:
            folders[str(Path(folder).relative_to(ROOT))] = len(python)
        for name in python:
            path = Path(folder, name)
            shown, text = str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
            files[shown] = len(text.splitlines())
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    functions[shown, f"{node.name}:{node.lineno}"] = (node.end_lineno or 0) - node.lineno + 1
    return Sizes(files, functions, folders)


def spread(lengths: Sequence[int]) -> tuple[int, int, int]:
    """Median, 90th percentile and maximum."""
    ordered = sorted(length for length in lengths if length)
    return ordered[len(ordered) // 2], ordered[len(ordered) * 9 // 10], ordered[-1]


def main() -> None:
    """Print the spread of lengths beside what it was, and what is longest."""
    sizes = measured()
    lines = {"file": list(sizes.files.values()), "function": list(sizes.functions.values())}
    print("lines       median  90%  longest   before")
    for what, lengths in lines.items():
        median, ninety, longest = spread(lengths)
        before = "/".join(map(str, FIRST_HOUSE[what]))
        print(f"{what:<10} {median:>7} {ninety:>4} {longest:>8}   {before}")
    print(f"files in a folder: at most {max(sizes.folders.values())}, of {len(sizes.folders)} folders")
    for name, length in sorted(sizes.files.items(), key=lambda item: -item[1])[:5]:
        print(f"{length:>5} lines  {name}")
    for (file, name), length in sorted(sizes.functions.items(), key=lambda item: -item[1])[:5]:
        print(f"{length:>5} lines  {file} {name}")
    for folder, count in sorted(sizes.folders.items(), key=lambda item: -item[1])[:3]:
        print(f"{count:>5} files  {folder}")


if __name__ == "__main__":
    main()
