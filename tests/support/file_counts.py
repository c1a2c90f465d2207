"""Counts how often the files of a folder are opened, checked, hashed and parsed, whoever does it."""

from __future__ import annotations

import builtins
import hashlib
import io
import os
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as pv
import pyarrow.parquet as pq
import pytest

from mtl.data.files import idx
from mtl.data.files.formats import csv
from mtl.sources import face_embeddings, npz


class FileCounts:
    """What is done with the files below a folder from now on.

    - opened: the system is asked for a descriptor, by Python, or by pyarrow because it is given a path;
    - checked: a CSV is read from end to end for its form; of a Parquet file the footer is read, of an .npz the
      directory;
    - hashed: the bytes of a table, or all that a file of arrays gives;
    - parsed: the values are made: of a table from end to end, of one array of an .npz, of one idx file;
    - glanced at: the first row of a Parquet file alone is decoded.

    Args:
        folder: other files do not count.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.counts = folder.resolve(), Counter[tuple[str, str]]()
        self.set = monkeypatch.setattr
        for owner in (builtins, io, os):
            self._count(owner, "open", "opened")
        self._count(csv, "check_csv", "checked")
        self._count(hashlib, "file_digest", "hashed")
        self._count(pv, "open_csv", "parsed", opens=True)
        for owner, name, what in (
            (np.lib.format, "read_array", "parsed"),
            (idx, "parse", "parsed"),
            (npz, "fingerprint", "hashed"),
            (face_embeddings, "fingerprint", "hashed"),
        ):
            self._count(owner, name, what, known=False)
        self.set(pq, "ParquetFile", self._parquet_file(pq.ParquetFile))
        self.set(zipfile, "ZipFile", self._zip_file(zipfile.ZipFile))

    def of(self, path: Path | str) -> dict[str, int]:
        """What was done with one file; "" has what cannot be told apart by file."""
        name = str(Path(path).resolve()) if path else ""
        return {what: n for (file, what), n in sorted(self.counts.items()) if file == name}

    def count_idx(self) -> None:
        """From now on the sha256 of a bytearray counts too: idx files are hashed so."""
        original = hashlib.sha256

        def counted(data: Any = b"", **options: Any) -> Any:
            if isinstance(data, bytearray):
                self.add("hashed", None)
            return original(data, **options)

        self.set(hashlib, "sha256", counted)

    def add(self, what: str, source: Any) -> None:
        """Count something done with a path, or with an object that knows the path that it reads."""
        path = source if isinstance(source, str | os.PathLike) else getattr(source, "path", None)
        path = getattr(source, "name", None) if path is None else path
        name = ""
        if isinstance(path, str | os.PathLike):
            name = str(Path(path).resolve())
            if not Path(name).is_relative_to(self.folder):
                return
        elif what == "opened":
            return  # a descriptor, which was counted when it was opened
        self.counts[name, what] += 1

    def _count(self, owner: Any, name: str, what: str, known: bool = True, opens: bool = False) -> None:
        """Count the calls of a function.

        Args:
            known: its first argument tells the file.
            opens: it opens a file whose path it is given.
        """
        original: Callable[..., Any] = getattr(owner, name)

        def counted(source: Any, *given: Any, **options: Any) -> Any:
            self.add(what, source if known else None)
            if opens and isinstance(source, str | os.PathLike):
                self.add("opened", source)
            return original(source, *given, **options)

        self.set(owner, name, counted)

    def _parquet_file(self, original: type) -> type:
        counts = self

        class Counted(original):  # type: ignore[misc, valid-type]
            def __init__(self, source: Any, **options: Any) -> None:
                counts.add("checked", source)
                if isinstance(source, str | os.PathLike):
                    counts.add("opened", source)
                self.counted_as = source
                super().__init__(source, **options)

            def iter_batches(self, batch_size: int, **options: Any) -> Any:
                counts.add("glanced at" if batch_size == 1 else "parsed", self.counted_as)
                return super().iter_batches(batch_size, **options)

        return Counted

    def _zip_file(self, original: type) -> type:
        counts = self

        class Counted(original):  # type: ignore[misc, valid-type]
            def __init__(self, file: Any, *given: Any, **options: Any) -> None:
                counts.add("checked", file)
                super().__init__(file, *given, **options)

        return Counted


def open_descriptors(path: Path) -> int:
    """How many of this process's descriptors lead to a file."""
    found = 0
    for entry in os.listdir("/dev/fd"):
        with suppress(OSError):  # of the descriptor by which the folder was listed
            found += os.path.samestat(os.fstat(int(entry)), path.stat())
    return found
