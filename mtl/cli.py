"""The command line: the order of its commands in the help, and its exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from mtl import __version__
from mtl.commands import recipes, runs, sharing, training
from mtl.commands.compare.command import compare
from mtl.commands.export import export
from mtl.commands.options import debug_option
from mtl.commands.outcomes import guarded
from mtl.commands.tune.command import tune
from mtl.console import say
from mtl.distributed.launch import place_of_process
from mtl.errors import USER, ToldElsewhere, UserError, did_you_mean, quoted


class Commands(click.Group):
    """A group that keeps the order of its commands, and names the nearest command for an unknown one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, in the order of the help."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of a name.

        Raises:
            UserError: no command has this name; the error gives the nearest one.
        """
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            near = did_you_mean(args[0], self.commands)
            raise UserError("mtl", f"no command {quoted(args[0])}{near}", "mtl --help lists them")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Turn an interrupt into an Abort; click itself would print an empty line, even into redirected output."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise click.Abort from error


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""One network for N tasks from one recipe, and an answer to which of them should share.

RECIPE is a path or the name of a built-in recipe. Overrides are bare: optimizer.lr=3e-4; ~key removes.
""",
)
@click.version_option(__version__, prog_name="mtl")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    verb, place = context.invoked_subcommand, place_of_process()
    if place is not None and verb not in (None, "run"):
        if place.rank:
            raise ToldElsewhere(USER)
        what = f"torchrun has started it {place.n} times, and only mtl run trains over several processes"
        raise UserError(f"mtl {verb}", what, "start it without torchrun")
    if verb is None:
        say(context.get_help())


@click.command(help="Check this machine: versions, devices, cache, data, and a few steps of training.")
@debug_option
def doctor(debug: bool) -> None:
    from mtl.commands.doctor import examine

    examine()


for command in (
    training.run,
    compare,
    tune,
    *(recipes.validate, recipes.init, recipes.list_, recipes.show, recipes.cp, recipes.summary),
    *(runs.evaluate, sharing.sharing, runs.report, runs.predict, export, runs.runs, runs.checkpoints),
    *(recipes.schema, doctor),
):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # the caller closed this stream
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115
        if hasattr(
            own := getattr(sys, stream), "reconfigure"
        ):  # an ASCII terminal gets the escapes of other letters
            own.reconfigure(errors="backslashreplace")
    return guarded(lambda: cli.main(given, prog_name="mtl", standalone_mode=False), "--debug" in given)
