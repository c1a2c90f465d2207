"""What a rank tells the others of an exception that ends it."""

from __future__ import annotations

import socket

from mtl.console import traceback_file
from mtl.data.memory import NOT_ENOUGH, is_out_of_memory
from mtl.errors import BUG, ENVIRONMENT, INTERRUPTED, UserError, quoted
from mtl.registry import fault_of_plugin


def told_of(error: BaseException) -> tuple[str, int]:
    """The line and the exit code by which the others hear of it; the traceback of a bug lies in a file of this rank."""
    if isinstance(error, UserError):
        return str(error), error.code
    if isinstance(error, KeyboardInterrupt):
        return "", int(getattr(error, "code", INTERRUPTED))
    if is_out_of_memory(error):
        return NOT_ENOUGH, ENVIRONMENT
    if (fault := fault_of_plugin(error)) is not None:
        return str(fault), fault.code
    if not hasattr(
        error, "__notes__"
    ):  # it is asked once where all ranks agree, and once where this one ends
        error.add_note(f"traceback in {traceback_file(error)} on {socket.gethostname()}")
    return f"a bug in mtl: {type(error).__name__}: {quoted(str(error))}; {error.__notes__[-1]}", BUG
