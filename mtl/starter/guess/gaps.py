"""Inputs whose values are missing as the labels are, since whoever lacks the one often lacks the other."""

from __future__ import annotations

from collections.abc import Iterable

from mtl.starter.look.columns import Look

MANY_GAPS = 0.1
"""Least share of rows without a value; fewer gaps are alike by chance."""
FEWEST_GAPS = 20
"""Fewest rows without a value."""
ERRORS = 3
"""Standard errors by which two shares of gaps may differ and still count as alike."""


def lacks_like(seen: Look, targets: Iterable[Look]) -> bool:
    """Whether about as many rows lack a column as lack a label: gaps in the same rows, or of one kind of column.

    With p the share of gaps in a target and n rows, the shares may differ by `ERRORS` * sqrt(2 p (1 - p) / n).
    """
    share = seen.missing / max(seen.n, 1)
    if share < MANY_GAPS or seen.missing < FEWEST_GAPS or seen.flag:
        return False
    for target in targets:
        p = target.missing / max(target.n, 1)
        if abs(share - p) <= ERRORS * (2 * p * (1 - p) / max(target.n, 1)) ** 0.5 and p > 0:
            return True
    return False
