"""Every sharing scheme as a row of a Markdown table, from what its class says of itself.

`python -m docs.tools.scheme_table` writes that of docs/sharing.md anew. The costs come from what
`python bench/methods.py --json docs/tools/costs.json` measured; without this file the table has no such column.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from docs.tools.markdown import cell, code, marks, renewed, sentence, table
from mtl.recipe.specs import SHARING

PAGE = Path(__file__).parents[1] / "sharing.md"
COSTS = Path(__file__).with_name("costs.json")
MARKS = marks("scheme_table")
COLUMNS = ("kind", "what it is", "equation", "when", "reference")

Costs = Mapping[str, Mapping[str, Mapping[str, float]]]
"""As bench/methods.py writes them: `sharing, 8 tasks` -> kind -> `time` and `memory`, over those of hard sharing."""


def scheme_table(costs: Costs | None = None) -> str:
    """The table of all schemes; those that plug-ins registered are there too."""
    lines = [list(COLUMNS), *(_row(kind, SHARING[kind]) for kind in SHARING.names())]
    return table(with_costs(lines, ["", *SHARING.names()], "sharing", costs))


def with_costs(
    lines: list[list[str]], kinds: Sequence[str], family: str, costs: Costs | None
) -> list[list[str]]:
    """The rows of a table, the head first, with columns of what a step takes and keeps, if that was measured."""
    titles = sorted((t for t in costs or {} if t.startswith(f"{family}, ")), key=_place)
    if not costs or not titles:
        return lines
    over = _joined(title.removeprefix(f"{family}, ").removesuffix(" tasks") for title in titles)
    found = [[f"{what}, {over}" for what in ("time of a step", "memory of a step")]]
    for kind in kinds[1:]:
        own = [costs[title].get(kind, {}) for title in titles]
        found.append(
            [_joined(f"{o[key]:.1f}" if key in o else "-" for o in own) for key in ("time", "memory")]
        )
    return [[*line, *ends] for line, ends in zip(lines, found, strict=True)]


def _place(title: str) -> tuple[bool, int]:
    """Numbers of tasks by size, then images."""
    number = title.split()[1]
    return (not number.isdigit(), int(number) if number.isdigit() else 0)


def _row(kind: str, member: Any) -> list[str]:
    return [
        f"[`{kind}`](recipe.md#sharing-{kind})",
        cell(sentence(member.__doc__ or "")),
        code(member.equation),
        cell(member.when),
        cell(member.reference),
    ]


def _joined(values: Iterable[object]) -> str:
    return " / ".join(map(str, values))


def measured() -> Costs | None:
    """The costs that were measured, or None."""
    return json.loads(COSTS.read_text(encoding="utf-8")) if COSTS.is_file() else None


def fresh(page: str) -> str:
    """A page with the table of today between its two marks."""
    return renewed(page, MARKS, scheme_table(measured()))


if __name__ == "__main__":
    PAGE.write_text(fresh(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
