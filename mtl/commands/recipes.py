"""Commands about recipes; they train nothing, and only `init` reads rows."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mtl.commands.options import (
    debug_option,
    is_override,
    load_plugins,
    overrides_argument,
    plugin_option,
    recipe_argument,
    write,
)
from mtl.commands.outcomes import require_torch
from mtl.console import complain, counted, say, table
from mtl.errors import ManyErrors, UserError, did_you_mean, quoted

if TYPE_CHECKING:
    from mtl.recipe.keys.recipe import Recipe


@click.command(help="Check recipes: text, schema, shapes, heads and memory; no row is read without --data.")
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE... [KEY=VALUE]...")
@click.option("--data", is_flag=True, help="Read the rows too, and print every notice about them.")
@plugin_option
@debug_option
def validate(recipes: tuple[str, ...], data: bool, plugins: tuple[str, ...], debug: bool) -> None:
    from mtl.recipe.load import load_recipe
    from mtl.recipe.text.overrides import refuse_spaces
    from mtl.recipe.tuned import require_tunable

    load_plugins(plugins)
    refuse_spaces(recipes)
    overrides = [text for text in recipes if is_override(text)]
    if len(overrides) == len(recipes):
        raise UserError("mtl validate", "a recipe is missing", "give a path or a built-in name")
    faults: list[UserError] = []
    checked = []
    for name in (text for text in recipes if text not in overrides):
        try:
            recipe = load_recipe(name, overrides)
            require_tunable(recipe)
            checked.append((name, recipe))
        except UserError as error:
            faults.extend(error.errors)
    from mtl.data.files.opening import opened_once
    from mtl.dataset.header import checked_header

    fitting = []  # columns are looked up before torch is imported
    for name, recipe in checked:
        try:
            checked_header(recipe)
            fitting.append((name, recipe))
        except UserError as error:
            faults.extend(error.errors)
    if not fitting:
        raise ManyErrors(faults)
    require_torch()
    for name, recipe in fitting:
        try:
            with opened_once():
                size = _validated(recipe, data)
        except UserError as error:
            faults.extend(error.errors)
            continue
        n_tasks, n_towers = counted(len(recipe.tasks), "task"), counted(len(recipe.towers), "tower")
        say(f"ok {name}: {n_tasks}, {n_towers}, {size}")
    if faults:
        raise ManyErrors(faults)


def _validated(recipe: Recipe, data: bool) -> str:
    """The number of parameters of a recipe's network, in words, after it was built and tried.

    With `data` the rows are read as a run reads them, and each notice about them is printed.

    Raises:
        UserError: the recipe does not fit its columns, or its network cannot be built.
        EnvironmentFault: the network does not fit into memory, or a tracker's package is not installed.
    """
    from mtl.build import is_provisional
    from mtl.experiment.trial import build_and_try, require_room, with_rows
    from mtl.tracking.listener import require_trackers
    from mtl.training import devices
    from mtl.training.trainer import require_labels

    require_trackers(recipe)
    if recipe.phases:
        from mtl.phases import chain_of

        for name, _, own in chain_of(recipe, Path("runs")):
            with recipe.at("phases", name):
                build_and_try(own)
    built, header = build_and_try(recipe)
    for remark in recipe.remarks():
        complain(f"warning: {remark}")
    if data:
        built, dataset = with_rows(recipe, header)
        header = dataset.header
        with recipe.at("weighting"):
            require_labels(recipe, dataset, {group.name: group.tasks for group in built.groups})
        for notice in dataset.notices:
            complain(f"warning: {notice}")
    device = None
    with suppress(UserError):  # another machine may have the device
        device = devices.resolve(recipe.train.device)
    if device is not None:
        require_room(recipe, built, device)
    if not data and is_provisional(recipe, header):
        return "parameters known once the rows are read"
    return f"{sum(p.numel() for p in built.model.parameters()):,} parameters"


@click.command(
    "ls", help="List the built-in recipes, or the members of a family: task, source, backbone, sharing, ..."
)
@click.argument("what", required=False)
@plugin_option
def list_(what: str | None, plugins: tuple[str, ...]) -> None:
    load_plugins(plugins)
    from mtl.recipe.load import BUILT_IN, built_in_names

    if what in (None, "recipe", "recipes"):
        from mtl.recipe.text.yaml import read_file

        rows = [[n, read_file(BUILT_IN / f"{n}.yaml").value.get("description", "")] for n in built_in_names()]
        say(table(["recipe", "description"], rows, left=2))
        return
    from mtl.recipe.specs import FAMILIES

    family = FAMILIES.get(what) or FAMILIES.get(what.removesuffix("s")) or FAMILIES.get(f"{what[:-3]}y")
    if family is None:
        known = ["recipes", *FAMILIES]
        raise UserError(
            "mtl ls", f"no family {quoted(what)}{did_you_mean(what, known)}", f"one of {', '.join(known)}"
        )
    members = [(name, family[name]) for name in family.names()]
    rows = [[name, (inspect.getdoc(m) or "").partition("\n")[0], m.reference] for name, m in members]
    say(table([family.family, "what it is", "reference"], rows, left=3))


@click.command(help="Print RECIPE flat: base, overrides and defaults merged.")
@recipe_argument
@overrides_argument
@plugin_option
def show(recipe: str, overrides: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    load_plugins(plugins)
    from mtl.recipe.load import load_recipe, to_yaml

    say(to_yaml(load_recipe(recipe, overrides)).rstrip())


@click.command(help="Copy a built-in RECIPE here (or to DESTINATION), its JSON schema beside it.")
@recipe_argument
@click.argument("destination", required=False)
@click.option("--force", is_flag=True, help="Overwrite.")
def cp(recipe: str, destination: str | None, force: bool) -> None:
    from mtl.recipe.load import BUILT_IN, find

    source = find(recipe)
    if not source.is_file():
        raise UserError(recipe, "no such file")
    target = Path(destination or ".")
    target = target / source.name if target.is_dir() else target
    schema = target.with_name("recipe.schema.json")
    if target.exists() and not force:
        raise UserError(str(target), "is there already", "give another name, or --force")
    write(target, source.read_bytes())
    write(schema, (BUILT_IN / "recipe.schema.json").read_bytes())
    say(f"{target} (schema: {schema})")


@click.command(
    help="Shapes, parameters, FLOPs, and what is shared with what; rows of a table are read for its classes."
)
@recipe_argument
@overrides_argument
@plugin_option
@debug_option
def summary(recipe: str, overrides: tuple[str, ...], plugins: tuple[str, ...], debug: bool) -> None:
    load_plugins(plugins)
    summarize_recipe(recipe, overrides)


def summarize_recipe(recipe: str, overrides: Sequence[str]) -> None:
    """Print the summary of a recipe: shapes, parameters, FLOPs, and what is shared.

    Raises:
        UserError: the recipe or its rows have a fault, or its network cannot be built.
    """
    from mtl.dataset.header import checked_header
    from mtl.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides)
    checked_header(loaded)
    require_torch()
    from mtl.experiment.trial import preview
    from mtl.report.summary import summarize

    built, header, notices = preview(loaded)
    for notice in (*notices, loaded.model.backbone.remark(loaded.data.standardize.kind)):
        if notice:
            complain(f"warning: {notice}")
    say(summarize(loaded, built, header))


@click.command(
    help="Write a recipe for TABLE (CSV or Parquet): kinds of tasks and inputs are guessed, with the reasons."
)
@click.argument("table_file", metavar="TABLE")
@click.option(
    "--targets",
    required=True,
    metavar="A,B,...",
    help='Label columns, or patterns (y_*); "a, b" for a comma.',
)
@click.option("--group", metavar="COLUMN", help="People, sites: no value of it on two sides of the split.")
@click.option("--time", metavar="COLUMN", help="Dates or times: the latest rows are held out.")
@click.option("-o", "--output", default="recipe.yaml", show_default=True, metavar="FILE", help="The recipe.")
@click.option("--force", is_flag=True, help="Overwrite.")
@debug_option
def init(
    table_file: str, targets: str, group: str | None, time: str | None, output: str, force: bool, debug: bool
) -> None:
    from mtl.recipe.load import BUILT_IN
    from mtl.starter.write import target_names, write_starter

    target = Path(output)
    if target.exists() and not force:
        raise UserError(output, "is there already", "give another name by -o, or --force")
    names = target_names(targets)
    recipe = write_starter(table_file, names, target, group, time, lambda line: complain(f"note: {line}"))
    schema_file = target.with_name("recipe.schema.json")
    if not schema_file.exists():
        write(schema_file, (BUILT_IN / "recipe.schema.json").read_bytes())
    say(f"{target}: {counted(len(recipe.tasks), 'task')}; look through it, then: mtl run {target}")


@click.command(help="Print the JSON schema of recipes, for editors.")
@plugin_option
def schema(plugins: tuple[str, ...]) -> None:
    load_plugins(plugins)
    from mtl.recipe.json_schema import schema_text

    say(schema_text().rstrip())
