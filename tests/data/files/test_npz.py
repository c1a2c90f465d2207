"""Arrays of .npz files, and every way in which such a file can be wrong or hostile, each by its text."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mtl.data import memory
from mtl.data.files import npz
from mtl.data.types import Array
from mtl.errors import ENVIRONMENT, USER, EnvironmentFault, UserError

X = np.arange(120, dtype=np.float32).reshape(24, 5)
Y = np.arange(24) % 3


class Executed:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def npy(values: Array) -> bytes:
    """The bytes of an .npy file, as numpy writes it."""
    file = io.BytesIO()
    np.save(file, values, allow_pickle=True)
    return file.getvalue()


def header(shape: object, descr: object = "<f4", version: int = 1) -> bytes:
    """An .npy header that says anything."""
    shown = shape if isinstance(shape, str) else repr(shape)
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shown}, }}"
    raw = text.encode() + b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(raw)) + raw


def archive(path: Path, *members: tuple[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", packing) as file:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = packing
            file.writestr(info, data)
    return path


def fault(path: Path) -> str:
    """The text of the one error that both ways of reading `x` give."""
    texts = set()
    for read in (lambda: npz.archive(path).headers, lambda: npz.archive(path).arrays(["x"])):
        with pytest.raises(UserError) as caught:
            read()
        assert caught.value.code == USER
        texts.add(str(caught.value))
    (text,) = texts
    assert text.isprintable()
    assert len(text) < 400
    return text


# --- what is read ---


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_numpy_wrote(save: object, tmp_path: Path) -> None:
    assert callable(save)
    path = tmp_path / "a.npz"
    save(path, x=X, y=Y, texts=np.array(["a", "größe"]), one=np.int64(7), none=X[:0])
    headers = npz.archive(path).headers
    assert {name: shape for name, (shape, _) in headers.items()} == {
        "x": (24, 5), "y": (24,), "texts": (2,), "one": (), "none": (0, 5),
    }  # fmt: skip
    assert headers["x"][1] == np.float32
    found = npz.archive(path).arrays(["y", "x", "one", "texts", "none"])
    assert list(found) == ["y", "x", "one", "texts", "none"]
    np.testing.assert_array_equal(found["x"], X)
    np.testing.assert_array_equal(found["y"], Y)
    assert found["one"].shape == ()
    assert found["texts"].tolist() == ["a", "größe"]
    assert found["none"].shape == (0, 5)


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2", ">u4", ">U3", "<f4", "?", "f2"])
def test_byte_order_and_memory_order_are_made_native(dtype: str, tmp_path: Path) -> None:
    values = X.astype(dtype)
    np.savez(tmp_path / "a.npz", x=np.asfortranarray(values))
    found = npz.archive(tmp_path / "a.npz").arrays(["x"])["x"]
    assert found.dtype.isnative
    assert found.dtype == np.dtype(dtype).newbyteorder("=")
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, values)


def test_headers_of_every_version_and_of_python_2(tmp_path: Path) -> None:
    for version in (1, 2, 3):
        path = archive(tmp_path / "a.npz", ("x.npy", header((24, 5), version=version) + X.tobytes()))
        np.testing.assert_array_equal(npz.archive(path).arrays(["x"])["x"], X)
    path = archive(tmp_path / "a.npz", ("x.npy", header("(24L, 5L)") + X.tobytes()))
    assert npz.archive(path).headers["x"][0] == (24, 5)
    np.testing.assert_array_equal(npz.archive(path).arrays(["x"])["x"], X)


def test_a_name_is_no_path_and_other_files_in_the_archive_are_no_arrays(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    members = [
        ("../../x.npy", npy(X)),
        ("/etc/y.npy", npy(Y)),
        ("notes.txt", b"hello"),
        ("data.pkl", b"\x80"),
    ]
    path = archive(tmp_path / "in" / "a.npz", *members)
    assert list(npz.archive(path).headers) == ["../../x", "/etc/y"]
    np.testing.assert_array_equal(npz.archive(path).arrays(["../../x"])["../../x"], X)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.npz", "in"]


# --- what is refused ---

SINGLE = "is a single array (.npy), not an .npz file; save inputs and labels together by np.savez"
OBJECTS = "holds Python objects, which are never loaded"
FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file is empty"),
    "html": (b"<!DOCTYPE html>", "is not an .npz file (it starts with b'<!DOCT')"),
    "npy": (npy(X), SINGLE),
    "npy_cut": (npy(X)[:20], SINGLE),
    "npy_objects": (npy(np.array([1, None])), OBJECTS),
    "pickle_2": (pickle.dumps([1], 2), OBJECTS),
    "pickle_5": (pickle.dumps([1], 5), OBJECTS),
    "pickle_0": (pickle.dumps([1], 0), "is not an .npz file (it starts with b'(lp0\\n"),
    "escape": (b"\x1b[31m", "is not an .npz file (it starts with b'\\x1b[31m')"),
    "no_end": (b"PK\x03\x04" + b"\0" * 60, "is truncated or damaged (File is not a zip file)"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_archive(case: str, tmp_path: Path) -> None:
    data, text = FILES[case]
    (tmp_path / "a.npz").write_bytes(data)
    assert fault(tmp_path / "a.npz").startswith(f"a.npz: path: {text}")


HELD = X.tobytes()
MEMBERS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "has no sound header (EOF: reading magic string, expected 8 bytes got 0)"),
    "text": (b"hello world", "has no sound header (the magic string is not correct; expected b'\\x93NUMPY'"),
    "version": (header((24, 5), version=9) + HELD, "has no sound header (unknown version 9.0)"),
    "cut": (npy(X)[:-10], "is truncated: its header says 480 bytes, it holds 470"),
    "long": (npy(X) + b"junk", "is damaged: its header says 480 bytes, it holds 484"),
    "claims": (
        header((10**12, 5)) + HELD,
        "is truncated: its header says 20000000000000 bytes, it holds 480",
    ),
    "overflows": (
        header((2**62, 8)),
        "is truncated: its header says 147573952589676412928 bytes, it holds 0",
    ),
    "negative": (header((-24, -5)) + HELD, "has no sound header (shape (-24, -5) of float32)"),
    "nothing": (header((10**12,), "<U0"), "has no sound header (shape (1000000000000,) of <U0)"),
    "code": (header("__import__('os').getcwd()") + HELD, "has no sound header (malformed node or string"),
    "objects": (npy(np.array([1, None])), f"{OBJECTS}; save it as numbers or text"),
    "no_objects": (header((24,), "|O") + b"\x80\x04.", f"{OBJECTS}; save it as numbers or text"),
    "hidden_objects": (header((1,), [("a", "<f4"), ("b", "|O")]) + HELD, f"{OBJECTS}; save it as numbers"),
    "structured": (
        npy(np.zeros(3, [("a", "i4"), ("b", "f4")])),
        "is structured; save each of its fields as an",
    ),
    "long_header": (header("(" + "1," * 9000 + ")") + HELD, "has no sound header (of "),
}


@pytest.mark.parametrize("case", MEMBERS)
def test_an_array_that_is_not_what_it_says(case: str, tmp_path: Path) -> None:
    data, text = MEMBERS[case]
    path = archive(tmp_path / "a.npz", ("y.npy", npy(Y)), ("x.npy", data))
    assert fault(path).startswith(f"a.npz: array 'x' {text}")


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_that_numpy_does_not_write(packing: int, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", ("x.npy", npy(X)), packing=packing)
    assert "array 'x' has no sound header (packed in a way that numpy does not write)" in fault(path)


def test_one_name_twice(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = archive(tmp_path / "a.npz", ("x.npy", npy(X)), ("x.npy", npy(X + 1)))
    assert fault(path) == "a.npz: array 'x' is in the file twice; write the file again"


def test_too_many_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "MAX_ARRAYS", 2)
    path = archive(tmp_path / "a.npz", *((f"{i}.npy", npy(Y)) for i in range(3)))
    assert fault(path) == "a.npz: holds 3 arrays, at most 2 are read"


def test_an_encrypted_member(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", ("x.npy", npy(X)), packing=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag in the member's own header, and in the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert "array 'x' has no sound header (encrypted)" in fault(path)


def test_a_missing_array_names_those_that_are_there_and_never_all_of_many(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", ("inputs.npy", npy(X)), ("\x1b[31m\n.npy", npy(Y)))
    with pytest.raises(UserError) as caught:
        npz.archive(path).arrays(["input"])
    known = r"arrays: inputs, '\x1b[31m\n'"
    assert str(caught.value) == f"a.npz: no array 'input' (did you mean 'inputs'?); {known}"
    path = archive(tmp_path / "a.npz", *((f"a{i}.npy", npy(Y)) for i in range(30)))
    with pytest.raises(UserError) as caught:
        npz.archive(path).arrays(["zzz"])
    assert str(caught.value).endswith("a18, a19 and 10 more")
    path = archive(tmp_path / "a.npz")
    with pytest.raises(UserError, match=r"no array 'x'; arrays: none"):
        npz.archive(path).arrays(["x"])


def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faces.npz").touch()
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "circle.npz").symlink_to("circle.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    for name, text in {
        "face.npz": f"{tmp_path}/face.npz: path: no such file (did you mean 'faces.npz'?)",
        "no/folder.npz": f"{tmp_path}/no/folder.npz: path: no such file",
        "folder.npz": f"{tmp_path}/folder.npz: path: is a directory",
        "circle.npz": f"{tmp_path}/circle.npz: path: cannot be opened: Too many levels of symbolic links",
        "pipe.npz": f"{tmp_path}/pipe.npz: path: is not a regular file",
    }.items():
        assert fault(tmp_path / name) == text
    assert fault(tmp_path / "a\0.npz").endswith("path: cannot be opened: embedded null byte")
    assert fault(tmp_path / ("x" * 300)).endswith("path: cannot be opened: File name too long")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert fault(tmp_path / "faces.npz").endswith("faces.npz: path: permission denied")


# --- damage and bombs ---


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_no_missing_end_and_no_wrong_bit_changes_a_value_unnoticed(packing: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((6, 2)).astype(np.float32)
    path = archive(tmp_path / "a.npz", ("x.npy", npy(values)), packing=packing)
    whole, noticed = path.read_bytes(), 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at])
        with pytest.raises(UserError):
            npz.archive(path).arrays(["x"])
        bent = bytearray(whole)
        bent[at] ^= 1 << at % 8
        path.write_bytes(bent)
        try:
            np.testing.assert_array_equal(npz.archive(path).arrays(["x"])["x"], values)
        except UserError:
            noticed += 1
    assert noticed > len(values.tobytes()), "every bit of the values is among them"


def bomb(path: Path, n_bytes: int) -> Path:
    """Zeros, 1000 to one."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file,
        file.open("x.npy", "w") as member,
    ):
        member.write(header((n_bytes // 4, 1)))
        for _ in range(n_bytes >> 20):
            member.write(bytes(1 << 20))
    return path


def test_a_bomb_is_refused_before_it_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bomb(tmp_path / "a.npz", 64 << 20)
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(memory, "available_memory", lambda: 50_000_000)
    tracemalloc.start()
    try:
        assert npz.archive(path).headers["x"][0] == (16 << 20, 1)
        with pytest.raises(EnvironmentFault) as caught:
            npz.archive(path).arrays(["x"])
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.code == ENVIRONMENT
    assert str(caught.value) == (
        "a.npz: its arrays take 67.1 MB, 50.0 MB are free; use a part of them, or a machine with more"
    )


def test_arrays_must_fit_into_memory_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=X)
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    np.testing.assert_array_equal(npz.archive(tmp_path / "a.npz").arrays(["x"])["x"], X)
    assert set(npz.archive(tmp_path / "a.npz").arrays(["x", "x"])) == {"x"}
    with pytest.raises(EnvironmentFault, match="its arrays take"):
        npz.archive(tmp_path / "a.npz").arrays(["x", "y"])


def lying(path: Path, n_bytes: int) -> None:
    """Let the archive's directory and the array's header claim a size, whatever the member holds."""
    archive(path, ("x.npy", header((n_bytes // 4, 1)) + bytes(1000)))
    data = bytearray(path.read_bytes())
    size = struct.pack("<I", n_bytes + len(header((n_bytes // 4, 1))))
    data[22:26] = size
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = size
    path.write_bytes(data)


def test_an_archive_that_claims_more_than_its_bytes_can_hold(tmp_path: Path) -> None:
    lying(tmp_path / "a.npz", 4_000_000_000)
    assert fault(tmp_path / "a.npz").startswith("a.npz: array 'x' is damaged: ")
    assert fault(tmp_path / "a.npz").endswith(" packed bytes cannot hold 4000000128 bytes")


def test_an_archive_that_claims_more_than_it_unpacks_to(tmp_path: Path) -> None:
    lying(tmp_path / "a.npz", 40_000)
    assert npz.archive(tmp_path / "a.npz").headers["x"][0] == (10_000, 1)
    with pytest.raises(UserError, match="array 'x' is damaged"):
        npz.archive(tmp_path / "a.npz").arrays(["x"])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("form", ["pickle", "npy", "member", "claimed"])
def test_nothing_is_ever_unpickled(form: str, protocol: int, tmp_path: Path) -> None:
    evil = Executed(tmp_path / "marker")
    path, pickled = tmp_path / "a.npz", pickle.dumps(evil, protocol)
    objects = header((1,), "|O") + pickled
    if form == "pickle":
        path.write_bytes(pickled)
    elif form == "npy":
        path.write_bytes(objects)
    elif form == "member":
        archive(path, ("x.npy", objects))
    else:
        archive(path, ("x.npy", pickled))
    fault(path)
    assert not (tmp_path / "marker").exists()
    pickle.loads(pickled)
    assert (tmp_path / "marker").exists(), "it would have been"


@pytest.mark.parametrize("version", [1, 2])
def test_a_header_is_not_read_before_its_size_is_known(version: int, tmp_path: Path) -> None:
    """400 MB of spaces pack into 0.4 MB."""
    n = 60_000 if version == 1 else 400 << 20
    raw = b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", n)
    path = archive(tmp_path / "a.npz", ("x.npy", raw + b" " * n))
    tracemalloc.start()
    try:
        said = fault(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert said == f"a.npz: array 'x' has no sound header (of {n} bytes, at most 10000 are read)"
    assert peak < 1 << 22


def test_a_directory_is_not_read_before_its_size_is_known(tmp_path: Path) -> None:
    """The end of a sparse file says that its directory takes 3 GB."""
    path, size = tmp_path / "a.npz", 3 << 30
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(size + 4)
        file.seek(0, os.SEEK_END)
        file.write(b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, size, 4, 0))
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as caught:
            npz.archive(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(caught.value) == f"a.npz: path: is truncated or damaged ({size} bytes are asked for at once)"
    assert peak < 1 << 22
