"""The recipe: its keys at the top and below `model`, and what it knows of itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, PrivateAttr, StringConstraints, Tag, model_validator

from mtl.errors import KeyPath, UserError, raise_all
from mtl.recipe.base import Kind, Model, TaskName, Text, recipe_errors
from mtl.recipe.keys.checks import problems_between
from mtl.recipe.keys.data import Data
from mtl.recipe.keys.model import Network
from mtl.recipe.keys.train import Train
from mtl.recipe.keys.tune import Tunable
from mtl.recipe.specs import (
    OPTIMIZERS,
    SCHEDULES,
    TASKS,
    TRACKERS,
    WEIGHTINGS,
    OptimizerSpec,
    ScheduleSpec,
    TaskSpec,
    TrackerSpec,
    WeightingSpec,
)
from mtl.recipe.text.yaml import Mark, place_of

SCHEMA_VERSION = 1
MOST_TUNED = 16
RecipeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]
PhaseName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=40)]
SeedNumber = Annotated[int, Field(ge=0, lt=2**32)]


class Seeds(Model):
    """One seed per purpose, so that each can vary alone."""

    init: SeedNumber = Field(0, description="initial weights")
    order: SeedNumber = Field(0, description="order of rows, and dropout")
    split: SeedNumber = Field(0, description="which rows are held out")
    labels: SeedNumber = Field(0, description="generated data")


Seed = Annotated[
    Annotated[SeedNumber, Tag("<number>")] | Annotated[Seeds, Tag("<mapping>")],
    Discriminator(lambda value: "<mapping>" if isinstance(value, (dict, Seeds)) else "<number>"),
]


class Recipe(Model):
    """One experiment, declared."""

    schema_version: int = Field(
        ge=SCHEMA_VERSION, le=SCHEMA_VERSION, description="the form of recipes in which this one is written"
    )
    base: Text | None = Field(None, description="another recipe, merged underneath")
    name: RecipeName = Field(description="of the experiment; run folders are called after it")
    description: Text = Field("", description="one line for lists and reports")
    seed: Seed = Field(0, description="of everything random; or one seed for each purpose")
    data: Data
    task_defaults: dict[str, Any] = Field({}, description="merged under every task")
    tasks: dict[TaskName, Annotated[TaskSpec, Kind(TASKS)]] = Field(
        description="task name -> what is learned; their order is the order of results"
    )
    model: Network
    weighting: Annotated[WeightingSpec, Kind(WEIGHTINGS)] = Field({"kind": "sum"}, validate_default=True)
    optimizer: Annotated[OptimizerSpec, Kind(OPTIMIZERS)]
    schedule: Annotated[ScheduleSpec, Kind(SCHEDULES)] = Field({"kind": "constant"}, validate_default=True)
    train: Train
    tune: dict[str, Tunable] = Field(
        {},
        max_length=MOST_TUNED,
        description="key, as on the command line, -> a list of values, which `mtl compare` tries for every arm and "
        "`mtl tune` draws from, or a range, for `mtl tune` alone; a run ignores it",
    )
    phases: dict[PhaseName, dict[str, Any]] = Field(
        {},
        max_length=16,
        description="phase -> keys, as on the command line, and values; each begins with the weights of the one before",
    )
    trackers: (
        Annotated[tuple[Annotated[TrackerSpec, Kind(TRACKERS, by_name=True)], ...], Field(max_length=8)]
        | None
    ) = Field(
        None, description="where else the measurements go: names, or mappings with `kind`; see trackers.md"
    )

    _marks: Mapping[KeyPath, Mark] = PrivateAttr(default_factory=dict)
    _text: bytes = PrivateAttr(b"")

    @model_validator(mode="after")
    def _check_between_keys(self) -> Self:
        problems = list(
            problems_between(self.name, self.data, self.tasks, self.model, self.weighting, self.train)
        )
        if problems:
            raise recipe_errors("Recipe", problems)
        return self

    @property
    def seeds(self) -> Seeds:
        """The seed of each purpose."""
        if isinstance(self.seed, Seeds):
            return self.seed
        return Seeds(init=self.seed, order=self.seed, split=self.seed, labels=self.seed)

    @property
    def towers(self) -> dict[str, tuple[str, ...]]:
        """Tower name -> its tasks."""
        return self.model.towers_of(self.tasks)

    @property
    def text(self) -> bytes:
        """The bytes of the file as the user wrote it; empty for a recipe that was not read from one."""
        return self._text

    def written(self, marks: Mapping[KeyPath, Mark], text: bytes) -> Self:
        """A copy of this recipe that knows where each of its values was written."""
        self._marks, self._text = marks, text
        return self

    def remarks(self) -> tuple[str, ...]:
        """What a user should know of the weighting and the backbone before a run, one line each."""
        weighting = self.weighting.remark(len(self.tasks))
        backbone = self.model.backbone.remark(self.data.standardize.kind)
        return tuple(filter(None, (weighting, backbone)))

    @contextmanager
    def at(self, *prefix: str | int) -> Iterator[None]:
        """Complete the errors raised inside: each gets its full path in the recipe and its place in the file."""
        try:
            yield
        except UserError as error:
            raise_all([self._placed(e, prefix) for e in error.errors])

    def _placed(self, error: UserError, prefix: KeyPath) -> UserError:
        path = (*prefix, *error.path)
        what = f"{error.place}: {error.what}" if error.place else error.what
        return type(error)(place_of(self._marks, path), what, error.todo, path=path)

    def plain(self) -> dict[str, Any]:
        """The recipe as plain values. They hold everything that was merged in, and load again to the same recipe."""
        values = self.model_dump(mode="json")
        values["data"].pop("inputs", None)
        return {key: value for key, value in values.items() if key not in ("base", "task_defaults")}

    def sha256(self) -> str:
        """Digest of the canonical JSON of `plain()`."""
        text = json.dumps(self.plain(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()
