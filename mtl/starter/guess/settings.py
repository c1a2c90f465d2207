"""The size of a first network, and how long it trains, from the size of the table."""

from __future__ import annotations

from dataclasses import dataclass

SEEN = 102_400
"""Approximate number of rows that a first run goes through, those of all its epochs together."""
MOST_EPOCHS = 100
STEPS_AN_EPOCH = 10
"""Fewest steps of an epoch, as far as the smallest batch allows."""
BATCHES = (8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Settings:
    """The numbers of a first recipe that depend on the size of the table.

    Args:
        width: features of each dense layer.
        dropout: share of the features that a head drops.
        lr: learning rate.
        weight_decay: weight decay.
        epochs: epochs.
        batch_size: rows of a batch.
        patience: epochs without progress before training stops.
    """

    width: int = 64
    dropout: float = 0.1
    lr: str = "2e-3"
    weight_decay: str = "1e-4"
    epochs: int = MOST_EPOCHS
    batch_size: int = BATCHES[-1]
    patience: int = 15


def settings_for(n_rows: int, n_columns: int) -> Settings:
    """The numbers for a table of `n_rows` training rows and `n_columns` input columns.

    A batch has a tenth of the training rows, between 8 and 256 of them, so that an epoch has ten steps or more.
    """
    batch = max((size for size in BATCHES if size * STEPS_AN_EPOCH <= n_rows), default=BATCHES[0])
    return Settings(
        epochs=min(MOST_EPOCHS, max(3, round(SEEN / max(n_rows, 1)))),
        batch_size=batch,
    )
