"""The folder of a comparison: which one it is, and what it remembers of an earlier command."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mtl.comparison.arms.arm import changed
from mtl.comparison.memory import Memory, read_memory
from mtl.comparison.request import Asked
from mtl.errors import UserError


def folder_of(asked: Asked, what: str = "") -> Path:
    """The folder of a comparison; without `out` the same request finds it again."""
    return asked.out or Path("runs", asked.recipe.name, f"compare-{what}{digest(asked)[:8]}")


def digest(asked: Asked) -> str:
    """The digest of what all runs of a comparison have in common; a folder holds one such comparison."""
    resampled = "resampled split" if asked.resample else ""
    return hashlib.sha256((changed(asked.recipe, asked.common).sha256() + resampled).encode()).hexdigest()


def remembered(asked: Asked, folder: Path) -> Memory | None:
    """What the folder remembers; None if the comparison has not begun.

    Raises:
        UserError: the folder holds another comparison, or something else.
    """
    memory = read_memory(folder)
    if memory is None:
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(str(folder), "exists and holds no comparison", "give another --out")
        return None
    if memory.recipe_sha256 != digest(asked):
        raise UserError(str(folder), "holds the comparison of another recipe", "give another --out")
    if asked.at_most is not None and memory.at_most != asked.at_most and memory.looks:
        raise UserError("--at-most", "is set before the first look at a comparison", "leave it out")
    return memory
