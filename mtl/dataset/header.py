"""What all sources of a recipe together say of themselves, before any row is read."""

from __future__ import annotations

from mtl.contracts import check_header
from mtl.data.types import Header
from mtl.dataset.join import joined_header
from mtl.recipe.keys.recipe import Recipe


def header_of(recipe: Recipe) -> Header:
    """What all sources together say of themselves.

    Raises:
        UserError: a source cannot be found, or sources do not give the same inputs.
    """
    headers = {}
    for name, source in recipe.data.by_name.items():
        with recipe.at("data", *recipe.data.path_of(name)):
            headers[name] = check_header(source, source.header())
    with recipe.at():
        return joined_header(headers)
