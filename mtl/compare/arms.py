"""The arms of a comparison: each is the recipe with a few changes, written as the overrides of a command line.

Shapes: N tasks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mtl.errors import UserError, did_you_mean, quoted
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from mtl.recipe.specs import OPTIMIZERS, SCHEDULES, SHARING, WEIGHTINGS, SharingSpec
from mtl.registry import Registry

Role = Literal["single", "candidate", "control", "reference"]
PLACE = "--arms"
SCARCE = 0.5
"""A task with fewer labels than this part of the training rows gets a single network of its own on its rows."""
SEPARATE = ("model.towers=per_task", "model.sharing={kind: none}", "weighting={kind: sum}")
"""Networks that share nothing: towers of their own on the same batches, with the sum of the losses."""


@dataclass(frozen=True)
class Arm:
    """One arm of a comparison.

    Args:
        name: what the user called it.
        what: one sentence for people.
        role: `single` is what sharing must beat, a `candidate` may be chosen, a `control` explains, a `reference` is
            not a network of this recipe.
        changes: the overrides that make the arm's recipe out of the compared one.
        each: task -> further overrides, where each of these tasks has a run of its own; without it, one run gives the
            results of all tasks.
        recipe: the recipe of an arm that was given as a file; `changes` are applied to it.
    """

    name: str
    what: str
    role: Role
    changes: tuple[str, ...] = ()
    each: Mapping[str, tuple[str, ...]] | None = None
    recipe: Recipe | None = None

    @property
    def is_network(self) -> bool:
        """Whether the arm is trained, with as many seeds as the user asks for."""
        return self.role != "reference"

    @property
    def folder(self) -> str:
        """The name of its folder: letters, digits and `_.=+-` stay, other characters become `-`."""
        return "".join(c if (c.isalnum() and c.isascii()) or c in "_.=+-" else "-" for c in self.name)[:100]

    def parts(self) -> dict[str, tuple[str, ...]]:
        """Name of each run of one seed -> its overrides; the name is that of the task, or empty for all tasks."""
        if self.each is None:
            return {"": self.changes}
        return {task: (*self.changes, *own) for task, own in self.each.items()}


@dataclass(frozen=True)
class Facts:
    """What the arms depend on beside the recipe.

    Args:
        n_labels: task -> its labels in train.
        n_rows: the rows of train.
        n_parameters: the number of parameters of the network of a recipe.
        is_vector: whether the network reads one vector of numbers, as trees do.
    """

    n_labels: Mapping[str, int]
    n_rows: int
    n_parameters: Callable[[Recipe], int]
    is_vector: bool

    @property
    def scarcest(self) -> str:
        """The task with the fewest labels; of several the first."""
        return min(self.n_labels, key=lambda task: self.n_labels[task])

    @property
    def scarce(self) -> list[str]:
        """The tasks with labels in less than half of the rows."""
        return [task for task, n in self.n_labels.items() if n < SCARCE * self.n_rows]


def default_arms(recipe: Recipe, facts: Facts) -> list[str]:
    """The arms that are compared unless the user names others."""
    return ["single", "hard", "sharing", f"sterile:{facts.scarcest}"]


def arms_of(recipe: Recipe, texts: Sequence[str], facts: Facts) -> list[Arm]:
    """The arms that the user named, with `single` first and `single_rows` beside it where a task has few labels.

    Args:
        recipe: the compared recipe.
        texts: names, overrides, and paths of further recipes.
        facts: the facts of its data and network.

    Raises:
        UserError: an arm is unknown, given twice, does not fit the recipe, or is the same network as another one.
    """
    texts = list(dict.fromkeys(texts))
    if "single" not in texts:
        texts.insert(0, "single")
    arms = [_arm(recipe, text, facts) for text in sorted(texts, key=lambda text: text != "single")]
    if facts.scarce and not any(arm.name == "single_rows" for arm in arms):
        arms.insert(1, _single_rows(recipe, facts))
    folders = [arm.folder for arm in arms]
    for i, arm in enumerate(arms):
        if arm.folder in folders[:i]:
            raise UserError(PLACE, f"{quoted(arm.name)} and {quoted(arms[folders.index(arm.folder)].name)} "
                            "would have the same folder", "leave one out")  # fmt: skip
    return _distinct(recipe, arms)


def _distinct(recipe: Recipe, arms: list[Arm]) -> list[Arm]:
    """Refuse an arm whose recipe is that of another arm, since its runs would be the same ones.

    Raises:
        UserError: two arms are one network.
    """
    seen: dict[str, Arm] = {}
    for arm in arms:
        if not arm.is_network:
            continue
        for changes in arm.parts().values():
            made = changed(arm.recipe or recipe, (*changes, "name=arm", "~description"))
            same = seen.setdefault(made.sha256(), arm)
            if same is not arm:
                todo = (
                    "leave one out"
                    if arm.name != "sharing"
                    else "name what is to be compared: --arms single,mmoe"
                )
                raise UserError(PLACE, f"{quoted(arm.name)} is the same network as {quoted(same.name)}", todo)
    return arms


def changed(recipe: Recipe, changes: Iterable[str]) -> Recipe:
    """The recipe with overrides.

    Raises:
        UserError: they do not fit the recipe.
    """
    return load_recipe(recipe.plain(), list(changes))


def _arm(recipe: Recipe, text: str, facts: Facts) -> Arm:
    name, colon, rest = text.partition(":")
    if text in _SIMPLE:
        return _SIMPLE[text](recipe, facts)
    if name == "sterile" and colon:
        return _sterile(recipe, rest)
    if name == "sharing" and colon:
        return _sharing(recipe, text, rest.split("+"))
    if text in SHARING.names():
        return _scheme(recipe, text)
    if text.endswith((".yaml", ".yml")):
        return _from_file(recipe, text)
    if "=" in text and not colon:
        return _override(recipe, text)
    known = [*_SIMPLE, "sterile:TASK", "sharing:KEY=VALUE", "KEY=VALUE", *SHARING.names()]
    what = f"no arm {quoted(text)}{did_you_mean(name, known)}"
    raise UserError(PLACE, what, f"arms are {', '.join(known)}, and paths of recipes")


def _single(recipe: Recipe, facts: Facts) -> Arm:
    what = "a network of its own for each task, on the same batches"
    if recipe.train.clip_norm is None:
        return Arm("single", what, "single", SEPARATE)
    # the norm of the gradient is that of all tasks, so that networks side by side would clip each other
    return Arm("single", what, "single", SEPARATE, {task: alone(recipe, task) for task in recipe.tasks})


def _single_rows(recipe: Recipe, facts: Facts) -> Arm:
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


def _hard(recipe: Recipe, facts: Facts) -> Arm:
    return Arm(
        "hard", "one tower for all tasks", "candidate", ("model.towers=one", "model.sharing={kind: none}")
    )


def _hard_matched(recipe: Recipe, facts: Facts) -> Arm:
    from mtl.compare.widening import widened_to

    hard = _hard(recipe, facts)
    n_parameters = facts.n_parameters(recipe)
    wider = widened_to(changed(recipe, hard.changes), n_parameters, facts.n_parameters)
    what = f"one tower for all tasks, widened to the {n_parameters:,} parameters of the recipe"
    return replace(hard, name="hard_matched", what=what, changes=(*hard.changes, *wider))


def _recipe_itself(recipe: Recipe, facts: Facts) -> Arm:
    return Arm("sharing", f"the recipe itself: {_described(recipe.model.sharing)}", "candidate")


def _described(sharing: SharingSpec) -> str:
    return f"sharing kind {sharing.kind}"


def _sharing(recipe: Recipe, name: str, settings: Sequence[str]) -> Arm:
    changes = tuple(f"model.sharing.{setting}" for setting in settings)
    made = changed(recipe, changes)  # the errors of its settings come before anything is trained
    return Arm(name, f"{_described(made.model.sharing)}, with {', '.join(settings)}", "candidate", changes)


def _scheme(recipe: Recipe, kind: str) -> Arm:
    """Another sharing scheme, at the sites of the recipe's own one where both name sites."""
    sites = recipe.model.sharing.sites()
    takes_sites = "after" in SHARING[kind].model_fields
    given = json.dumps({"kind": kind, **({"after": list(sites)} if takes_sites and sites else {})})
    towers = ("model.towers=per_task",) if recipe.model.towers == "one" else ()
    changes = (*towers, f"model.sharing={given}")
    return Arm(kind, _described(changed(recipe, changes).model.sharing), "candidate", changes)


def _frozen(recipe: Recipe, facts: Facts) -> Arm:
    if "lr_scale" not in type(recipe.model.sharing).model_fields:
        what = f"sharing kind {recipe.model.sharing.kind} has no learning rate of its own that could be 0"
        raise UserError(PLACE, f"'frozen' does not fit: {what}", "leave it out")
    what = "the recipe with its sharing parameters kept at their start"
    return Arm("frozen", what, "control", ("model.sharing.lr_scale=0",))


def _sterile(recipe: Recipe, task: str) -> Arm:
    if task not in recipe.tasks:
        raise UserError(PLACE, f"no task {quoted(task)}{did_you_mean(task, recipe.tasks)}")
    others = [other for other in recipe.tasks if other != task]
    if not others:
        raise UserError(PLACE, "'sterile' permutes the labels of other tasks, and there is one task")
    permuted = json.dumps({"tasks": others, "seed": 0})
    what = (
        f"the recipe with the labels of all tasks but {task} permuted, so that only noise is shared with it"
    )
    # `each` gives results for this task alone, since those of the others mean nothing
    return Arm(f"sterile:{task}", what, "control", (), {task: (f"data.permute_labels={permuted}",)})


def _override(recipe: Recipe, text: str) -> Arm:
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


def _from_file(recipe: Recipe, path: str) -> Arm:
    other = load_recipe(path)
    mine, its = recipe.plain(), other.plain()
    if mine["data"] != its["data"] or list(mine["tasks"]) != list(its["tasks"]):
        what = f"{path}: its data or tasks are not those of the compared recipe"
        raise UserError(PLACE, what, "name the compared recipe as its base, and change the network only")
    name = Path(path).stem
    return Arm(name, other.description or f"the recipe {path}", "candidate", (), None, other)


def _trees(recipe: Recipe, facts: Facts) -> Arm:
    if not facts.is_vector:
        raise UserError(PLACE, "'trees' reads rows of numbers, not images", "leave it out")
    return Arm("trees", "gradient-boosted trees, one model for each task", "reference")


_SIMPLE: Mapping[str, Callable[[Recipe, Facts], Arm]] = {
    "single": _single,
    "single_rows": _single_rows,
    "hard": _hard,
    "hard_matched": _hard_matched,
    "sharing": _recipe_itself,
    "sterile": lambda recipe, facts: _sterile(recipe, facts.scarcest),
    "frozen": _frozen,
    "trees": _trees,
}
