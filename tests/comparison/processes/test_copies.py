"""The copy of a run folder: whatever moment it is broken off at, the run can go on from it."""

import json
import shutil
from pathlib import Path

import pytest

from mtl.comparison.processes.on_ray import copies
from mtl.comparison.processes.on_ray.copies import Incoming, Outgoing, Piece
from mtl.runs import checkpoint
from mtl.runs.checkpoint import verified


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with two checkpoints, whose files have several pieces each."""
    monkeypatch.setattr(copies, "PIECE", 100)
    folder = tmp_path / "run"
    folder.mkdir()
    say(folder, "running")
    (folder / "metrics.jsonl").write_bytes(b"m" * 250)
    (folder / "empty.csv").touch()
    (folder / ".lock").write_bytes(b"pid 1")
    (folder / ".run.json-1-abcdef01").write_bytes(b"unfinished")
    save(folder, 1)
    save(folder, 2)
    return folder


def say(folder: Path, status: str) -> None:
    (folder / "run.json").write_text(json.dumps({"status": status}), encoding="utf-8")


def save(folder: Path, step: int, content: bytes = b"w") -> Path:
    return checkpoint.commit(folder / "checkpoints", step, {"a": content * 300, "b": b"b"}, "id")


def files(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def sent(folder: Path) -> dict[str, bytes]:
    """What a whole copy has: everything but locks and unfinished writes."""
    return {name: data for name, data in files(folder).items() if not Path(name).name.startswith(".")}


def copied(pieces: list[Piece], copy: Path) -> Path:
    incoming = Incoming(copy)
    for piece in pieces:
        incoming.take(piece)
    incoming.close()
    return copy


def test_a_round_copies_all(run: Path, tmp_path: Path) -> None:
    pieces = list(Outgoing(run).round(is_over=False))
    assert len([piece for piece in pieces if piece.path == "metrics.jsonl"]) == 3
    assert files(copied(pieces, tmp_path / "copy")) == sent(run)


@pytest.mark.parametrize("status", ["running", "finished"])
def test_every_moment_of_a_copy_is_a_state_to_go_on_from(run: Path, tmp_path: Path, status: str) -> None:
    say(run, status)
    pieces = list(Outgoing(run).round(is_over=status == "finished"))
    assert len(pieces) > 15
    for n in range(len(pieces) + 1):
        copy = copied(pieces[:n], tmp_path / str(n))
        there = files(copy)
        for step in checkpoint.steps(copy / "checkpoints"):
            assert verified(copy / "checkpoints" / f"step-{step:08d}").keys() == {"a", "b"}
            assert there["metrics.jsonl"] == b"m" * 250  # as long as the checkpoint needs
        if json.loads(there.get("run.json", b'{"status": ""}'))["status"] == "finished":
            assert there == sent(run)
        assert [name for name in there if Path(name).name.startswith(".")] == []
    assert there == sent(run)


def test_a_finished_record_waits_for_the_end(run: Path, tmp_path: Path) -> None:
    outgoing = Outgoing(run)
    say(run, "finished")
    assert "run.json" not in {piece.path for piece in outgoing.round(is_over=False)}
    assert [piece.path for piece in outgoing.round(is_over=True)] == ["run.json"]


def test_later_rounds_send_what_has_changed(run: Path, tmp_path: Path) -> None:
    outgoing = Outgoing(run)
    assert outgoing.is_due()
    pieces = list(outgoing.round(is_over=False))
    assert not outgoing.is_due()
    assert list(outgoing.round(is_over=False)) == []
    with (run / "metrics.jsonl").open("ab") as log:
        log.write(b"more")
    assert not outgoing.is_due()  # only a checkpoint is worth a round
    shutil.rmtree(run / "checkpoints/step-00000001")
    save(run, 2, b"other")  # the step again, after the evaluation
    save(run, 3)
    assert outgoing.is_due()
    later = list(outgoing.round(is_over=False))
    assert {piece.path.removeprefix("checkpoints/").split("/")[0] for piece in later} == {
        "metrics.jsonl", "step-00000001", "step-00000002", "step-00000003",
    }  # fmt: skip
    assert files(copied([*pieces, *later], tmp_path / "copy")) == sent(run)


def test_a_checkpoint_that_is_deleted_while_it_is_sent(run: Path, tmp_path: Path) -> None:
    pieces = []
    for piece in Outgoing(run).round(is_over=False):
        pieces.append(piece)
        if piece.path == "checkpoints/step-00000001/a":
            shutil.rmtree(run / "checkpoints/step-00000001", ignore_errors=True)
    assert Piece("checkpoints/step-00000001", None) in pieces
    assert files(copied(pieces, tmp_path / "copy")) == sent(run)


def test_what_came_from_elsewhere_is_not_sent_back(run: Path) -> None:
    outgoing = Outgoing(run)
    outgoing.mark()
    assert not outgoing.is_due()
    assert list(outgoing.round(is_over=True)) == []


def test_no_folder_yet(tmp_path: Path) -> None:
    outgoing = Outgoing(tmp_path / "none")
    assert not outgoing.is_due()
    with pytest.raises(FileNotFoundError):
        list(outgoing._pieces(tmp_path / "none/run.json"))
    assert list(outgoing.round(is_over=True)) == []
