"""Small networks, built as a recipe builds them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from mtl.build import Built, build
from mtl.data.types import Header
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe

IMAGES = Header(input_shape=(2, 8, 8), labels={"three": ("a", "b", "c"), "two": ("a", "b")})
VECTORS = Header(input_shape=(9,), labels=IMAGES.labels)

STAGES: dict[str, tuple[dict[str, Any], ...]] = {
    "conv": (
        {"name": "conv1", "kind": "conv", "channels": 3, "kernel": 3},
        {"name": "pool1", "kind": "max_pool", "size": 2},
        {"name": "conv2", "kind": "conv", "channels": 4, "kernel": 3, "stride": 2},
        {"name": "fc3", "kind": "linear", "features": 6},
    ),
    "linear": (
        {"name": "fc1", "kind": "linear", "features": 6},
        {"name": "fc2", "kind": "linear", "features": 5},
    ),
}
SITES = {"conv": ("pool1", "conv2", "fc3"), "linear": ("fc1", "fc2")}


@pytest.fixture
def toy() -> Callable[..., tuple[Recipe, Built]]:
    """`toy("conv", 3, sharing=..., head=...)`: recipe and network of three tasks with a tower each.

    `tasks` are task names; those with an even number have three classes, the others two. A sharing without
    `after` gets every site.
    """

    def make(
        body: str,
        tasks: int | Sequence[str],
        *,
        sharing: Mapping[str, Any] | None = None,
        towers: Any = "per_task",
        dropout: float = 0.0,
        **model: Any,
    ) -> tuple[Recipe, Built]:
        names = [f"t{t}" for t in range(tasks)] if isinstance(tasks, int) else list(tasks)
        backbone = {"kind": "layers", "stages": STAGES[body], **model.pop("backbone", {})}
        if dropout:
            backbone["stages"] += ({"name": "drop", "kind": "dropout", "p": dropout},)
        sharing = {"kind": "none"} if sharing is None else {"after": SITES[body], **sharing}
        recipe = load_recipe(
            {
                "schema_version": 1,
                "name": "toy",
                "data": {"source": {"kind": "synthetic"}},
                "tasks": {
                    name: {"kind": "multiclass", "target": "two" if int(name[1:]) % 2 else "three"}
                    for name in names
                },
                "model": {"backbone": backbone, "sharing": sharing, "towers": towers, **model},
                "optimizer": {"kind": "adam", "lr": 1e-3},
                "train": {"epochs": 1},
            }
        )
        return recipe, build(recipe, IMAGES if body == "conv" else VECTORS)

    return make
