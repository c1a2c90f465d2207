"""Finds the files of a Parquet data set: those below a folder, or those that fit a pattern."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from mtl.console import on_one_line
from mtl.data.files.opening import OpenFile, State, opened, shared, state_of
from mtl.data.files.pattern import EVERYTHING, Pattern, is_pattern, require_parquet, split_pattern
from mtl.errors import UserError

MOST_SEEN = 1_000_000
"""Most files and folders that are looked through for the files of a data set."""
HELD = 100
"""Most files that stay open between passes; of a larger data set each pass opens one file after the other."""
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""The name that Hive, Spark and pyarrow write for a missing value of a partition."""

Found = TypeVar("Found")


@dataclass(frozen=True)
class Part:
    """One file of a data set.

    Args:
        name: its path from the folder of the data set, with slashes.
        shown: its name in messages.
        path: where it lies.
        keys: the columns that its folders give it, as `year=2024/region=eu` does; None is a missing value.
    """

    name: str
    shown: str
    path: Path
    keys: tuple[tuple[str, str | None], ...]


class Parts:
    """The files of a data set, in the order of their names; it is used as `OpenFile` is.

    Args:
        path: a folder, or a pattern such as `rows/**/*.parquet`. Files and folders whose names begin with `_` or `.`
            do not count, as for pyarrow, and links to folders are not followed.

    Raises:
        UserError: no file fits, too many do, or a folder cannot be looked into.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder, self._pattern = _looked_through(path)
        below = "" if path.is_dir() else "/" + "/".join(self._pattern.parts)
        self.name = on_one_line(self.folder.absolute().name + below)
        names = self._names()
        require_parquet(names, on_one_line(str(path)), of_folder=path.is_dir())
        above = _trailing_keys(self.folder)
        self.files = tuple(self._part(name, above) for name in names)
        self._states: dict[str, State] = {}
        self._held: dict[str, OpenFile] = {}
        self._found: dict[Hashable, object] = {}

    def _part(self, name: str, above: list[str]) -> Part:
        folders = [*above, *name.split("/")[:-1]]
        shown = on_one_line(f"{self.folder.absolute().name}/{name}")
        return Part(name, shown, self.folder / name, tuple(_keys(folders)))

    @contextmanager
    def opened(self, part: Part) -> Iterator[OpenFile]:
        """One of the files, open inside.

        Raises:
            UserError: it cannot be opened, or was written to since it was opened first.
        """
        if part.name in self._held:
            yield self._held[part.name]
            return
        file = OpenFile(part.path)
        hold = len(self.files) <= HELD
        if hold:
            self._held[part.name] = file
        try:
            file.require_unchanged(self._states.setdefault(part.name, file.state))
            yield file
        finally:
            if not hold:
                file.close()

    def once(self, what: Hashable, find: Callable[[], Found]) -> Found:
        """The result of `find`, which is called only the first time that `what` is asked for."""
        if what not in self._found:
            self._found[what] = find()
        return self._found[what]  # type: ignore[return-value]

    @cached_property
    def digests(self) -> dict[str, str]:
        """The name of each file -> sha256 of its bytes, in hex."""
        found = {}
        for part in self.files:
            with self.opened(part) as file:
                found[part.name] = file.sha256
        return found

    @property
    def sha256(self) -> str:
        """sha256, in hex, over the names of all files, what their folders say, and their bytes."""
        digest = hashlib.sha256()
        for part in self.files:
            digest.update(repr((part.name, part.keys, self.digests[part.name])).encode())
        return digest.hexdigest()

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(part.path.stat().st_size for part in self.files)

    def is_at_its_path(self) -> bool:
        """Whether the path still leads to the same files, and nobody has written to those that were opened."""
        try:
            names = self._names()
            now = {name: state_of((self.folder / name).stat()) for name in self._states}
        except (OSError, UserError):
            return False
        return names == [part.name for part in self.files] and now == self._states

    def close(self) -> None:
        """Release the descriptors and the kept results."""
        for file in self._held.values():
            file.close()
        self._held.clear()
        self._found.clear()

    def _names(self) -> list[str]:
        """The names of the files below the folder that fit, in order."""
        seen, found, pending = 0, [], [("", self._pattern.start)]
        while pending:
            above, places = pending.pop()
            try:
                with os.scandir(self.folder / above) as entries:
                    for entry in entries:
                        seen += 1
                        after = self._pattern.after(places, entry.name)
                        if after and entry.is_dir(follow_symlinks=False):
                            pending.append((f"{above}{entry.name}/", after))
                        elif self._pattern.ends(after):
                            found.append(above + entry.name)
                        if seen > MOST_SEEN:
                            what = f"more than {MOST_SEEN:,} files and folders lie below it"
                            raise UserError(on_one_line(str(self.folder)), what, path=("path",))
            except OSError as error:
                what = f"cannot be looked into: {(error.strerror or str(error)).lower()}"
                raise UserError(on_one_line(str(self.folder / above)), what, path=("path",)) from None
        return sorted(found)


def is_data_set(path: Path) -> bool:
    """Whether a path leads to several files: a folder, or a pattern that is not the name of a file."""
    with suppress(OSError):  # the file that is opened then says what is wrong with the path
        return path.is_dir() or (is_pattern(str(path)) and not path.exists())
    return False


def found_at(path: Path) -> OpenFile | Parts:
    """The file or the data set at a path, shared as by `opened`.

    Raises:
        UserError: as `open_file` and `Parts`.
    """
    return shared(path, Parts) if is_data_set(path) else opened(path)


def takes(path: Path, file: Path) -> bool:
    """Whether a file would be one of those that the path of a data set leads to, if it were there."""
    if not is_data_set(path):
        return False
    folder, pattern = _looked_through(path)
    folder, file = folder.resolve(), file.resolve()
    return file.is_relative_to(folder) and pattern.fits(file.relative_to(folder).as_posix())


def _looked_through(path: Path) -> tuple[Path, Pattern]:
    if path.is_dir():
        return path, Pattern(EVERYTHING)
    folder, parts = split_pattern(path.as_posix())
    return Path(folder), Pattern(parts)


def _keys(folders: list[str]) -> Iterator[tuple[str, str | None]]:
    """What the names of folders say, as `year=2024` says it; signs are escaped as in an address."""
    for name in folders:
        key, sign, value = name.partition("=")
        if sign and key:
            yield unquote(key), None if value == NO_VALUE else unquote(value)


def _trailing_keys(folder: Path) -> list[str]:
    """The names of the innermost folders that a path ends with, as far as they say something."""
    found: list[str] = []
    for name in reversed(folder.absolute().parts):
        if not next(_keys([name]), None):
            break
        found.insert(0, name)
    return found
