"""The run folder: what is written, what is refused, and logs that a crash has cut."""

import csv
import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mtl.errors import ENVIRONMENT, EnvironmentFault, UserError
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe, to_yaml
from mtl.runs.folder import RunFolder
from mtl.runs.listing import list_runs
from mtl.runs.record import RunRecord
from tests.runs.faulty_disk import FailAt, save
from tests.support import recipes
from tests.support.failpoints import failing
from tests.support.records import record, record_values


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return recipes.recipe()


@pytest.fixture
def run(recipe: Recipe, tmp_path: Path) -> Iterator[RunFolder]:
    """A new run, held by nobody."""
    made = created(tmp_path / "run", recipe)
    yield made
    made.release()


def begun(recipe: Recipe) -> RunRecord:
    """The record of a run that is about to begin."""
    digest = hashlib.sha256(to_yaml(recipe).encode()).hexdigest()
    return record(status="running", resolved_sha256=[digest])


def created(path: Path | None, recipe: Recipe) -> RunFolder:
    """A new run whose process has let go of it."""
    made = RunFolder.create(path, recipe, begun(recipe))
    made.release()
    return made


def test_a_new_folder(run: RunFolder, recipe: Recipe) -> None:
    assert set(os.listdir(run.path)) == {".lock", "run.json", "recipe.yaml", "recipe.resolved.yaml"}
    assert RunFolder.open(run.path).record == run.record
    assert json.loads((run.path / "run.json").read_bytes()) == run.record.plain()
    assert list(run.record.plain()) == list(record_values())
    assert load_recipe(run.recipe()).sha256() == recipe.sha256()
    assert load_recipe(run.path / "recipe.yaml").sha256() == recipe.sha256()


def test_the_users_own_bytes_are_kept(tmp_path: Path, run: RunFolder) -> None:
    text = b"# mine\r\n" + (run.path / "recipe.yaml").read_bytes()
    (tmp_path / "mine.yaml").write_bytes(text)
    other = created(tmp_path / "other", load_recipe(tmp_path / "mine.yaml"))
    assert (other.path / "recipe.yaml").read_bytes() == text


def test_the_default_place(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = {created(None, recipe).path for _ in range(5)}
    assert len(paths) == 5
    assert all(path.parent == Path("runs/small") and path.name[8] == "T" for path in paths)


def test_an_existing_run_is_refused_and_named(run: RunFolder, recipe: Recipe) -> None:
    with pytest.raises(UserError) as caught:
        RunFolder.create(run.path, recipe, begun(recipe))
    assert (
        str(caught.value)
        == f"{run.path}: a run is there already; mtl run --resume {run.path}, or another --out"
    )
    assert type(caught.value) is UserError


def test_a_folder_with_other_things_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch()
    with pytest.raises(UserError, match="the folder is not empty; give another --out") as caught:
        RunFolder.create(tmp_path, recipe, begun(recipe))
    assert type(caught.value) is UserError
    assert os.listdir(tmp_path) == ["photo.png"]


def test_an_empty_folder_is_taken(recipe: Recipe, tmp_path: Path) -> None:
    assert created(tmp_path, recipe).path == tmp_path


@pytest.mark.parametrize("name", ["file", "file/inner", "x" * 300, "/".join(["y" * 200] * 30)])
def test_a_place_that_cannot_be(name: str, recipe: Recipe, tmp_path: Path) -> None:
    """K17: a file in its place, or below one, and paths that are too long."""
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault, match="cannot make the run folder: ") as caught:
        RunFolder.create(tmp_path / name, recipe, begun(recipe))
    assert caught.value.code == ENVIRONMENT
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "no checkpoint found: it has no run.json"),
        (b"", "cannot be read: Expecting value"),
        (b"{", "cannot be read: Expecting property name"),
        (b'{"a": NaN}', "cannot be read: NaN is not allowed"),
        (b'{"a": 1, "a": 1}', "cannot be read: a key is given twice"),
        (b"\xff", "cannot be read: 'utf-8' codec can't decode"),
        (b"[" * 100_000, "cannot be read: maximum recursion depth"),
        (b"[]", "is not a run record of schema 1"),
        (b"{}", "is not a run record of schema 1"),
        (b'{"schema_version": 2}', "is not a run record of schema 1"),
    ],
)
def test_what_is_no_run(content: bytes | None, text: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        RunFolder.open(tmp_path)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_without_its_recipe(run: RunFolder) -> None:
    (run.path / "recipe.resolved.yaml").unlink()
    with pytest.raises(UserError, match=r"has no 'recipe\.resolved\.yaml'"):
        run.recipe()


def test_the_record_is_kept_up_to_date(run: RunFolder) -> None:
    run.record.status, run.record.results = "finished", {"test/a/loss": None}
    run.save_record()
    assert RunFolder.open(run.path).record == run.record
    assert json.loads((run.path / "run.json").read_bytes())["status"] == "finished"
    run.record.results = {"test/a/loss": float("nan")}
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.save_record()


# --- logs -------------------------------------------------------------------------------------------------

ROWS = [
    {"split": "train", "epoch": epoch, "step": 4 * epoch, "train/a/loss": value}
    for epoch, value in enumerate((0.1, None, 1e-300), start=1)
]
MATRIX = {"targets": ["a", "b"], "sources": ["a", "b"], "values": [[1.0, 0.5], [0, 1]]}
ALPHAS = [{"epoch": epoch, "step": 4 * epoch, "sharing": {"fc1": MATRIX}} for epoch in (1, 2, 3)]


def test_rows_come_back(run: RunFolder) -> None:
    assert run.logs.rows() == []
    run.logs.append("metrics.jsonl", ROWS[:2])
    run.logs.append("metrics.jsonl", ROWS[2:])
    assert run.logs.rows() == ROWS
    assert (run.path / "metrics.jsonl").read_bytes().count(b"\n") == 3


def test_a_last_line_cut_anywhere_is_left_out(run: RunFolder) -> None:
    run.logs.append("metrics.jsonl", ROWS)
    whole = (run.path / "metrics.jsonl").read_bytes()
    for length in range(len(whole) + 1):
        (run.path / "metrics.jsonl").write_bytes(whole[:length])
        assert run.logs.rows() == ROWS[: whole[:length].count(b"\n")]


def test_nothing_that_is_no_number_is_logged(run: RunFolder) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.logs.append("metrics.jsonl", [{"x": float("inf")}])


def test_a_log_the_disk_refuses_is_no_bug_of_ours(run: RunFolder) -> None:
    with (
        failing("log:1:full"),
        pytest.raises(EnvironmentFault, match=r"metrics\.jsonl: cannot write: no space left on device"),
    ):
        run.logs.append("metrics.jsonl", ROWS)


def test_logs_are_cut_to_where_a_checkpoint_was(run: RunFolder) -> None:
    run.logs.append("metrics.jsonl", ROWS[:1])
    run.logs.append("sharing.jsonl", ALPHAS[:1])
    run.logs.append("timings.jsonl", ROWS)
    offsets = run.logs.synced_lengths()
    assert offsets == {name: (run.path / name).stat().st_size for name in ("metrics.jsonl", "sharing.jsonl")}
    run.logs.append("metrics.jsonl", ROWS[1:])
    run.logs.append("sharing.jsonl", ALPHAS[1:])
    run.logs.cut(offsets, 1)
    kept = [run.logs.rows(name) for name in ("metrics.jsonl", "sharing.jsonl", "timings.jsonl")]
    assert kept == [ROWS[:1], ALPHAS[:1], ROWS[:1]]
    run.logs.cut({}, 0)
    assert [run.logs.rows(name) for name in ("metrics.jsonl", "sharing.jsonl", "timings.jsonl")] == [[]] * 3


def test_logs_are_on_the_disk_before_a_checkpoint_counts_on_them(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.logs.append("metrics.jsonl", ROWS)
    run.logs.append("sharing.jsonl", ROWS)
    synced, real = [], os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    run.logs.synced_lengths()
    assert synced == [(run.path / name).stat().st_ino for name in ("metrics.jsonl", "sharing.jsonl")]


def test_csv(run: RunFolder) -> None:
    run.logs.append(
        "metrics.jsonl",
        [
            {"split": "train", "epoch": 1, "step": 4, "train/a/loss": 0.5, "train/mean/accuracy": None},
            {"split": "test", "epoch": 1, "step": 4, "test/a/loss": 0.25, "test/a/labels": 3},
        ],
    )
    run.logs.write_csv(run.logs.rows())
    with (run.path / "metrics.csv").open(newline="") as file:
        table = list(csv.reader(file))
    assert table == [
        ["split", "epoch", "step", "a/loss", "mean/accuracy", "a/labels"],
        ["train", "1", "4", "0.5", "", ""],
        ["test", "1", "4", "0.25", "", "3"],
    ]


# --- the lock ---------------------------------------------------------------------------------------------


def test_the_lock_is_for_one_and_names_the_holder(run: RunFolder) -> None:
    run.hold()
    run.hold()  # again by the same holder is nothing
    other = RunFolder.open(run.path)
    with pytest.raises(UserError, match=rf"is in use by pid {os.getpid()} on host \S+$"):
        other.hold()
    run.release()
    run.release()
    other.hold()
    with pytest.raises(UserError, match="is in use by pid"):
        run.hold()
    other.release()


def test_of_two_that_begin_in_one_folder_one_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    """The second comes after the first has made the folder, and before it has written its record."""
    first, folder = RunFolder(tmp_path, record()), [".lock", "recipe.yaml"]
    (tmp_path / "recipe.yaml").write_text("of the first", encoding="utf-8")
    first.hold()
    with pytest.raises(UserError, match=rf"is in use by pid {os.getpid()} on host \S+$"):
        RunFolder.create(tmp_path, recipe, begun(recipe))
    assert sorted(os.listdir(tmp_path)) == folder
    assert (tmp_path / "recipe.yaml").read_text(encoding="utf-8") == "of the first"
    first.release()
    made = RunFolder.create(tmp_path, recipe, begun(recipe))  # the first was killed: what it left gives way
    with pytest.raises(UserError, match="is in use by"):
        first.hold()
    made.release()


def test_a_lock_that_cannot_be_made(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    (run.path / ".lock").unlink()
    with monkeypatch.context() as patch:
        FailAt(patch, "open", 0, errno.EROFS)
        with pytest.raises(EnvironmentFault) as caught:
            run.hold()
    assert str(caught.value) == f"{run.path}: cannot be locked: read-only file system"
    (run.path / ".lock").mkdir()
    with pytest.raises(UserError, match=r"\.lock: is not a regular file; put back what the run wrote$"):
        run.hold()


def out_of(path: Path, kind: str) -> None:
    """Something that is no file of a run: a link to `victim` beside the run, a link to nothing, or a pipe."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("../victim" if kind == "link" else "../new")


WRITING: dict[str, Callable[[RunFolder, str], object]] = {
    "hold": lambda run, name: run.hold(),
    "require_free": lambda run, name: run.require_free(),
    "log": lambda run, name: run.logs.append(name, ROWS),
    "offsets": lambda run, name: run.logs.synced_lengths(),
    "cut_logs": lambda run, name: run.logs.cut({}, 0),
}
NAMES = {
    "hold": (".lock", "metrics.jsonl", "sharing.jsonl", "timings.jsonl"),
    "require_free": (".lock", "metrics.jsonl", "sharing.jsonl", "timings.jsonl"),
    "log": ("metrics.jsonl", "sharing.jsonl", "timings.jsonl"),
    "offsets": ("metrics.jsonl", "sharing.jsonl"),
    "cut_logs": ("metrics.jsonl", "sharing.jsonl", "timings.jsonl"),
}


@pytest.mark.parametrize("kind", ["link", "link to nothing", "pipe"])
@pytest.mark.parametrize(("how", "name"), [(how, name) for how, names in NAMES.items() for name in names])
def test_nothing_outside_is_written_to_or_waited_for(how: str, name: str, kind: str, run: RunFolder) -> None:
    victim = run.path.parent / "victim"
    victim.write_bytes(b"kept\n")
    for log in ("metrics.jsonl", "sharing.jsonl", "timings.jsonl"):
        run.logs.append(log, ROWS)
    out_of(run.path / name, kind)
    before = {path.name: path.read_bytes() for path in run.path.iterdir() if path.name != name}
    with pytest.raises(UserError) as caught:
        WRITING[how](run, name)
    assert str(caught.value) == f"{run.path}/{name}: is not a regular file; put back what the run wrote"
    assert victim.read_bytes() == b"kept\n"
    assert not (run.path.parent / "new").exists()
    assert {path.name: path.read_bytes() for path in run.path.iterdir() if path.name != name} == before


@pytest.mark.parametrize("name", ["checkpoints", "plots"])
def test_folders_that_are_links_are_not_written_to(name: str, run: RunFolder) -> None:
    (run.path.parent / "elsewhere").mkdir()
    (run.path / name).symlink_to("../elsewhere")
    for hold in (run.hold, run.require_free):
        with pytest.raises(UserError) as caught:
            hold()
        text = "is not a folder of the run's own; put back what the run wrote"
        assert str(caught.value) == f"{run.path}/{name}: {text}"


@pytest.mark.parametrize("kind", ["link", "link to nothing", "pipe"])
def test_a_run_whose_lock_is_no_file_is_refused_and_the_others_listed(kind: str, run: RunFolder) -> None:
    (run.path.parent / "victim").touch()
    out_of(run.path / ".lock", kind)
    fake(run.path.parent / "other", name="other")
    refused: list[UserError] = []
    assert [other.record.name for other in list_runs(run.path.parent, refused.append)] == ["other"]
    text = f"{run.path}/.lock: is not a regular file; put back what the run wrote"
    assert [str(error) for error in refused] == [text]
    with pytest.raises(UserError):
        run.standing()


@pytest.mark.parametrize(
    ("recorded", "saved", "running", "crashed"),
    [(0, (), 0, 0), (8, (), 8, 0), (8, (4, 8), 8, 8), (8, (8, 11), 11, 11), (8, (4,), 8, 4)],
)
def test_the_step_of_a_run_that_runs_is_the_newest_known(
    recorded: int, saved: tuple[int, ...], running: int, crashed: int, run: RunFolder
) -> None:
    """run.json changes at an epoch's end, and an epoch may take a day."""
    run.record.step, run.record.status = recorded, "running"
    run.save_record()
    if saved:
        save(run.checkpoints, *saved)
    run.hold()
    assert RunFolder.open(run.path).standing() == ("running", running)
    run.release()
    assert RunFolder.open(run.path).standing() == ("crashed", crashed)


# --- many -------------------------------------------------------------------------------------------------


def fake(path: Path, **changes: Any) -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / "run.json").write_text(json.dumps(record_values(**changes)))


def test_list_runs_finds_what_is_there_oldest_first(tmp_path: Path) -> None:
    fake(tmp_path, name="zero", started="5")
    fake(tmp_path / "b", name="one", started="3")
    fake(tmp_path / "a" / "x", name="two", started="4")
    fake(tmp_path / "a" / "y" / "z", name="too deep", started="1")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "run.json").write_text('{"schema_version": 99}')
    (tmp_path / "folder" / "run.json").mkdir(parents=True)
    assert [r.record.name for r in list_runs(tmp_path)] == ["one", "two", "zero"]
    assert list_runs(tmp_path / "nothing") == []


def test_list_runs_is_quick(tmp_path: Path) -> None:
    results = {f"test/task{t}/{m}": 0.5 for t in range(20) for m in ("loss", "accuracy", "macro_f1")}
    for i in range(200):
        fake(tmp_path / f"recipe{i % 10}" / f"{i}", name="r", started=f"{i:03}", results=results)
        (tmp_path / f"recipe{i % 10}" / f"{i}" / "checkpoints" / "step-00000001").mkdir(parents=True)
    began = time.perf_counter()
    found = list_runs(tmp_path)
    assert time.perf_counter() - began < 2
    assert [r.record.started for r in found] == [f"{i:03}" for i in range(200)]


def test_a_short_write_is_gone_on_with(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is nearly full takes a part and then refuses."""
    import resource
    import signal

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(EnvironmentFault, match=os.strerror(errno.EFBIG).lower()):
            run.logs.append("timings.jsonl", [{"x": "y" * 300}] * 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert run.logs.rows("timings.jsonl") == [{"x": "y" * 300}] * 3


def test_a_disk_without_locks_is_no_other_process(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems have none."""
    import fcntl

    def flock(file: Any, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(EnvironmentFault, match="cannot be locked: no locks available"):
        run.hold()


def test_a_lock_is_held_although_the_disk_is_full(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds it is for people only."""
    import socket

    def name() -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(socket, "gethostname", name)
    run.hold()
    with pytest.raises(UserError, match=r"is in use by another process$"):
        RunFolder.open(run.path).hold()
    run.release()


def test_a_holder_that_is_no_text(run: RunFolder) -> None:
    run.hold()
    (run.path / ".lock").write_bytes(b"\x1b[31m\xff\n" * 100)
    with pytest.raises(UserError) as caught:
        RunFolder.open(run.path).hold()
    assert str(caught.value).isprintable()
    run.release()


def test_timings_that_a_power_cut_spoiled_are_left_out(run: RunFolder) -> None:
    """Nobody syncs them, and they may end in zeros, or in the middle of a line."""
    whole = [b'{"epoch": 1, "x": 1}\n', b'{"epoch": 2, "x": 2}\n', b'{"epoch": 3, "x": 3}\n']
    spoiled = [
        b"\0" * 40 + b"\n",
        b"[1]\n",
        b"{}\n",
        b"[" * 100_000 + b"\n",
        b'{"epoch": "1"}\n',
        b'{"epoch": 1, "x"',
    ]
    (run.path / "timings.jsonl").write_bytes(
        b"".join([whole[0], spoiled[0], whole[1], *spoiled[1:5], whole[2], spoiled[5]])
    )
    run.logs.cut({}, 2)
    assert (run.path / "timings.jsonl").read_bytes() == whole[0] + whole[1]


def test_a_log_that_cannot_be_synced(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    run.logs.append("metrics.jsonl", ROWS)

    def fsync(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(EnvironmentFault) as caught:
        run.logs.synced_lengths()
    assert str(caught.value) == f"{run.path}/metrics.jsonl: cannot be synced: input/output error"


def test_a_new_run_is_synced_in_its_parent(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, real = [], os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    run = created(tmp_path / "a" / "run", recipe)
    assert {path.stat().st_ino for path in (tmp_path, tmp_path / "a", run.path)} <= set(synced)


def test_a_changed_recipe_is_kept_with_its_step(run: RunFolder) -> None:
    before = list(run.record.resolved_sha256)
    run.record.step = 6
    run.save_record()
    run.change_recipe((run.path / "recipe.resolved.yaml").read_text() + "# longer\n", ["train.epochs 1 -> 2"])
    changed = RunFolder.open(run.path).record.plain()
    assert changed["changes"] == [{"step": 6, "changed": ["train.epochs 1 -> 2"]}]
    assert changed["resolved_sha256"][:-1] == before
    run.recipe()  # either text is the run's own
    (run.path / "recipe.resolved.yaml").write_text("other")
    with pytest.raises(UserError, match=r"recipe\.resolved\.yaml is not as the run wrote it"):
        run.recipe()
