"""The outcome of a comparison, as compare.json has it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl.comparison.arms.arm import Arm, Role
from mtl.comparison.memory import Memory
from mtl.comparison.plan import IN_WORDS, Settings
from mtl.comparison.results import ArmResults, Found, baseline_of
from mtl.comparison.statistics import arms as judged
from mtl.comparison.statistics.arms import Bench, Comparison, Pairs
from mtl.comparison.statistics.judge import judge
from mtl.comparison.statistics.paired import Array
from mtl.comparison.statistics.verdicts import SUPERIOR, WORSE
from mtl.console import number
from mtl.recipe.keys.recipe import Recipe
from mtl.report.curves import LABEL_UNIT, UNITS
from mtl.runs.record import RunRecord

BESIDE = ("hard", "hard_matched")
"""One tower is what the recipe is set beside, named before anything is run, and not one of several candidates."""
STERILE = "sterile:"


def outcome_of(
    recipe: Recipe,
    found: Found,
    seeds: Sequence[int],
    settings: Settings,
    memory: Memory,
    confirmed: Found | None = None,
    fresh: Sequence[int] = (),
) -> dict[str, Any]:
    """The content of compare.json, and under `timings` that of timings.json.

    Args:
        recipe: the compared recipe.
        found: its results.
        seeds: their seeds.
        settings: what the runs have in common.
        memory: what was looked at before.
        confirmed: the results of the leading arm on fresh seeds.
        fresh: those seeds.
    """
    baseline, record = baseline_of(recipe, found), found.record
    assert record is not None
    tasks, roles = _tasks(recipe, found), roles_of([own.arm for own in found.arms.values()])
    arms, n_units = _judged(recipe, found), found.n_units or None
    resampled = (record.data.rows["train"], record.data.rows["test"]) if settings.resample else None
    parts = judge(
        tasks,
        arms,
        baseline,
        seeds,
        n_units=n_units,
        resampled=resampled,
        confirmed=None if confirmed is None else _judged(recipe, confirmed),
        confirmed_seeds=list(fresh),
        looks=memory.n_looks,
        maximum=memory.at_most,
    )
    collapsed = parts.pop("collapsed")
    beside = _beside(Bench(tasks, arms, Pairs(tuple(seeds), n_units, resampled)), _lead(parts))
    parts["comparisons"] = [_named(each) for each in (*parts["comparisons"], *(c.plain() for c in beside))]
    parts["summary"] += [*_told_beside(beside), *_told_derived(recipe, found), _highest(recipe, found)]
    return {
        "schema_version": 1,
        **_compared(recipe, record, settings),
        "seeds": list(seeds),
        "looks": memory.n_looks,
        "tasks": {task: _task(recipe, task) for task in recipe.tasks},
        "arms": {name: _arm(own, roles[name], collapsed.get(name, [])) for name, own in found.arms.items()},
        "baseline": baseline,
        "derived": found.derived,
        "label_curve": None,
        "confirmation": None if confirmed is None else _confirmation(confirmed, fresh),
        **parts,
        "timings": {name: {"seconds": own.seconds} for name, own in found.arms.items()},
    }


def _compared(recipe: Recipe, record: RunRecord, settings: Settings) -> dict[str, Any]:
    """The sections about the recipe and the data, and about what varies."""
    split = ["split"]
    return {
        "recipe": {"name": recipe.name, "description": recipe.description, "sha256": recipe.sha256()},
        "data": {
            "sha256": record.data.sha256,
            "generated": record.data.generated,
            "rows": record.data.rows,
            "labels": record.data.labels,
        },
        "pinned": ["data", *([] if settings.resample else split), "labels"],
        "varied": ["initial weights", "order", "dropout", *(split if settings.resample else [])],
        "selection": IN_WORDS[settings.selection],
    }


def _lead(parts: Mapping[str, Any]) -> str | None:
    """The arm that the verdicts are about."""
    return next((own["arm"] for own in parts["tasks_verdict"].values()), None)


def _tasks(recipe: Recipe, found: Found) -> dict[str, judged.Task]:
    return {
        task: judged.Task(
            spec.headline,
            spec.higher_is_better,
            spec.label_unit if UNITS.get(spec.headline) == LABEL_UNIT else "",
            spec.margin,
            spec.weight_in_verdict,
            found.constants.get(task),
        )
        for task, spec in recipe.tasks.items()
    }


def roles_of(arms: Sequence[Arm]) -> dict[str, Role]:
    """Arm -> its role: beside a candidate, one tower is a reference, since nobody chose it by its result."""
    shares = [arm.name for arm in arms if arm.role == "candidate"]
    beside = BESIDE if any(name not in BESIDE for name in shares) else ()
    return {arm.name: "reference" if arm.name in beside else arm.role for arm in arms}


def _judged(recipe: Recipe, found: Found) -> dict[str, judged.Arm]:
    """The arms as the judge takes them.

    Sterile arms, each of which has results for one task, are joined to one control. An arm that is no sterile control
    explains and is not judged, which makes it a reference.
    """
    roles = roles_of([own.arm for own in found.arms.values()])
    arms: dict[str, judged.Arm] = {}
    sterile = [own for own in found.arms.values() if own.arm.name.startswith(STERILE)]
    kind = recipe.model.sharing.kind
    for name, own in found.arms.items():
        if own not in sterile:
            role = "reference" if roles[name] == "control" else roles[name]
            what = f"{kind} (sharing)" if name == "sharing" and kind != "none" else ""
            arms[name] = judged.Arm(role, own.values, _replicates(own), what=what)
    if sterile:
        values = {task: v for own in sterile for task, v in own.values.items()}
        replicates = {task: r for own in sterile for task, r in _replicates(own).items()}
        name = sterile[0].arm.name if len(sterile) == 1 else STERILE.rstrip(":")
        arms[name] = judged.Arm("control", values, replicates)
    return arms


def _named(comparison: dict[str, Any]) -> dict[str, Any]:
    """A comparison whose joined sterile control has the name of the arm that was run for its task."""
    own = {key: comparison[key] for key in ("arm", "against") if comparison[key] == STERILE.rstrip(":")}
    return {**comparison, **dict.fromkeys(own, f"{STERILE}{comparison['task']}")}


def _replicates(own: ArmResults) -> dict[str, Array]:
    """Task -> (seeds, R); a task is left out if a seed has none."""
    return {
        task: np.array(per_seed, dtype=float)
        for task, per_seed in own.replicates.items()
        if all(len(each) for each in per_seed)
    }


def _beside(bench: Bench, lead: str | None) -> list[Comparison]:
    """The leading arm against trees, outside predictions, and one tower, on the first seeds."""
    others = [name for name, arm in bench.arms.items() if arm.role == "reference"]
    if lead is None:
        return []
    n = sum(arm.role == "candidate" for arm in bench.arms.values())
    return [
        c for other in others for c in bench.compared(lead, dict.fromkeys(bench.tasks, other), n).values()
    ]


def _told_beside(compared: Sequence[Comparison]) -> list[str]:
    """The sentences about references that are better or worse than the leading arm."""
    return [f"{each.words}." for each in compared if each.verdict.verdict in (*SUPERIOR, WORSE)]


def _told_derived(recipe: Recipe, found: Found) -> list[str]:
    """What the prediction of another task alone reaches for each derived label, in the arm that does this best."""
    lines = []
    for task, by_arm in found.derived.items():
        spec = recipe.tasks[task]
        means = {arm: mean for arm, values in by_arm.items() if (mean := _mean(values)) is not None}
        own = {arm: mean for arm in means if (mean := _mean(found.arms[arm].values[task])) is not None}
        if not own:
            continue
        pick = max if spec.higher_is_better else min
        arm, head = pick(means, key=lambda name: means[name]), pick(own, key=lambda name: own[name])
        metric = spec.headline.replace("_", " ")
        lines.append(
            f"{task} follows from {spec.derives_from}: deriving it from that prediction reaches "
            f"{number(means[arm])} {metric} "
            f"in {arm}, and its own head reaches {number(own[head])} in {head}."
        )
    return lines


def _highest(recipe: Recipe, found: Found) -> str:
    """Which arm has the best mean of each task, whoever it is."""
    best = []
    for task, spec in recipe.tasks.items():
        means = {
            name: mean
            for name, own in found.arms.items()
            if own.arm.role != "control" and (mean := _mean(own.values.get(task, []))) is not None
        }
        if means:
            pick = max if spec.higher_is_better else min
            arm = pick(means, key=lambda name: means[name])
            best.append(f"{task} {number(means[arm])} {spec.headline.replace('_', ' ')} by {arm}")
    return (
        f"Best means on these test rows: {'; '.join(best)}. The best of several arms looks better than it is."
    )


def _task(recipe: Recipe, task: str) -> dict[str, Any]:
    spec = recipe.tasks[task]
    return {
        "kind": spec.kind,
        "metric": spec.headline,
        "higher_is_better": spec.higher_is_better,
        "unit": spec.label_unit,
        "margin": spec.margin,
        "weight": spec.weight_in_verdict,
    }


def _arm(own: ArmResults, role: Role, collapsed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "what": own.arm.what,
        "folder": own.arm.folder,
        "role": role,
        "parameters": own.parameters,
        "models": own.models,
        "changes": list(own.arm.changes),
        "results": _results(own),
        "collapsed": list(collapsed),
        "told": own.told,
    }


def _results(own: ArmResults) -> dict[str, Any]:
    return {
        task: {
            "values": values,
            "mean": _mean(values),
            "sd": _sd(values),
            "validation": own.validation[task],
            "one_model": own.one_model[task],
        }
        for task, values in own.values.items()
    }


def _confirmation(confirmed: Found, fresh: Sequence[int]) -> dict[str, Any]:
    """What the arms that were run again reached on fresh seeds."""
    arms = {name: {"results": _results(own)} for name, own in confirmed.arms.items()}
    return {"seeds": list(fresh), "arms": arms}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _sd(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.stdev(known) if len(known) > 1 else None
