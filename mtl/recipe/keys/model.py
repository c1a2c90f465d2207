"""The keys below `model`: towers, what they share, and their heads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from mtl.recipe.base import MAX_TASKS, Kind, Model, TaskName
from mtl.recipe.specs import BACKBONES, SHARING, BackboneSpec, SharingSpec


class Head(Model):
    """The output layer of every task."""

    dropout: float = Field(0.0, ge=0, lt=1, description="on the tower's last activation")
    norm: bool = Field(
        False,
        description="normalize the logits, as the backbone does its stages; batch norm: over the rows with a label",
    )


Groups = Annotated[dict[TaskName, tuple[str, ...]], Field(min_length=1, max_length=MAX_TASKS)]
TowerPlan = Annotated[
    Annotated[Literal["per_task", "one"], Tag("<word>")] | Annotated[Groups, Tag("<mapping>")],
    Discriminator(lambda value: "<mapping>" if isinstance(value, dict) else "<word>"),
]


class Network(Model):
    """Towers, what they share, and their heads."""

    towers: TowerPlan = Field(
        "per_task", description="one tower per task, one for all tasks, or tower name -> its tasks"
    )
    backbone: Annotated[BackboneSpec, Kind(BACKBONES)]
    sharing: Annotated[SharingSpec, Kind(SHARING)] = Field({"kind": "none"}, validate_default=True)
    head: Head = Head()
    tower_init: Literal["different", "same"] = Field("different", description="whether towers start alike")

    def towers_of(self, tasks: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Tower name -> its tasks; `tasks` are the tasks of the recipe."""
        if self.towers == "one":
            return {"shared": tuple(tasks)}
        if self.towers == "per_task":
            return {task: (task,) for task in tasks}
        assert isinstance(self.towers, dict)
        return dict(self.towers)
