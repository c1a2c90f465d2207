"""Seconds until the mean test accuracy of the two tasks of Fashion-MNIST is 0.93, beside the published experiment."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from bench.speed.measure import cell, spread
from bench.speed.measure import table as markdown
from mtl.experiment.run import run
from mtl.recipe.load import load_recipe
from mtl.training.events import EpochEnded, Evaluated, Event

ROUNDS = 1
TITLE = "Accuracy"
RECIPE, METRIC, GOAL = "fashion_fast", "test/mean/accuracy", 0.93
PUBLISHED_STEPS, PUBLISHED_STEP = 14_000, 3.17
"""Steps and seconds of a step of the published Theano/Keras-like code, measured on 2 cores."""
TARGET = 120


class Reached(Exception):
    """The accuracy is reached, so that the run can end."""


class Watch:
    """The listener that ends a run when its test accuracy reaches a goal; it chooses no weights, so test may be seen.

    Args:
        goal: the mean test accuracy.
    """

    def __init__(self, goal: float) -> None:
        self.goal, self.began = goal, perf_counter()
        self.seen: list[tuple[float, float]] = []
        """Seconds since the start, and the accuracy then."""

    def on(self, event: Event) -> None:
        """Look at each evaluation of the test split."""
        if not isinstance(event, Evaluated | EpochEnded):
            return
        for row in event.rows:
            if row["split"] == "test":
                self.seen.append((perf_counter() - self.began, float(row[METRIC])))
                if self.seen[-1][1] >= self.goal:
                    raise Reached


def case(goal: float, overrides: Sequence[str]) -> Watch:
    """A run from the reading of its recipe to the evaluation that reaches the goal."""
    watch = Watch(goal)
    with (
        TemporaryDirectory(prefix="mtl_bench_") as folder,
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
    ):
        try:
            run(
                load_recipe(RECIPE, ["train.monitor=test", *overrides]),
                out=Path(folder, "run"),
                listeners=(watch,),
            )
        except Reached:
            return watch
    raise RuntimeError(f"{RECIPE} did not reach {goal}: {watch.seen}")


def section(rounds: int, goal: float = GOAL, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Seconds until the goal, with loading and evaluations, over `rounds` seeds; and those of the published code."""
    watches = [case(goal, [f"seed={seed}", *overrides]) for seed in range(rounds)]
    return {
        "goal": goal,
        "seconds": spread(watch.seen[-1][0] for watch in watches),
        "accuracy": median(watch.seen[-1][1] for watch in watches),
        "evaluations": [watch.seen for watch in watches],
        "published": PUBLISHED_STEPS * PUBLISHED_STEP,
    }


def table(found: Mapping[str, Any]) -> str:
    """The table of this section."""
    head = ["recipe", "goal", "accuracy", "seconds", "published code, seconds", "times sooner", "at least"]
    sooner = found["published"] / found["seconds"]["median"]
    goal, accuracy = f"{found['goal']:.2f}", f"{found['accuracy']:.4f}"
    published = f"{found['published']:,.0f}"
    seconds = cell(found["seconds"], 1)
    return markdown(head, [[RECIPE, goal, accuracy, seconds, published, f"{sooner:.0f}", str(TARGET)]])
