"""The keys below `train`: the training loop."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, StringConstraints, Tag, model_validator

from mtl.errors import quoted
from mtl.recipe.base import FilePath, Model, TaskName, Text, fault, recipe_errors


class Every(Model):
    """How often, in one of the units."""

    epochs: int | None = Field(None, ge=1, le=1_000_000, description="epochs; 1, if no unit is given")
    steps: int | None = Field(None, ge=1, lt=10**8, description="optimizer steps")

    @model_validator(mode="before")
    @classmethod
    def _each_epoch(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and all(value is None for value in given.values()):
            return {**given, "epochs": 1}
        return given

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        *first, last = type(self).model_fields
        if sum(getattr(self, unit) is not None for unit in (*first, last)) > 1:
            raise recipe_errors(
                "every", [((), f"give one of {', '.join(first)} and {last}; null takes one back")]
            )
        return self


class SaveEvery(Every):
    """How often to save; the best and the last epoch are saved whatever it says."""

    minutes: float | None = Field(None, gt=0, le=1e6, description="minutes since the last save")


class Checkpoints(Model):
    """When to save, and how many checkpoints to keep beside the best one."""

    every: SaveEvery = SaveEvery()
    keep: int = Field(3, le=1000, description="at least 2")


class EarlyStopping(Model):
    """Stop when the metric has not improved for `patience` evaluations on the validation split."""

    metric: Text | None = Field(
        None,
        description="validation/<task or mean>/<metric>; default: the mean headline metric, "
        "or the mean loss, weighted by `weight`, if the headlines of the tasks differ",
    )
    patience: int = Field(5, ge=1, le=1_000_000, description="evaluations")


MOST_THREADS = 1024
DEVICE = r"^(auto|cpu|mps|cuda(:\d{1,3})?)$"
DeviceName = Annotated[str, StringConstraints(pattern=DEVICE)]


def _device(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(DEVICE[1:-1], value) is None:
        raise fault(f"no device {quoted(value)}; one of auto, cpu, cuda, cuda:1, mps")
    return value


def _temperature(value: object) -> object:
    words = ("proportional", "uniform")
    if value in words:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 1e6:
        raise fault(f"sampling is proportional, uniform, or a temperature of 1 or more, got {quoted(value)}")
    return float(value)


class Batches(Model):
    """What a training batch is made of."""

    min_labelled: dict[TaskName, Annotated[int, Field(ge=1, le=1_000_000)]] = Field(
        {}, description="task -> rows of each batch that are sure to have its label"
    )
    sampling: Annotated[
        Annotated[float, Field(ge=1, le=1e6)] | Literal["proportional", "uniform"],
        BeforeValidator(_temperature),
    ] = Field(
        "proportional",
        description="how often each of several sources is drawn: by its rows n, evenly, or by n^(1/temperature)",
    )

    @property
    def temperature(self) -> float | None:
        """The temperature T = 1 / exponent; None where sources are drawn in proportion to their rows."""
        if self.sampling == "proportional" or self.sampling == 1:
            return None
        return math.inf if self.sampling == "uniform" else float(self.sampling)


InitFrom = Annotated[
    Annotated[FilePath, Tag("<path>")]
    | Annotated[dict[TaskName, FilePath], Field(min_length=1), Tag("<mapping>")],
    Discriminator(lambda value: "<mapping>" if isinstance(value, dict) else "<path>"),
]


def _threads(value: object) -> object:
    if value == "auto" or (type(value) is int and 1 <= value <= MOST_THREADS):
        return value
    raise fault(f"is auto, or a whole number from 1 to {MOST_THREADS:,}, got {quoted(value)}")


Threads = Annotated[int, Field(ge=1, le=MOST_THREADS)] | Literal["auto"]


class Train(Model):
    """The training loop."""

    epochs: int | None = Field(None, ge=1, le=1_000_000, description="times that every row is seen")
    max_steps: int | None = Field(None, ge=1, lt=10**8, description="optimizer steps, instead of epochs")
    batch_size: int = Field(128, ge=1, le=1_000_000, description="rows")
    drop_last: bool = Field(False, description="leave out an epoch's last, smaller batch")
    batches: Batches = Batches()
    accumulate: int = Field(1, ge=1, le=100_000, description="batches per optimizer step")
    device: Annotated[DeviceName, BeforeValidator(_device, json_schema_input_type=DeviceName)] = Field(
        "auto", description="auto: the first GPU if there is one, else the CPU"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of matrix products and convolutions; weights and losses stay float32"
    )
    threads: Annotated[Threads, BeforeValidator(_threads, json_schema_input_type=Threads)] = Field(
        "auto",
        description="of the CPU; auto: one if a batch takes fewer than 20 million multiplications, else torch's number",
    )
    compile: bool = Field(
        False,
        description="the forward pass by torch.compile, which takes 10 to 30 seconds and needs a C++ compiler",
    )
    deterministic: bool = Field(True, description="the same bits in every run on the same machine")
    clip_norm: float | None = Field(None, gt=0, le=1e9, description="largest norm of the whole gradient")
    evaluate_every: Every = Field(
        Every(), description="on validation, and after the last step whatever it says"
    )
    early_stopping: EarlyStopping | None = None
    select: Literal["best", "last", "best_of_each"] = Field(
        "best",
        description="the step whose weights are the result: the best by validation, or the last; best_of_each: "
        "the best, and beside it the results of every task at its own best step",
    )
    monitor: Literal["test"] | None = Field(
        None, description="also evaluate test at each evaluation; selects nothing"
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop", description="at a loss or gradient that is not finite"
    )
    checkpoint: Checkpoints = Checkpoints()
    init_from: InitFrom | None = Field(
        None, description="a run whose weights to begin with, by name; or one run per tower"
    )
