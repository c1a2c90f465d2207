"""The settings of a first recipe, which depend on the size of the table alone; bench/init_quality.py measures them."""

from __future__ import annotations

import math
from dataclasses import dataclass

MANY_TASKS = 16
"""Most tasks that get a tower each; more tasks share one tower."""
FEW_ROWS = 500
"""With fewer rows than this, all tasks share one tower that is close to linear."""
MANY_ROWS = 50_000
"""With this many rows or more, weights decay less."""
STEPS = 1500
"""Approximate number of optimizer steps of a first run on a table."""
IMAGE_STEPS, IMAGE_BATCH = 400, 256
"""The same for images, and the rows of a batch."""


@dataclass(frozen=True)
class Settings:
    """Settings of a first recipe.

    Args:
        one_tower: whether all tasks share one tower, and why.
        backbone: the lines of the backbone that differ from its defaults, with their reasons.
        screen: the false discovery rate of `data.screen`, or None.
        dropout: the rate on what the heads read.
        weight_decay: of AdamW.
        epochs: of training.
        batch_size: rows of a batch.
        fewest_epochs: so many there are at least.
        steps: those that the epochs aim at.
        why_batch: what the rows of a batch follow from, in words.
    """

    one_tower: str | None
    backbone: tuple[str, ...]
    screen: float | None
    dropout: float
    weight_decay: float
    epochs: int
    batch_size: int
    fewest_epochs: int = 5
    steps: int = STEPS
    why_batch: str = "about twice the square root of the training rows"


def settings_of(n_rows: int, n_columns: int, n_tasks: int) -> Settings:
    """The settings for a table of so many rows, input columns and tasks; images have no columns.

    On tables, batch norm and a weak decay let a network learn its rows by heart, so that a linear model predicts
    better. A table with many columns for its rows is screened first.
    """
    train = 0.7 * n_rows
    one_tower = f"{n_tasks} tasks" if n_tasks > MANY_TASKS else None
    if n_columns == 0:
        epochs = min(100, max(3, round(IMAGE_STEPS * IMAGE_BATCH / train)))
        return Settings(
            one_tower,
            (),
            None,
            0.1,
            1e-4,
            epochs,
            IMAGE_BATCH,
            3,
            IMAGE_STEPS,
            "as many for all tables of images",
        )
    few, wide = n_rows < FEW_ROWS, n_columns >= 30 and n_rows < 20 * n_columns
    if n_tasks > 1 and few:
        one_tower = one_tower or f"{n_rows} rows"
    batch_size = min(512, max(16, 2 ** round(math.log2(2 * math.sqrt(train)))))
    return Settings(
        one_tower=one_tower,
        backbone=(
            f"activation: {'tanh' if few else 'gelu'}",
            "norm: {kind: none}    # with batch norm a linear model predicts better than the network",
        ),
        screen=0.2 if wide else None,
        dropout=0.0,
        weight_decay=0.3 if n_rows >= MANY_ROWS else 3.0 if wide and not few else 6.0,
        epochs=min(100, max(5, round(STEPS * batch_size / train))),
        batch_size=batch_size,
    )
