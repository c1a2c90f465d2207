"""The selection of the best step of a run by validation."""

from __future__ import annotations

from typing import Any

from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.specs import mean_metric
from mtl.training.trainer import Trainer


def selecting_metric(recipe: Recipe) -> tuple[str, bool]:
    """The validation metric that selects a step, and whether a higher value is better."""
    stopping = recipe.train.early_stopping
    named = stopping.metric if stopping is not None else None
    name = named or f"validation/mean/{mean_metric(recipe.tasks)}"
    _, task, metric = name.split("/")
    spec = recipe.tasks.get(task, next(iter(recipe.tasks.values())))
    return name, metric != "loss" and bool(spec.known_metrics[metric])


def select(trainer: Trainer, row: dict[str, Any]) -> bool:
    """Update `trainer.progress` from a validation row, and return whether this row is the best so far."""
    recipe, progress = trainer.recipe, trainer.progress
    metric, higher = selecting_metric(recipe)
    value = row[metric]
    better = value is not None and (
        progress.best is None or (value > progress.best if higher else value < progress.best)
    )
    if better:
        progress.best, progress.best_epoch, progress.best_step = value, row["epoch"], progress.step
        progress.stale = 0
    else:
        progress.stale += 1
        stopping = recipe.train.early_stopping
        progress.stopped = stopping is not None and progress.stale >= stopping.patience
    return better
