"""A comparison folder that nobody trained: compare.json as `mtl compare` judges and writes it, from drawn results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl.comparison.arms.arm import Arm
from mtl.comparison.label_curve import Part, saved
from mtl.comparison.memory import Look, Memory
from mtl.comparison.outcome import outcome_of
from mtl.comparison.plan import Settings
from mtl.comparison.results import ArmResults, Found
from mtl.recipe.keys.recipe import Recipe
from mtl.runs.record import Shape
from tests.support.recipes import recipe, stitched
from tests.support.records import record

SEEDS, REPLICATES, UNITS = 5, 60, 1000
TASKS: dict[str, dict[str, Any]] = {
    "garment": {"kind": "multiclass", "target": "task0", "margin": 0.005},
    "audience": {"kind": "multiclass", "target": "task1", "margin": 0.005},
    "price": {"kind": "regression", "target": "task2", "unit": "CHF", "metrics": ["rmse"], "weight_in_verdict": 0.5},
}  # fmt: skip
ARMS: dict[str, tuple[Arm, tuple[float, ...]]] = {
    "single": (
        Arm("single", "a network of its own for each task", "single", ("model.sharing={kind: none}",)),
        (0.905, 0.958, 7.9),
    ),
    "hard": (Arm("hard", "one tower for all tasks", "candidate", ("model.towers=one",)), (0.893, 0.957, 8.0)),
    "sharing": (Arm("sharing", "the recipe itself", "candidate"), (0.915, 0.9583, 7.4)),
    "mmoe": (Arm("mmoe", "experts and gates", "candidate", ("model.sharing.kind=mmoe",)), (0.906, 0.958, 7.8)),
    "sterile:price": (
        Arm("sterile:price", "the labels of all tasks but price permuted", "control"),
        (0.0, 0.0, 7.95),
    ),
    "trees": (Arm("trees", "boosted trees", "reference"), (0.925, 0.911, 11.2)),
}  # fmt: skip
"""Arm -> what it is, and its mean result in each task; 0 stands for no result."""
SPREAD = {"garment": 0.003, "audience": 0.0003, "price": 0.2}
TOLD = "12 of 40 columns are read as categories"


def compared_recipe() -> Recipe:
    """The recipe of the comparison."""
    source = {"kind": "synthetic", "tasks": 3, "rows": 60, "test_rows": 20, "features": 8}
    return recipe(
        name="garments", description="Garments and prices.", data__source=source, tasks=TASKS,
        model__sharing=stitched("fc1"),
    )  # fmt: skip


def drawn(arms: Sequence[str], seeds: int, start: int = 0) -> Found:
    """Results as if these arms had been trained with as many seeds."""
    draws = np.random.default_rng(start)
    found = Found(
        n_units=dict.fromkeys(TASKS, UNITS), constants={"garment": 0.1, "audience": 0.5, "price": 12.0}
    )
    for name in arms:
        arm, means = ARMS[name]
        own = found.arms[name] = ArmResults(arm)
        own.parameters = 1_200_000 + 1000 * len(name) if arm.is_network else None
        own.models = 3 if name == "single" else 1
        own.told = [] if arm.is_network else [TOLD]
        own.seconds = [61.0 + k for k in range(seeds if arm.is_network else 1)]
        for task, mean in zip(TASKS, means, strict=True):
            if mean:
                values = draws.normal(mean, SPREAD[task], seeds if arm.is_network else 1).round(5)
                rows = draws.normal(values[:, None], SPREAD[task] / 2, (len(values), REPLICATES))
                own.values[task] = own.validation[task] = own.one_model[task] = values.tolist()
                own.replicates[task] = rows.tolist()
    if "hard" in arms:
        found.arms["hard"].values["price"][3] = 12.0  # this seed learned no more than the constant answer
    found.derived = {"audience": {"sharing": [0.94 + 0.001 * k for k in range(seeds)]}}
    data = {
        "sha256": "cd" * 32, "generated": False, "rows": {"train": 54000, "validation": 6000, "test": 10000},
        "labels": {"price": {"train": 5400, "validation": 600, "test": 1000}}, "best_possible_accuracy": {},
    }  # fmt: skip
    found.record = record(data=data)
    return found


def curve() -> list[dict[str, Any]]:
    """Results over labels of one task."""
    return [
        {
            "task": "garment", "fraction": fraction, "labels": int(54000 * fraction), "arm": arm,
            "values": [0.7 + 0.07 * float(np.log10(540 * fraction + 1)) + lift + 0.004 * k for k in range(3)],
        }
        for fraction in (0.01, 0.03, 0.1, 0.3, 1.0)
        for arm, lift in (("single", 0.0), ("sharing", 0.015))
    ]  # fmt: skip


def trials() -> list[dict[str, Any]]:
    """Two settings of an arm."""
    validation = {"garment": 0.9, "audience": 0.95, "price": 7.5}
    return [
        {"changes": [f"optimizer.lr={rate}"], "validation": validation, "chosen": rate == 0.01}
        for rate in (0.01, 0.1)
    ]


def compare_values(
    seeds: int = SEEDS, looks: int = 1, confirm: bool = True, **changes: Any
) -> dict[str, Any]:
    """The content of compare.json, and under `timings` that of timings.json, with some keys changed.

    Args:
        seeds: the number of seeds.
        looks: how often results were looked at.
        confirm: whether fresh seeds were run.
        changes: keys and their values.
    """
    made, found = compared_recipe(), drawn(list(ARMS), seeds)
    confirmed = drawn(["single", "sharing", "sterile:price"], seeds, start=1) if confirm else None
    memory = Memory(recipe_sha256=made.sha256(), threads=1, at_most=None)
    memory.looks = [Look(arms=list(ARMS), seeds=list(range(k))) for k in range(seeds - looks + 1, seeds + 1)]
    settings = Settings("best_of_each", 1)
    fresh = list(range(seeds, 2 * seeds))
    values = outcome_of(made, found, list(range(seeds)), settings, memory, confirmed, fresh)
    values |= {"tuning": {"sharing": trials()}, "label_curve": curve()}
    values["summary"] += saved("garment", [Part(0.01, 540, values)])
    return {**values, **changes}


def make_comparison(path: Path, runs: bool = True, **changes: Any) -> Path:
    """Write a comparison folder, with run folders that hold no more than their names."""
    values = compare_values(**changes)
    path.mkdir(parents=True, exist_ok=True)
    (path / "timings.json").write_text(json.dumps(values.pop("timings")), encoding="utf-8")
    (path / "compare.json").write_text(json.dumps(values), encoding="utf-8")
    for arm in values["arms"].values() if runs else ():
        for seed in values["seeds"]:
            run = path / "runs" / arm["folder"] / f"seed-{seed}"
            run.mkdir(parents=True)
            (run / "run.json").write_text("{}", encoding="utf-8")
    return path


def unknown_keys(value: Any, place: str = "") -> Iterator[str]:
    """Yield the place of each key of a checked file that its shape does not know."""
    if isinstance(value, Shape):
        yield from (f"{place}.{key}" for key in value.model_extra or {})
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from unknown_keys(inner, f"{place}.{key}")
    elif isinstance(value, list):
        for k, inner in enumerate(value):
            yield from unknown_keys(inner, f"{place}[{k}]")
