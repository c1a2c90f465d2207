"""One save in a process of its own, by mtl's protocol or by one that is wrong on purpose.

    python -B -S -E tests/faults/protocols.py PROTOCOL SCENARIO FOLDER

Before it, FOLDER holds the checkpoints `BEFORE` of run `RUN`. Scenario `save` commits the next step and keeps the last
`KEEP`; `replace` puts another state in the place of the newest step; `file` replaces a small file. Tensors come in
two pieces, as those of a model do in many. Exit code 3 and a
line on stderr are a fault that the protocol noticed; a warning of a deletion that failed goes to stderr with code 0.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from mtl.errors import EnvironmentFault
from mtl.runs import checkpoint, retention
from mtl.runs.disk import Content, write_whole

RUN, KEEP, BEFORE, NEXT = "run", 2, (100, 200, 300), 400
OLD_FILE, NEW_FILE = b'{"a": 1}', b'{"a": 2, "b": 3}'


def files(step: int, version: int = 0) -> dict[str, bytes]:
    """What a checkpoint of a step holds; a version of it differs in every file."""
    return {
        "model.safetensors": f"weights {step} {version} ".encode() * 400,
        "optim.safetensors": f"moments {step} {version} ".encode() * 800,
        "state.json": json.dumps({"step": step, "version": version}).encode(),
    }


Protocol = Callable[[Path, int, dict[str, bytes]], str | None]
"""Commits the files of a step and then deletes what retention allows; a warning, if there is one."""


def in_pieces(content: dict[str, bytes]) -> dict[str, Content]:
    """Files of tensors as a header and the rest."""
    return {
        name: [data[:100], memoryview(data)[100:]] if name.endswith(".safetensors") else data
        for name, data in content.items()
    }


def ours(folder: Path, step: int, content: dict[str, bytes]) -> str | None:
    checkpoint.commit(folder, step, in_pieces(content), RUN)
    return retention.retain(folder, RUN, KEEP, [])


def _manifest(step: int, content: dict[str, bytes]) -> bytes:
    said = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in content.items()
    }
    return json.dumps({"schema_version": 1, "run_id": RUN, "step": step, "files": said}).encode()


def _delete(folder: Path, keep: int) -> None:
    for step in checkpoint.steps(folder)[:-keep]:
        shutil.rmtree(folder / f"step-{step:08d}")


def without_syncs(folder: Path, step: int, content: dict[str, bytes]) -> None:
    """Wrong: a temporary folder and a rename, but nothing is ever synced."""
    temporary, path = folder / f".tmp-{step:08d}", folder / f"step-{step:08d}"
    temporary.mkdir()
    for name, data in {**content, "manifest.json": _manifest(step, content)}.items():
        (temporary / name).write_bytes(data)
    if path.exists():
        os.rename(path, folder / f".del-{step:08d}")
    os.rename(temporary, path)
    _delete(folder, KEEP)


def in_place(folder: Path, step: int, content: dict[str, bytes]) -> None:
    """Wrong: the files are written where they will stay, over what is there; each is synced."""
    path = folder / f"step-{step:08d}"
    path.mkdir(exist_ok=True)
    for name, data in {**content, "manifest.json": _manifest(step, content)}.items():
        with (path / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    _delete(folder, KEEP)


def room_first(folder: Path, step: int, content: dict[str, bytes]) -> None:
    """Wrong: old checkpoints are deleted to make room before the new one is committed."""
    _delete(folder, 1)
    shutil.rmtree(folder / f"step-{step:08d}", ignore_errors=True)
    checkpoint.commit(folder, step, in_pieces(content), RUN)


PROTOCOLS: dict[str, Protocol] = {
    "ours": ours, "without_syncs": without_syncs, "in_place": in_place, "room_first": room_first
}  # fmt: skip


def main() -> None:
    name, scenario, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    try:
        if scenario == "file":
            write_whole(folder / "run.json", NEW_FILE)
            return
        step, version = (NEXT, 0) if scenario == "save" else (BEFORE[-1], 1)
        warning = PROTOCOLS[name](folder, step, files(step, version))
    except (EnvironmentFault, OSError) as fault:
        print(fault, file=sys.stderr)
        sys.exit(3)
    if warning:
        print(warning, file=sys.stderr)


if __name__ == "__main__":
    main()
