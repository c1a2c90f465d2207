"""The commands. Thin: torch and all that needs it is imported inside the commands that use it."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from mtl import __version__
from mtl.console import number, results_table, say, table
from mtl.errors import EnvironmentFault, ManyErrors, UserError, did_you_mean, quoted
from mtl.outcomes import guarded, require_torch
from mtl.training.signals import Interrupts


class Commands(click.Group):
    """A group that keeps the order of its commands and names the near miss of an unknown one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            near = did_you_mean(args[0], self.commands)
            raise UserError("mtl", f"no command {quoted(args[0])}{near}", "mtl --help lists them")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """click itself would print an empty line at an interrupt, wherever its output goes."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise click.Abort from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mtl")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """One network for N tasks from one recipe, and an answer to which of them should share.

    RECIPE is a path or the name of a built-in recipe. Overrides are bare: optimizer.lr=3e-4; ~key removes.
    """


recipe_argument = click.argument("recipe")
overrides_argument = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
plugin_option = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="FILE",
    help="Python file (or installed plug-in) to load first.",
)
debug_option = click.option("--debug", is_flag=True, help="Show tracebacks.")


def _load_plugins(names: Sequence[str]) -> list[str]:
    from mtl.registry import load_plugin

    return [load_plugin(name) for name in names]


@cli.command()
@click.argument("recipe", required=False)
@overrides_argument
@click.option("--out", metavar="DIR", help="The run folder itself; default runs/RECIPE/UTC-SUFFIX.")
@click.option("--resume", metavar="RUN", help="Go on with a run; 'auto' with --out: if there is one.")
@click.option("--dry-run", is_flag=True, help="Check the recipe and print its summary, without training.")
@click.option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--quiet", is_flag=True, help="Only warnings and the final table.")
@click.option("--extend-schedule", is_flag=True, help="With --resume and more epochs: stretch the schedule.")
@click.option("--allow-nonfinite", is_flag=True, help="With --resume: take weights that are NaN or infinite.")
@click.option("--require-bitwise", is_flag=True, help="With --resume: refuse another version or machine.")
@plugin_option
@debug_option
def run(
    recipe: str | None,
    overrides: tuple[str, ...],
    out: str | None,
    resume: str | None,
    dry_run: bool,
    device: str | None,
    quiet: bool,
    extend_schedule: bool,
    allow_nonfinite: bool,
    require_bitwise: bool,
    plugins: tuple[str, ...],
    debug: bool,
) -> None:
    """Train RECIPE and write a run folder."""
    options = {
        "extend_schedule": extend_schedule,
        "allow_nonfinite": allow_nonfinite,
        "require_bitwise": require_bitwise,
    }
    loaded_plugins = _load_plugins(plugins)
    resuming = resume is not None
    if device is not None:
        overrides = (*overrides, f"train.device={device}")
    if resume is not None and recipe is not None and ("=" in recipe or recipe.startswith("~")):
        overrides, recipe = (recipe, *overrides), None
    if resume == "auto":
        if out is None:
            raise UserError("--resume auto", "needs the folder of the run", "add --out DIR")
        resume = out if Path(out, "run.json").exists() else None
    elif resume is not None and recipe is not None:
        raise UserError("--resume", "a run has its own recipe", f"leave out {quoted(recipe)}")
    elif resume is not None and out is not None:
        raise UserError("--resume", "a run goes on in its own folder", f"leave out --out {quoted(out)}")
    if resume is None and recipe is None:
        raise UserError("mtl run", "a recipe is missing", "give a path or a built-in name; mtl ls lists them")
    if dry_run:
        assert recipe is not None or resume is not None
        _summarize(recipe or str(Path(resume or "", "recipe.resolved.yaml")), overrides)
        return
    if not resuming and any(options.values()):
        name = next(name for name, given in options.items() if given).replace("_", "-")
        raise UserError(f"--{name}", "is for a run that goes on", "add --resume RUN")
    _train(recipe, overrides, out, resume, quiet, loaded_plugins, options)


def _train(
    recipe: str | None,
    overrides: Sequence[str],
    out: str | None,
    resume: str | None,
    quiet: bool,
    plugins: Sequence[str],
    options: Mapping[str, bool],
) -> None:
    from mtl.recipe.load import load_recipe

    # the text is checked before torch is imported: its errors come at once
    loaded = load_recipe(recipe, overrides) if recipe is not None else None
    require_torch()
    from mtl import experiment, resuming
    from mtl.console import TrainingConsole

    console = TrainingConsole(quiet)
    try:
        if resume is not None:
            resuming.resume(resume, overrides, recipe=loaded, plugins=plugins, console=console, **options)
        else:
            assert loaded is not None
            experiment.run(loaded, out=out, plugins=plugins, console=console)
    finally:
        console.close()


@cli.command()
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE... [KEY=VALUE]...")
@plugin_option
@debug_option
def validate(recipes: tuple[str, ...], plugins: tuple[str, ...], debug: bool) -> None:
    """Check recipes: text, schema, shapes and heads; no data is read."""
    from mtl.recipe.load import load_recipe

    _load_plugins(plugins)
    overrides = [text for text in recipes if "=" in text or text.startswith("~")]
    if len(overrides) == len(recipes):
        raise UserError("mtl validate", "a recipe is missing", "give a path or a built-in name")
    faults: list[UserError] = []
    checked = []
    for name in (text for text in recipes if text not in overrides):
        try:
            checked.append((name, load_recipe(name, overrides)))
        except UserError as error:
            faults.extend(error.errors)
    if not checked:
        raise ManyErrors(faults)
    require_torch()
    from mtl.build import build_on_meta

    for name, recipe in checked:
        try:
            built, _ = build_on_meta(recipe)
        except UserError as error:
            faults.extend(error.errors)
            continue
        n_parameters = sum(p.numel() for p in built.model.parameters())
        say(f"ok {name}: {len(recipe.tasks)} tasks, {len(recipe.towers)} towers, {n_parameters:,} parameters")
    if faults:
        raise ManyErrors(faults)


@cli.command("ls")
@click.argument("what", required=False)
@plugin_option
def list_(what: str | None, plugins: tuple[str, ...]) -> None:
    """List the built-in recipes, or the members of a family: task, source, backbone, sharing, ..."""
    _load_plugins(plugins)
    from mtl.recipe.load import BUILT_IN, built_in_names

    if what in (None, "recipe", "recipes"):
        from mtl.recipe.yaml import read_file

        rows = [[n, read_file(BUILT_IN / f"{n}.yaml").value.get("description", "")] for n in built_in_names()]
        say(table(["recipe", "description"], rows, left=2))
        return
    from mtl.recipe.spec import FAMILIES

    family = FAMILIES.get(what) or FAMILIES.get(what.removesuffix("s")) or FAMILIES.get(f"{what[:-3]}y")
    if family is None:
        known = ["recipes", *FAMILIES]
        raise UserError(
            "mtl ls", f"no family {quoted(what)}{did_you_mean(what, known)}", f"one of {', '.join(known)}"
        )
    members = [(name, family[name]) for name in family.names()]
    rows = [[name, (inspect.getdoc(m) or "").partition("\n")[0], m.reference] for name, m in members]
    say(table([family.family, "what it is", "reference"], rows, left=3))


@cli.command()
@recipe_argument
@overrides_argument
@plugin_option
def show(recipe: str, overrides: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Print RECIPE flat: base, overrides and defaults merged."""
    _load_plugins(plugins)
    from mtl.recipe.load import load_recipe, to_yaml

    say(to_yaml(load_recipe(recipe, overrides)).rstrip())


@cli.command()
@recipe_argument
@click.argument("destination", required=False)
@click.option("--force", is_flag=True, help="Overwrite.")
def cp(recipe: str, destination: str | None, force: bool) -> None:
    """Copy a built-in RECIPE here (or to DESTINATION), its JSON schema beside it."""
    from mtl.recipe.load import BUILT_IN, find

    source = find(recipe)
    if not source.is_file():
        raise UserError(recipe, "no such file")
    target = Path(destination or ".")
    target = target / source.name if target.is_dir() else target
    schema = target.with_name("recipe.schema.json")
    if target.exists() and not force:
        raise UserError(str(target), "is there already", "give another name, or --force")
    _write(target, source.read_bytes())
    _write(schema, (BUILT_IN / "recipe.schema.json").read_bytes())
    say(f"{target} (schema: {schema})")


@cli.command()
@recipe_argument
@overrides_argument
@plugin_option
@debug_option
def summary(recipe: str, overrides: tuple[str, ...], plugins: tuple[str, ...], debug: bool) -> None:
    """Shapes, parameters, FLOPs, and what is shared with what."""
    _load_plugins(plugins)
    _summarize(recipe, overrides)


def _summarize(recipe: str, overrides: Sequence[str]) -> None:
    from mtl.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides)
    require_torch()
    from mtl.report.summary import summarize

    say(summarize(loaded))


@cli.command("eval")
@click.argument("run_folder", metavar="RUN")
@click.option("--split", default="test", show_default=True, help="train, validation or test.")
@click.option(
    "--data", metavar="FILE", help="Another table with labels, all of its rows, instead of a split."
)
@plugin_option
@debug_option
def evaluate(run_folder: str, split: str, data: str | None, plugins: tuple[str, ...], debug: bool) -> None:
    """Evaluate the selected weights of RUN again."""
    _load_plugins(plugins)
    require_torch()
    from mtl.experiment import evaluate_run

    say(results_table(evaluate_run(run_folder, split, data), "test" if data is not None else split))


@cli.command()
@click.argument("run_folder", metavar="RUN")
@click.option("--input", "data", required=True, metavar="FILE", help="CSV, Parquet or npz; needs no labels.")
@click.option("--output", required=True, metavar="FILE", help="CSV, Parquet or npz, by its suffix.")
@click.option("--keep", multiple=True, metavar="COLUMN", help="A column of the input to carry through.")
@click.option("--device", default="cpu", show_default=True, metavar="NAME", help="auto, cpu, cuda, mps.")
@plugin_option
@debug_option
def predict(
    run_folder: str,
    data: str,
    output: str,
    keep: tuple[str, ...],
    device: str,
    plugins: tuple[str, ...],
    debug: bool,
) -> None:
    """Predict for every row of a file: a column per task, and probabilities beside it."""
    _load_plugins(plugins)
    require_torch()
    from mtl.evaluation.predict import load
    from mtl.evaluation.writing import write_predictions

    n_rows = write_predictions(load(run_folder, device), data, output, keep)
    say(f"{output}: {n_rows:,} rows")


@cli.command()
@click.argument("table_file", metavar="TABLE")
@click.option(
    "--targets", required=True, metavar="A,B,...", help='The label columns; "a, b" if one has a comma.'
)
@click.option("--group", metavar="COLUMN", help="People, sites: no value of it on two sides of the split.")
@click.option("--time", metavar="COLUMN", help="Dates or times: the latest rows are held out.")
@click.option("-o", "--output", default="recipe.yaml", show_default=True, metavar="FILE", help="The recipe.")
@click.option("--force", is_flag=True, help="Overwrite.")
@debug_option
def init(
    table_file: str, targets: str, group: str | None, time: str | None, output: str, force: bool, debug: bool
) -> None:
    """Write a recipe for TABLE (CSV or Parquet): kinds of tasks and inputs are guessed, with the reasons."""
    from mtl.recipe.load import BUILT_IN
    from mtl.training.starter import target_names, write_starter

    target = Path(output)
    if target.exists() and not force:
        raise UserError(output, "is there already", "give another name by -o, or --force")
    recipe = write_starter(table_file, target_names(targets), target, group, time)
    schema_file = target.with_name("recipe.schema.json")
    if not schema_file.exists():
        _write(schema_file, (BUILT_IN / "recipe.schema.json").read_bytes())
    say(f"{target}: {len(recipe.tasks)} tasks; look through it, then: mtl run {target}")


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise EnvironmentFault(
            str(path), f"cannot write: {(error.strerror or str(error)).lower()}"
        ) from error


@cli.command()
@click.argument("root", default="runs")
def runs(root: str) -> None:
    """List the runs below ROOT with their status and mean result."""
    from mtl.training.runs import list_runs

    found = list_runs(Path(root))
    if not found:
        say(f"no runs below {root}")
        return
    rows = []
    for folder in found:
        record = folder.record
        results = record.get("results", {})
        means = [
            f"{name.split('/')[-1]} {number(v)}"
            for name, v in results.items()
            if name.startswith("test/mean/")
        ]
        step = str(record.get("step", ""))
        rows.append(
            [str(folder.path), record.get("name", ""), record.get("status", ""), step, ", ".join(means)]
        )
    say(table(["run", "recipe", "status", "step", "test mean"], rows, left=3))


@cli.command()
@click.argument("run_folder", metavar="RUN")
@debug_option
def checkpoints(run_folder: str, debug: bool) -> None:
    """List the checkpoints of RUN and read every byte of them: which are whole?"""
    from mtl.training.checkpoint import listed
    from mtl.training.runs import RunFolder

    run = RunFolder.open(Path(run_folder))
    found = listed(run.checkpoints)
    if not found:
        say(f"no checkpoints in {run_folder}")
        return
    selected = run.record.get("selected", {}).get("step")
    rows = []
    for one in found:
        state = one.fault or ("whole, selected" if one.step == selected else "whole")
        rows.append([f"step-{one.step:08d}", state, one.created, f"{one.size / 2**20:,.2f}"])
    say(table(["checkpoint", "state", "made", "MB"], rows, left=3))


@cli.command()
@click.option("--markdown", is_flag=True, help="Tables of all keys instead, as in docs/recipe.md.")
@plugin_option
def schema(markdown: bool, plugins: tuple[str, ...]) -> None:
    """Print the JSON schema of recipes, for editors."""
    _load_plugins(plugins)
    from mtl.recipe.json_schema import schema_text
    from mtl.recipe.key_table import key_table

    say((key_table() if markdown else schema_text()).rstrip())


@cli.command()
@debug_option
def doctor(debug: bool) -> None:
    """Check this machine: versions, devices, cache, data, and a few steps of training."""
    from mtl.doctor import examine

    examine()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code that DESIGN gives to each outcome."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by who started us
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115
    with Interrupts():
        return guarded(lambda: cli.main(given, prog_name="mtl", standalone_mode=False), "--debug" in given)
