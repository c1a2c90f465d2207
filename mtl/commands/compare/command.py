"""`mtl compare` trains the arms of a comparison and says whether sharing helps."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import click
from click.core import ParameterSource

from mtl.commands.options import (
    debug_option,
    load_plugins,
    overrides_argument,
    plugin_option,
    recipe_argument,
)
from mtl.commands.outcomes import require_torch
from mtl.console import complain, forgiving
from mtl.errors import UserError, quoted

MOST_SEEDS = 1000
UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


@click.command(help="Does sharing help? Train RECIPE and its controls with several seeds, and judge.")
@recipe_argument
@overrides_argument
@click.option("--arms", metavar="LIST", help="Default: single,hard,sharing,sterile. See docs/comparing.md.")
@click.option(
    "--seeds", default="5", show_default=True, metavar="N", help="How many, or a range such as 10-14."
)
@click.option(
    "--jobs", type=click.IntRange(1, 256), help="Runs at once; default: one for each core, at most 8."
)
@click.option("--budget", metavar="TIME", help="Begin no run that would end after this time: 30min, 2h.")
@click.option(
    "--at-most", type=click.IntRange(2, MOST_SEEDS), help="The most seeds, said before the first look."
)
@click.option("--resample", type=click.Choice(["split"]), help="Split the rows anew for each seed.")
@click.option("--confirm", is_flag=True, help="Run the leading arm again on fresh seeds, and judge by these.")
@click.option(
    "--predictions", multiple=True, metavar="NAME=FILE", help="Predictions from elsewhere as an arm."
)
@click.option(
    "--label-fraction", multiple=True, metavar="TASK=F,F", help="Compare with parts of a task's labels."
)
@click.option("--on", metavar="RAY", help="ray or ray://HOST:PORT: make the runs on a Ray cluster.")
@click.option("--out", metavar="DIR", help="The folder; default runs/RECIPE/compare-DIGEST.")
@click.option("--quiet", is_flag=True, help="Only the verdict.")
@plugin_option
@debug_option
def compare(
    recipe: str,
    overrides: tuple[str, ...],
    arms: str | None,
    seeds: str,
    jobs: int | None,
    budget: str | None,
    at_most: int | None,
    resample: str | None,
    confirm: bool,
    predictions: tuple[str, ...],
    label_fraction: tuple[str, ...],
    on: str | None,
    out: str | None,
    quiet: bool,
    plugins: tuple[str, ...],
    debug: bool,
) -> None:
    from mtl.comparison.arms.named import DEFAULT, require_arms, require_predictions
    from mtl.comparison.folder import folder_of, remembered
    from mtl.comparison.processes.machines import require_machines
    from mtl.comparison.request import Asked
    from mtl.recipe.load import load_recipe

    loaded_plugins = load_plugins(plugins)
    loaded = load_recipe(recipe, overrides)
    asked = {
        "arms": [] if arms is None else split_arms(arms),
        "seeds": seeds_of(seeds),
        "jobs": jobs,
        "budget": None if budget is None else seconds_of(budget),
        "at_most": at_most,
        "resample": resample is not None,
        "confirm": confirm,
        "predictions": pairs_of("--predictions", predictions),
        "out": None if out is None else Path(out),
        "plugins": loaded_plugins,
        "on": on,
    }
    fractions = fractions_of(label_fraction)
    request = Asked(loaded, **asked)  # type: ignore[arg-type]
    require_arms(loaded, request.arms)
    require_predictions(request.predictions, request.arms or DEFAULT)
    require_machines(on)
    if not fractions:
        remembered(request, folder_of(request))
    require_torch()  # what follows loads it, which takes seconds
    from mtl.commands.compare.console import CompareConsole
    from mtl.comparison.conduct import conduct
    from mtl.comparison.label_curve import conduct_curve

    console = CompareConsole(quiet)
    try:
        with forgiving([]):  # the verdict is in the folder too
            for task, parts in fractions.items():
                folder, outcome = conduct_curve(request, task, parts, console)
            if not fractions:
                folder, outcome = conduct(request, console)
    except KeyboardInterrupt:
        complain("the same command goes on with this comparison; what is finished stays")
        raise
    finally:
        console.close()
    console.verdict(folder, outcome, given_again("--confirm", "--out", str(folder)))


def given_again(*more: str) -> str:
    """This command as the user gave it, with further options; their earlier values are left out."""
    context = click.get_current_context()
    words = ["mtl", "compare", context.params["recipe"], *context.params["overrides"]]
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if not isinstance(option, click.Option) or source is not ParameterSource.COMMANDLINE:
            continue
        name, value = option.opts[0], context.params[option.name or ""]
        if name in more:
            continue
        if option.is_flag:
            words.append(name)
        else:
            for each in value if option.multiple else [value]:
                words += [name, str(each)]
    return shlex.join([*words, *more])


def split_arms(text: str) -> list[str]:
    """The arms in a list separated by commas; a comma inside brackets belongs to its arm.

    Raises:
        UserError: there is none.
    """
    arms, depth, current = [], 0, ""
    for c in text:
        depth += (c in "[{") - (c in "]}")
        if c == "," and depth == 0:
            arms.append(current.strip())
            current = ""
        else:
            current += c
    found = [arm for arm in (*arms, current.strip()) if arm]
    if not found:
        raise UserError("--arms", "names no arm", "leave it out, or name some: single,hard,sharing")
    return found


def seeds_of(text: str) -> tuple[int, ...]:
    """`5` -> 0, 1, 2, 3, 4; `10-14` -> 10, 11, 12, 13, 14.

    Raises:
        UserError: it is neither a number nor a range.
    """
    match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", text)
    first, last = (0, 0) if match is None else (int(match[1]), int(match[2] or -1))
    if match is not None and match[2] is None:
        first, last = 0, int(match[1]) - 1
    if match is None or not first <= last < first + MOST_SEEDS:
        raise UserError(
            "--seeds", f"{quoted(text)} is not a number of seeds up to {MOST_SEEDS}, or a range such as 10-14"
        )
    return tuple(range(first, last + 1))


def seconds_of(text: str) -> float:
    """Seconds of `90s`, `30min`, `2h` or `1d`.

    Raises:
        UserError: it is no such time.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|min|h|d)", text.strip())
    if match is None:
        raise UserError("--budget", f"{quoted(text)} is not a time such as 30min or 2h")
    return float(match[1]) * UNITS[match[2]]


def pairs_of(option: str, texts: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` texts of an option.

    Raises:
        UserError: one has no name, or two have the same.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UserError(option, f"{quoted(text)} has no name; write NAME=VALUE")
        if name in found:
            raise UserError(option, f"{quoted(name)} is given twice", "give each its own name")
        found[name] = value
    return found


def fractions_of(texts: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Task -> the parts of its labels that are compared.

    Raises:
        UserError: a part is not a number above 0 and at most 1.
    """
    found = {}
    for task, text in pairs_of("--label-fraction", texts).items():
        try:
            parts = tuple(float(part) for part in text.split(","))
        except ValueError:
            parts = ()
        if not parts or not all(0 < part <= 1 for part in parts):
            what = f"{quoted(text)} is not a list of parts such as 0.01,0.1,1"
            raise UserError("--label-fraction", what, "a part lies above 0 and is at most 1")
        found[task] = tuple(sorted(set(parts)))
    if len(found) > 1:
        raise UserError("--label-fraction", "thins out the labels of one task at a time", "give it once")
    return found
