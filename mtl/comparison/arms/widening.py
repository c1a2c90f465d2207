"""A tower is widened until a network has a given number of parameters."""

from __future__ import annotations

from collections.abc import Callable

from mtl.errors import UserError, quoted
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe

WIDEST = 64.0
"""Towers are widened by at most this factor."""
STEPS = 30


def widened_to(recipe: Recipe, n_parameters: int, count: Callable[[Recipe], int]) -> tuple[str, ...]:
    """The overrides that widen the backbone of a recipe, so that its network has about `n_parameters` parameters.

    All widths are multiplied by one factor, which is found by bisection, and rounded. The network has at most
    `n_parameters` parameters, unless its widths are there already.

    Args:
        recipe: the recipe whose backbone is widened.
        n_parameters: the wanted number.
        count: the number of parameters of the network of a recipe.

    Raises:
        UserError: the backbone does not say which of its numbers are widths.
    """
    widths = recipe.model.backbone.widths()
    if not widths:
        kind = quoted(recipe.model.backbone.kind)
        raise UserError(
            "--arms", f"'hard_matched' does not fit: backbone {kind} cannot be widened", "leave it out"
        )

    def changes(factor: float) -> tuple[str, ...]:
        return tuple(f"model.backbone.{key}={max(1, round(width * factor))}" for key, width in widths.items())

    def fits(factor: float) -> bool:
        return count(load_recipe(recipe.plain(), list(changes(factor)))) <= n_parameters

    low, high = 1.0, WIDEST
    if fits(high):
        return changes(high)
    for _ in range(STEPS):
        middle = (low + high) / 2
        if changes(middle) in (changes(low), changes(high)):
            break
        low, high = (middle, high) if fits(middle) else (low, middle)
    return changes(low)
