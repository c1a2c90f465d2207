"""The batch and the epochs of a first recipe fit the number of training rows."""

from __future__ import annotations

import math

import pytest

from mtl.starter.guess.settings import BATCHES, MOST_EPOCHS, STEPS_AN_EPOCH, settings_for


@pytest.mark.parametrize(
    ("n_rows", "batch_size", "epochs"),
    [(1, 8, 100), (36, 8, 100), (140, 8, 100), (300, 16, 100), (700, 64, 100), (1400, 128, 73), (7000, 256, 15),
     (50_000, 256, 3), (1_400_000, 256, 3)],
)  # fmt: skip
def test_the_size_of_a_batch(n_rows: int, batch_size: int, epochs: int) -> None:
    found = settings_for(n_rows, 10)
    assert (found.batch_size, found.epochs) == (batch_size, epochs)


@pytest.mark.parametrize("n_rows", [36, 80, 81, 159, 160, 1000, 2559, 2560, 100_000])
def test_an_epoch_has_ten_steps_if_the_smallest_batch_allows_it(n_rows: int) -> None:
    found = settings_for(n_rows, 10)
    assert found.batch_size == BATCHES[0] or math.ceil(n_rows / found.batch_size) >= STEPS_AN_EPOCH
    assert 3 <= found.epochs <= MOST_EPOCHS
