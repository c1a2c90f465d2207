"""Reads links.json, which `mtl sharing` writes into a run folder, for reports."""

from __future__ import annotations

from typing import Any

from mtl.errors import UserError, quoted
from mtl.evaluation.links.document import KEYS, SCHEMA_VERSION
from mtl.runs.disk import read_plain
from mtl.runs.folder import LINKS, RunFolder
from mtl.runs.json_text import shown, strict_json
from mtl.runs.record import unreadable

AGAIN = "mtl sharing writes it again"


def read_links(folder: RunFolder) -> dict[str, Any] | None:
    """What a run shared, as `mtl/evaluation/links/document.py` describes it; its `words` are sentences.

    None if nobody asked, or if the run has gone on since and its result is that of another step.

    Raises:
        UserError: the file cannot be read, or is not what `mtl sharing` writes.
    """
    path, selected = folder.path / LINKS, folder.record.selected
    try:
        found = strict_json(read_plain(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, RecursionError) as error:
        raise UserError(str(path), f"cannot be read: {shown(str(error))}", AGAIN) from None
    if not isinstance(found, dict) or found.get("schema_version") != SCHEMA_VERSION:
        raise UserError(str(path), f"is not of schema {SCHEMA_VERSION}", AGAIN)
    for key in KEYS:
        if key not in found:
            raise UserError(str(path), f"has no {quoted(key)}", AGAIN)
    return found if selected is not None and found["step"] == selected.step else None
