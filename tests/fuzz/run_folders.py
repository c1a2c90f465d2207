"""Run folders that are almost right: seeded changes of whole files, of their content, and of the digests with them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from tests.fuzz.mutation import changed_parts, mutations

Change = Callable[[Path, random.Random], object]


def changed_folder(run: Path, seed: bytes) -> None:
    """Make one to three changes to a run folder; none for an empty seed."""
    rng = random.Random(seed)
    for _ in range(rng.randrange(1, 4) if seed else 0):
        files = sorted(path for path in run.rglob("*") if is_plain(path) and path.name != ".lock")
        if files:
            path = rng.choice(files)
            rng.choices(CHANGES, WEIGHTS)[0](path, rng)
            if rng.random() < 0.7:
                sign(path)


def is_plain(path: Path) -> bool:
    """Whether a path is a small regular file; an earlier change may have put a pipe or a link there."""
    return path.is_file() and not path.is_symlink() and path.lstat().st_size < 1 << 20


def sign(path: Path) -> None:
    """Give the manifest beside a file the size and digest that it has now, as a forger would."""
    manifest = path.parent / "manifest.json"
    if not (is_plain(manifest) and is_plain(path)):
        return
    try:
        found = json.loads(manifest.read_bytes())
        if path.name in found["files"]:
            data = path.read_bytes()
            found["files"][path.name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            manifest.write_text(json.dumps(found))
    except (ValueError, TypeError, KeyError):
        return


def mutate(path: Path, rng: random.Random) -> None:
    path.write_bytes(next(islice(mutations([path.read_bytes()], (), rng.randrange(1 << 30)), 1, None)))


def change_parts(path: Path, rng: random.Random) -> None:
    """Another value in sound JSON, or in a line of it; any change if it is not sound."""
    seed = b"%d" % rng.randrange(1 << 30)
    try:
        lines = [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines()
        at = rng.randrange(len(lines))
        lines[at] = json.dumps(changed_parts(json.loads(lines[at]), seed))
    except (ValueError, IndexError):
        mutate(path, rng)
    else:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def cut(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size + 1))


def swap(path: Path, rng: random.Random) -> None:
    """The content of another file."""
    other = rng.choice(sorted(path.parent.iterdir()))
    if is_plain(other):
        path.write_bytes(other.read_bytes())


def replace(path: Path, rng: random.Random) -> None:
    """Something that is no plain file."""
    path.unlink()
    match rng.randrange(6):
        case 0:
            os.mkfifo(path)
        case 1:
            path.mkdir()
        case 2:
            path.symlink_to(rng.choice(["/dev/zero", "/etc/hostname", "nowhere", path.name]))
        case 3:
            with path.open("wb") as file:
                file.truncate(4 << 30)
        case 4:
            path.touch()


def _no_files(folder: str, names: list[str]) -> list[str]:
    """What an earlier change put in the place of files, such as a pipe."""
    return [name for name in names if not is_plain(Path(folder) / name)]


def of_checkpoint(path: Path, rng: random.Random) -> None:
    """A checkpoint that is missing, has another step, or is there twice."""
    holder = path.parent
    if not holder.name.startswith("step-"):
        return
    other = holder.with_name(f"step-{rng.choice((0, 1, 5, 99, 99999999)):08d}")
    match rng.randrange(3):
        case 0:
            shutil.rmtree(holder)
        case 1 if not other.exists():
            holder.rename(other)
        case 2 if not other.exists():
            shutil.copytree(holder, other, ignore=_no_files)


CHANGES: tuple[Change, ...] = (mutate, change_parts, cut, swap, replace, of_checkpoint)
WEIGHTS = (4, 6, 1, 1, 2, 1)
