"""What a run adds to its steps: the training part of its epochs, beside the bare loop of as many steps.

The run is that of `mtl run`, with its listeners: folder, logs, record, console. A last listener takes a step of the
bare loop after each step of the run, so that both meet the same disturbances, and its time is taken off the epoch's.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import mtl
from bench.speed.cases import CASES, steps_of, with_rows
from bench.speed.measure import cell, spread
from bench.speed.measure import table as markdown
from mtl.commands.watch import TrainingConsole
from mtl.experiment.run import prepare, run
from mtl.recipe.load import load_recipe
from mtl.training import devices
from mtl.training.events import EpochEnded, Event, Stepped

ROUNDS = 10
TITLE = "A run"
BATCHES = 40
"""Steps of an epoch of fashion_stitch: fewer than 469, so that what comes once an epoch weighs more than in a run."""
EPOCHS = {"fashion_stitch": 0.3, "age_gender_stitch": 3, "customers": 1}
"""Epochs that count for each round, since epochs take from a twentieth of a second to four seconds."""
TARGETS = {"fashion_stitch": 1.03, "age_gender_stitch": 1.1, "customers": 1.1}


@dataclass
class Turns:
    """The listener that takes a bare step after each step of the run.

    Args:
        bare: the bare loop.
        spent: seconds of the bare steps of the epoch under way.
        epochs: seconds of each epoch: of the run, of the bare loop, and of the run's evaluation.
    """

    bare: Iterator[None]
    spent: float = 0.0
    epochs: list[tuple[float, float, float]] = field(default_factory=list)

    def on(self, event: Event) -> None:
        """Take a bare step, or close the books of an epoch."""
        if isinstance(event, Stepped):
            began = perf_counter()
            next(self.bare)
            self.spent += perf_counter() - began
        elif isinstance(event, EpochEnded):
            run_seconds = event.seconds["train"] - self.spent
            self.epochs.append((run_seconds, self.spent, event.seconds["evaluate"]))
            self.spent = 0.0


def recipe_of(name: str, epochs: int) -> mtl.Recipe:
    """A case whose epochs have full batches only, as those of the bare loop; images are few."""
    recipe = CASES[name]()
    given = with_rows(recipe, BATCHES * recipe.train.batch_size).model_dump(mode="json", exclude_unset=True)
    given["train"] |= {"epochs": epochs, "drop_last": True, "early_stopping": None}
    return load_recipe(given)


def case(recipe: mtl.Recipe) -> dict[str, Any]:
    """The seconds of the epochs of one recipe, but for the first, in which everything is done for the first time."""
    with devices.settings(recipe.train.deterministic), TemporaryDirectory(prefix="mtl_bench_") as folder:
        turns = Turns(steps_of(prepare(recipe)[0]))
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            run(recipe, out=Path(folder, "run"), listeners=(TrainingConsole(), turns))
    ended = turns.epochs[1:]
    return {
        "epochs": len(ended),
        "run": spread(run_seconds for run_seconds, _, _ in ended),
        "bare": spread(bare for _, bare, _ in ended),
        "ratio": spread(run_seconds / bare for run_seconds, bare, _ in ended),
        "evaluate": spread(evaluate for _, _, evaluate in ended),
    }


def section(rounds: int, cases: Sequence[str] = tuple(TARGETS)) -> dict[str, Any]:
    """The seconds of an epoch of each case, over `rounds` times EPOCHS, and one more that does not count."""
    return {name: case(recipe_of(name, 1 + max(2, round(EPOCHS[name] * rounds)))) for name in cases}


def table(found: Mapping[str, Any]) -> str:
    """The table of this section."""
    head = ["case", "epochs", "run s", "bare steps s", "run / bare", "at most", "evaluation s"]
    return markdown(
        head,
        (
            [name, str(own["epochs"]), cell(own["run"], 3), cell(own["bare"], 3), cell(own["ratio"], 3),
             f"{TARGETS[name]:.2f}", cell(own["evaluate"], 3)]
            for name, own in found.items()
        ),
    )  # fmt: skip
