"""Files that would run code, fill the memory or lead elsewhere: refused by `mtl run`, which takes none of it up."""

from __future__ import annotations

import gzip
import os
import pickle
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import mtl.experiment.run  # what `mtl run` imports is not what the file takes  # noqa: F401
from mtl.data import memory
from mtl.data.files import idx
from mtl.errors import ENVIRONMENT, USER
from mtl.sources.fashion_mnist import FILES
from tests.data.files.test_images import WHOLE, chunk, png
from tests.data.files.test_npz import archive, bomb, header, lying, npy
from tests.support.assertions import Capture, called
from tests.support.recipes import around, write

MOST = 24 << 20
"""Bytes that Python may hold at once while it refuses a file that would unpack to 64 MiB or more."""
LABEL = ("label.npy", npy(np.arange(4) % 2))


class Executed:
    """An object that makes a folder `marker` when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("marker",)


def of_npz(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        make(folder / "d.npz")
        write(folder, **around({"kind": "npz", "path": "d.npz", "inputs": "x"}))

    return build


def bomb_with_labels(path: Path) -> None:
    bomb(path, 64 << 20)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(*LABEL)


def of_image(data: bytes) -> Callable[[Path], None]:
    """A table whose third image holds these bytes."""

    def build(folder: Path) -> None:
        (folder / "ok.png").write_bytes(WHOLE["PNG"])
        (folder / "evil.png").write_bytes(data)
        names = ["ok.png", "ok.png", "evil.png", "ok.png"]
        (folder / "t.csv").write_text(
            "image,label\n" + "".join(f"{n},{i % 2}\n" for i, n in enumerate(names))
        )
        write(folder, **around({"kind": "table", "path": "t.csv", "inputs": {"image": {"column": "image"}}}))

    return build


def of_idx(data: bytes) -> Callable[[Path], None]:
    """Fashion-MNIST whose first file holds these bytes."""

    def build(folder: Path) -> None:
        for file in FILES:
            (folder / file.remote.name).write_bytes(data)
        write(folder, **around({"kind": "fashion_mnist", "path": "."}))

    return build


def raw_header(text: bytes) -> bytes:
    """An array's header of any text."""
    return b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text


HUGE_IDX = b"\0\0\x08\x03" + b"\x7f\xff\xff\xff" * 3
ATTACKS: dict[str, tuple[Callable[[Path], None], str, int]] = {
    "pickle as npz": (of_npz(lambda p: p.write_bytes(pickle.dumps(Executed()))), "holds Python objects", USER),
    "object array as npz": (
        of_npz(lambda p: p.write_bytes(header((1,), "|O") + pickle.dumps(Executed()))), "holds Python objects", USER,
    ),
    "object array in npz": (
        of_npz(lambda p: archive(p, LABEL, ("x.npy", header((1,), "|O") + pickle.dumps(Executed())))),
        "array 'x' holds Python objects, which are never loaded", USER,
    ),
    "pickled member": (
        of_npz(lambda p: archive(p, LABEL, ("x.npy", pickle.dumps(Executed())))), "array 'x' has no sound header", USER,
    ),
    "code in a header": (
        of_npz(lambda p: archive(p, LABEL, ("x.npy", header("__import__('os').mkdir('marker')")))),
        "array 'x' has no sound header", USER,
    ),
    "open quote in a header": (
        of_npz(lambda p: archive(p, LABEL, ("x.npy", raw_header(b"{'descr': '"  b"''")))),
        "array 'x' has no sound header (it cannot be parsed)", USER,
    ),
    "9000 signs in a header": (
        of_npz(lambda p: archive(p, LABEL, ("x.npy", raw_header(b"{'shape': " + b"-" * 9000 + b"1}")))),
        "array 'x' has no sound header (it cannot be parsed)", USER,
    ),
    "npz bomb": (of_npz(bomb_with_labels), "its arrays take ", ENVIRONMENT),
    "npz that lies": (of_npz(lambda p: lying(p, 4_000_000_000)), "packed bytes cannot hold", USER),
    "png of 400 megapixels": (of_image(png(20_000, 20_000, bytes(64 << 20))), "row 4: evil.png has more than", USER),
    "png text bomb": (
        of_image(png(4, 4, bytes(20), extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(64 << 20))))),
        "row 4: evil.png: image is damaged", USER,
    ),
    "postscript as png": (of_image(b"%!PS-Adobe-3.0 EPSF-3.0\n(marker) run\n"), "evil.png is not PNG or JPEG", USER),
    "gz bomb": (of_idx(gzip.compress(idx.write(np.zeros(9, np.uint8)) + bytes(64 << 20))), "unpacks to more", USER),
    "idx of 255 dimensions": (of_idx(b"\0\0\x08\xff" + b"\0\0\0\x01" * 255 + b"a"), "255 dimensions", USER),
    "idx of 2^93 bytes": (of_idx(gzip.compress(HUGE_IDX)), "its IDX header announces 9,903,520,", USER),
}  # fmt: skip


@pytest.mark.parametrize("case", ATTACKS)
def test_refused_without_harm(
    case: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, text, code = ATTACKS[case]
    monkeypatch.chdir(tmp_path)
    build(tmp_path)
    if code == ENVIRONMENT:
        monkeypatch.setattr(memory, "available_memory", lambda: 50_000_000)
    before = sorted(path.name for path in tmp_path.iterdir())
    tracemalloc.start()
    try:
        done = called(capsys, "run", "r.yaml")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert text in line
    assert line.isprintable()
    assert sorted(path.name for path in tmp_path.iterdir()) == before, "no marker, no run folder"
    assert peak < MOST
