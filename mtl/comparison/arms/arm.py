"""One arm of a comparison, and the facts on which arms depend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe

Role = Literal["single", "candidate", "control", "reference"]
SCARCE = 0.5
"""A task with fewer labels than this part of the training rows gets a single network of its own on its rows."""


@dataclass(frozen=True)
class Arm:
    """One arm of a comparison.

    Args:
        name: what the user called it.
        what: one sentence for people.
        role: `single` is what sharing must beat, a `candidate` may be chosen, a `control` explains, a `reference` is
            not a network of this recipe.
        changes: the overrides that make the arm's recipe out of the compared one.
        each: task -> further overrides, where each of these tasks has a run of its own; without it, one run gives the
            results of all tasks.
        recipe: the recipe of an arm that was given as a file; `changes` are applied to it.
    """

    name: str
    what: str
    role: Role
    changes: tuple[str, ...] = ()
    each: Mapping[str, tuple[str, ...]] | None = None
    recipe: Recipe | None = None

    @property
    def is_network(self) -> bool:
        """Whether the arm is trained, with as many seeds as the user asks for."""
        return self.role != "reference"

    @property
    def folder(self) -> str:
        """The name of its folder: letters, digits and `_.=+-` stay, other characters become `-`."""
        return "".join(c if (c.isalnum() and c.isascii()) or c in "_.=+-" else "-" for c in self.name)[:100]

    def parts(self) -> dict[str, tuple[str, ...]]:
        """Name of each run of one seed -> its overrides; the name is that of the task, or empty for all tasks."""
        if self.each is None:
            return {"": self.changes}
        return {task: (*self.changes, *own) for task, own in self.each.items()}


@dataclass(frozen=True)
class Facts:
    """What the arms depend on beside the recipe.

    Args:
        n_labels: task -> its labels in train.
        n_rows: the rows of train.
        n_parameters: the number of parameters of the network of a recipe.
        is_vector: whether the network reads one vector of numbers, as trees do.
    """

    n_labels: Mapping[str, int]
    n_rows: int
    n_parameters: Callable[[Recipe], int]
    is_vector: bool

    @property
    def scarcest(self) -> str:
        """The task with the fewest labels; of several the first."""
        return min(self.n_labels, key=lambda task: self.n_labels[task])

    @property
    def scarce(self) -> list[str]:
        """The tasks with labels in less than half of the rows."""
        return [task for task, n in self.n_labels.items() if n < SCARCE * self.n_rows]


def changed(recipe: Recipe, changes: Iterable[str]) -> Recipe:
    """The recipe with overrides.

    Raises:
        UserError: they do not fit the recipe.
    """
    return load_recipe(recipe.plain(), list(changes))
