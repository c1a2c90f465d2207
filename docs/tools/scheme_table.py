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
"""As bench/methods.py writes them: `sharing, 8 tasks` -> kind -> `time`, the ratio to a step of hard sharing."""


def scheme_table(costs: Costs | None = None) -> str:
    """The table of all schemes; those that plug-ins registered are there too."""
    lines = [list(COLUMNS), *(_row(kind, SHARING[kind]) for kind in SHARING.names())]
    return table(with_costs(lines, ["", *SHARING.names()], "sharing", costs))


def with_costs(
    lines: list[list[str]], kinds: Sequence[str], family: str, costs: Costs | None
) -> list[list[str]]:
    """The rows of a table, the head first, with a column of what a step takes, if that was measured."""
    start = f"{family}, "
    numbers = sorted(int(title.split()[1]) for title in costs or {} if title.startswith(start))
    if not costs or not numbers:
        return lines
    ends = [f"step, {_joined(numbers)} tasks"]
    for kind in kinds[1:]:
        times = [costs[f"{family}, {n} tasks"].get(kind, {}).get("time") for n in numbers]
        ends.append(_joined("-" if time is None else f"{time:.1f}" for time in times))
    return [[*line, end] for line, end in zip(lines, ends, strict=True)]


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
