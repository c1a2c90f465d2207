"""plan.json: what a comparison has to remember from one command to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mtl.runs.disk import write_whole
from mtl.runs.json_text import canonical_json
from mtl.runs.record import Count, Line, Shape
from mtl.runs.results.reading import read_checked

PLAN = "plan.json"


class Look(Shape):
    """Results that somebody saw: of which arms, over which seeds."""

    arms: list[Line]
    seeds: list[Count]


class Memory(Shape):
    """The content of plan.json.

    Args:
        recipe_sha256: of the compared recipe.
        threads: of each run, so that a comparison that goes on makes the same bits.
        at_most: the number of seeds that was set before the first look; None if none was.
        looks: what was seen, in order.
    """

    schema_version: Literal[1] = 1
    recipe_sha256: Line
    threads: Annotated[int, Field(ge=1, le=1024)]
    at_most: Count | None
    looks: list[Look] = []

    def looked(self, arms: list[str], seeds: list[int]) -> None:
        """Remember a look, unless it is the last one again."""
        look = Look(arms=arms, seeds=seeds)
        if not self.looks or self.looks[-1] != look:
            self.looks.append(look)

    @property
    def n_looks(self) -> int:
        """How often a different number of seeds was looked at."""
        return len({tuple(look.seeds) for look in self.looks})

    def save(self, folder: Path) -> None:
        """Write plan.json.

        Raises:
            EnvironmentFault: the disk refused.
        """
        write_whole(folder / PLAN, canonical_json(self.model_dump()))


def read_memory(folder: Path) -> Memory | None:
    """The content of plan.json; None if the folder holds no comparison yet.

    Raises:
        UserError: the file cannot be read, or is not what a comparison writes.
    """
    return read_checked(folder / PLAN, Memory)
