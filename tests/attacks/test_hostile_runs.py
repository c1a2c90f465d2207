"""Run folders and checkpoints that somebody else made: refused, and nothing in them is run or followed."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mtl.errors import USER
from mtl.runs.json_text import canonical_json
from tests.support.assertions import Capture, called
from tests.support.records import record_values

STEP = Path("run", "checkpoints", "step-00000008")


class Executed:
    """An object that makes a folder `marker` when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("marker",)


@pytest.fixture
def run(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with one checkpoint, `run` in the working directory."""
    shutil.copytree(small_run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000004")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def signed(name: str, data: bytes) -> None:
    """Put a file into the checkpoint and its digest into the manifest, as an attacker would."""
    (STEP / name).write_bytes(data)
    manifest = json.loads((STEP / "manifest.json").read_bytes())
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (STEP / "manifest.json").write_bytes(canonical_json(manifest))


def header(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


def links_to(target: str, name: str) -> Callable[[], None]:
    def build() -> None:
        (STEP / name).unlink()
        (STEP / name).symlink_to(target)

    return build


def pipe(name: str) -> Callable[[], None]:
    def build() -> None:
        (STEP / name).unlink()
        os.mkfifo(STEP / name)

    return build


def listed(name: str) -> Callable[[], None]:
    """The manifest names a file outside the checkpoint."""

    def build() -> None:
        data = Path("secret").read_bytes() if Path("secret").exists() else b""
        manifest = json.loads((STEP / "manifest.json").read_bytes())
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (STEP / "manifest.json").write_bytes(canonical_json(manifest))

    return build


HUGE = b'{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,8]}}'
EVIL = pickle.dumps(Executed())
RESUMED: dict[str, tuple[Callable[[], None], str]] = {
    "pickle as model": (lambda: signed("model.safetensors", EVIL), "model.safetensors: cannot be read"),
    "pickle behind a header": (
        lambda: signed("model.safetensors", header(b"{}") + EVIL), "model.safetensors: cannot be read",
    ),
    "header of 2^60 bytes": (
        lambda: signed("model.safetensors", (1 << 60).to_bytes(8, "little") + b"{}"),
        "model.safetensors: cannot be read",
    ),
    "tensor of 2^62 bytes": (
        lambda: signed("model.safetensors", header(HUGE) + bytes(8)),
        "model.safetensors: cannot be read",
    ),
    "pickle as optimizer": (lambda: signed("optim.safetensors", EVIL), "optim.safetensors: cannot be read"),
    "pickle as state": (lambda: signed("state.json", EVIL), "state.json: is not the state of a run"),
    "class names in the state": (
        lambda: signed("state.json", b'{"__class__": "os.mkdir", "_target_": "os.mkdir", "args": ["marker"]}'),
        "state.json: is not the state of a run",
    ),
    "deep state": (lambda: signed("state.json", b"[" * 100_000), "state.json: is not the state of a run"),
    "step of -1": (
        lambda: signed("state.json", (STEP / "state.json").read_bytes().replace(b'_step": 8', b'_step": -1')),
        "state.json: is not the state of a run",
    ),
    "manifest without end": (links_to("/dev/zero", "manifest.json"), "manifest.json: is not a regular file"),
    "weights without end": (links_to("/dev/zero", "model.safetensors"), "model.safetensors: is not a regular file"),
    "weights that are a pipe": (pipe("model.safetensors"), "model.safetensors: is not a regular file"),
    "manifest that is a pipe": (pipe("manifest.json"), "manifest.json: is not a regular file"),
    "file outside": (listed("../../../secret"), "missing"),
    "file at /": (listed("/etc/hostname"), "missing"),
    "name with escapes": (listed("\x1b[31mred"), "'\\x1b[31mred': missing"),
}  # fmt: skip


@pytest.mark.parametrize("case", RESUMED)
def test_a_checkpoint_is_refused_without_harm(case: str, run: Path, capsys: Capture) -> None:
    Path("secret").write_text("kept to oneself")
    build, text = RESUMED[case]
    build()
    before = sorted(path.name for path in Path().iterdir())
    done = called(capsys, "run", "--resume", str(STEP))
    assert done.returncode == USER, done.stderr
    *_, line = done.stderr.splitlines()
    assert text in line
    assert all(each.isprintable() for each in done.stderr.splitlines())
    assert "kept to oneself" not in done.stderr + done.stdout
    assert sorted(path.name for path in Path().iterdir()) == before, "no marker"


def replaced(name: str, target: str = "") -> None:
    """A file of the run gives way to a link to `target`, or to a pipe."""
    (Path("run") / name).unlink()
    if target:
        (Path("run") / name).symlink_to(target)
    else:
        os.mkfifo(Path("run") / name)


def written(name: str, data: bytes) -> None:
    (Path("run") / name).write_bytes(data)


def written_and_signed(name: str, data: bytes) -> None:
    """As an attacker would, with the digest in run.json."""
    written(name, data)
    record = json.loads(Path("run/run.json").read_bytes())
    written(
        "run.json", json.dumps({**record, "resolved_sha256": [hashlib.sha256(data).hexdigest()]}).encode()
    )


RECIPE = "recipe.resolved.yaml"
RUNS: dict[str, tuple[Callable[[], None], str]] = {
    "record without end": (lambda: replaced("run.json", "/dev/zero"), "is not a regular file"),
    "record is a pipe": (lambda: replaced("run.json"), "is not a regular file"),
    "record is a pickle": (lambda: written("run.json", EVIL), "cannot be read"),
    "deep record": (lambda: written("run.json", b"[" * 100_000), "cannot be read"),
    "empty record": (lambda: written("run.json", b'{"schema_version": 1}'), "run.json: has no 'id'"),
    "other types": (
        lambda: written("run.json", json.dumps(record_values(plugins=5)).encode()),
        "run.json: plugins is 5, which no run writes",
    ),
    "recipe": (
        lambda: written_and_signed(RECIPE, b"!!python/object/apply:os.mkdir [marker]"),
        f"{RECIPE}:1:1: tags (tag:yaml.org,2002:python/...) are not allowed",
    ),
    "recipe without end": (
        lambda: replaced(RECIPE, "/dev/zero"),
        f"{RECIPE}: cannot be read: is not a regular file",
    ),
}


@pytest.mark.parametrize("case", RUNS)
@pytest.mark.parametrize("command", ["resume", "eval"])
def test_a_run_folder_is_refused_without_harm(case: str, command: str, run: Path, capsys: Capture) -> None:
    make, text = RUNS[case]
    make()
    arguments = ["run", "--resume", "run"] if command == "resume" else ["eval", "run"]
    done = called(capsys, *arguments)
    assert done.returncode == USER, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert text in line
    assert line.isprintable()
    assert not Path("marker").exists()
    listing = called(capsys, "runs", ".")
    assert listing.returncode in (0, USER), listing.stderr
    assert (listing.stdout + listing.stderr).replace("\n", "").isprintable()


@pytest.mark.parametrize("target", ["../victim", "", "../new"])
@pytest.mark.parametrize("name", [".lock", "metrics.jsonl", "sharing.jsonl", "timings.jsonl"])
def test_nothing_outside_the_run_is_cut_or_waited_for(
    name: str, target: str, run: Path, capsys: Capture
) -> None:
    """Also without checkpoints, when all logs are cut to nothing."""
    shutil.rmtree(run / "checkpoints")
    Path("victim").write_bytes(b"kept to oneself\n")
    (run / name).touch()
    replaced(name, target)
    for arguments in (["run", "--resume", "run"], ["run", "--resume", "run", "--dry-run"]):
        done = called(capsys, *arguments)
        assert done.returncode == USER, done.stderr
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line == f"error: run/{name}: is not a regular file; put back what the run wrote"
    assert Path("victim").read_bytes() == b"kept to oneself\n"
    assert not Path("new").exists()
    listing = called(capsys, "runs", ".")
    assert listing.returncode in (0, USER)
    assert ("is not a regular file" in listing.stderr) == (name == ".lock")
