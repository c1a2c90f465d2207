"""What the tools that write parts of pages have in common: marks around the part, and text as Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def marks(tool: str) -> tuple[str, str]:
    """The marks around what a tool of this folder writes."""
    return f"<!-- begin: docs/tools/{tool}.py -->", f"<!-- end: docs/tools/{tool}.py -->"


def renewed(page: str, around: tuple[str, str], text: str) -> str:
    """A page with this text between its two marks."""
    begin, end = around
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n\n{text}\n{end}{after}"


def sentence(text: str) -> str:
    """The first sentence, as the other meanings are written."""
    first = " ".join(text.split()).partition(". ")[0].rstrip(".")
    return first[:1].lower() + first[1:]


def cell(text: str) -> str:
    """Text as it may stand in a table: on one line, nothing in it taken for Markdown but code."""
    pieces = " ".join(str(text).split()).replace("|", "\\|").split("`")
    for i in range(0, len(pieces), 2):
        pieces[i] = pieces[i].replace("*", "\\*").replace("_", "\\_").replace("<", "&lt;")
    return "`".join(pieces)


def code(text: str) -> str:
    """Text as code in a table; nothing stays nothing."""
    return f"`{text.replace('|', chr(92) + '|')}`" if text else ""


def table(lines: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the head first, as a table."""
    head, *rest = lines
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rest)) + "\n"
