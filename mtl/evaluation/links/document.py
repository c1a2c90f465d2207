"""What was measured of the links, as the plain values of links.json:

    {"schema_version": 1, "step": the step of the weights, "sharing": kind of sharing, "towers": {tower: [tasks]},
     "split": "validation" | "train", "rows": n read, "rows_of_split": n, "units": "rows" | "groups", "n_units": n,
     "shared": "links" | "everything" | "trunk" | "unknown" | "penalty" | "nothing",
     "tasks": {task: {"loss", "metric": name, "value", "higher_is_better"}},
     "sites": [{"site", "kind": "mixture" | "gate", "targets": [T names], "sources": [S names],
                "shares": T x S, "spread": T x S over rows | null}],
     "links": [{"site", "target", "source", "share", "spread": float | null, "changes": {task: change} | null}],
     "n_tests": verdicts on links that share the chance of 5% of one error,
     "transfer": {"tasks": [N names], "towers": [K names], "delta": N x K, "se": N x K, "verdict": N x K,
                  "n_tests": n, "indirect": bool} | null,
     "proposal": {"towers": {tower: [tasks]} | null, "override": text | null, "rule", "reason"},
     "readings": {place: {"targets", "sources", "values"}},
     "words": [sentence]}

A change is {"loss": the loss without the link, "delta", "se", "value": the headline metric without the link,
"value_delta", "verdict": "used" | "hurts" | "not used" | "cannot tell"}. `links` holds those that can be cut, the
largest share first. `changes` is null for a link that was not cut; else it holds the tasks of the link's target and
every other task with the verdict used or hurts. Entry (n, k) of `transfer` is about task n without any direct link
from tower k; entries of a task's own tower are null, and so are numbers that are not finite. `indirect` says
whether a tower may still reach another one through a third. delta, se and loss have the unit of the task's loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtl.evaluation.links.grouping import RULE, Proposal, propose
from mtl.evaluation.links.losses import Change, verdict
from mtl.evaluation.links.measure import Effect, Measured
from mtl.evaluation.links.words import sharing_words
from mtl.model.stitched import StitchedMultiTower
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.text.scalars import plain_text

SCHEMA_VERSION = 1
KEYS = (
    *("schema_version", "step", "sharing", "towers", "split", "rows", "rows_of_split", "units", "n_units"),
    *("shared", "tasks", "sites", "links", "n_tests", "transfer", "proposal", "readings", "words"),
)
Plain = dict[str, Any]


def document(model: StitchedMultiTower, recipe: Recipe, found: Measured, step: int) -> Plain:
    """The content of links.json, as the head of this file describes it.

    Args:
        model: the network.
        recipe: its recipe.
        found: what was measured.
        step: the step of its weights.
    """
    made: Plain = {
        "schema_version": SCHEMA_VERSION,
        "step": step,
        "sharing": recipe.model.sharing.kind,
        "towers": {tower: list(tasks) for tower, tasks in recipe.towers.items()},
        "split": found.split,
        "rows": found.n_rows,
        "rows_of_split": found.n_split,
        "units": "groups" if found.by_group else "rows",
        "n_units": found.n_units,
        "shared": _shared(model, recipe, found),
        "tasks": {
            task: {
                "loss": found.whole.mean(task),
                "metric": spec.headline,
                "value": found.whole.metrics[f"{found.split}/{task}/{spec.headline}"],
                "higher_is_better": spec.higher_is_better,
            }
            for task, spec in recipe.tasks.items()
        },
        "sites": [
            {
                "site": place,
                "kind": "mixture" if site.spread is None else "gate",
                "targets": list(site.links.targets),
                "sources": list(site.links.sources),
                "shares": site.shares.tolist(),
                "spread": None if site.spread is None else site.spread.tolist(),
            }
            for place, site in found.sites.items()
        ],
        **_links(recipe, found),
        "transfer": _transfer(recipe, found),
        "proposal": _proposed(recipe, found),
        "readings": {
            place: {
                "targets": list(one.targets),
                "sources": list(one.sources),
                "values": one.values.tolist(),
            }
            for place, one in model.sharing().items()
        },
    }
    return {**made, "words": sharing_words(made)}


def _shared(model: StitchedMultiTower, recipe: Recipe, found: Measured) -> str:
    """What the structure of the network says.

    `links` can be cut. Without them one tower shares `everything`. If a parameter serves two towers, they take from one
    `trunk`, or the scheme does not say what they take (`unknown`). If none does, a `penalty` joins them, or `nothing`.
    """
    if any(site.links.pairs() for site in found.sites.values()):
        return "links"
    tower_of = [next(tower for tower, own in recipe.towers.items() if task in own) for task in recipe.tasks]
    if len(recipe.towers) == 1:
        return "everything"
    for served in model.trunk.reach().values():
        rows = served.flatten(0, -2) if served.ndim > 1 else served.unsqueeze(0)
        for row in rows.unique(dim=0).tolist():
            if len({tower for tower, is_served in zip(tower_of, row, strict=True) if is_served}) > 1:
                return "trunk" if len(model.trunk.copies) == 1 else "unknown"
    return "nothing" if model.trunk.penalty() is None else "penalty"


def _links(recipe: Recipe, found: Measured) -> Plain:
    """The links that can be cut with their effects, and the factor of their verdicts."""
    effects = [own for cuts in found.cuts.values() for tasks in cuts.values() for own in tasks.values()]
    n_tests = sum(own.change is not None and own.change.delta != 0 for own in effects)
    links: list[Plain] = []
    for place, site in found.sites.items():
        of_target = [recipe.towers.get(target, (target,)) for target in site.links.targets]
        for i, j in site.links.pairs():
            own = found.cuts[place].get((i, j))
            changes = None if own is None else _changes(found, own, n_tests, recipe, of_target[i])
            links.append(
                {
                    "site": place,
                    "target": site.links.targets[i],
                    "source": site.links.sources[j],
                    "share": float(site.shares[i, j]),
                    "spread": None if site.spread is None else float(site.spread[i, j]),
                    "changes": changes,
                }
            )
    links.sort(key=lambda link: -link["share"])
    return {"links": links, "n_tests": n_tests}


def _changes(
    found: Measured, effects: Mapping[str, Effect], n_tests: int, recipe: Recipe, of_target: tuple[str, ...]
) -> Plain:
    made = {}
    for task, effect in effects.items():
        said = verdict(effect.change, found.whole.mean(task), n_tests)
        if task not in of_target and said not in ("used", "hurts"):
            continue
        before = found.whole.metrics[f"{found.split}/{task}/{recipe.tasks[task].headline}"]
        both = before is not None and effect.metric is not None
        made[task] = {
            "loss": effect.loss,
            "delta": None if effect.change is None else effect.change.delta,
            "se": None if effect.change is None else effect.change.se,
            "value": effect.metric,
            "value_delta": effect.metric - before if both else None,  # type: ignore[operator]
            "verdict": said,
        }
    return made


def _transfer(recipe: Recipe, found: Measured) -> Plain | None:
    if not found.transfers:
        return None
    tower_of = {task: tower for tower, tasks in recipe.towers.items() for task in tasks}
    changes = _of_transfers(found)
    known = [own for tasks in changes.values() for own in tasks.values()]
    n_tests = sum(own is not None and own.delta != 0 for own in known)

    def entry(task: str, tower: str) -> tuple[float | None, float | None, str | None]:
        into = tower_of[task]
        if (into, tower) not in changes:
            return None, None, None
        own = changes[into, tower][task]
        said = verdict(own, found.whole.mean(task), n_tests)
        return (None, None, said) if own is None else (own.delta, own.se, said)

    table = [[entry(task, tower) for tower in recipe.towers] for task in recipe.tasks]
    return {
        "tasks": list(recipe.tasks),
        "towers": list(recipe.towers),
        "delta": [[one[0] for one in row] for row in table],
        "se": [[one[1] for one in row] for row in table],
        "verdict": [[one[2] for one in row] for row in table],
        "n_tests": n_tests,
        "indirect": len(found.sites) > 1 and len(recipe.towers) > 2,
    }


def _of_transfers(found: Measured) -> dict[tuple[str, str], dict[str, Change | None]]:
    return {
        towers: {task: effect.change for task, effect in own.items()}
        for towers, own in found.transfers.items()
    }


def _flow(towers: Mapping[str, Sequence[str]]) -> str:
    """Towers as YAML on one line."""

    def name(text: str) -> str:
        return text if plain_text(text) else f'"{text}"'

    entries = [f"{name(tower)}: [{', '.join(map(name, tasks))}]" for tower, tasks in towers.items()]
    return f"{{{', '.join(entries)}}}"


def _proposed(recipe: Recipe, found: Measured) -> Plain:
    if found.n_left_out:
        made = Proposal(None, f"{found.n_left_out:,} pairs of towers are too many to cut; raise --cuts")
    else:
        losses = {task: found.whole.mean(task) for task in recipe.tasks}
        made = propose(recipe.towers, losses, _of_transfers(found))
    towers = None if made.towers is None else {name: list(tasks) for name, tasks in made.towers.items()}
    return {
        "towers": towers,
        "override": None
        if towers is None
        else f"model.towers={'one' if len(towers) == 1 else _flow(towers)}",
        "rule": RULE,
        "reason": made.reason,
    }
