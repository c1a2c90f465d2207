"""The checks between the keys of a recipe: every task, source, stage or metric that a key names must exist."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.util import find_spec

from mtl.errors import KeyPath, did_you_mean, quoted
from mtl.recipe.base import MAX_TASKS
from mtl.recipe.keys.data import Data
from mtl.recipe.keys.model import Network
from mtl.recipe.keys.train import Train
from mtl.recipe.specs import BackboneSpec, GradientWeightingSpec, TaskSpec, WeightingSpec, mean_metric

Problem = tuple[KeyPath, str]
Tasks = Mapping[str, TaskSpec]


def problems_between(
    name: str, data: Data, tasks: Tasks, model: Network, weighting: WeightingSpec, train: Train
) -> Iterator[Problem]:
    """Every fault between two or more keys, each with its path."""
    yield from _task_problems(name, tasks)
    yield from _source_problems(data, tasks)
    yield from _target_problems(tasks)
    yield from _row_problems(data, tasks, train)
    yield from _control_problems(data, tasks)
    yield from _derived_problems(tasks)
    yield from _tower_problems(model, tasks)
    absent = _absent_problem(model.backbone, ("model", "backbone", "kind"))
    yield from absent or _sharing_problems(model, len(model.towers_of(tasks)))
    yield from _weighting_problems(weighting, tasks, train)
    yield from _train_problems(train, tasks)


def _task_problems(name: str, tasks: Tasks) -> Iterator[Problem]:
    n_tasks = len(tasks)
    if n_tasks == 0:
        yield ("tasks",), "at least one task is needed"
    if n_tasks > MAX_TASKS:
        yield ("tasks",), f"{n_tasks} tasks given; at most {MAX_TASKS} tasks"
    if "mean" in tasks:
        yield ("tasks", "mean"), "a task cannot be called 'mean': metrics over all tasks are called that"
    if n_tasks and not any(task.weight > 0 for task in tasks.values()):
        yield ("tasks",), "at least one task must have weight > 0"
    if name.split(".")[0].upper() in ("CON", "PRN", "AUX", "NUL"):
        yield ("name",), "use letters, digits, '_', '-' and '.'; this one is reserved on Windows"


def _source_problems(data: Data, tasks: Tasks) -> Iterator[Problem]:
    sources = data.sources or {}
    for name, task in tasks.items():
        if task.source is not None and task.source not in sources:
            known = ", ".join(sources)
            what = f"no source {quoted(task.source)} in data.sources{': ' if known else ''}{known}"
            yield ("tasks", name, "source"), what


def _target_problems(tasks: Tasks) -> Iterator[Problem]:
    """Two tasks may not read one column of a source in different ways."""
    read: dict[str, list[tuple[str, TaskSpec]]] = {}
    for name, task in tasks.items():
        for column in task.target_columns():
            others = read.setdefault(column, [])
            for other, spec in others:
                same = None in (task.source, spec.source) or task.source == spec.source
                if same and spec.reads != task.reads:
                    what = f"reads column {quoted(column)} as {task.reads}, "
                    what += f"task {quoted(other)} reads it as {spec.reads}"
                    yield ("tasks", name, "target"), what
                    break
                if same and spec.empty_means != task.empty_means:
                    what = f"means {task.empty_means} in column {quoted(column)}, task {quoted(other)} "
                    yield ("tasks", name, "empty"), what + f"says {spec.empty_means}"
                    break
            others.append((name, task))


def _row_problems(data: Data, tasks: Tasks, train: Train) -> Iterator[Problem]:
    """Faults in the names by which rows are split and drawn."""
    path: KeyPath = ("data", "split", "stratify")
    strata = data.split.strata(tasks)
    for i, name in enumerate(strata):
        yield from _task_known(tasks, name, path if isinstance(data.split.stratify, str) else (*path, i))
    spec = tasks.get(strata[0]) if len(strata) == 1 else None
    if spec is not None and spec.reads == "numbers" and spec.missing == "error":
        yield path, f"task {quoted(strata[0])} has no classes to stratify by"
    batches = train.batches
    for name in batches.min_labelled:
        yield from _task_known(tasks, name, ("train", "batches", "min_labelled", name))
    if batches.temperature is not None and data.sources is None:
        yield ("train", "batches", "sampling"), "is for several sources: data.sources"


def _control_problems(data: Data, tasks: Tasks) -> Iterator[Problem]:
    """Faults in the names of the tasks whose labels are permuted or thinned out."""
    permuted = () if data.permute_labels is None else data.permute_labels.tasks
    for i, name in enumerate(permuted):
        path: KeyPath = ("data", "permute_labels", "tasks", i)
        yield from _task_known(tasks, name, path)
        if name in permuted[:i]:
            yield path, f"task {quoted(name)} is given twice"
    for name in data.label_fraction or ():
        yield from _task_known(tasks, name, ("data", "label_fraction", name))


def _derived_problems(tasks: Tasks) -> Iterator[Problem]:
    """Faults in the tasks from which the labels of others follow."""
    for name, task in tasks.items():
        path, of = ("tasks", name, "derived_from"), task.derives_from
        if of is None:
            continue
        if of not in tasks:
            yield path, f"unknown task {quoted(of)}{did_you_mean(of, tasks)}; add it, or remove this key"
        elif of == name:
            yield path, "a task cannot be derived from itself"
        else:
            for each in (name, of):
                if not tasks[each].one_class:
                    yield path, f"task {quoted(each)} has no classes: {tasks[each].kind}"


def _task_known(tasks: Tasks, name: str, path: KeyPath) -> Iterator[Problem]:
    if name not in tasks:
        yield path, f"unknown task {quoted(name)}{did_you_mean(name, tasks)}"


def _tower_problems(model: Network, tasks: Tasks) -> Iterator[Problem]:
    plan = model.towers
    if not isinstance(plan, Mapping):
        return
    counts = Counter(task for own in plan.values() for task in own)
    for tower, own in plan.items():
        if not own:
            yield ("model", "towers", tower), "a tower needs at least one task, or nothing trains it"
        for i, task in enumerate(own):
            path = ("model", "towers", tower, i)
            yield from _task_known(tasks, task, path)
            if task in tasks and counts[task] > 1:
                yield path, f"task {quoted(task)} is in more than one place; a task has one tower"
    for task in tasks:
        if task not in counts:
            yield ("model", "towers"), f"task {quoted(task)} has no tower"


def _sharing_problems(model: Network, n_towers: int) -> Iterator[Problem]:
    sharing, stages = model.sharing, model.backbone.stage_names()
    for i, site in enumerate(sharing.sites()):
        if site not in stages:
            known = ", ".join(stages)
            yield (
                ("model", "sharing", "after", i),
                f"no stage {quoted(site)}; stages: {known}{did_you_mean(site, stages)}",
            )
    if not sharing.sites():
        return
    if model.towers == "one":
        yield (
            ("model", "sharing"),
            f"{sharing.kind} mixes towers, but 'towers: one' gives one; use kind 'none'",
        )
    elif model.tower_init == "same" and sharing.keeps_equal_towers_equal(n_towers):
        yield (
            ("model", "tower_init"),
            "towers that start the same and mix evenly would stay identical for ever; "
            "use 'different', or another init of the sharing",
        )
    elif model.backbone.starts_equal() and sharing.keeps_equal_towers_equal(n_towers):
        yield (
            ("model", "sharing"),
            "towers that start from the same weights and mix evenly would stay identical for ever; "
            "use another init of the sharing",
        )


def _absent_problem(spec: BackboneSpec | WeightingSpec, path: KeyPath) -> list[Problem]:
    """The fault of a member whose packages are not installed; empty if they are."""
    absent = [package for package in spec.packages if find_spec(package) is None]
    what = f"{spec.kind} needs {' and '.join(absent)}, not installed here; {spec.install}"
    return [(path, what)] if absent else []


def _weighting_problems(weighting: WeightingSpec, tasks: Tasks, train: Train) -> Iterator[Problem]:
    if weighting.needs == "totals" and train.accumulate > 1:
        what = f"weighting {weighting.kind} needs the losses of the whole step at once; use accumulate: 1"
        yield ("train", "accumulate"), what
    yield from _absent_problem(weighting, ("weighting", "kind"))
    if isinstance(weighting, GradientWeightingSpec) and weighting.grads_on == "features":
        if train.accumulate > 1:
            what = f"weighting {weighting.kind} with grads_on: features needs the whole step at once; use accumulate: 1"
            yield ("train", "accumulate"), what
        if why := weighting.why_not_on_features():
            yield ("weighting", "grads_on"), f"{weighting.kind} {why}; use grads_on: shared"
    if weighting.needs == "gradients" and train.compile:
        what = f"weighting {weighting.kind} goes back through a pass once for each task, which compiled code cannot"
        yield ("train", "compile"), f"{what}; remove the key"
    if weighting.needs == "gradients" and len(tasks) == 1:
        yield ("weighting", "kind"), f"{weighting.kind} needs at least two tasks, 1 given; use kind 'sum'"


def _train_problems(train: Train, tasks: Tasks) -> Iterator[Problem]:
    if (train.epochs is None) == (train.max_steps is None):
        state = "neither is given" if train.epochs is None else "both are given, remove one: ~train.epochs"
        yield ("train",), f"give either epochs or max_steps; {state}"
    if train.checkpoint.keep < 2:
        yield ("train", "checkpoint", "keep"), "must be at least 2: the newest may be damaged by a power cut"
    if train.early_stopping is not None and train.early_stopping.metric is not None:
        yield from _stopping_problems(tasks, train.early_stopping.metric)


def _stopping_problems(tasks: Tasks, metric: str) -> Iterator[Problem]:
    path = ("train", "early_stopping", "metric")
    parts = metric.split("/")
    known = [*tasks, "mean"]
    if parts[0] != "validation" or len(parts) != 3:
        yield path, f"{quoted(metric)} may not select; give validation/<task or mean>/<metric>"
    elif parts[1] not in known:
        yield path, f"unknown task {quoted(parts[1])}{did_you_mean(parts[1], known)}"
    else:
        metrics = _metrics_of(tasks, parts[1])
        if parts[2] not in metrics:
            names = ", ".join(metrics)
            near = did_you_mean(parts[2], metrics)
            yield path, f"unknown metric {quoted(parts[2])}; {parts[1]} has: {names}{near}"


def _metrics_of(tasks: Tasks, task: str) -> tuple[str, ...]:
    """The metrics that may select a step: those of one task, or the one that is averaged over all tasks."""
    if task != "mean":
        spec = tasks[task]
        return ("loss", *(name for name in spec.metric_names if spec.known_metrics[name] is not None))
    return (mean_metric(tasks),)
