"""The keys below `data`: where rows come from, how they are split and scaled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, StringConstraints, Tag, model_validator

from mtl.data.iso_time import iso_seconds
from mtl.errors import KeyPath, quoted
from mtl.recipe.base import MAX_TASKS, Kind, Model, TaskName, fault, recipe_errors
from mtl.recipe.specs import SOURCES, SourceSpec

SourceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$", max_length=64)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Stratify = Annotated[
    Annotated[TaskName, Tag("<name>")] | Annotated[tuple[TaskName, ...], Field(min_length=1), Tag("<list>")],
    Discriminator(lambda value: "<list>" if isinstance(value, tuple) else "<name>"),
]
Time = Annotated[float, Field(ge=-1e12, le=1e12)]
LabelFraction = Annotated[float, Field(gt=0, le=1)]
LabelSeed = Annotated[int, Field(ge=0, lt=2**32)]


def _moment(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise fault(f"a point in time is a number or a date such as '2024-03-01', got {quoted(value)}")
    if isinstance(value, str):
        seconds_of(value)
    return value


def _duration(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise fault(f"a gap is a number, or text such as '7d', got {quoted(value)}")
    duration_of(value)
    return value


Moment = Annotated[
    Annotated[int, Field(ge=-(10**12), le=10**12)] | Time | Annotated[str, Field(max_length=40)],
    BeforeValidator(_moment),
]
Duration = Annotated[
    Annotated[int, Field(ge=0, le=10**12)]
    | Annotated[float, Field(ge=0, le=1e12)]
    | Annotated[str, Field(max_length=20)],
    BeforeValidator(_duration),
]


def seconds_of(value: float | str) -> float:
    """Seconds since 1970 of a date or time, in UTC unless it names a zone; a number stays as it is."""
    if not isinstance(value, str):
        return float(value)
    try:
        return iso_seconds(value)
    except ValueError:
        raise fault(f"{quoted(value)} is not a date such as '2024-03-01' or '2024-03-01T12:00:00'") from None


def duration_of(value: float | str) -> float:
    """Seconds of `30s`, `15m`, `12h`, `7d` or `2w`; a number stays as it is."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
    if not isinstance(value, str):
        number = float(value)
    elif value[-1:] in units and value[:-1].replace(".", "", 1).isdecimal():
        number = float(value[:-1]) * units[value[-1]]
    else:
        raise fault(f"{quoted(value)} is not a duration such as '7d' or '12h'")
    if not 0 <= number < 1e12:
        raise fault(f"a gap is at least 0, got {quoted(value)}")
    return number


class Split(Model):
    """Which rows are held out of the training rows, by fractions of them or by a column."""

    validation: Fraction | None = Field(
        None, description="fraction of the training rows held out for choosing epochs and settings"
    )
    test: Fraction | None = Field(
        None, description="fraction of the rows held out for the final test, if the source gives none"
    )
    column: ColumnName | None = Field(
        None, description="a column that says train, validation or test; rows with an empty cell are left out"
    )
    stratify: Stratify | None = Field(
        None,
        description="a task whose classes have the same share of each split; or a list of tasks, or all: "
        "their classes, and their missing labels, at once; of numbers, whether a label is there",
    )
    group: ColumnName | None = Field(
        None, description="a column whose values (people, sites) are each on one side only"
    )
    by_time: ColumnName | None = Field(None, description="a column of times: test is the latest rows")
    test_from: Moment | None = Field(
        None, description="with by_time: the first time of test, instead of a fraction"
    )
    validation_from: Moment | None = Field(None, description="with by_time: likewise of validation")
    gap: Duration = Field(0.0, description="with by_time: rows this close before the next split are left out")
    on_unlabelled: Literal["error", "warn"] = Field(
        "error",
        description="a task without a label in validation or test: an error, or without metrics there",
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if (self.validation or 0) + (self.test or 0) >= 1:
            what = f"validation {self.validation} and test {self.test} leave no rows for training"
            raise recipe_errors("split", [((), what)])
        rules = [
            name for name in ("column", "stratify", "group", "by_time") if getattr(self, name) is not None
        ]
        if len(rules) > 1:
            raise recipe_errors(
                "split",
                [
                    (
                        (rules[1],),
                        f"give one of column, stratify, group and by_time, not {' and '.join(rules)}",
                    )
                ],
            )
        if self.by_time is None:
            for name in ("test_from", "validation_from", "gap"):
                if getattr(self, name):
                    raise recipe_errors("split", [((name,), "needs by_time, the column of times")])
        for name in ("test", "validation"):
            if getattr(self, name) is not None and getattr(self, f"{name}_from") is not None:
                raise recipe_errors("split", [((name,), f"give {name} or {name}_from, not both")])
        return self

    def strata(self, tasks: Iterable[str]) -> tuple[str, ...]:
        """The tasks, out of those of the recipe, by which rows are stratified."""
        if self.stratify is None or self.stratify == "all":
            return tuple(tasks) if self.stratify else ()
        return (self.stratify,) if isinstance(self.stratify, str) else self.stratify

    @property
    def held_out(self) -> dict[str, float]:
        """Split -> its fraction of the rows, for each split that has one."""
        given = {"validation": self.validation, "test": self.test}
        return {name: fraction for name, fraction in given.items() if fraction is not None}


class Standardize(Model):
    """How inputs are scaled."""

    kind: Literal["per_feature", "per_channel", "none"] = Field(
        "per_feature",
        description="per_feature: each pixel or feature by its own mean and deviation; per_channel: one pair "
        "for all positions of a channel; none: inputs as they are",
    )


class PermuteLabels(Model):
    """A control: the labels of some tasks, permuted among the rows that have one, so that inputs do not tell them."""

    tasks: tuple[TaskName, ...] = Field(
        min_length=1,
        max_length=MAX_TASKS,
        description="whose labels are permuted within train and within validation; those of test stay",
    )
    seed: LabelSeed = Field(0, description="of the permutations, of which each task has its own")


class Data(Model):
    """Where rows come from, how they are split and scaled."""

    source: Annotated[SourceSpec, Kind(SOURCES)] | None = None
    sources: (
        Annotated[dict[SourceName, Annotated[SourceSpec, Kind(SOURCES)]], Field(min_length=1, max_length=64)]
        | None
    ) = Field(
        None, description="several sources by name, instead of one; a task may name the one it learns from"
    )
    inputs: dict[str, Any] | None = Field(
        None, description="which columns of a table are read, and how; merged under `inputs` of every source"
    )
    split: Split = Split()
    screen: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="leaves out columns of a table that tell nothing about any label by themselves; the number is "
        "the expected share of such columns among those that stay",
    )
    standardize: Standardize = Standardize()
    in_memory: bool = Field(
        True,
        description="false: rows are encoded once into files in the cache, and batches are read from there; for tables "
        "and arrays that are larger than memory. Order and results stay the same",
    )
    permute_labels: PermuteLabels | None = None
    label_fraction: dict[TaskName, LabelFraction] | None = Field(
        None,
        description="task -> the part of its labels in train and in validation that is kept, the same part of each "
        "class; the others become missing ones, whatever `missing` says. A smaller part lies within a larger one",
    )
    label_seed: LabelSeed | None = Field(
        None, description="which labels label_fraction keeps; default: as in seed.split"
    )
    drop_unlabelled: bool = Field(
        False,
        description="leaves out the rows of train and validation that have no label of any task of the recipe",
    )

    @model_validator(mode="after")
    def _one_or_several(self) -> Self:
        if (self.source is None) == (self.sources is None):
            state = "neither is" if self.source is None else "both are"
            raise recipe_errors("data", [((), f"give either source or sources; {state} given")])
        for name, source in self.by_name.items() if not self.in_memory else ():
            if not source.can_be_stored:
                what = f"source kind {quoted(source.kind)} has its rows in memory"
                todo = "remove data.in_memory: it serves tables and arrays in files"
                raise recipe_errors("data", [((*self.path_of(name), "kind"), f"{what}; {todo}")])
        return self

    @property
    def by_name(self) -> dict[str, SourceSpec]:
        """Name -> source; a source without a name is called ''."""
        return dict(self.sources) if self.sources is not None else {"": self.only}

    @property
    def only(self) -> SourceSpec:
        """The source of a recipe that has a single one."""
        assert self.source is not None
        return self.source

    def path_of(self, name: str) -> KeyPath:
        """The path of a source below `data`."""
        return ("sources", name) if name else ("source",)
