"""The checked reading of the JSON files that mtl writes beside run.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from mtl.errors import UserError, quoted
from mtl.runs.disk import read_plain
from mtl.runs.json_text import shown, strict_json
from mtl.runs.record import PUT_BACK, Shape, fault_in, unreadable

Content = TypeVar("Content", bound=Shape)


def read_checked(path: Path, shape: type[Content]) -> Content | None:
    """The content of a JSON file that mtl has written, or None without the file.

    Raises:
        UserError: the file cannot be read, is too large, or its content is not what mtl writes.
    """
    values = read_object(path)
    try:
        return None if values is None else shape.model_validate(values)
    except ValidationError as error:
        raise UserError(str(path), fault_in(error), PUT_BACK) from None


def read_object(path: Path) -> dict[str, Any] | None:
    """The object of a JSON file, or None without the file.

    Raises:
        UserError: the file cannot be read, is too large, or holds no object.
    """
    try:
        values = strict_json(read_plain(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, RecursionError) as error:
        raise UserError(str(path), f"cannot be read: {shown(str(error))}") from None
    if not isinstance(values, dict):
        raise UserError(str(path), f"holds {quoted(values)}, which is no object", PUT_BACK)
    return values
