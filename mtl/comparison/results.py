"""What the runs of a comparison gave: values per arm, task and seed, read from their folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mtl.comparison.arms.arm import Arm
from mtl.comparison.plan import PlannedRun
from mtl.comparison.references.make import read_reference
from mtl.errors import UserError
from mtl.recipe.keys.recipe import Recipe
from mtl.runs.logs import TIMINGS, read_lines
from mtl.runs.record import RunRecord, read_record
from mtl.runs.results.bootstrap import Bootstrap, read_bootstrap

Values = dict[str, list[float | None]]


@dataclass
class ArmResults:
    """The results of one arm; each list has a value for each seed, or a single one for all seeds.

    Args:
        arm: the arm.
        values: task -> the headline metric on test.
        validation: task -> the same on validation.
        one_model: task -> the same on test with the weights of one common step.
        replicates: task -> for each seed the metric on resampled test rows.
        parameters: of all its networks; None for a reference.
        models: the number of networks.
        seconds: of training, for each seed.
        told: facts that the user should know.
    """

    arm: Arm
    values: Values = field(default_factory=dict)
    validation: Values = field(default_factory=dict)
    one_model: Values = field(default_factory=dict)
    replicates: dict[str, list[list[float | None]]] = field(default_factory=dict)
    parameters: int | None = None
    models: int = 1
    seconds: list[float] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


@dataclass
class Found:
    """All results of a comparison.

    Args:
        arms: name -> its results.
        n_units: task -> the rows or groups that were resampled.
        constants: task -> the metric of the best constant answer.
        derived: task -> arm -> the metric of deriving its label from the prediction of another task, per seed.
        record: the record of one run, for the facts about the data.
    """

    arms: dict[str, ArmResults] = field(default_factory=dict)
    n_units: dict[str, int] = field(default_factory=dict)
    constants: dict[str, float] = field(default_factory=dict)
    derived: dict[str, Values] = field(default_factory=dict)
    record: RunRecord | None = None


def standing(run: PlannedRun) -> str:
    """`finished`, `diverged`, or `open` for a run that is to be begun or to go on.

    Raises:
        UserError: the folder holds another run.
    """
    try:
        record = read_record(run.folder / "run.json")
    except (FileNotFoundError, NotADirectoryError):
        return "open"
    if record.recipe_sha256 != run.recipe.sha256():
        what = "holds a run of another recipe than this comparison asks for"
        raise UserError(str(run.folder), what, "give another --out, or remove the folder")
    return record.status if record.status in ("finished", "diverged") else "open"


def collect(
    recipe: Recipe, arms: Sequence[Arm], runs: Sequence[PlannedRun], seeds: Sequence[int], folder: Path
) -> Found:
    """Read the results of finished runs; a run that diverged gives no values.

    Raises:
        UserError: a file of a run is not what a run writes.
    """
    found = Found()
    for arm in arms:
        own = found.arms[arm.name] = ArmResults(arm)
        if arm.is_network:
            for seed in seeds:
                _add_seed(recipe, found, own, [r for r in runs if (r.arm, r.seed) == (arm.name, seed)])
        else:
            _add_reference(recipe, found, own, folder / "runs" / arm.folder)
    return found


def _add_seed(recipe: Recipe, found: Found, own: ArmResults, runs: Sequence[PlannedRun]) -> None:
    """The values of one seed of one arm, whose parts are runs for single tasks or one run for all."""
    n_parameters, seconds = 0, 0.0
    for run in runs:
        record = read_record(run.folder / "run.json")
        n_parameters += record.parameters
        seconds += _seconds(run.folder)
        tasks = [run.part] if run.part else list(recipe.tasks)
        bootstrap = read_bootstrap(run.folder)
        for task in tasks:
            _add_task(recipe, found, own, task, record, bootstrap, alone=bool(run.part))
        if found.record is None and record.status == "finished":
            found.record = record
    own.parameters, own.models = n_parameters, _n_models(recipe, own.arm)
    own.seconds.append(seconds)


def _n_models(recipe: Recipe, arm: Arm) -> int:
    """The networks that one has to deploy: towers that share nothing are a network for each task."""
    if arm.role == "single":
        return len(arm.each or recipe.tasks)
    return 1


def _add_task(
    recipe: Recipe,
    found: Found,
    own: ArmResults,
    task: str,
    record: RunRecord,
    bootstrap: Bootstrap | None,
    alone: bool,
) -> None:
    metric, finished = recipe.tasks[task].headline, record.status == "finished"
    test = record.results.get(f"test/{task}/{metric}")
    validation = record.results.get(f"validation/{task}/{metric}")
    common = None if alone else test
    if record.task_results is not None:
        result = record.task_results[task]
        test, validation = result.test.get(metric), result.validation.get(metric)
    _append(own.values, task, test if finished else None)
    _append(own.validation, task, validation if finished else None)
    _append(own.one_model, task, common if finished else None)
    known = bootstrap.tasks.get(task) if bootstrap is not None and finished else None
    own.replicates.setdefault(task, []).append(list(known.replicates) if known is not None else [])
    if known is not None:
        found.n_units[task] = known.n_units
    constant = (record.baselines or {}).get(f"test/{task}/constant")
    if constant is not None:
        found.constants[task] = constant
    derived = (record.baselines or {}).get(f"test/{task}/derived")
    if derived is not None and not alone:
        _append(found.derived.setdefault(task, {}), own.arm.name, derived)


def _append(values: Values, key: str, value: float | None) -> None:
    values.setdefault(key, []).append(value)


def _add_reference(recipe: Recipe, found: Found, own: ArmResults, folder: Path) -> None:
    """The values of trees or outside predictions, one for all seeds."""
    reference = read_reference(folder)
    if reference is None:
        return
    bootstrap = read_bootstrap(folder)
    for task, spec in recipe.tasks.items():
        value = reference.values.get(f"test/{task}/{spec.headline}")
        if value is None:
            continue
        own.values[task] = [value]
        own.validation[task] = [reference.values.get(f"validation/{task}/{spec.headline}")]
        own.one_model[task] = [value]
        if bootstrap is not None and task in bootstrap.tasks:
            own.replicates[task] = [list(bootstrap.tasks[task].replicates)]
    own.models, own.seconds, own.told = len(own.values), [reference.seconds], list(reference.told)


def _seconds(run: Path) -> float:
    """The seconds of training, evaluation and saving that a run logged."""
    return sum(sum(row["seconds"].values()) for row in read_lines(run / TIMINGS))


def baseline_of(recipe: Recipe, found: Found) -> dict[str, str]:
    """Task -> the better of its single networks by validation, which is what sharing must beat."""
    singles = [name for name, own in found.arms.items() if own.arm.role == "single"]
    chosen = {}
    for task, spec in recipe.tasks.items():
        sign = 1.0 if spec.higher_is_better else -1.0
        means = {name: _mean(found.arms[name].validation.get(task, [])) for name in singles}
        known = {name: sign * mean for name, mean in means.items() if mean is not None}
        chosen[task] = max(known, key=lambda name: known[name]) if known else singles[0]
    return chosen


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def whole_seeds(runs: Sequence[PlannedRun], standings: Mapping[str, str], seeds: Sequence[int]) -> list[int]:
    """The seeds of which every run has ended."""
    return [seed for seed in seeds if all(standings[run.name] != "open" for run in runs if run.seed == seed)]
