"""Results as Markdown, on the screen and in bench/README.md, where each section has a place between two comments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

SECTIONS = ("steps", "run", "busy", "scaling", "memory", "start", "predict", "accuracy")
README = Path(__file__).parents[1] / "README.md"
UNKNOWN = "Not measured yet.\n"


def section_of(name: str) -> Any:
    """The module of a section: `section(rounds)` measures, `table(found)` shows; with ROUNDS and TITLE."""
    if name not in SECTIONS:
        raise SystemExit(f"no section {name!r}: {', '.join(SECTIONS)}")
    return import_module(f"bench.speed.sections.{name}")


def table_of(name: str, results: Mapping[str, Any]) -> str:
    """The table of one section, or a line that says that it was not measured."""
    return str(section_of(name).table(results[name])) if name in results else UNKNOWN


def machine_line(results: Mapping[str, Any]) -> str:
    """What the figures come from."""
    own = results["machine"]
    return (
        f"{own['cores']} cores of {own['processor']} ({own['instructions']}), torch {own['torch']}, "
        f"Python {own['python']}. Medians, and in parentheses the least.\n"
    )


def rendered(results: Mapping[str, Any]) -> str:
    """All sections of a file of results."""
    texts = [
        f"## {section_of(name).TITLE}\n\n{table_of(name, results)}" for name in SECTIONS if name in results
    ]
    return "\n".join([machine_line(results), *texts])


def filled(page: str, results: Mapping[str, Any]) -> str:
    """A page whose places hold the tables of these results; a section that they lack keeps what it has."""
    texts = {"machine": machine_line(results)}
    texts |= {name: table_of(name, results) for name in SECTIONS if name in results}
    for name, text in texts.items():
        first, last = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, found, rest = page.partition(first)
        _, ended, after = rest.partition(last)
        if not (found and ended):
            raise ValueError(f"the page has no place for {name}")
        page = f"{before}{first}\n{text}\n{last}{after}"
    return page


def render(path: Path, page: Path = README) -> str:
    """Write the tables of a file of results into the page, and return them."""
    results = json.loads(path.read_text(encoding="utf-8"))
    page.write_text(filled(page.read_text(encoding="utf-8"), results), encoding="utf-8")
    return rendered(results)
