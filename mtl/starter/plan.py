"""What a first recipe makes of each column, and what its author should know about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mtl.data.files.table import TableFile
from mtl.errors import UserError, quoted
from mtl.starter.guess.kinds import Kind, drop_markers, guess_kind
from mtl.starter.guess.leaks import find_leaks
from mtl.starter.guess.roles import Role, guess_role, splits_named
from mtl.starter.look.columns import Look
from mtl.starter.look.copies import copies
from mtl.starter.look.opening import Opening
from mtl.starter.look.outliers import Far, Total, far_outside, totals
from mtl.starter.look.unnamed import unnamed_values

TABULAR: tuple[Role, ...] = ("numeric", "categorical", "vector", "dates")
"""Roles of columns that are inputs beside each other; an image stands alone."""
READ: tuple[Role, ...] = ("numeric", "categorical", "dates")
"""Roles of columns that may give a label away."""

NAMES_SPLITS = "it names the split of each row"


@dataclass
class Plan:
    """What a recipe makes of a table.

    Args:
        looks: what was seen of each column.
        targets: the label columns.
        kinds: label column -> its kind of task, its options, and the reason.
        roles: other column -> its role, and the reason.
        split_column: the column that names the split of each row.
        splits: the splits that it names.
        group, time: the columns by which rows are held out.
        dropped: label column -> its words that are taken for a missing label.
        leaks: column that is left out -> how it gives a label away.
        copies: rows that equal an earlier row in each column of the table.
        totals: rows that look like totals of others.
        unnamed: whether a column without a name holds more than the numbers of the rows; it cannot be read.
        far: numbers of inputs and labels that are far outside of their column.
    """

    looks: Mapping[str, Look]
    targets: Sequence[str]
    kinds: dict[str, tuple[Kind, dict[str, Any], str]]
    roles: dict[str, tuple[Role, str]]
    split_column: str | None = None
    splits: frozenset[str] = frozenset()
    group: str | None = None
    time: str | None = None
    dropped: Mapping[str, Sequence[str]] = field(default_factory=dict)
    leaks: Mapping[str, str] = field(default_factory=dict)
    copies: int = 0
    totals: Sequence[Total] = ()
    far: Sequence[Far] = ()
    unnamed: bool = False

    def named(self, role: Role) -> list[str]:
        """The columns of a role."""
        return [name for name, (own, _) in self.roles.items() if own == role]

    @property
    def tabular(self) -> bool:
        """Whether inputs are columns of the table, not images."""
        return any(role in TABULAR for role, _ in self.roles.values())

    @property
    def used(self) -> list[str]:
        """The columns that the recipe reads."""
        inputs = [name for role in TABULAR for name in self.named(role)] or self.named("image")[:1]
        others = [*self.named("id")[:1], self.split_column, self.group, self.time]
        return [*inputs, *self.targets, *(name for name in others if name is not None)]


def plan_of(
    opening: Opening,
    file: TableFile,
    looks: Mapping[str, Look],
    targets: Sequence[str],
    group: str | None,
    time: str | None,
) -> Plan:
    """Decide on every column.

    Raises:
        UserError: a target fits no kind of task, or no column is left that could be an input.
    """
    dropped = {name: words for name in targets if (words := drop_markers(looks[name]))}
    kinds = {target: guess_kind(looks[target]) for target in targets}
    others = [name for name in looks if name not in (*targets, group, time)]
    named = {name: found for name in others if (found := splits_named(looks[name])) is not None}
    split_column = next(iter(named), None) if group is None and time is None else None
    roles = {name: guess_role(looks[name]) for name in others if name != split_column}
    for name in named:
        if name != split_column:
            roles[name] = ("none", NAMES_SPLITS)
    plan = Plan(looks, targets, kinds, roles, split_column, group=group, time=time, dropped=dropped)
    if split_column is not None:
        plan.splits = frozenset(named[split_column])
    plan.leaks, plan.copies = _leaks(opening, plan), copies(file)
    written = opening.table({name: seen.form for name, seen in looks.items()})
    plan.totals = totals(file, written, looks)
    plan.unnamed = unnamed_values(file)
    quantities = [*plan.named("numeric"), *(name for name in targets if kinds[name][0] == "regression")]
    plan.far = far_outside(written, quantities)
    for name, how in plan.leaks.items():
        roles[name] = ("none", f"gives a label away: {how}")
    if not plan.tabular and not plan.named("image"):
        raise UserError(file.name, "no column is left that could be an input", _left(plan.leaks))
    return plan


def _leaks(opening: Opening, plan: Plan) -> dict[str, str]:
    inputs = [name for role in READ for name in plan.named(role)]
    if not inputs:
        return {}
    forms = {name: plan.looks[name].form for name in (*inputs, *plan.targets)}
    labels = {}
    for target in plan.targets:
        positive = plan.kinds[target][1].get("positive")
        labels[target] = tuple(positive) if isinstance(positive, list) else ()
    return find_leaks(opening.table(forms), plan.looks, inputs, labels)


def _left(leaks: Mapping[str, str]) -> str:
    if not leaks:
        return ""
    name, how = next(iter(leaks.items()))
    return f"column {quoted(name)} gives a label away: {how}"
