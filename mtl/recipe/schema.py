"""The recipe: every key, its type and its bounds, and the checks between keys."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    PrivateAttr,
    StringConstraints,
    Tag,
    model_validator,
)

from mtl.errors import KeyPath, UserError, did_you_mean, quoted, raise_all
from mtl.recipe.spec import (
    BACKBONES,
    OPTIMIZERS,
    SCHEDULES,
    SHARING,
    SOURCES,
    TASKS,
    WEIGHTINGS,
    BackboneSpec,
    FilePath,
    Kind,
    Model,
    OptimizerSpec,
    ScheduleSpec,
    SharingSpec,
    SourceSpec,
    TaskSpec,
    Text,
    WeightingSpec,
    fault,
    recipe_errors,
)
from mtl.recipe.yaml import Mark, place_of

SCHEMA_VERSION = 1
MAX_TASKS = 256

RecipeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]
TaskName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$", max_length=64)]
SourceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$", max_length=64)]
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


Fraction = Annotated[float, Field(gt=0, lt=1)]
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


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


Time = Annotated[float, Field(ge=-1e12, le=1e12)]
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
    """A number as it is; a date or time as seconds since 1970, UTC unless it names a zone."""
    if not isinstance(value, str):
        return float(value)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise fault(f"{quoted(value)} is not a date such as '2024-03-01' or '2024-03-01T12:00:00'") from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def duration_of(value: float | str) -> float:
    """A number as it is; `30s`, `15m`, `12h`, `7d` or `2w` as seconds."""
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
    stratify: str | None = Field(
        None, max_length=64, description="a task whose classes have the same share of each split"
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

    @property
    def held_out(self) -> dict[str, float]:
        """Split -> fraction, of those that are given."""
        given = {"validation": self.validation, "test": self.test}
        return {name: fraction for name, fraction in given.items() if fraction is not None}


class Standardize(Model):
    """How inputs are scaled."""

    kind: Literal["per_feature", "per_channel", "none"] = Field(
        "per_feature",
        description="per_feature: each pixel or feature by its own mean and deviation; per_channel: one pair "
        "for all positions of a channel; none: inputs as they are",
    )


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
    standardize: Standardize = Standardize()

    @model_validator(mode="after")
    def _one_or_several(self) -> Self:
        if (self.source is None) == (self.sources is None):
            state = "neither is" if self.source is None else "both are"
            raise recipe_errors("data", [((), f"give either source or sources; {state} given")])
        return self

    @property
    def by_name(self) -> dict[str, SourceSpec]:
        """The sources; one that stands alone is called ''."""
        return dict(self.sources) if self.sources is not None else {"": self.only}

    @property
    def only(self) -> SourceSpec:
        """The source, where there is one."""
        assert self.source is not None
        return self.source

    def path_of(self, name: str) -> KeyPath:
        """Where a source stands below `data`."""
        return ("sources", name) if name else ("source",)


class Head(Model):
    """The output layer of every task."""

    dropout: float = Field(0.0, ge=0, lt=1, description="on the tower's last activation")
    norm: bool = Field(False, description="normalize the logits, as the backbone normalizes its stages")


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
        description="validation/<task or mean>/<metric>; default: the mean headline metric",
    )
    patience: int = Field(5, ge=1, le=1_000_000, description="evaluations")


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
        """The exponent's inverse; None for proportional."""
        if self.sampling == "proportional" or self.sampling == 1:
            return None
        return math.inf if self.sampling == "uniform" else float(self.sampling)


InitFrom = Annotated[
    Annotated[FilePath, Tag("<path>")]
    | Annotated[dict[TaskName, FilePath], Field(min_length=1), Tag("<mapping>")],
    Discriminator(lambda value: "<mapping>" if isinstance(value, dict) else "<path>"),
]


class Train(Model):
    """The training loop."""

    epochs: int | None = Field(None, ge=1, le=1_000_000, description="times that every row is seen")
    max_steps: int | None = Field(None, ge=1, lt=10**8, description="optimizer steps, instead of epochs")
    batch_size: int = Field(128, ge=1, le=1_000_000, description="rows")
    drop_last: bool = Field(False, description="leave out an epoch's last, smaller batch")
    batches: Batches = Batches()
    accumulate: int = Field(1, ge=1, le=100_000, description="batches per optimizer step")
    device: Annotated[str, StringConstraints(pattern=r"^(auto|cpu|mps|cuda(:\d{1,3})?)$")] = Field(
        "auto", description="auto: the first GPU if there is one, else the CPU"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of matrix products and convolutions; weights and losses stay float32"
    )
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads; default: as torch decides")
    deterministic: bool = Field(True, description="the same bits in every run on the same machine")
    clip_norm: float | None = Field(None, gt=0, le=1e9, description="largest norm of the whole gradient")
    evaluate_every: Every = Field(
        Every(), description="on validation, and after the last step whatever it says"
    )
    early_stopping: EarlyStopping | None = None
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

    _marks: Mapping[KeyPath, Mark] = PrivateAttr(default_factory=dict)
    _text: bytes = PrivateAttr(b"")

    @model_validator(mode="after")
    def _check_between_keys(self) -> Self:
        problems = list(_problems(self))
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
        plan = self.model.towers
        if plan == "one":
            return {"shared": tuple(self.tasks)}
        if plan == "per_task":
            return {task: (task,) for task in self.tasks}
        assert isinstance(plan, dict)
        return dict(plan)

    @property
    def text(self) -> bytes:
        """The bytes of the file as the user wrote it; empty for a recipe that was not read from one."""
        return self._text

    def written(self, marks: Mapping[KeyPath, Mark], text: bytes) -> Self:
        """This recipe, knowing where each of its values was written."""
        self._marks, self._text = marks, text
        return self

    @contextmanager
    def at(self, *prefix: str | int) -> Iterator[None]:
        """Give errors raised inside their full path in the recipe, and their place in its file."""
        try:
            yield
        except UserError as error:
            raise_all([self._placed(e, prefix) for e in error.errors])

    def _placed(self, error: UserError, prefix: KeyPath) -> UserError:
        path = (*prefix, *error.path)
        what = f"{error.place}: {error.what}" if error.place else error.what
        return type(error)(place_of(self._marks, path), what, error.todo, path=path)

    def plain(self) -> dict[str, Any]:
        """The recipe as plain values, without what was merged in: it loads again unchanged."""
        values = self.model_dump(mode="json")
        values["data"].pop("inputs", None)
        return {key: value for key, value in values.items() if key not in ("base", "task_defaults")}

    def sha256(self) -> str:
        """Digest of the canonical JSON of `plain()`."""
        text = json.dumps(self.plain(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


Problem = tuple[KeyPath, str]


def _problems(recipe: Recipe) -> Iterator[Problem]:
    """Everything that is wrong between keys, each with its path."""
    yield from _task_problems(recipe)
    yield from _data_problems(recipe)
    yield from _tower_problems(recipe)
    yield from _sharing_problems(recipe)
    yield from _train_problems(recipe)


def _task_problems(recipe: Recipe) -> Iterator[Problem]:
    n_tasks = len(recipe.tasks)
    if n_tasks == 0:
        yield ("tasks",), "at least one task is needed"
    if n_tasks > MAX_TASKS:
        yield ("tasks",), f"{n_tasks} tasks given; at most {MAX_TASKS} tasks"
    if "mean" in recipe.tasks:
        yield ("tasks", "mean"), "a task cannot be called 'mean': metrics over all tasks are called that"
    if n_tasks and not any(task.weight > 0 for task in recipe.tasks.values()):
        yield ("tasks",), "at least one task must have weight > 0"
    if recipe.name.split(".")[0].upper() in ("CON", "PRN", "AUX", "NUL"):
        yield ("name",), "use letters, digits, '_', '-' and '.'; this one is reserved on Windows"


def _data_problems(recipe: Recipe) -> Iterator[Problem]:
    sources = recipe.data.sources or {}
    read: dict[str, list[tuple[str, TaskSpec]]] = {}
    for name, task in recipe.tasks.items():
        path = ("tasks", name, "source")
        if task.source is not None and task.source not in sources:
            known = ", ".join(sources)
            yield path, f"no source {quoted(task.source)} in data.sources{': ' if known else ''}{known}"
        for column in task.target_columns():
            others = read.setdefault(column, [])
            for other, spec in others:
                same = None in (task.source, spec.source) or task.source == spec.source
                if same and spec.reads != task.reads:
                    yield (
                        ("tasks", name, "target"),
                        f"reads column {quoted(column)} as {task.reads}, "
                        f"task {quoted(other)} reads it as {spec.reads}",
                    )
                    break
            others.append((name, task))
    split = recipe.data.split
    if split.stratify is not None:
        yield from _task_known(recipe, split.stratify, ("data", "split", "stratify"))
        if split.stratify in recipe.tasks and recipe.tasks[split.stratify].reads != "classes":
            yield (
                ("data", "split", "stratify"),
                f"task {quoted(split.stratify)} has no classes to stratify by",
            )
    batches = recipe.train.batches
    for name in batches.min_labelled:
        yield from _task_known(recipe, name, ("train", "batches", "min_labelled", name))
    if batches.temperature is not None and recipe.data.sources is None:
        yield ("train", "batches", "sampling"), "is for several sources: data.sources"


def _task_known(recipe: Recipe, name: str, path: KeyPath) -> Iterator[Problem]:
    if name not in recipe.tasks:
        yield path, f"unknown task {quoted(name)}{did_you_mean(name, recipe.tasks)}"


def _tower_problems(recipe: Recipe) -> Iterator[Problem]:
    plan = recipe.model.towers
    if not isinstance(plan, Mapping):
        return
    counts = Counter(task for tasks in plan.values() for task in tasks)
    for tower, tasks in plan.items():
        if not tasks:
            yield ("model", "towers", tower), "a tower needs at least one task, or nothing trains it"
        for i, task in enumerate(tasks):
            path = ("model", "towers", tower, i)
            if task not in recipe.tasks:
                yield path, f"unknown task {quoted(task)}{did_you_mean(task, recipe.tasks)}"
            elif counts[task] > 1:
                yield path, f"task {quoted(task)} is in more than one place; a task has one tower"
    for task in recipe.tasks:
        if task not in counts:
            yield ("model", "towers"), f"task {quoted(task)} has no tower"


def _sharing_problems(recipe: Recipe) -> Iterator[Problem]:
    sharing, stages = recipe.model.sharing, recipe.model.backbone.stage_names()
    for i, site in enumerate(sharing.sites()):
        if site not in stages:
            known = ", ".join(stages)
            yield (
                ("model", "sharing", "after", i),
                f"no stage {quoted(site)}; stages: {known}{did_you_mean(site, stages)}",
            )
    if not sharing.sites():
        return
    if recipe.model.towers == "one":
        yield (
            ("model", "sharing"),
            f"{sharing.kind} mixes towers, but 'towers: one' gives one; use kind 'none'",
        )
    elif recipe.model.tower_init == "same" and sharing.keeps_equal_towers_equal(len(recipe.towers)):
        yield (
            ("model", "tower_init"),
            "towers that start the same and mix evenly would stay identical for ever; "
            "use 'different', or another init of the sharing",
        )


def _train_problems(recipe: Recipe) -> Iterator[Problem]:
    train = recipe.train
    if (train.epochs is None) == (train.max_steps is None):
        state = "neither is" if train.epochs is None else "both are"
        yield ("train",), f"give either epochs or max_steps; {state} given"
    if train.checkpoint.keep < 2:
        yield ("train", "checkpoint", "keep"), "must be at least 2: the newest may be damaged by a power cut"
    stopping = train.early_stopping
    if stopping is not None and stopping.metric is not None:
        path = ("train", "early_stopping", "metric")
        parts = stopping.metric.split("/")
        known = [*recipe.tasks, "mean"]
        if parts[0] != "validation" or len(parts) != 3:
            yield path, f"{quoted(stopping.metric)} may not select; give validation/<task or mean>/<metric>"
        elif parts[1] not in known:
            yield path, f"unknown task {quoted(parts[1])}{did_you_mean(parts[1], known)}"
        else:
            metrics = _metrics_of(recipe, parts[1])
            if parts[2] not in metrics:
                names = ", ".join(metrics)
                near = did_you_mean(parts[2], metrics)
                yield path, f"unknown metric {quoted(parts[2])}; {parts[1]} has: {names or 'none'}{near}"


def _metrics_of(recipe: Recipe, task: str) -> tuple[str, ...]:
    """The metrics that may select: of one task, or the headline metric that all tasks have in common."""
    if task != "mean":
        spec = recipe.tasks[task]
        return ("loss", *(name for name in spec.metric_names if spec.known_metrics[name] is not None))
    headline = common_headline(recipe.tasks)
    return (headline,) if headline is not None else ()


def common_headline(tasks: Mapping[str, TaskSpec]) -> str | None:
    """The headline metric if it is the same for all tasks, so that a mean over tasks means something."""
    names = {task.headline for task in tasks.values()}
    return names.pop() if len(names) == 1 else None
