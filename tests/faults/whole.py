"""Reads checkpoints without a line of the code that writes them: the second opinion of the fault tests."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

NAME = re.compile(r"step-([0-9]{8})")


def content(path: Path) -> dict[str, bytes] | None:
    """The files of one checkpoint, or None if it is not whole."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        files = {name: (path / name).read_bytes() for name in manifest["files"]}
    except (OSError, ValueError, KeyError):
        return None
    if {entry.name for entry in path.iterdir()} != {*files, "manifest.json"}:
        return None
    for name, data in files.items():
        said = manifest["files"][name]
        if said["bytes"] != len(data) or said["sha256"] != hashlib.sha256(data).hexdigest():
            return None
    return files


def checkpoints(folder: Path) -> dict[int, dict[str, bytes] | None]:
    """Step -> its files, None for one that is not whole; of every `step-*` folder."""
    if not folder.is_dir():
        return {}
    found = {int(m[1]): path for path in folder.iterdir() if (m := NAME.fullmatch(path.name))}
    return {step: content(found[step]) for step in sorted(found)}


def final_bytes(run: Path) -> dict[str, bytes]:
    """What two equal runs have in common at their end: logs, and the newest checkpoint."""
    files = checkpoints(run / "checkpoints")
    newest = files[max(files)]
    assert newest is not None
    names = [name for name in ("metrics.jsonl", "sharing.jsonl", "metrics.csv") if (run / name).exists()]
    logs = {name: (run / name).read_bytes() for name in names}
    return {"step": str(max(files)).encode(), **newest, **logs}
