"""The key of stored rows: a hash of all that decides them."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

from mtl import __version__
from mtl.recipe.keys.recipe import Recipe
from mtl.registry import plugin_modules

FORMAT = 2
"""The version of what a store holds; it grows with each change of how rows are encoded or kept."""
READERS = ("numpy", "pyarrow", "pillow")
"""Packages that turn bytes into values."""


def key_of(recipe: Recipe) -> str:
    """sha256, in hex, over the files of the sources, the keys of the recipe that decide its rows, and the readers.

    These keys are `data` without `in_memory`, `tasks`, which tower each task reads, since tasks lie in the order of
    their towers, and the seeds of splits and of generated labels. Plug-ins count by the bytes of their files.

    Raises:
        UserError: a file of a source cannot be read.
    """
    stamps = {}
    for name, source in recipe.data.by_name.items():
        with recipe.at("data", *recipe.data.path_of(name)):
            stamps[name] = source.stamp()
    decides = {
        "format": FORMAT,
        "versions": {"mtl": __version__, **{package: version(package) for package in READERS}},
        "plugins": _plugins(),
        "sources": stamps,
        "data": recipe.data.model_dump(mode="json", exclude={"in_memory"}),
        "tasks": [[name, spec.model_dump(mode="json")] for name, spec in recipe.tasks.items()],
        "towers": [list(tasks) for tasks in recipe.towers.values()],
        "seeds": {"split": recipe.seeds.split, "labels": recipe.seeds.labels},
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _plugins() -> list[str]:
    files = sorted({Path(module.__file__) for module in plugin_modules() if module.__file__ is not None})
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
