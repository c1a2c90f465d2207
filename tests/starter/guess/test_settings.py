"""The settings of a first recipe by the size of its table; bench/init_quality.py says what they are worth."""

import pytest

from mtl.starter.guess.settings import settings_of


@pytest.mark.parametrize(
    ("rows", "columns", "batch_size", "epochs", "weight_decay", "screened"),
    [
        (60, 8, 16, 100, 6.0, False),
        (2000, 500, 64, 69, 3.0, True),
        (80, 300, 16, 100, 6.0, True),
        (20_000, 15, 256, 27, 6.0, False),
        (200_000, 20, 512, 5, 0.3, False),
        (10_000_000, 20, 512, 5, 0.3, False),
    ],
)
def test_by_rows_and_columns(
    rows: int, columns: int, batch_size: int, epochs: int, weight_decay: float, screened: bool
) -> None:
    found = settings_of(rows, columns, 1)
    assert (found.batch_size, found.epochs, found.weight_decay) == (batch_size, epochs, weight_decay)
    assert (found.screen is not None) is screened
    assert found.one_tower is None


def test_few_rows_or_many_tasks_share_one_tower() -> None:
    assert settings_of(499, 8, 2).one_tower == "499 rows"
    assert settings_of(500, 8, 16).one_tower is None
    assert settings_of(500, 8, 17).one_tower == "17 tasks"
    assert [settings_of(n, 8, 1).backbone[0] for n in (499, 500)] == ["activation: tanh", "activation: gelu"]


def test_a_small_table_of_few_columns_is_not_screened() -> None:
    assert settings_of(60, 29, 1).screen is None
    assert settings_of(60, 30, 1).screen == 0.2
    assert settings_of(600, 30, 1).screen is None


def test_images_keep_batch_norm() -> None:
    found = settings_of(1000, 0, 1)
    assert (found.backbone, found.weight_decay, found.batch_size, found.epochs) == ((), 1e-4, 256, 100)
