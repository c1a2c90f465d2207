"""How a step grows with tasks, with rows of a batch, and with rows of the table, on stitched networks of `mlp`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

import mtl
from bench.speed.cases import mlp, steps_of
from bench.speed.measure import cell, spread, timed
from bench.speed.measure import table as markdown
from mtl.experiment.run import prepare
from mtl.training import devices

ROUNDS = 30
TITLE = "Scaling"
TASKS = (2, 8, 32, 128)
BATCHES, TASKS_OF_BATCHES = (32, 128, 512), 8
ROWS, TASKS_OF_ROWS, FEATURES_OF_ROWS = (10_000, 100_000, 1_000_000), 2, 32
PER = {"tasks": "task", "batch": "row of the batch", "rows": None}
"""What the time of a step is divided by, beside the number that grows."""
FIRST = {"tasks": "8", "batch": "128", "rows": "10000"}
"""What the others are compared with."""


def section(
    rounds: int,
    tasks: Sequence[int] = TASKS,
    batches: Sequence[int] = BATCHES,
    rows: Sequence[int] = ROWS,
) -> dict[str, Any]:
    """What grows -> its number -> milliseconds of a step; the steps of one kind are timed in turn."""
    return {
        "tasks": grown({n: mlp(n) for n in tasks}, rounds),
        "batch": grown({n: mlp(TASKS_OF_BATCHES, batch_size=n) for n in batches}, rounds),
        "rows": grown(
            {n: mlp(TASKS_OF_ROWS, rows=n, features=FEATURES_OF_ROWS) for n in rows}, rounds
        ),
    }  # fmt: skip


def grown(recipes: Mapping[int, mtl.Recipe], rounds: int) -> dict[str, dict[str, float]]:
    """Number -> milliseconds of a step."""
    with devices.settings(True):
        loops = {}
        for n, recipe in recipes.items():
            trainer, _ = prepare(recipe)
            loops[str(n)] = with_threads(steps_of(trainer), torch.get_num_threads())
        return {n: spread(ms) for n, ms in timed(loops, rounds, settle=1).items()}


def with_threads(loop: Iterator[None], threads: int) -> Iterator[None]:
    """The loop, each step of it with as many threads as its run takes."""
    while True:
        torch.set_num_threads(threads)
        next(loop)
        yield


def table(found: Mapping[str, Any]) -> str:
    """The tables of this section, one for each thing that grows."""
    texts = []
    for what, own in found.items():
        per, first = PER[what], FIRST[what] if FIRST[what] in own else next(iter(own))
        head = [what, "step ms", *([f"µs per {per}"] if per else []), f"to {int(first):,}"]

        def share(n: str, own: Mapping[str, Any] = own, per: str | None = per) -> float:
            return float(own[n]["median"] / (int(n) if per else 1))

        texts.append(
            markdown(
                head,
                (
                    [f"{int(n):,}", cell(ms), *([f"{1000 * share(n):.1f}"] if per else []),
                     f"{share(n) / share(first):.2f}"]
                    for n, ms in own.items()
                ),
            )
        )  # fmt: skip
    return "\n".join(texts)
