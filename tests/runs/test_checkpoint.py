"""A checkpoint is there whole or not at all, in whatever call the disk fails (F1-F3, F19-F21, K2-K18)."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mtl.errors import ENVIRONMENT, EnvironmentFault, UserError
from mtl.runs.checkpoint import Damaged, commit, newest, size_of, steps, verified
from mtl.runs.listing import listed
from mtl.runs.retention import clean
from tests.faults.whole import content
from tests.runs.faulty_disk import FILES, PIECES, FailAt, Recorder, save, tree


def test_order_of_a_commit(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        recorder = Recorder(patch)
        commit(folder, 7, FILES, "run")
    calls = [call for call in recorder.calls if call != ("mkdir", "checkpoints")]
    expected = [("mkdir", "<tmp>")]
    for name in [*FILES, "manifest.json"]:
        expected += [("create", name), ("fsync", name)]
        if name != "empty":
            expected.insert(-1, ("write", name))
    expected += [("fsync", "<tmp>"), ("rename", "<tmp> step-00000007"), ("fsync", "checkpoints")]
    assert calls == expected


def test_content_of_a_commit(tmp_path: Path) -> None:
    """Read by other code than the one that wrote it."""
    path = commit(tmp_path / "new" / "checkpoints", 400, FILES, "my id")
    assert path == tmp_path / "new" / "checkpoints" / "step-00000400"
    assert os.listdir(path.parent) == ["step-00000400"]
    manifest = json.loads((path / "manifest.json").read_bytes())
    assert (manifest["schema_version"], manifest["run_id"], manifest["step"]) == (1, "my id", 400)
    assert set(manifest["files"]) == set(FILES)
    for name, data in FILES.items():
        assert (path / name).read_bytes() == data
        digest = hashlib.sha256(data).hexdigest()
        assert manifest["files"][name] == {"bytes": len(data), "sha256": digest}
    assert verified(path) == {name: path / name for name in FILES}
    size = sum(map(len, FILES.values())) + (path / "manifest.json").stat().st_size
    assert size_of(path) == size
    assert size_of(path / "gone") == 0
    assert content(path) == FILES


def test_a_file_in_pieces_is_written_piece_by_piece(tmp_path: Path) -> None:
    """No piece is asked for before the one before it was written, and the digest is of all of them."""
    events: list[str] = []

    class Pieces:
        def __iter__(self) -> Iterator[bytes]:
            own = threading.get_ident() == main
            for i in range(4):
                if own:
                    events.append(f"asked for {i}")
                yield bytes([i]) * (10 - i)

    main = threading.get_ident()
    with pytest.MonkeyPatch.context() as patch:
        recorder, real = Recorder(patch), os.write

        def write(descriptor: int, data: Any) -> int:
            events.append(f"write {bytes(data)[:1].hex()}")
            return real(descriptor, data)

        patch.setattr(os, "write", write)
        path = commit(tmp_path, 1, {"a": Pieces(), "b": PIECES}, "run")
    assert events[:8] == [text for i in range(4) for text in (f"asked for {i}", f"write 0{i}")]
    assert [call for call in recorder.calls if call[1] == "b"] == [
        ("create", "b"), ("write", "b"), ("write", "b"), ("fsync", "b"),
    ]  # fmt: skip
    a = b"".join(bytes([i]) * (10 - i) for i in range(4))
    assert content(path) == {"a": a, "b": FILES["a.bin"]}
    assert commit(tmp_path, 1, {"a": a, "b": FILES["a.bin"]}, "run") == path  # the same, however it is cut


def test_a_file_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    """What fails while the pieces are made, such as a device, is no fault of the disk; the next save is whole."""

    class Broken:
        def __iter__(self) -> Iterator[bytes]:
            yield b"1"
            raise RuntimeError("device lost")

    save(tmp_path, 1)
    with pytest.raises(RuntimeError, match="device lost"):
        commit(tmp_path, 2, {"a": Broken()}, "run")
    assert steps(tmp_path) == [1]
    clean(tmp_path)
    assert os.listdir(tmp_path) == ["step-00000001"]
    save(tmp_path, 2)
    assert content(tmp_path / "step-00000002") == {**FILES, "step": b"2"}


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.write, []

    def short(descriptor: int, data: Any) -> int:
        calls.append(len(data))
        return real(descriptor, bytes(data)[: max(1, len(data) - 1)])

    monkeypatch.setattr(os, "write", short)
    path = commit(tmp_path, 1, {"a": b"abcdef"}, "run")
    assert calls[:6] == [6, 1, *calls[2:6]]
    assert (path / "a").read_bytes() == b"abcdef"
    assert content(path) == {"a": b"abcdef"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("call", ["mkdir", "open", "write", "fsync", "rename"])
def test_a_disk_that_refuses(call: str, number: int, tmp_path: Path) -> None:
    """At every single call of a save: nothing that was there is lost, and nothing half is left."""
    fired = 0
    for n in range(call == "mkdir", 100):  # the first mkdir finds the folder there
        folder = tmp_path / f"{n}"
        save(folder, 100, 200)
        before = tree(folder)
        with pytest.MonkeyPatch.context() as patch:
            fault = FailAt(patch, call, n, number)
            try:
                save(folder, 300)
            except EnvironmentFault as error:
                assert fault.fired
                text, code = str(error), error.code
            else:
                assert not fault.fired
                break
        fired += 1
        assert code == ENVIRONMENT
        what = os.strerror(
            number
        ).lower()  # the new one may be there, but not for good while its folder is unsynced
        assert text == f"{folder}: cannot write checkpoint at step 300: {what}; last good: step-00000200"
        after = tree(folder)
        assert before.items() <= after.items()
        assert all(name.startswith("step-") for name in os.listdir(folder))
        for step in steps(folder):
            verified(folder / f"step-{step:08d}")
        shutil.rmtree(folder)
    # one temporary folder; four files, the manifest and two folders; one is empty and one is two pieces; one rename
    assert fired == {"mkdir": 1, "open": 7, "write": 5, "fsync": 7, "rename": 1}[call]


def test_the_first_save_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FailAt(monkeypatch, "fsync", 0, errno.ENOSPC)
    with pytest.raises(EnvironmentFault, match="no space left on device; none was saved before"):
        save(tmp_path / "checkpoints", 1)


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").touch()
    with pytest.raises(EnvironmentFault, match="cannot write checkpoint at step 1: file exists"):
        save(tmp_path / "checkpoints", 1)


def test_a_step_saved_twice_is_left_as_it_is(tmp_path: Path) -> None:
    save(tmp_path, 1)
    before = tree(tmp_path)
    save(tmp_path, 1)
    assert tree(tmp_path) == before


def test_another_state_of_a_step_takes_its_place(tmp_path: Path) -> None:
    save(tmp_path, 1)
    assert commit(tmp_path, 1, {"other": b""}, "run") == tmp_path / "step-00000001"
    assert content(tmp_path / "step-00000001") == {"other": b""}
    assert os.listdir(tmp_path) == ["step-00000001"]


@pytest.mark.parametrize("nth", [0, 1])
def test_a_state_that_cannot_take_its_place_leaves_the_old_one(nth: int, tmp_path: Path) -> None:
    """A disk that refuses one of the two renames."""
    save(tmp_path, 1)
    before = tree(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        fault = FailAt(patch, "rename", nth, errno.EIO)
        with pytest.raises(EnvironmentFault):
            commit(tmp_path, 1, {"other": b""}, "run")
    assert fault.fired
    assert tree(tmp_path) == before


def test_a_damaged_step_is_replaced(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "step-00000001" / "a.bin").write_bytes(b"")
    save(tmp_path, 1)
    assert content(tmp_path / "step-00000001") == {**FILES, "step": b"1"}
    assert os.listdir(tmp_path) == ["step-00000001"]


@pytest.mark.parametrize("is_link", [False, True])
def test_what_else_has_the_name_stays(is_link: bool, tmp_path: Path) -> None:
    folder, place = tmp_path / "checkpoints", tmp_path / "checkpoints" / "step-00000001"
    folder.mkdir()
    save(tmp_path / "other", 1)
    place.symlink_to(tmp_path / "other" / "step-00000001") if is_link else place.touch()
    with pytest.raises(EnvironmentFault, match="cannot write checkpoint at step 1: not a directory"):
        save(folder, 1)
    assert os.listdir(folder) == ["step-00000001"]
    assert place.is_symlink() == is_link


NOT_STEPS = [
    "step-1", "step-0000001", "step-000000001", "step-00000001.bak", "xstep-00000001", "step-0000000a",
    "Step-00000001", "step-00000001\n", "step-" + "\u0661" * 8,
    ".tmp-00000001-1-ab", ".del-00000001-ab", "step-+0000001",
]  # fmt: skip


def test_only_whole_names_are_steps(tmp_path: Path) -> None:
    for name in NOT_STEPS:
        (tmp_path / name).mkdir()
    (tmp_path / "step-00000003").touch()
    (tmp_path / "real").mkdir()
    (tmp_path / "step-00000004").symlink_to(tmp_path / "real")
    assert steps(tmp_path) == []
    save(tmp_path, 20, 5, 99_999_999, 0)
    assert steps(tmp_path) == [0, 5, 20, 99_999_999]
    assert steps(tmp_path / "nothing") == []


def test_newest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint found"):
        newest(tmp_path, "run")
    save(tmp_path, 9, 10)
    step, files, warnings = newest(tmp_path, "run")
    assert (step, files["step"].read_bytes(), warnings) == (10, b"10", [])
    commit(tmp_path, 11, FILES, "another")
    step, _, warnings = newest(tmp_path, "run")
    assert step == 10
    assert warnings == ["step-00000011 is damaged (manifest.json: is of another run); using step-00000010"]


def test_what_is_listed(tmp_path: Path) -> None:
    assert listed(tmp_path) == []
    save(tmp_path, 1, 2, 3)
    (tmp_path / "step-00000002" / "b.json").write_bytes(b"[]")
    (tmp_path / "step-00000003" / "manifest.json").unlink()
    one, two, three = listed(tmp_path)
    created = json.loads((tmp_path / "step-00000001" / "manifest.json").read_bytes())["created"]
    whole = sum(map(len, tree(tmp_path / "step-00000001").values()))
    assert (one.step, one.size, one.created, one.fault) == (1, whole, created, "")
    assert (two.step, two.size, two.fault) == (2, whole, "damaged (b.json: sha256 differs)")
    fault = "damaged (manifest.json: No such file or directory)"
    assert (three.step, three.size, three.created, three.fault) == (3, 5003, "", fault)


@pytest.mark.parametrize(
    "hurt",
    [
        lambda path: (path / "b.json").unlink(),
        lambda path: (path / "manifest.json").unlink(),
        lambda path: (path / "inner").mkdir(),
        lambda path: ((path / "a.bin").unlink(), (path / "a.bin").symlink_to("nowhere")),
        lambda path: os.rename(path / "a.bin", path / "c.bin"),
    ],
)
def test_reading_finds_damage(hurt: Callable[[Path], object], tmp_path: Path) -> None:
    save(tmp_path, 1)
    hurt(tmp_path / "step-00000001")
    with pytest.raises(Damaged):
        verified(tmp_path / "step-00000001")


def test_reading_finds_each_flipped_bit(tmp_path: Path) -> None:
    path = commit(tmp_path, 1, {"a": b"some bytes"}, "run")
    for at in range(10):
        for bit in range(8):
            data = bytearray(b"some bytes")
            data[at] ^= 1 << bit
            (path / "a").write_bytes(data)
            with pytest.raises(Damaged, match="a: sha256 differs"):
                verified(path)


@pytest.mark.parametrize(
    "manifest",
    [b"", b"null", b"1", b"[]", b'""', b"{}", b'{"files": 1}', b'{"files": {"a.bin": 1}}',
     b"\xff", b"[" * 100_000,
     b'{"files": {}, "schema_version": null, "step": 1}', b'{"files": {}, "schema_version": 1.0, "step": 1}',
     b'{"files": {}, "schema_version": 1, "step": 2}', b'{"files": {}, "schema_version": 1, "step": "1"}'],
)  # fmt: skip
def test_a_manifest_that_is_none(manifest: bytes, tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "step-00000001" / "manifest.json").write_bytes(manifest)
    with pytest.raises(Damaged, match=r"^manifest\.json: .*\S"):
        verified(tmp_path / "step-00000001")


def test_a_name_that_is_not_on_the_disk_is_not_called_good(tmp_path: Path) -> None:
    """The sync after the rename fails: the step is there now, but a power cut may take it."""
    save(tmp_path, 1)
    with pytest.MonkeyPatch.context() as patch:
        FailAt(patch, "fsync", 6, errno.EIO)
        with pytest.raises(EnvironmentFault, match="last good: step-00000001"):
            save(tmp_path, 2)
    assert steps(tmp_path) == [1, 2]


@pytest.mark.parametrize("size", [0, 1, 4096, 300_000])
def test_digests_are_those_of_the_bytes(size: int, tmp_path: Path) -> None:
    """They are computed in another thread while the bytes are written."""
    content = {f"{i}": os.urandom(size) for i in range(4)}
    path = commit(tmp_path, 1, content, "run")
    said = json.loads((path / "manifest.json").read_bytes())["files"]
    assert {name: entry["sha256"] for name, entry in said.items()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in content.items()
    }
