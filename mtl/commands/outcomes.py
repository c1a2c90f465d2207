"""The end of a command: each outcome becomes an exit code, and each error one line on stderr."""

from __future__ import annotations

import errno
import re
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from mtl.console import complain, mute, traceback_file
from mtl.data.files.opening import opened_once
from mtl.data.memory import NOT_ENOUGH, is_out_of_memory
from mtl.errors import (
    BUG,
    ENVIRONMENT,
    INTERRUPTED,
    OK,
    USER,
    EnvironmentFault,
    Terminated,
    ToldElsewhere,
    UserError,
    quoted,
)
from mtl.training.process import load_torch

SHOWN_ERRORS = 10
MACHINE_FAULTS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM),
        *(errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    }
)
"""Numbers of OSErrors that are faults of the machine; any other unforeseen OSError is a bug."""
OLDEST_TORCH = "2.10"
"""Older versions have CVE-2026-24747."""
PACKAGES = {
    **{name: name for name in ("torch", "torchmetrics", "pydantic", "safetensors", "numpy", "scipy")},
    **{name: name for name in ("pyarrow", "pooch", "matplotlib", "jinja2", "rich")},
    "yaml": "pyyaml",
    "PIL": "pillow",
}
"""Imported name of another project's package -> its name for pip."""


def require_torch() -> None:
    """Check the version of torch, which takes milliseconds, and then load it, which takes more than a second.

    Raises:
        EnvironmentFault: torch is missing or too old.
    """
    try:
        found = version("torch")
    except PackageNotFoundError:
        raise _missing("torch") from None
    numbers = [tuple(map(int, re.findall(r"\d+", text)[:2])) for text in (found, OLDEST_TORCH)]
    if numbers[0] < numbers[1]:
        todo = f"pip install -U 'torch>={OLDEST_TORCH}'"
        raise EnvironmentFault("mtl", f"torch {found} is too old, {OLDEST_TORCH} is needed", todo)
    load_torch()


def _missing(module: str) -> EnvironmentFault:
    package = PACKAGES[module]
    wanted = f"'torch>={OLDEST_TORCH}'" if module == "torch" else package
    return EnvironmentFault("mtl", f"{package} is not installed", f"pip install {wanted}")


def guarded(command: Callable[[], Any], debug: bool) -> int:
    """Run a command, and return its exit code."""
    try:
        return _outcome(command, debug)
    except (KeyboardInterrupt, click.Abort) as error:  # it may also come while an error is printed
        # cli.py turns an interrupt into an Abort
        cause = error.__cause__ if isinstance(error, click.Abort) else error
        if cause is not None and (fault := _of_plugin(cause)) is not None:
            return _told(fault)
        complain("interrupted")
        return cause.code if isinstance(cause, Terminated) else INTERRUPTED


@opened_once()
def _outcome(command: Callable[[], Any], debug: bool) -> int:
    try:
        command()
        sys.stdout.flush()
        return OK
    except UserError as error:
        if debug:
            traceback.print_exc()
        return _told(error)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        complain(f"error: {_command_of(error)}: {' '.join(error.format_message().split())}{_settings(error)}")
        return USER
    except ToldElsewhere as end:
        return end.code
    except (click.Abort, KeyboardInterrupt):
        raise
    except BaseException as error:
        if (fault := _of_plugin(error)) is not None:
            if debug:
                traceback.print_exc()
            return _told(fault)
        if isinstance(error, (BrokenPipeError, SystemExit)):  # click exits so when nobody reads its output
            mute(sys.stdout)
            return OK
        if is_out_of_memory(error):
            complain(f"error: {NOT_ENOUGH}")
            return ENVIRONMENT
        if isinstance(error, OSError) and error.errno in MACHINE_FAULTS:
            mute(sys.stdout)  # writing to it may be what failed
            place = "mtl" if error.filename is None else quoted(error.filename)
            complain(f"error: {place}: {(error.strerror or str(error)).lower()}")
            return ENVIRONMENT
        if debug:
            traceback.print_exc()
        return _unforeseen(error)


def _of_plugin(error: BaseException) -> UserError | None:
    """The fault of a plug-in, unless torch lacked memory for it."""
    from mtl.registry import fault_of_plugin

    return None if isinstance(error, RuntimeError) and is_out_of_memory(error) else fault_of_plugin(error)


def _unforeseen(error: BaseException) -> int:
    """The exit code of a missing package, or of a bug."""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in PACKAGES:
        return _told(_missing((error.name or "").partition(".")[0]))
    what = f"{type(error).__name__}: {quoted(str(error))}; traceback in {traceback_file(error)}"
    complain(f"error: a bug in mtl: {what}")
    return BUG


def _told(error: UserError) -> int:
    errors = error.errors
    for single in errors[:SHOWN_ERRORS]:
        complain("error: " + str(single).replace("\n", " "))
    if len(errors) > SHOWN_ERRORS:
        complain(f"... and {len(errors) - SHOWN_ERRORS} more")
    return error.code


def _settings(error: click.ClickException) -> str:
    """The advice on an unknown option of a command that takes the settings of a recipe as `key=value`."""
    context = getattr(error, "ctx", None)
    takes = context is not None and any("KEY=VALUE" in (p.metavar or "") for p in context.command.params)
    if takes and isinstance(error, click.NoSuchOption):
        return "; settings are key=value, without dashes: optimizer.lr=0.01"
    return ""


def _command_of(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context is not None else "mtl"
