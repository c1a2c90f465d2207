"""The command that writes a run's network as a file that other programs run."""

from __future__ import annotations

import re
from pathlib import Path

import click

from mtl.commands.options import debug_option, load_plugins, plugin_option, run_argument
from mtl.commands.outcomes import require_torch
from mtl.console import complain, counted, file_size, say
from mtl.errors import UserError, quoted

SUFFIX = {"torch": ".pt2", "onnx": ".onnx"}


@click.command(help="Write RUN's network as one file for other programs: torch.export (.pt2) or ONNX.")
@run_argument
@click.option(
    "--format",
    "kind",
    type=click.Choice(list(SUFFIX)),
    default="onnx",
    show_default=True,
    help="ONNX needs neither torch nor mtl where it runs.",
)
@click.option("--output", metavar="FILE", help="Default: the recipe's name with .onnx or .pt2.")
@click.option("--force", is_flag=True, help="Overwrite.")
@plugin_option
@debug_option
def export(
    run_folder: str, kind: str, output: str | None, force: bool, plugins: tuple[str, ...], debug: bool
) -> None:
    load_plugins(plugins)
    from mtl.inference.writing import require_free
    from mtl.runs.folder import RunFolder, last_phase

    folder = last_phase(Path(run_folder))
    record = RunFolder.open(folder).record
    target = Path(output or re.sub(r"\W+", "_", record.name) + SUFFIX[kind])
    if target.suffix != SUFFIX[kind]:
        raise UserError(
            "--output", f"{quoted(str(target))} does not end with {SUFFIX[kind]}", "give another name"
        )
    require_free(target, folder, force)
    require_torch()
    from mtl.export.write import export as write
    from mtl.inference.load import load_trained

    model = load_trained(folder, "cpu")
    if model.notice is not None:
        complain(f"warning: {model.notice}")
    done = write(model, target, kind)
    if done.made_up_why:
        complain(f"warning: compared on made-up rows: {done.made_up_why}")
    outputs = counted(len(done.description["outputs"]), "output")
    tasks = counted(len(model.recipe.tasks), "task")
    say(f"{target}: {file_size(target.stat().st_size)}, {outputs} for {tasks}")
    say(
        f"it gives what the run predicts, on {counted(done.n_rows, 'row')} to {max(done.difference, 1e-9):.0e}"
    )
