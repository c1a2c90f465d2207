"""Arguments, options and plug-ins that several commands have in common."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from mtl.errors import EnvironmentFault

recipe_argument = click.argument("recipe")
overrides_argument = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
run_argument = click.argument("run_folder", metavar="RUN")
plugin_option = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="FILE",
    help="Python file (or installed plug-in) to load first.",
)
debug_option = click.option("--debug", is_flag=True, help="Show tracebacks.")
DEVICES = "auto, cpu, cuda, cuda:1, mps."
trained_device_option = click.option(
    "--device", default="auto", show_default=True, metavar="NAME", help=DEVICES
)


def is_override(text: str) -> bool:
    """Whether an argument is an override, `key=value` or `~key`, rather than a recipe."""
    return text.startswith("~") or ("=" in text and not os.path.isfile(text))


def load_plugins(names: Sequence[str]) -> list[str]:
    """Load the plug-ins that --plugin names; returns the text that a run records of each."""
    from mtl.registry import load_plugin

    return [load_plugin(name) for name in names]


def write(path: Path, content: bytes) -> None:
    """Write a file that the command line names.

    Raises:
        EnvironmentFault: the file cannot be written.
    """
    try:
        path.write_bytes(content)
    except OSError as error:
        raise EnvironmentFault(
            str(path), f"cannot write: {(error.strerror or str(error)).lower()}"
        ) from error
