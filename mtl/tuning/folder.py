"""The folder of a sweep: which one it is, and what it remembers of an earlier command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mtl.errors import UserError
from mtl.recipe.keys.recipe import Recipe
from mtl.runs.disk import write_whole
from mtl.runs.json_text import canonical_json
from mtl.runs.record import Line, Shape
from mtl.runs.results.reading import read_checked
from mtl.tuning.request import Asked

SWEEP, TRIALS, DATABASE = "sweep.json", "trials", "study.db"


class Memory(Shape):
    """The content of sweep.json.

    Args:
        recipe_sha256: of the recipe with `tune`.
        threads: of each trial, so that a trial that is repeated makes the same bits.
    """

    schema_version: Literal[1] = 1
    recipe_sha256: Line
    threads: Annotated[int, Field(ge=1, le=1024)]

    def save(self, folder: Path) -> None:
        """Write sweep.json.

        Raises:
            EnvironmentFault: the disk refused.
        """
        write_whole(folder / SWEEP, canonical_json(self.model_dump()))


def study_of(recipe: Recipe) -> str:
    """The name of the study: a changed recipe is another study, also in the same storage."""
    return f"{recipe.name}-{recipe.sha256()[:8]}"


def folder_of(asked: Asked) -> Path:
    """The folder of a sweep; without `out` the same request finds it again."""
    return asked.out or Path("runs", asked.recipe.name, f"tune-{asked.recipe.sha256()[:8]}")


def run_folder(folder: Path, number: int) -> Path:
    """The run folder of a trial."""
    return folder / TRIALS / f"trial-{number:04d}"


def remembered(asked: Asked, folder: Path) -> Memory | None:
    """What the folder remembers; None if the sweep has not begun.

    Raises:
        UserError: the folder holds another sweep, or something else.
    """
    memory = read_checked(folder / SWEEP, Memory)
    if memory is None:
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(str(folder), "exists and holds no sweep", "give another --out")
        return None
    if memory.recipe_sha256 != asked.recipe.sha256():
        raise UserError(str(folder), "holds the sweep of another recipe", "give another --out")
    return memory
