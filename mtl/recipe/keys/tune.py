"""The values below `tune`: lists of choices, and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator

from mtl.recipe.base import Model, recipe_errors

LARGEST, LARGEST_WHOLE = 1e15, 10**15
"""Bounds of a range; up to here every whole number is a float of its own, in which Optuna keeps it."""

Bound = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
WholeBound = Annotated[int, Field(ge=-LARGEST_WHOLE, le=LARGEST_WHOLE)]


class Range(Model):
    """All values from a lowest to a highest one, which only `mtl tune` takes; it has exactly one of these keys."""

    uniform: tuple[Bound, Bound] | None = Field(None, description="[low, high]: numbers, drawn evenly")
    log_uniform: tuple[Bound, Bound] | None = Field(
        None, description="[low, high]: numbers above 0, whose logarithms are drawn evenly"
    )
    integer: tuple[WholeBound, WholeBound] | None = Field(
        None, description="[low, high]: whole numbers, both ends included"
    )
    log_integer: tuple[WholeBound, WholeBound] | None = Field(
        None, description="[low, high]: whole numbers above 0, whose logarithms are drawn evenly"
    )

    @model_validator(mode="after")
    def _one_with_order(self) -> Self:
        if sum(getattr(self, name) is not None for name in type(self).model_fields) != 1:
            names = ", ".join(type(self).model_fields)
            raise recipe_errors("range", [((), f"a range has exactly one of {names}, as in uniform: [0, 1]")])
        low, high = self.bounds
        if low >= high:
            what = f"is [low, high] with low < high, got [{low}, {high}]"
            raise recipe_errors("range", [((self.kind,), what)])
        if self.is_log and low <= 0:
            what = f"has logarithms, so that low is above 0, got {low}"
            raise recipe_errors("range", [((self.kind,), what)])
        return self

    @property
    def kind(self) -> str:
        """The key that the range has."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest value."""
        found: tuple[float, float] = getattr(self, self.kind)
        return found

    @property
    def is_log(self) -> bool:
        """Whether the logarithms of the values are drawn evenly."""
        return self.kind.startswith("log_")

    @property
    def is_whole(self) -> bool:
        """Whether the values are whole numbers."""
        return self.kind.endswith("integer")

    def __str__(self) -> str:
        low, high = self.bounds
        return f"{self.kind.replace('_', ' ')} from {low:g} to {high:g}"


Choices = Annotated[tuple[Any, ...], Field(min_length=1, max_length=64)]
Tunable = Annotated[
    Annotated[Choices, Tag("<list>")] | Annotated[Range, Tag("<mapping>")],
    Discriminator(lambda value: "<mapping>" if isinstance(value, (dict, Range)) else "<list>"),
]


def grid_of(tune: Mapping[str, tuple[Any, ...] | Range]) -> dict[str, tuple[Any, ...]]:
    """The keys with lists of choices, which are all that a comparison tries."""
    return {key: values for key, values in tune.items() if not isinstance(values, Range)}
