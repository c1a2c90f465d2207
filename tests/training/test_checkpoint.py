"""A checkpoint is there whole or not at all, in whatever call the disk fails (F1-F3, F19-F21, K2-K18)."""

import errno
import json
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl.errors import ENVIRONMENT, EnvironmentFault, UserError
from mtl.training.checkpoint import (
    Damaged,
    canonical_json,
    clean,
    commit,
    lacks_space,
    make_folder,
    newest,
    read,
    retain,
    steps,
    strict_json,
    write_whole,
)

FILES = {"a.bin": b"\0" * 5000, "b.json": b"{}", "empty": b""}


def save(folder: Path, *at: int) -> None:
    for step in at:
        commit(folder, step, {**FILES, "step": str(step).encode()}, "run")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Recorder:
    """Records the calls that reach the disk, by the name of what they are about."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, str]] = []
        names: dict[int, str] = {}
        real = {name: getattr(os, name) for name in ("open", "write", "fsync", "rename", "mkdir")}

        def short(path: Any) -> str:
            return re.sub(r"\.tmp-.*", "<tmp>", Path(os.fspath(path)).name)

        def open_(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            descriptor: int = real["open"](path, flags, *args, **kwargs)
            names[descriptor] = short(path)
            if flags & os.O_CREAT:
                assert flags & os.O_EXCL, "a file might be overwritten"
                self.calls.append(("create", short(path)))
            return descriptor

        def write(descriptor: int, data: Any) -> int:
            self.calls.append(("write", names[descriptor]))
            written: int = real["write"](descriptor, data)
            return written

        def fsync(descriptor: int) -> None:
            self.calls.append(("fsync", names[descriptor]))
            real["fsync"](descriptor)

        def rename(source: Any, target: Any, **kwargs: Any) -> None:
            self.calls.append(("rename", f"{short(source)} {short(target)}"))
            real["rename"](source, target, **kwargs)

        def mkdir(path: Any, *args: Any, **kwargs: Any) -> None:
            self.calls.append(("mkdir", short(path)))
            real["mkdir"](path, *args, **kwargs)

        for name, function in (
            ("open", open_), ("write", write), ("fsync", fsync), ("rename", rename), ("mkdir", mkdir),
        ):  # fmt: skip
            patch.setattr(os, name, function)


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
    import hashlib

    path = commit(tmp_path / "new" / "checkpoints", 400, FILES, "my id")
    assert path == tmp_path / "new" / "checkpoints" / "step-00000400"
    assert os.listdir(path.parent) == ["step-00000400"]
    manifest = json.loads((path / "manifest.json").read_bytes())
    assert (manifest["schema_version"], manifest["run_id"], manifest["step"]) == (2, "my id", 400)
    assert set(manifest["files"]) == set(FILES)
    for name, content in FILES.items():
        assert (path / name).read_bytes() == content
        digest = hashlib.sha256(content).hexdigest()
        assert manifest["files"][name] == {"bytes": len(content), "sha256": digest}
    assert read(path) == FILES


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.write, []

    def short(descriptor: int, data: Any) -> int:
        calls.append(len(data))
        return real(descriptor, bytes(data)[: max(1, len(data) - 1)])

    monkeypatch.setattr(os, "write", short)
    path = commit(tmp_path, 1, {"a": b"abcdef"}, "run")
    assert calls[:6] == [6, 1, *calls[2:6]]
    assert (path / "a").read_bytes() == b"abcdef"
    assert read(path) == {"a": b"abcdef"}


class FailAt:
    """Lets the n-th call (from 0) of one of the calls raise, and counts."""

    def __init__(self, patch: pytest.MonkeyPatch, call: str, n: int, number: int) -> None:
        self.count, self.fired = 0, False
        real = getattr(os, call)

        def fail(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count == n + 1:
                self.fired = True
                raise OSError(number, os.strerror(number))
            return real(*args, **kwargs)

        patch.setattr(os, call, fail)


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
            read(folder / f"step-{step:08d}")
        shutil.rmtree(folder)
    # one temporary folder; four files, the manifest and two folders; all but one are not empty; one rename
    assert fired == {"mkdir": 1, "open": 7, "write": 4, "fsync": 7, "rename": 1}[call]


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
    assert read(tmp_path / "step-00000001") == {"other": b""}
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


def test_a_replacement_that_was_cut_off_is_undone(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    (tmp_path / "step-00000002").rename(tmp_path / ".old-00000002-0123abcd")
    shutil.copytree(tmp_path / "step-00000001", tmp_path / ".old-00000001-0123abcd")
    clean(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["step-00000001", "step-00000002"]
    assert read(tmp_path / "step-00000002")["step"] == b"2"


def test_a_damaged_step_is_replaced(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "step-00000001" / "a.bin").write_bytes(b"")
    save(tmp_path, 1)
    assert read(tmp_path / "step-00000001")["a.bin"] == FILES["a.bin"]
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


@pytest.mark.parametrize(
    ("keep", "protect", "left"),
    [
        (2, [], [4, 5]),
        (3, [], [3, 4, 5]),
        (2, [1], [1, 4, 5]),
        (2, [5, 2], [2, 4, 5]),
        (9, [], [1, 2, 3, 4, 5]),
        (2, [77], [4, 5]),
    ],
)
def test_retention(keep: int, protect: list[int], left: list[int], tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, 4, 5)
    (tmp_path / "step-00000001.bak").mkdir()
    assert retain(tmp_path, "run", keep, protect) is None
    assert steps(tmp_path) == left
    assert set(os.listdir(tmp_path)) == {"step-00000001.bak", *(f"step-{step:08d}" for step in left)}
    for step in left:
        read(tmp_path / f"step-{step:08d}")


def test_retention_that_fails_is_one_warning_and_succeeds_later(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, 4)
    with pytest.MonkeyPatch.context() as patch:
        FailAt(patch, "rename", 0, errno.EPERM)
        assert retain(tmp_path, "run", 2, []) == "cannot delete an old checkpoint: operation not permitted"
    assert steps(tmp_path) == [1, 3, 4]  # the other one is deleted all the same
    assert retain(tmp_path, "run", 2, []) is None
    assert steps(tmp_path) == [3, 4]


def test_many_saves_leave_k_folders(tmp_path: Path) -> None:
    for step in range(60):
        commit(tmp_path, step, {"a": b"1"}, "run")
        retain(tmp_path, "run", 3, [0])
        assert len(os.listdir(tmp_path)) <= 4
    assert steps(tmp_path) == [0, 57, 58, 59]


def test_clean_removes_leftovers_only(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for name in (".tmp-00000002-9-aa", ".del-00000001-bb"):
        (tmp_path / name / "inner").mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    (tmp_path / ".tmp-link").symlink_to(tmp_path / "kept")
    clean(tmp_path)
    clean(tmp_path / "nothing")
    assert set(os.listdir(tmp_path)) == {"step-00000001", "kept", ".tmp-link"}


def test_newest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint found"):
        newest(tmp_path)
    save(tmp_path, 9, 10)
    step, files, warnings = newest(tmp_path)
    assert (step, files["step"], warnings) == (10, b"10", [])


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
def test_read_finds_damage(hurt: Callable[[Path], object], tmp_path: Path) -> None:
    save(tmp_path, 1)
    hurt(tmp_path / "step-00000001")
    with pytest.raises(Damaged):
        read(tmp_path / "step-00000001")


def test_read_finds_each_flipped_bit(tmp_path: Path) -> None:
    path = commit(tmp_path, 1, {"a": b"some bytes"}, "run")
    for at in range(10):
        for bit in range(8):
            data = bytearray(b"some bytes")
            data[at] ^= 1 << bit
            (path / "a").write_bytes(data)
            with pytest.raises(Damaged, match="a: sha256 differs"):
                read(path)


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
        read(tmp_path / "step-00000001")


# --- JSON and small files ---------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_json_comes_back(value: Any) -> None:
    data = canonical_json(value)
    assert strict_json(data) == value
    assert canonical_json(strict_json(data)) == data
    assert data.endswith(b"\n")


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_the_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [math.nan], {"a": math.inf}])
def test_canonical_json_refuses_what_is_no_number(value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"NaN", "NaN is not allowed"),
        (b"[-Infinity]", "-Infinity is not allowed"),
        (b'{"a": Infinity}', "Infinity is not allowed"),
        (b"1e999", "1e999 is too large"),
        (b"[-1e400]", "-1e400 is too large"),
        (b'{"a": 1, "a": 1}', "a key is given twice"),
        (b'[{"b": {"a": 1, "a": 2}}]', "a key is given twice"),
        (b'{"a": 1, "\\u0061": 2}', "a key is given twice"),
        (b"{} {}", "Extra data"),
        (b"", "Expecting value"),
        (b"\xff", "invalid start byte"),
        (b"'a'", "Expecting value"),
    ],
)
def test_strict_json_refuses(text: bytes, what: str) -> None:
    with pytest.raises(ValueError, match=re.escape(what)):
        strict_json(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_a_value_error(data: bytes) -> None:
    try:
        value = strict_json(data)
    except ValueError:
        return
    assert strict_json(canonical_json(value)) == value


def test_write_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert tree(tmp_path) == {"run.json": b"two"}


@pytest.mark.parametrize(("call", "n_calls"), [("open", 2), ("write", 1), ("fsync", 2), ("replace", 1)])
def test_write_whole_is_all_or_nothing(call: str, n_calls: int, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    for n in range(n_calls):
        write_whole(path, b"old")
        with pytest.MonkeyPatch.context() as patch:
            fault = FailAt(patch, call, n, errno.ENOSPC)
            with pytest.raises(EnvironmentFault, match=r"run\.json: cannot write: no space left on device"):
                write_whole(path, b"new, and longer")
        assert fault.fired
        # the last calls sync the folder, when the new bytes are there
        assert tree(tmp_path) == {"run.json": b"new, and longer" if n == 1 else b"old"}


def test_write_whole_syncs_before_it_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, real = Recorder(monkeypatch), os.replace

    def replace(source: Any, target: Any) -> None:
        recorder.calls.append(("replace", Path(target).name))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    write_whole(tmp_path / "x", b"1")
    kinds = [kind for kind, _ in recorder.calls]
    assert kinds == ["create", "write", "fsync", "replace", "fsync"]
    assert recorder.calls[-1] == ("fsync", tmp_path.name)


# --- folders and deletions ---------------------------------------------------------------------------------


def test_a_new_folder_is_synced_in_its_parent_all_the_way_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(monkeypatch)
    make_folder(tmp_path / "a" / "b" / "checkpoints")
    assert (tmp_path / "a" / "b" / "checkpoints").is_dir()
    synced = [name for kind, name in recorder.calls if kind == "fsync"]
    assert sorted(synced) == sorted([tmp_path.name, "a", "b"])
    recorder.calls.clear()
    make_folder(tmp_path / "a" / "b")
    assert not [name for kind, name in recorder.calls if kind == "fsync"]


def test_retention_syncs_the_new_names_before_it_deletes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut that keeps the deletions but not the renames would leave a half checkpoint under a good name."""
    save(tmp_path, 1, 2, 3, 4)
    recorder, real = Recorder(monkeypatch), shutil.rmtree

    def rmtree(path: Any, *given: Any, **named: Any) -> None:
        recorder.calls.append(("delete", Path(path).name[:13]))
        real(path, *given, **named)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    assert retain(tmp_path, "run", 2, []) is None
    calls = [(kind, name.split(" ")[0]) for kind, name in recorder.calls]
    assert calls == [
        ("rename", "step-00000001"),
        ("rename", "step-00000002"),
        ("fsync", tmp_path.name),
        ("delete", ".del-00000001"),
        ("delete", ".del-00000002"),
    ]


def test_nothing_is_deleted_whose_new_name_is_not_on_the_disk(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3)
    with pytest.MonkeyPatch.context() as patch:
        FailAt(patch, "fsync", 0, errno.EIO)
        assert retain(tmp_path, "run", 2, []) == "cannot delete an old checkpoint: input/output error"
    assert steps(tmp_path) == [2, 3]
    (left,) = tmp_path.glob(".del-*")
    assert len(os.listdir(left)) == len(FILES) + 2
    assert retain(tmp_path, "run", 2, []) is None  # the next time finishes it
    assert sorted(os.listdir(tmp_path)) == ["step-00000002", "step-00000003"]


def test_a_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3)
    with pytest.MonkeyPatch.context() as patch:
        FailAt(patch, "scandir", 0, errno.EIO)
        assert retain(tmp_path, "run", 2, []) == "cannot delete an old checkpoint: input/output error"
    with pytest.MonkeyPatch.context() as patch:
        FailAt(patch, "fsync", 0, errno.EIO)
        FailAt(patch, "scandir", 1, errno.EIO)  # the first one is of the removal of the temporary folder
        with pytest.raises(EnvironmentFault) as caught:
            save(tmp_path, 4)
    assert str(caught.value) == (
        f"{tmp_path}: cannot write checkpoint at step 4: input/output error; which others are there cannot be read"
    )
    assert steps(tmp_path) == [1, 2, 3]
    with pytest.MonkeyPatch.context() as patch:
        FailAt(patch, "listdir", 0, errno.EACCES)
        with pytest.raises(Damaged, match="cannot be listed: Permission denied"):
            read(tmp_path / "step-00000003")


def test_a_replaced_checkpoint_that_cannot_be_put_back(tmp_path: Path) -> None:
    save(tmp_path, 1)
    old = tmp_path / ".old-00000001-0123abcd"
    (tmp_path / "step-00000001").rename(old)
    with pytest.MonkeyPatch.context() as patch:
        FailAt(patch, "rename", 0, errno.EROFS)
        with pytest.raises(EnvironmentFault) as caught:
            clean(tmp_path)
    assert str(caught.value) == f"{old}: cannot be put back: read-only file system"
    clean(tmp_path)
    assert os.listdir(tmp_path) == ["step-00000001"]


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
    import hashlib

    content = {f"{i}": os.urandom(size) for i in range(4)}
    path = commit(tmp_path, 1, content, "run")
    said = json.loads((path / "manifest.json").read_bytes())["files"]
    assert {name: entry["sha256"] for name, entry in said.items()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in content.items()
    }


def test_little_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    asked = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=3 * 2**20)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert lacks_space(tmp_path, 3 * 2**19) is None
    assert lacks_space(tmp_path / "checkpoints", 2 * 2**20) == (
        f"{tmp_path}/checkpoints: 3 MB are free, and a checkpoint takes 2 MB; make room"
    )
    assert asked == [tmp_path, tmp_path]

    def refuse(path: Path) -> None:
        raise OSError(errno.EIO, "x")

    monkeypatch.setattr(shutil, "disk_usage", refuse)
    assert lacks_space(tmp_path, 1) is None
