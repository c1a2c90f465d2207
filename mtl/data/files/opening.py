"""A data file of the user's, opened for reading."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from mtl.errors import UserError, did_you_mean, quoted

SHOWN = 200
"""Characters up to which a path is shown whole."""


def open_file(path: Path) -> BinaryIO:
    """Open a regular file.

    Raises:
        UserError: it is not there, is something else than a file, or may not be read; its path is `path`.
    """
    try:
        # a pipe would wait until someone writes into it, and a device may never end
        if path.is_dir():
            what = "is a directory"
        elif not S_ISREG(path.stat().st_mode):
            what = "is not a regular file"
        else:
            return path.open("rb")
    except FileNotFoundError:
        beside: list[str] = []
        with suppress(OSError):
            beside = [other.name for other in path.parent.iterdir()]
        what = f"no such file{did_you_mean(path.name, beside)}"
    except PermissionError:
        what = "permission denied"
    except (OSError, ValueError) as error:
        what = f"cannot be opened: {getattr(error, 'strerror', None) or error}"
    shown = str(path)
    raise UserError(
        shown if shown.isprintable() and len(shown) <= SHOWN else quoted(shown), what, path=("path",)
    )
