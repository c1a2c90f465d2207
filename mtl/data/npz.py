"""Arrays from .npz files; nothing is ever unpickled."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from mtl.data.columns import Array
from mtl.errors import UserError, did_you_mean, quoted

LARGEST = 64 << 30
"""Bytes of one array."""


def names(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Array name -> shape and dtype, from the headers alone.

    Raises:
        UserError: the file is no .npz, or an array cannot be what its header says.
    """
    with _opened(path) as archive:
        found = {}
        for info in archive.infolist():
            if info.filename.endswith(".npy"):
                name = info.filename.removesuffix(".npy")
                with _member(archive, info, path, name) as file:
                    found[name] = _header(file, info, path, name)
        return found


def arrays(path: Path, wanted: Sequence[str]) -> Mapping[str, Array]:
    """Some arrays of an .npz file, in native byte order and C order.

    Raises:
        UserError: an array is missing, holds objects, or is damaged.
    """
    found: dict[str, Array] = {}
    with _opened(path) as archive:
        infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        for name in wanted:
            if name not in infos:
                raise UserError(
                    path.name,
                    f"no array {quoted(name)}{did_you_mean(name, infos)}; arrays: {', '.join(infos)}",
                )
            with _member(archive, infos[name], path, name) as file:
                _header(file, infos[name], path, name)
            with _member(archive, infos[name], path, name) as file:
                try:
                    array = np.lib.format.read_array(file, allow_pickle=False)
                except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                    raise UserError(path.name, f"array {quoted(name)} is damaged ({_short(error)})") from None
            native = array.dtype.newbyteorder("=")
            found[name] = np.ascontiguousarray(array.astype(native, copy=False))
    return found


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(str(path), f"no such file{did_you_mean(path.name, beside)}", path=("path",)) from None
    except (zipfile.BadZipFile, OSError) as error:
        with_pickle = _starts_like_pickle(path)
        reason = (
            "holds Python objects, which are never loaded"
            if with_pickle
            else f"is not an .npz file ({_short(error)})"
        )
        raise UserError(path.name, reason, path=("path",)) from None


def _starts_like_pickle(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(1) == b"\x80"
    except OSError:
        return False


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, name: str) -> IO[bytes]:
    try:
        return archive.open(info)
    except (RuntimeError, NotImplementedError, zipfile.BadZipFile, OSError) as error:
        raise UserError(path.name, f"array {quoted(name)} cannot be read ({_short(error)})") from None


def _header(
    file: IO[bytes], info: zipfile.ZipInfo, path: Path, name: str
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of one array, checked against the size that the archive states."""
    try:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
    except (ValueError, EOFError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(path.name, f"array {quoted(name)} has no sound header ({_short(error)})") from None
    if dtype.hasobject:
        raise UserError(
            path.name,
            f"array {quoted(name)} holds Python objects, which are never loaded",
            "save it as numbers or text",
        )
    if dtype.names is not None:
        raise UserError(
            path.name, f"array {quoted(name)} is structured", "save each of its fields as an array"
        )
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    held = info.file_size - file.tell()
    if size != held:
        raise UserError(
            path.name, f"array {quoted(name)} is truncated: its header says {size} bytes, it holds {held}"
        )
    if size > LARGEST:
        raise UserError(path.name, f"array {quoted(name)} would take {size / 1e9:.1f} GB")
    return tuple(shape), dtype


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:80] if str(error) else type(error).__name__
