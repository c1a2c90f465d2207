"""Every sharing scheme as a row of a Markdown table, from what its class says of itself.

`python -m docs.tools.scheme_table` writes that of docs/sharing.md anew. The costs come from what
`python bench/methods.py --json docs/tools/costs.json` measured; without this file the table has no such column.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from docs.tools.markdown import cell, marks, renewed, sentence
from mtl.recipe.specs import SHARING

PAGE = Path(__file__).parents[1] / "sharing.md"
COSTS = Path(__file__).with_name("costs.json")
MARKS = marks("scheme_table")
COLUMNS = ("kind", "what it is", "equation", "when", "reference")

Costs = Mapping[str, Mapping[str, Mapping[str, float]]]
"""As bench/methods.py writes them: `sharing, 8 tasks` -> kind -> `time`, the ratio to a step of hard sharing."""


def scheme_table(costs: Costs | None = None) -> str:
    """The table of all schemes; those that plug-ins registered are there too."""
    numbers = sorted(int(title.split()[1]) for title in costs or {} if title.startswith("sharing, "))
    head = [*COLUMNS, f"step, {_joined(numbers)} tasks"] if numbers else COLUMNS
    lines = [head, ["---"] * len(head)]
    for kind in SHARING.names():
        own = _row(kind, SHARING[kind])
        if costs and numbers:
            times = [costs[f"sharing, {n} tasks"].get(kind, {}).get("time") for n in numbers]
            own.append(_joined("-" if time is None else f"{time:.1f}" for time in times))
        lines.append(own)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _row(kind: str, member: Any) -> list[str]:
    equation = member.equation.replace("|", "\\|")
    return [
        f"[`{kind}`](recipe.md#sharing-{kind})",
        cell(sentence(member.__doc__ or "")),
        f"`{equation}`" if equation else "",
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
