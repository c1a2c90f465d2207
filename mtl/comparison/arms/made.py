"""How each kind of arm is made out of the compared recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtl.comparison.arms.arm import Arm, Facts, changed
from mtl.comparison.arms.widening import widened_to
from mtl.errors import UserError, did_you_mean, quoted
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from mtl.recipe.specs import OPTIMIZERS, SCHEDULES, SHARING, WEIGHTINGS, SharingSpec
from mtl.registry import Registry

PLACE = "--arms"
MOST_NAMED = 10
"""Most tasks that an error names."""
SEPARATE = ("model.towers=per_task", "model.sharing={kind: none}", "weighting={kind: sum}")
"""Networks that share nothing: towers of their own on the same batches, with the sum of the losses."""


def single(recipe: Recipe, facts: Facts) -> Arm:
    what = "a network of its own for each task, on the same batches"
    if recipe.train.clip_norm is None:
        return Arm("single", what, "single", SEPARATE)
    # the norm of the gradient is that of all tasks, so that networks side by side would clip each other
    return Arm("single", what, "single", SEPARATE, {task: alone(recipe, task) for task in recipe.tasks})


def single_rows(recipe: Recipe, facts: Facts) -> Arm:
    each = {task: (*alone(recipe, task), "data.drop_unlabelled=true") for task in facts.scarce}
    what = "a network of its own for a task with few labels, on the rows that have one"
    return Arm("single_rows", what, "single", SEPARATE, each)


def alone(recipe: Recipe, task: str) -> tuple[str, ...]:
    """The overrides by which one task alone trains: all heads read its tower, and the other losses weigh nothing.

    The rows, the split and the initial weights of the tower stay those of the other arms, since no task is removed.
    """
    towers = json.dumps({task: list(recipe.tasks)})
    others = tuple(f"tasks.{other}.weight=0" for other in recipe.tasks if other != task)
    stopping = recipe.train.early_stopping
    own = () if stopping is None else (f"train.early_stopping.metric=validation/{task}/loss",)
    return (f"model.towers={towers}", *others, *own)


def hard(recipe: Recipe, facts: Facts) -> Arm:
    return Arm(
        "hard", "one tower for all tasks", "candidate", ("model.towers=one", "model.sharing={kind: none}")
    )


def hard_matched(recipe: Recipe, facts: Facts) -> Arm:
    one = hard(recipe, facts)
    n_parameters = facts.n_parameters(recipe)
    wider = widened_to(changed(recipe, one.changes), n_parameters, facts.n_parameters)
    what = f"one tower for all tasks, widened to the {n_parameters:,} parameters of the recipe"
    return replace(one, name="hard_matched", what=what, changes=(*one.changes, *wider))


def recipe_itself(recipe: Recipe, facts: Facts) -> Arm:
    return Arm("sharing", f"the recipe itself: {_described(recipe.model.sharing)}", "candidate")


def _described(sharing: SharingSpec) -> str:
    return f"sharing kind {sharing.kind}"


def sharing(recipe: Recipe, name: str, settings: Sequence[str]) -> Arm:
    changes = tuple(f"model.sharing.{setting}" for setting in settings)
    made = changed(recipe, changes)  # the errors of its settings come before anything is trained
    return Arm(name, f"{_described(made.model.sharing)}, with {', '.join(settings)}", "candidate", changes)


def scheme(recipe: Recipe, kind: str) -> Arm:
    """Another sharing scheme, at the sites of the recipe's own one where both name sites."""
    sites = recipe.model.sharing.sites()
    takes_sites = "after" in SHARING[kind].model_fields
    given = json.dumps({"kind": kind, **({"after": list(sites)} if takes_sites and sites else {})})
    towers = ("model.towers=per_task",) if recipe.model.towers == "one" else ()
    changes = (*towers, f"model.sharing={given}")
    return Arm(kind, _described(changed(recipe, changes).model.sharing), "candidate", changes)


def frozen(recipe: Recipe, facts: Facts) -> Arm:
    if "lr_scale" not in type(recipe.model.sharing).model_fields:
        what = f"sharing kind {recipe.model.sharing.kind} has no learning rate of its own that could be 0"
        raise UserError(PLACE, f"'frozen' does not fit: {what}", "leave it out")
    what = "the recipe with its sharing parameters kept at their start"
    return Arm("frozen", what, "control", ("model.sharing.lr_scale=0",))


def sterile(recipe: Recipe, task: str) -> Arm:
    if task not in recipe.tasks:
        todo = f"its tasks are {', '.join(list(recipe.tasks)[:MOST_NAMED])}" + (
            ", ..." if len(recipe.tasks) > MOST_NAMED else ""
        )
        raise UserError(
            PLACE, f"the recipe has no task {quoted(task)}{did_you_mean(task, recipe.tasks)}", todo
        )
    others = [other for other in recipe.tasks if other != task]
    if not others:
        raise UserError(PLACE, "'sterile' permutes the labels of other tasks, and there is one task")
    permuted = json.dumps({"tasks": others, "seed": 0})
    what = (
        f"the recipe with the labels of all tasks but {task} permuted, so that only noise is shared with it"
    )
    # `each` gives results for this task alone, since those of the others mean nothing
    return Arm(f"sterile:{task}", what, "control", (), {task: (f"data.permute_labels={permuted}",)})


def override(recipe: Recipe, text: str) -> Arm:
    changes = []
    for each in text.split("+"):
        key, _, value = each.partition("=")
        changes.append(f"{key}={{kind: {value}}}" if _is_kind(key, value) else each)
    changed(recipe, changes)
    return Arm(text, f"the recipe with {', '.join(changes)}", "candidate", tuple(changes))


def _is_kind(key: str, value: str) -> bool:
    """Whether an override names a member of a family, as `weighting=uncertainty` does."""
    families: dict[str, Registry[Any]] = {
        "weighting": WEIGHTINGS,
        "optimizer": OPTIMIZERS,
        "schedule": SCHEDULES,
    }
    return key in families and value in families[key]


def from_file(recipe: Recipe, path: str) -> Arm:
    other = load_recipe(path)
    mine, its = recipe.plain(), other.plain()
    if mine["data"] != its["data"] or list(mine["tasks"]) != list(its["tasks"]):
        what = f"{path}: its data or tasks are not those of the compared recipe"
        raise UserError(PLACE, what, "name the compared recipe as its base, and change the network only")
    name = Path(path).stem
    return Arm(name, other.description or f"the recipe {path}", "candidate", (), None, other)


def trees(recipe: Recipe, facts: Facts) -> Arm:
    if not facts.is_vector:
        raise UserError(PLACE, "'trees' reads rows of numbers, not images", "leave it out")
    return Arm("trees", "gradient-boosted trees, one model for each task", "reference")
