"""The settings of a trial: what `tune` allows becomes Optuna's distributions, and what was drawn becomes overrides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.keys.tune import Range
from mtl.recipe.tuned import own_settings

if TYPE_CHECKING:
    import optuna


def drawn(trial: optuna.Trial, tune: Mapping[str, tuple[Any, ...] | Range]) -> None:
    """Draw a value for each key; a choice is drawn as its JSON text, since 1, 1.0 and true are equal in Python."""
    for key, allowed in tune.items():
        if not isinstance(allowed, Range):
            trial.suggest_categorical(key, list(dict.fromkeys(json.dumps(choice) for choice in allowed)))
        elif allowed.is_whole:
            low, high = map(int, allowed.bounds)
            trial.suggest_int(key, low, high, log=allowed.is_log)
        else:
            trial.suggest_float(key, *allowed.bounds, log=allowed.is_log)


def overrides_of(params: Mapping[str, Any]) -> tuple[str, ...]:
    """The settings as overrides of the recipe."""
    return tuple(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in params.items()
    )


def decoded(value: Any) -> Any:
    """A setting as Optuna keeps it -> its value in the recipe."""
    return json.loads(value) if isinstance(value, str) else value


def own_params(recipe: Recipe) -> dict[str, Any] | None:
    """The settings of the recipe itself, as Optuna keeps them; None unless `tune` allows all of them."""
    own = own_settings(recipe)
    if own is None:
        return None
    return {
        key: value if isinstance(recipe.tune[key], Range) else json.dumps(value) for key, value in own.items()
    }
