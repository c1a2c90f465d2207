"""The one small recipe of the tests: two tasks on generated data, one linear stage, one epoch on one thread of the CPU.

`small()` gives it as a mapping, `recipe()` as a checked Recipe, `text()` as YAML, `write(folder)` as a file. Each takes
changes that are named by their path: `train__epochs=3` sets one value, `optimizer={...}` replaces a section.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe

PLACE = "r.yaml:3:16: data.source: "
"""Where `write` puts the source: an error has this place if it is about none of the source's keys."""
ONE_LINE_EACH = ("tasks", "model")
"""In YAML each entry of these stands on a line of its own, so that errors of two tasks name two lines."""


# --- parts ---


def linear(*features: int, name: str = "fc") -> list[dict[str, Any]]:
    """Linear stages fc1, fc2, ... of these widths."""
    return [{"name": f"{name}{i}", "kind": "linear", "features": n} for i, n in enumerate(features, 1)]


def stitched(*after: str, **options: Any) -> dict[str, Any]:
    """Cross-stitch units after these stages."""
    return {"kind": "cross_stitch", "after": list(after), **options}


def classes(names: Iterable[str], **options: Any) -> dict[str, dict[str, Any]]:
    """Multiclass tasks of these names, on the columns task0, task1, ... of generated data."""
    return {name: {"kind": "multiclass", "target": f"task{i}", **options} for i, name in enumerate(names)}


def table(path: str | Path, *numeric: str, **options: Any) -> dict[str, Any]:
    """A table as the source, these columns as its inputs."""
    return {"kind": "table", "path": str(path), "inputs": {"numeric": list(numeric)}, **options}


def around(
    source: Mapping[str, Any], task: Mapping[str, Any] | None = None, split: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The changes that put a source in, with one task `a` on it: by default the classes of its column `label`."""
    return {
        "data": {"source": source, "split": {"test": 0.25} if split is None else split},
        "tasks": {"a": {"kind": "multiclass", "target": "label"} if task is None else task},
    }


SMALL: dict[str, Any] = {
    "schema_version": 1,
    "name": "small",
    "data": {"source": {"kind": "synthetic", "tasks": 2, "rows": 40, "test_rows": 10, "features": 16}},
    "tasks": classes("ab"),
    "model": {"backbone": {"kind": "layers", "stages": linear(4)}},
    "optimizer": {"kind": "sgd", "lr": 0.1},
    "train": {"epochs": 1, "batch_size": 8, "threads": 1, "device": "cpu"},
}


# --- the whole ---


def changed(made: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy of a recipe's mapping in which the value at each path is another one."""
    copied = copy.deepcopy(dict(made))
    for path, value in changes.items():
        *above, last = path.split("__")
        inner = copied
        for key in above:
            inner = inner.setdefault(key, {})
        inner[last] = copy.deepcopy(value)
    return copied


def small(**changes: Any) -> dict[str, Any]:
    """The small recipe as a mapping."""
    return changed(SMALL, **changes)


def recipe(**changes: Any) -> Recipe:
    """The small recipe, checked."""
    return load_recipe(small(**changes))


def text(**changes: Any) -> str:
    """The small recipe as YAML."""
    return as_yaml(small(**changes))


def write(folder: Path, /, file: str = "r.yaml", **changes: Any) -> Path:
    """The small recipe as a file; its path."""
    path = folder / file
    path.write_text(text(**changes), encoding="utf-8")
    return path


def as_yaml(made: Mapping[str, Any]) -> str:
    """A recipe's mapping as YAML: one line for a key, and one for each entry of `ONE_LINE_EACH`."""
    lines = []
    for key, value in made.items():
        if key in ONE_LINE_EACH and value:
            lines += [f"{key}:", *(f"  {_flow(name)}: {_flow(entry)}" for name, entry in value.items())]
        else:
            lines.append(f"{key}: {_flow(value)}")
    return "\n".join(lines) + "\n"


class _WrittenOut(yaml.SafeDumper):
    """A value that is given twice is written twice: recipes may have no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _quoted_if_ambiguous(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    """PyYAML takes a bare y or n for text, mtl refuses it."""
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="'" if text in ("y", "Y", "n", "N") else None
    )


_WrittenOut.add_representer(str, _quoted_if_ambiguous)


def _flow(value: object) -> str:
    """A value on one line, quoted where YAML needs it."""
    dumped = yaml.dump(
        value, Dumper=_WrittenOut, default_flow_style=True, sort_keys=False, width=10**9, allow_unicode=True
    )
    return dumped.removesuffix("\n").removesuffix("\n...")
