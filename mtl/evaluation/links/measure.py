"""Measures what a trained network shares: the shares at each place, and the losses without each link.

Shapes: n rows, T targets, S sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mtl.data.types import Rows
from mtl.dataset.assemble import Dataset
from mtl.errors import UserError
from mtl.evaluation.links.contract import check_links
from mtl.evaluation.links.losses import Change, RowLosses, change, row_losses
from mtl.model.links import Links, Pair
from mtl.model.stitched import StitchedMultiTower
from mtl.recipe.keys.recipe import Recipe

MOST_ROWS, MOST_CUTS = 2000, 2000
MANY_PASSES = 100
"""More passes than these are announced."""


@dataclass(frozen=True)
class Site:
    """What was observed at one place.

    Args:
        links: its links.
        shares: (T, S) the share of each source in what each target takes.
        spread: (T, S) the standard deviation over rows, for gates.
    """

    links: Links
    shares: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64] | None


@dataclass(frozen=True)
class Effect:
    """What becomes of a task without a link.

    Args:
        change: the change of its mean loss, or None if the loss is not finite.
        loss: its mean loss without the link.
        metric: its headline metric without the link.
    """

    change: Change | None
    loss: float | None
    metric: float | None


Effects = dict[str, Effect]
"""Task -> what becomes of it."""


@dataclass
class Measured:
    """What the passes over the rows of a split found.

    Args:
        split: the split whose rows were read.
        n_rows: how many were read.
        n_split: the number of all rows of the split.
        n_units: the number of groups among them, if the split keeps groups together; otherwise n_rows.
        by_group: whether the units are groups.
        whole: the pass of the whole network.
        sites: place -> what was observed.
        cuts: place -> link -> its effects on all tasks, or on those of its target where towers stay apart afterwards.
        transfers: (tower that takes, tower that is taken from) -> the effects on the former's tasks if every link
            between the two is cut.
        n_left_out: pairs of towers that were left out, because there are too many.
    """

    split: str
    n_rows: int
    n_split: int
    n_units: int
    by_group: bool
    whole: RowLosses
    sites: dict[str, Site]
    cuts: dict[str, dict[Pair, Effects]] = field(default_factory=dict)
    transfers: dict[tuple[str, str], Effects] = field(default_factory=dict)
    n_left_out: int = 0


class Passes:
    """Passes of one network over the same rows, with some of its links cut."""

    def __init__(
        self,
        model: StitchedMultiTower,
        recipe: Recipe,
        dataset: Dataset,
        rows: Rows,
        split: str,
        groups: npt.NDArray[np.int64] | None,
    ) -> None:
        self.model, self.recipe, self.dataset, self.rows, self.split = model, recipe, dataset, rows, split
        self.groups = groups

    def without(self, cuts: Sequence[tuple[Links, Sequence[Pair]]] = ()) -> RowLosses:
        """A pass without these links."""
        with ExitStack() as stack:
            for links, pairs in cuts:
                stack.enter_context(links.cut(pairs))
            return row_losses(self.model, self.recipe.tasks, self.dataset, self.rows, self.split)

    def observing(self, places: Mapping[str, Links]) -> tuple[RowLosses, dict[str, Site]]:
        """A pass of the whole network, which observes every place."""
        with ExitStack() as stack:
            seen = {place: stack.enter_context(links.observed()) for place, links in places.items()}
            whole = self.without()
        sites = {}
        for place, links in places.items():
            shares, spread = links.shares(seen[place]), links.spread(seen[place])
            if not bool(shares.isfinite().all()):
                raise UserError(
                    f"site {place}", "what the towers take there is not finite", "the run diverged"
                )
            sites[place] = Site(
                links,
                shares.cpu().numpy(),
                None if spread is None else spread.cpu().numpy(),
            )
        return whole, sites

    def effects(self, whole: RowLosses, without: RowLosses, tasks: Sequence[str]) -> Effects:
        """What a pass without some links changes for these tasks."""
        found = {}
        for task in tasks:
            metric = f"{self.split}/{task}/{self.recipe.tasks[task].headline}"
            found[task] = Effect(
                change(whole, without, task, self.groups), without.mean(task), without.metrics[metric]
            )
        return found


def measure(
    model: StitchedMultiTower,
    recipe: Recipe,
    dataset: Dataset,
    groups: npt.NDArray[np.int64] | None = None,
    *,
    most_rows: int = MOST_ROWS,
    most_cuts: int = MOST_CUTS,
    told: Callable[[str], None] = lambda text: None,
) -> Measured:
    """Observe every link on validation rows, or on training rows if there are no others, and cut one after the other.

    Test rows are not read, because a choice that follows from the numbers would be a choice by the test split.

    Args:
        model: the network, on the device of the data set.
        recipe: its recipe.
        dataset: its data.
        groups: the group of each row of the data set, if the split keeps groups together.
        most_rows: rows that are read; from a larger split they are taken at equal distances.
        most_cuts: links that are cut one by one; of more links the strongest are cut. A place after which towers stay
            apart counts once for each source.
        told: gets a line before many passes.

    Raises:
        UserError: the trunk lists links that are none.
    """
    split = "validation" if "validation" in dataset.splits else "train"
    every = dataset.splits[split]
    rows = every[np.linspace(0, len(every) - 1, min(len(every), most_rows)).round().astype(np.int64)]
    own = None if groups is None else groups[rows]
    places = check_links(model.trunk, recipe.towers)
    passes = Passes(model, recipe, dataset, rows, split, own)
    whole, sites = passes.observing(places)
    n_units = len(rows) if own is None else len(np.unique(own))
    found = Measured(split, len(rows), len(every), n_units, own is not None, whole, sites)
    rounds, between = list(_rounds(sites, most_cuts)), _between(places, recipe)
    planned = {(place, pair) for place, pairs in rounds for pair in pairs}
    anew = {towers for towers, cut in between.items() if len(cut) > 1 or cut[0] not in planned}
    if len(anew) > most_cuts:
        found.n_left_out, between, anew = len(between), {}, set()
    if len(rounds) + len(anew) > MANY_PASSES:
        told(f"{len(rounds) + len(anew):,} passes over {len(rows):,} rows of {split}: each cuts some links")
    _cut_links(found, passes, places, rounds)
    for towers, cut in between.items():
        tasks = recipe.towers[towers[0]]
        if towers in anew:
            without = passes.without([(places[place], [pair]) for place, pair in cut])
            found.transfers[towers] = passes.effects(whole, without, tasks)
        else:
            ((place, pair),) = cut
            found.transfers[towers] = {task: found.cuts[place][pair][task] for task in tasks}
    return found


def _cut_links(
    found: Measured,
    passes: Passes,
    places: Mapping[str, Links],
    rounds: Sequence[tuple[str, Sequence[Pair]]],
) -> None:
    """Make the passes of `_rounds`, and keep their effects."""
    recipe, found.cuts = passes.recipe, {place: {} for place in places}
    for place, pairs in rounds:
        links = places[place]
        without = passes.without([(links, pairs)])
        for i, j in pairs:
            tasks = _tasks_of(recipe, links.targets[i]) if links.apart else tuple(recipe.tasks)
            found.cuts[place][i, j] = passes.effects(found.whole, without, tasks)


def _tasks_of(recipe: Recipe, target: str) -> tuple[str, ...]:
    """The tasks that read a target, which is a tower or a task."""
    return recipe.towers.get(target, (target,))


def _rounds(sites: Mapping[str, Site], most_cuts: int) -> Iterator[tuple[str, list[Pair]]]:
    """The place and the links of each pass; links to targets that stay apart afterwards share a pass."""
    single: list[tuple[float, str, Pair]] = []
    for place, site in sites.items():
        pairs = site.links.pairs()
        if site.links.apart:
            for source in dict.fromkeys(j for _, j in pairs):
                yield place, [(i, j) for i, j in pairs if j == source]
        else:
            single += [(float(site.shares[pair]), place, pair) for pair in pairs]
    single.sort(key=lambda one: -one[0])
    for _, place, pair in single[:most_cuts]:
        yield place, [pair]


def _between(places: Mapping[str, Links], recipe: Recipe) -> dict[tuple[str, str], list[tuple[str, Pair]]]:
    """(tower that takes, tower that is taken from) -> the place and the pair of each link between them."""
    tower_of = {task: tower for tower, tasks in recipe.towers.items() for task in tasks}
    tower_of.update({tower: tower for tower in recipe.towers})
    found: dict[tuple[str, str], list[tuple[str, Pair]]] = {}
    for place, links in places.items():
        for i, j in links.pairs():
            into, source = tower_of[links.targets[i]], tower_of.get(links.sources[j])
            if source is not None and source != into:
                found.setdefault((into, source), []).append((place, (i, j)))
    return found
