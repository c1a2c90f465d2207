"""How long a training step takes, beside plain PyTorch and beside its own convolutions and matrix products.

In each round a step of mtl, one of the plain loop (bench/speed/reference.py), and one of the bare convolutions and
matrix products (bench/speed/floor.py) are timed in one process, in changing order. Each comes after another step of its
own, as in a training, and not after one of another loop that has filled the caches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from bench.speed import floor, reference
from bench.speed.cases import CASES, steps_of
from bench.speed.measure import WARMUP, cell, spread, timed
from bench.speed.measure import table as markdown
from mtl.experiment.run import prepare
from mtl.training import devices

ROUNDS = 20
TITLE = "A training step"


def section(rounds: int, cases: Sequence[str] = tuple(CASES)) -> dict[str, Any]:
    """The milliseconds of a step of each case."""
    return {name: case(name, rounds) for name in cases}


def case(name: str, rounds: int) -> dict[str, Any]:
    """The milliseconds of one case."""
    recipe = CASES[name]()
    with devices.settings(recipe.train.deterministic):
        trainer, _ = prepare(recipe)
        loops = {
            "mtl": steps_of(trainer),
            "plain": reference.steps_of(trainer),
            "floor": floor.steps_of(trainer),
        }
        times = {loop: spread(ms) for loop, ms in timed(loops, rounds, settle=1).items()}
        threads = torch.get_num_threads()
    both = {how: {loop: own[how] for loop, own in times.items()} for how in ("median", "least")}
    return {"threads": threads, **both}


def table(found: Mapping[str, Any]) -> str:
    """The table of this section."""
    head = [
        "case",
        "threads",
        "mtl ms",
        "plain PyTorch ms",
        "products alone ms",
        "plain / mtl",
        "mtl / products",
    ]
    rows = []
    for name, own in found.items():
        ms = own["median"]
        cells = [cell({how: own[how][k] for how in ("median", "least")}) for k in ("mtl", "plain", "floor")]
        ratios = ms["plain"] / ms["mtl"], ms["mtl"] / ms["floor"]
        rows.append([name, str(own["threads"]), *cells, *(f"{ratio:.2f}" for ratio in ratios)])
    return markdown(head, rows)


def profile(name: str, steps: int) -> str:
    """The operations that take the most time of a step of mtl."""
    recipe = CASES[name]()
    with devices.settings(recipe.train.deterministic):
        loop = steps_of(prepare(recipe)[0])
        for _ in range(WARMUP):
            next(loop)
        with torch.profiler.profile(record_shapes=True) as profiled:
            for _ in range(steps):
                next(loop)
    averages = profiled.key_averages(group_by_input_shape=True)
    return str(averages.table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40))
