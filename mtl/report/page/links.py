"""What `mtl sharing` measured of a run's links, as a page shows it: shares, and losses when a link is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, ValidationError

from mtl.console import number, percent
from mtl.errors import UserError
from mtl.evaluation.links.words import with_error
from mtl.report.charts.heat import heat_map, is_small, largest
from mtl.report.charts.marks import Figure
from mtl.report.links import AGAIN
from mtl.report.page.facts import Facts
from mtl.runs.folder import LINKS
from mtl.runs.logs import Matrix
from mtl.runs.record import Count, Shape, Word, fault_in

MOST_CUTS = 100
"""Most rows of the table of cut links; `mtl sharing` keeps all of them in links.json."""
Table = list[list[float | None]]


class Loss(Shape):
    """The loss of a task with all links."""

    loss: float


class Site(Shape):
    """A place of the network, and how much each target takes from each source there."""

    site: Word
    kind: Word
    targets: list[Word]
    sources: list[Word]
    shares: list[list[float]]


class Cut(Shape):
    """What cutting a link does to a task."""

    loss: float
    delta: float | None
    se: float | None
    verdict: Word


class Link(Shape):
    """A link, and what cutting it does."""

    site: Word
    target: Word
    source: Word
    share: float
    changes: dict[Word, Cut] | None


class Transfer(Shape):
    """The change of the loss of each task without any direct link from each tower."""

    tasks: list[Word]
    towers: list[Word]
    delta: Table
    se: Table
    verdict: list[list[Word | None]]


class LinksFile(Shape):
    """What a page shows of links.json; see `mtl/evaluation/links/document.py`."""

    words: list[Annotated[str, Field(max_length=10_000)]]
    tasks: dict[Word, Loss]
    sites: list[Site]
    links: list[Link]
    transfer: Transfer | None
    split: Word
    rows: Count


@dataclass(frozen=True)
class CutRow:
    """A row of the table of cut links; numbers are texts."""

    site: str
    target: str
    source: str
    share: str
    task: str
    before: str
    after: str
    change: str
    verdict: str


@dataclass(frozen=True)
class Measured:
    """What a page shows of links.json.

    Args:
        words: the sentences of `mtl sharing`.
        shares: a map for each place.
        cuts: a row for each link that was cut and each task that it changes.
        n_further: rows that are left out.
        towers: the columns of `transfer`.
        transfer: (task, entries): a change of its loss and the verdict, or None for its own tower.
        rows: the rows that it was measured on, in words.
    """

    words: Sequence[str]
    shares: Sequence[Figure]
    cuts: Sequence[CutRow]
    n_further: int
    towers: Sequence[str]
    transfer: Sequence[tuple[str, Sequence[tuple[str, str] | None]]]
    rows: str


def measured_links(facts: Facts) -> Measured | None:
    """What was measured of the links of a run; None if nobody asked.

    Raises:
        UserError: links.json is not what `mtl sharing` writes.
    """
    if facts.links is None:
        return None
    try:
        found = LinksFile.model_validate(facts.links)
        shares = [_shares(site) for site in found.sites]
        cuts = list(_cuts(found))
        transfer = [] if found.transfer is None else list(_transfer(found.transfer))
    except ValidationError as error:
        raise UserError(str(facts.path / LINKS), fault_in(error), AGAIN) from None
    except (KeyError, ValueError):
        raise UserError(str(facts.path / LINKS), "names tasks that it does not have", AGAIN) from None
    towers = [] if found.transfer is None else found.transfer.towers
    return Measured(
        found.words,
        [figure for figure in shares if figure is not None],
        cuts[:MOST_CUTS],
        max(0, len(cuts) - MOST_CUTS),
        towers,
        transfer,
        f"{found.rows:,} {found.split} rows",
    )


def _shares(site: Site) -> Figure | None:
    matrix = Matrix(targets=site.targets, sources=site.sources, values=site.shares).model_dump()
    if not is_small(matrix) or not site.shares:
        return None
    return heat_map(f"{site.site}: share of each source", matrix, largest(matrix) or 1.0)


def _cuts(found: LinksFile) -> Iterator[CutRow]:
    """Yield the rows of the table, the largest share first."""
    for link in found.links:
        share = percent(link.share, 1.0) if 0 <= link.share <= 1 else number(link.share)
        for task, cut in (link.changes or {}).items():
            before = number(found.tasks[task].loss)
            change = with_error(cut.delta, cut.se)
            yield CutRow(
                link.site,
                link.target,
                link.source,
                share,
                task,
                before,
                number(cut.loss),
                change,
                cut.verdict,
            )


def _transfer(found: Transfer) -> Iterator[tuple[str, list[tuple[str, str] | None]]]:
    """Yield the rows of the table of transfers."""
    for task, deltas, errors, verdicts in zip(found.tasks, found.delta, found.se, found.verdict, strict=True):
        entries = zip(deltas, errors, verdicts, strict=True)
        yield task, [None if said is None else (with_error(delta, se), said) for delta, se, said in entries]
