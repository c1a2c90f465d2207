"""The grouping of towers that the numbers of a transfer table support, as a proposal to train and compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from mtl.evaluation.links.losses import Change, factor_of

Towers = Mapping[str, tuple[str, ...]]
RULE = "towers are joined whose mean relative transfer exceeds the noise; docs/sharing.md, Grouping, has the details"


@dataclass(frozen=True)
class Proposal:
    """A grouping of tasks.

    Args:
        towers: tower -> its tasks, or None if the numbers support no grouping.
        reason: why, in a sentence.
    """

    towers: dict[str, tuple[str, ...]] | None
    reason: str


def propose(
    towers: Towers,
    losses: Mapping[str, float | None],
    transfers: Mapping[tuple[str, str], Mapping[str, Change | None]],
) -> Proposal:
    """The groups of tasks whose towers use each other beyond the noise of the rows.

    s_ij = (g_ij + g_ji) / 2, where g_ij is the mean over the tasks of tower i of delta / |loss| without all links from
    tower j. The standard error of a mean is taken as the mean of the standard errors, as if the errors of all pairs
    were the same one, since all come from the same rows: it is never too small. Towers are clustered by average linkage
    of s_ij; two groups are joined if the mean over their pairs exceeds that error times Student's t at 5%, divided
    among the pairs of towers.

    Args:
        towers: tower -> its tasks.
        losses: task -> its mean loss in the whole network.
        transfers: (tower that takes, tower that is taken from) -> task of the former -> the change of its loss.
    """
    names = list(towers)
    if sum(map(len, towers.values())) < 3 or len(names) < 2:
        return Proposal(None, "a grouping needs three tasks and two towers")
    if not transfers:
        return Proposal(None, "no tower takes anything from another tower directly")
    gain, error = _relative(towers, losses, transfers)
    changes = [own for tasks in transfers.values() for own in tasks.values()]
    n_units = min((own.n_units for own in changes if own is not None and own.se is not None), default=2)
    groups = _joined(gain, error, factor_of(len(names) * (len(names) - 1) // 2, n_units))
    if all(len(group) == 1 for group in groups):
        return Proposal(None, "no two towers use each other beyond the noise of these rows")
    found: dict[str, tuple[str, ...]] = {}
    for group in groups:
        tasks = tuple(task for k in group for task in towers[names[k]])
        found[names[group[0]] if len(group) == 1 else _unused(found, towers)] = tasks
    joined = ", ".join(f"{{{', '.join(names[k] for k in group)}}}" for group in groups if len(group) > 1)
    return Proposal(found, f"within {joined} the towers use each other beyond the noise of these rows")


def _unused(found: Mapping[str, object], towers: Towers) -> str:
    """The next of group_1, group_2, ... that is neither taken nor the name of a tower."""
    return next(name for n in count(1) if (name := f"group_{n}") not in found and name not in towers)


def _relative(
    towers: Towers,
    losses: Mapping[str, float | None],
    transfers: Mapping[tuple[str, str], Mapping[str, Change | None]],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(K, K) the symmetric relative transfer, and its standard error; infinite where it is not known."""
    n, names = len(towers), list(towers)
    gain, error = np.zeros((n, n)), np.full((n, n), np.inf)
    for i, into in enumerate(names):
        for j, source in enumerate(names):
            found = [(losses[task], own) for task, own in transfers.get((into, source), {}).items()]
            known = [
                (own.delta / abs(loss), own.se / abs(loss))
                for loss, own in found
                if loss and own is not None and own.se is not None
            ]
            if known and len(known) == len(found):
                gain[i, j], error[i, j] = np.mean([g for g, _ in known]), np.mean([e for _, e in known])
    gain, error = (gain + gain.T) / 2, (error + error.T) / 2
    apart = np.isinf(error) & ~np.eye(n, dtype=bool)
    gain[apart] = min(0.0, gain.min())  # towers of which little is known are looked at last
    return gain, error


def _joined(
    gain: npt.NDArray[np.float64], error: npt.NDArray[np.float64], factor: float
) -> list[tuple[int, ...]]:
    """Groups of towers by average linkage; a join that the numbers do not support ends its branch."""
    # both take 0.2 s to load, and each page of a run loads this file
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    n = len(gain)
    distance = gain.max() - gain
    np.fill_diagonal(distance, 0.0)
    members: dict[int, tuple[int, ...]] = {k: (k,) for k in range(n)}
    whole = set(members)
    for step, (a, b, *_) in enumerate(linkage(squareform(distance, checks=False), "average")):
        one, two = int(a), int(b)
        members[n + step] = tuple(sorted(members[one] + members[two]))
        if {one, two} <= whole and _supported(gain, error, members[one], members[two], factor):
            whole = (whole - {one, two}) | {n + step}
    return sorted(members[k] for k in whole)


def _supported(
    gain: npt.NDArray[np.float64],
    error: npt.NDArray[np.float64],
    one: Sequence[int],
    two: Sequence[int],
    factor: float,
) -> bool:
    return bool(gain[np.ix_(one, two)].mean() > factor * error[np.ix_(one, two)].mean())
