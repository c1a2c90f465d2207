"""A recipe with `phases` is a chain of ordinary runs, each of which begins with the weights of the one before."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl.data.files.opening import opened_once
from mtl.errors import UserError, dotted, quoted, raise_all
from mtl.experiment.resume import resume
from mtl.experiment.run import Result, foretell
from mtl.experiment.run import run as run_one
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe, to_yaml
from mtl.runs.disk import make_folder, read_plain, write_whole
from mtl.runs.folder import RECORD, RESOLVED, is_chain, new_place, require_unused
from mtl.training.events import Listener, Noted, Stream
from mtl.training.trainer import Trainer


def chain_of(recipe: Recipe, folder: Path) -> list[tuple[str, Path, Recipe]]:
    """Each phase: its name, its run folder, and the recipe with its changes and the weights that it begins with.

    Towers pass their weights by name. Where the phase before has a single tower and this one has several, each of them
    begins as a copy of it.

    Raises:
        UserError: the changes of a phase do not fit the recipe.
    """
    plain = {key: value for key, value in recipe.plain().items() if key != "phases"}
    chain: list[tuple[str, Path, Recipe]] = []
    for number, (name, changes) in enumerate(recipe.phases.items(), 1):
        overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
        try:
            own = load_recipe(plain, overrides)
            if chain:
                _, before, other = chain[-1]
                splits = len(other.towers) == 1 < len(own.towers)
                weights = dict.fromkeys(own.towers, str(before)) if splits else str(before)
                own = load_recipe(own.plain(), [f"train.init_from={json.dumps(weights)}"])
        except UserError as error:
            what = "; ".join(f"{dotted(each.path)}: {each.what}" for each in error.errors)
            with recipe.at("phases", name):
                raise UserError("", what, error.errors[0].todo) from None
        chain.append((name, folder / f"{number}-{name}", own))
    return chain


def run_chain(
    recipe: Recipe,
    out: Path | None = None,
    plugins: Sequence[str] = (),
    listeners: Sequence[Listener] = (),
    *,
    report: bool = True,
    go_on: bool = False,
) -> Result:
    """Run the phases of a recipe one after the other, and return the result of the last one.

    The folder holds the recipe and a run folder for each phase, `1-<name>`, `2-<name>`, ... A chain that was stopped or
    killed goes on where it was: a finished phase is not run again, and one that was broken off is resumed.

    Args:
        recipe: a recipe with phases.
        out: the folder of the chain; default `runs/<recipe>/<utc>-<suffix>`.
        plugins: the plug-ins that were loaded, for the records.
        listeners: the listeners of all runs.
        report: whether each run writes `report.html`.
        go_on: whether `out` may hold this chain already.

    Raises:
        UserError: the folder holds something else, or a phase is at fault.
    """
    folder = out if out is not None else new_place(Path("runs", recipe.name))
    chain = chain_of(recipe, folder.absolute())
    text = to_yaml(recipe)
    if not (go_on and is_chain(folder)):
        require_unused(folder)
        for name, _, own in chain[1:]:  # the first phase is looked at by its own run
            _foretell_phase(recipe, name, own)
        make_folder(folder)
        write_whole(folder / "recipe.yaml", recipe.text or text.encode())
        write_whole(folder / RESOLVED, text.encode())
    elif _recipe_of_chain(folder) != text:
        raise UserError(str(folder), "holds the phases of another recipe", "give another --out")
    stream = Stream(listeners)
    for number, (name, absolute, own) in enumerate(chain, 1):
        place = (
            folder / absolute.name
        )  # printed as the caller wrote it; recipes name weights by absolute paths
        stream.on(Noted(f"phase {number} of {len(chain)}: {name}"))
        if (place / RECORD).exists():
            result = resume(place, plugins=plugins, listeners=listeners, report=report)
        else:
            result = run_one(own, out=place, plugins=plugins, listeners=listeners, report=report)
    return result


def _recipe_of_chain(folder: Path) -> str:
    try:
        return read_plain(folder / RESOLVED).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(str(folder / RESOLVED), f"cannot be read: {quoted(str(error))}") from None


def resume_chain(
    folder: Path, plugins: Sequence[str] = (), listeners: Sequence[Listener] = (), *, report: bool = True
) -> Result:
    """Go on with the chain in a folder.

    Raises:
        UserError: the folder's recipe has no phases.
    """
    _recipe_of_chain(folder)
    recipe = load_recipe(folder / RESOLVED)
    if not recipe.phases:
        raise UserError(str(folder), "holds a run that never began", f"begin it: mtl run {quoted(RESOLVED)}")
    return run_chain(recipe, folder, plugins, listeners, report=report, go_on=True)


def foretell_chain(recipe: Recipe, out: Path | None = None) -> list[Trainer]:
    """The trainer that each phase would have, with the refusals of `run_chain`; nothing is written.

    A phase is looked at without the weights of the one before, which do not exist yet.

    Raises:
        UserError: a phase is at fault, or the folder holds something.
    """
    if out is not None:
        require_unused(out)
    return [
        _foretell_phase(recipe, name, own)
        for name, _, own in chain_of(recipe, out or Path("runs", recipe.name))
    ]


def _foretell_phase(recipe: Recipe, name: str, own: Recipe) -> Trainer:
    """The trainer that a phase would have, without the weights of the one before.

    Raises:
        UserError: the phase is at fault; its place is that of the phase in the recipe.
    """
    given = own.train.init_from is not None and own.train.init_from != recipe.train.init_from
    alone = load_recipe(own.plain(), ["~train.init_from"] if given else [])
    try:
        return foretell(alone)
    except UserError as error:
        faults = [
            type(each)(
                "" if str(each.place) == "recipe" else each.place, each.what, each.todo, path=each.path
            )
            for each in error.errors  # the phase has been read from plain values, whose place is `recipe`
        ]
    with recipe.at("phases", name):
        raise_all(faults)
    raise AssertionError("an error has a fault")


@opened_once()
def run(
    recipe: Recipe | str | os.PathLike[str] | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    out: str | os.PathLike[str] | None = None,
    plugins: Sequence[str] = (),
    listeners: Sequence[Listener] = (),
    report: bool = True,
) -> Result:
    """Train a recipe and write its run folder; a recipe with phases writes one for each of them.

    Args:
        recipe: a checked recipe, a path, the name of a built-in recipe, or a mapping.
        overrides: `key.sub=value`, as on the command line; not with a checked recipe.
        out: the run folder; default `runs/<recipe>/<utc>-<suffix>`.
        plugins: the plug-ins that were loaded, for the record.
        listeners: the listeners that receive each event after it was written down; by default none.
        report: whether the run writes `report.html` at its end.

    Returns:
        The result of the run; of the last one, if there are several.

    Raises:
        UserError: the recipe or the data are at fault; nothing was written then.
        NotFinite: a loss or gradient became infinite or NaN.
    """
    if not isinstance(recipe, Recipe):
        recipe, overrides = load_recipe(recipe, overrides), ()
    if not recipe.phases:
        return run_one(recipe, overrides, out=out, plugins=plugins, listeners=listeners, report=report)
    if overrides:
        raise ValueError("overrides are applied while a recipe is loaded: give them to load_recipe")
    return run_chain(recipe, None if out is None else Path(out), plugins, listeners, report=report)
