"""Every weighting as a row of two Markdown tables, from what its class says of itself.

`python -m docs.tools.weighting_table` writes those of docs/weighting.md anew. The costs come from the file that the
tables of sharing schemes read too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docs.tools.markdown import cell, code, marks, renewed, sentence, table
from docs.tools.scheme_table import Costs, measured, with_costs
from mtl.recipe.specs import WEIGHTINGS, GradientWeightingSpec

PAGE = Path(__file__).parents[1] / "weighting.md"
MARKS = marks("weighting_table")
OF_LOSSES = ("kind", "what a step follows", "when", "reference")
OF_GRADIENTS = (
    "kind",
    "the gradient of what is shared",
    "equation",
    "when",
    "w_t is",
    "tasks in 50 ms",
    "reference",
)


def weighting_tables(costs: Costs | None = None) -> str:
    """The table of weightings of losses, and that of combined gradients; those of plug-ins are there too."""
    members = {kind: WEIGHTINGS[kind] for kind in WEIGHTINGS.names()}
    losses = {kind: member for kind, member in members.items() if member.needs != "gradients"}
    gradients = {kind: member for kind, member in members.items() if member.needs == "gradients"}
    of_losses = [list(OF_LOSSES), *(_of_losses(kind, member) for kind, member in losses.items())]
    of_gradients = [list(OF_GRADIENTS), *(_of_gradients(kind, member) for kind, member in gradients.items())]
    tables = [
        table(with_costs(lines, ["", *kinds], "weighting", costs))
        for lines, kinds in ((of_losses, losses), (of_gradients, gradients))
    ]
    return f"**Weights of losses**\n\n{tables[0]}\n**Combined gradients**\n\n{tables[1]}"


def _of_losses(kind: str, member: Any) -> list[str]:
    what = (member.__doc__ or "").strip().partition("\n")[0]
    equation = what.removeprefix("loss = ").rstrip(".")
    cells = code(equation) if equation != what.rstrip(".") else cell(sentence(what))
    return [_link(kind), cells, cell(member.when), cell(member.reference)]


def _of_gradients(kind: str, member: Any) -> list[str]:
    own = member if issubclass(member, GradientWeightingSpec) else None
    return [
        _link(kind),
        cell(sentence(member.__doc__ or "")),
        code(member.equation),
        cell(member.when),
        ("a preference" if own.preference else "a factor") if own else "",
        f"{own.most_tasks} tasks" if own else "",
        cell(member.reference),
    ]


def _link(kind: str) -> str:
    return f"[`{kind}`](recipe.md#weighting-{kind})"


def fresh(page: str) -> str:
    """A page with the tables of today between its two marks."""
    return renewed(page, MARKS, weighting_tables(measured()))


if __name__ == "__main__":
    PAGE.write_text(fresh(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
