"""Makes a reference of a comparison in a folder of its own: trees, or predictions from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mtl.runs.disk import make_folder, write_whole
from mtl.runs.json_text import canonical_json
from mtl.runs.record import MetricName, Number, Shape, Word
from mtl.runs.results.reading import read_checked

REFERENCE = "reference.json"


class Reference(Shape):
    """The content of reference.json.

    Args:
        values: `<split>/<task>/<metric>` -> value.
        told: facts that the user should know.
        facts: what the record holds about the model.
        seconds: how long it took.
    """

    schema_version: Literal[1]
    values: dict[MetricName, Number]
    told: list[str]
    facts: dict[Word, Any]
    seconds: Annotated[float, Field(ge=0)]


def read_reference(folder: Path) -> Reference | None:
    """The content of reference.json; None if the reference was not made yet.

    Raises:
        UserError: the file cannot be read, or is not what a comparison writes.
    """
    return read_checked(folder / REFERENCE, Reference)


def make(job: Mapping[str, Any]) -> None:
    """Fit or read a reference, measure it by the code that measures networks, and write its folder.

    Args:
        job: `recipe`, `out`, `threads`, and for predictions from elsewhere `predictions`, the path of their file.

    Raises:
        UserError: the data do not fit the model, or the predictions do not fit the data.
    """
    from mtl.comparison.references.outside import outside_predictions
    from mtl.comparison.references.scored import scored
    from mtl.comparison.references.trees import fit_trees
    from mtl.dataset.assemble import load_dataset
    from mtl.dataset.header import header_of
    from mtl.evaluation.bootstrap import resampled
    from mtl.recipe.load import load_recipe
    from mtl.runs.results.bootstrap import write_bootstrap
    from mtl.task_groups import task_groups

    recipe, folder = load_recipe(job["recipe"]), Path(job["out"])
    dataset = load_dataset(recipe, header_of(recipe))
    groups = task_groups(recipe, dataset.learned)
    if job.get("predictions") is None:
        predicted = fit_trees(recipe, dataset, groups, threads=job["threads"])
    else:
        predicted = outside_predictions(job["predictions"], recipe, dataset, groups)
    found, told = scored(recipe, groups, dataset, predicted)
    make_folder(folder)
    measured = {name.split("/")[1] for name, value in found.values.items() if value is not None}
    tasks = [task for task in recipe.tasks if task in measured]
    write_bootstrap(folder, resampled(found.built.model, recipe.tasks, found.dataset, "test", tasks))
    content = {
        "schema_version": 1,
        "values": found.values,
        "told": told,
        "facts": dict(predicted.facts),
        "seconds": sum(predicted.seconds.values()),
    }
    write_whole(folder / REFERENCE, canonical_json(content))
