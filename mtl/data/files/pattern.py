"""Patterns of files below a folder, such as `year=*/part-*.parquet`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from mtl.errors import UserError, quoted

WILD = frozenset("*?[")
ANY_FOLDERS = "**"
LONGEST = 200
"""Most characters of a pattern; so many take no time to compare."""
IGNORED = ("_", ".")
"""What the names of files and folders begin with that are no data: `_SUCCESS`, `_metadata`, `.part-0.crc`."""


class Pattern:
    """Files below a folder: `*`, `?` and `[ab]` stand for characters of a name, and `**` for any number of folders.

    Names that begin with `_` or `.` fit no pattern.

    Args:
        parts: the names that lead from the folder to a file, each of which may be a pattern.

    Raises:
        UserError: the pattern is too long.
    """

    def __init__(self, parts: Iterable[str]) -> None:
        self.parts = tuple(parts)
        if len(text := "/".join(self.parts)) > LONGEST:
            raise UserError("", f"the pattern {quoted(text)} has more than {LONGEST} characters")
        self.start = self._with_none({0})

    def after(self, places: frozenset[int], name: str) -> frozenset[int]:
        """The places in the pattern that one more name leads to, from those that the folders above it led to."""
        if name.startswith(IGNORED):
            return frozenset()
        found = set()
        for place in places:
            if place < len(self.parts) and self.parts[place] == ANY_FOLDERS:
                found.add(place)
            elif place < len(self.parts) and fnmatchcase(name, self.parts[place]):
                found.add(place + 1)
        return self._with_none(found)

    def ends(self, places: frozenset[int]) -> bool:
        """Whether these places are the end of the pattern."""
        return len(self.parts) in places

    def fits(self, name: str) -> bool:
        """Whether a file fits: its path from the folder, with slashes."""
        places = self.start
        for part in name.split("/"):
            places = self.after(places, part)
        return self.ends(places)

    def _with_none(self, places: set[int]) -> frozenset[int]:
        """These places, and those behind `**`, since it may stand for no folder."""
        for place in sorted(places):
            while place < len(self.parts) and self.parts[place] == ANY_FOLDERS:
                place += 1
                places.add(place)
        return frozenset(places)


EVERYTHING = (ANY_FOLDERS, "*")
"""The pattern of all files below a folder."""
SUFFIXES = (".parquet", ".pq", ".parq", "")
"""How the names of Parquet files end; some programs write names without a suffix."""


def require_parquet(names: Sequence[str], place: str, of_folder: bool) -> None:
    """Refuse names of files that are not those of a Parquet data set.

    Args:
        names: the files that were found, by their paths from the folder of the data set.
        place: the data set in messages.
        of_folder: whether a whole folder was looked through, rather than for a pattern.

    Raises:
        UserError: there are none, or one is named as another kind of file.
    """
    others = [name for name in names if PurePosixPath(name).suffix.lower() not in SUFFIXES]
    if len(others) == len(names):
        what = "is a directory without Parquet files" if of_folder else "no Parquet file fits this pattern"
        raise UserError(place, what, path=("path",))
    if others:
        todo = "move it elsewhere, or give a pattern such as folder/*.parquet"
        raise UserError(place, f"{quoted(others[0])} is not named as a Parquet file", todo, path=("path",))


def is_pattern(path: str) -> bool:
    """Whether a path has a sign of a pattern."""
    return not WILD.isdisjoint(path)


def split_pattern(path: str) -> tuple[str, tuple[str, ...]]:
    """The folder of a path before its first name that is a pattern, and the names from there on."""
    parts = PurePosixPath(path).parts
    first = next((i for i, part in enumerate(parts) if is_pattern(part)), len(parts))
    return str(PurePosixPath(*parts[:first])), parts[first:]
