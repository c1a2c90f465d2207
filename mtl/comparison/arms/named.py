"""The arms that a user names, and the default ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mtl.comparison.arms.arm import Arm, Facts, changed
from mtl.comparison.arms.made import (
    PLACE,
    from_file,
    frozen,
    hard,
    hard_matched,
    override,
    recipe_itself,
    scheme,
    sharing,
    single,
    single_rows,
    sterile,
    trees,
)
from mtl.comparison.plan import require_comparable
from mtl.errors import UserError, did_you_mean, quoted, raise_all
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.specs import SHARING
from mtl.recipe.text.overrides import COMMAND_LINE

DEFAULT = ("single", "hard", "sharing")


def default_arms(recipe: Recipe, facts: Facts) -> list[str]:
    """The arms that are compared unless the user names others."""
    return [*DEFAULT, f"sterile:{facts.scarcest}"]


def require_arms(recipe: Recipe, texts: Sequence[str]) -> None:
    """Refuse arms that nothing but the recipe is needed to refuse, before the data are read.

    Raises:
        UserError: an arm is unknown, or its settings are wrong.
    """
    for text in texts:
        if text not in _SIMPLE:
            _other(recipe, text)


def require_predictions(predictions: Mapping[str, str], taken: Sequence[str]) -> None:
    """Refuse predictions from elsewhere whose name is taken or whose file does not exist.

    Raises:
        UserError: see above.
    """
    for name, path in predictions.items():
        if name in taken:
            raise UserError(
                "--predictions", f"there is an arm {quoted(name)} already", "give them another name"
            )
        if not Path(path).is_file():
            raise UserError(f"--predictions {name}", f"there is no file {quoted(path)}")


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
        arms.insert(1, single_rows(recipe, facts))
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


def _arm(recipe: Recipe, text: str, facts: Facts) -> Arm:
    return _SIMPLE[text](recipe, facts) if text in _SIMPLE else _other(recipe, text)


def _other(recipe: Recipe, text: str) -> Arm:
    """An arm with settings of its own.

    Raises:
        UserError: the place of an error is --arms, unless it is a file.
    """
    try:
        arm = _with_settings(recipe, text)
        require_comparable(changed(arm.recipe or recipe, arm.changes))
    except UserError as error:
        raise_all(
            [
                type(e)(PLACE, e.what, e.todo, path=e.path) if e.place == COMMAND_LINE else e
                for e in error.errors
            ]
        )
    return arm


def _with_settings(recipe: Recipe, text: str) -> Arm:
    name, colon, rest = text.partition(":")
    if name == "sterile" and colon:
        return sterile(recipe, rest)
    if name == "sharing" and colon:
        return sharing(recipe, text, rest.split("+"))
    if text in SHARING.names():
        return scheme(recipe, text)
    if text.endswith((".yaml", ".yml")):
        return from_file(recipe, text)
    if "=" in text and not colon:
        return override(recipe, text)
    known = [*_SIMPLE, "sterile:TASK", "sharing:KEY=VALUE", "KEY=VALUE", *SHARING.names()]
    what = f"no arm {quoted(text)}{did_you_mean(name, known)}"
    raise UserError(PLACE, what, f"arms are {', '.join(known)}, and paths of recipes")


_SIMPLE: Mapping[str, Callable[[Recipe, Facts], Arm]] = {
    "single": single,
    "single_rows": single_rows,
    "hard": hard,
    "hard_matched": hard_matched,
    "sharing": recipe_itself,
    "sterile": lambda recipe, facts: sterile(recipe, facts.scarcest),
    "frozen": frozen,
    "trees": trees,
}
