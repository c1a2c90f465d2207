"""Values, comments and lists as lines of YAML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from mtl.errors import quoted
from mtl.recipe.text.scalars import plain_text

LONGEST = 250
"""Most characters of a comment; a longer text is cut."""


def scalar(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(scalar, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{scalar(key)}: {scalar(part)}' for key, part in value.items())}}}"
    if isinstance(value, str) and plain_text(value):
        return value
    style = '"' if isinstance(value, str) else None
    text = yaml.safe_dump(value, width=10**6, allow_unicode=True, default_style=style)
    return text.strip().removesuffix("...").strip()


def comment(text: str) -> str:
    """Text that cannot end its comment."""
    return text if text.isprintable() and len(text) <= LONGEST else quoted(text)


def wrapped(prefix: str, names: Sequence[str]) -> Iterator[str]:
    """A list, wrapped over several lines."""
    line, indent = prefix + "[", " " * (len(prefix) + 1)
    for i, name in enumerate(names):
        piece = scalar(name) + ("]" if i == len(names) - 1 else ", ")
        if len(line) + len(piece) > 110 and line.strip() != "[":
            yield line.rstrip()
            line = indent
        line += piece
    yield line
