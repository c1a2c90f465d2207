"""A trained run on a small table, made once for the tests of prediction."""

from __future__ import annotations

from pathlib import Path

import pytest

import mtl
from tests.evaluation.shop import recipe, shop_rows, write_csv


@pytest.fixture(scope="package")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shop.csv and a finished run in run/; tests must not change it."""
    folder = tmp_path_factory.mktemp("shop")
    path = write_csv(folder / "shop.csv", shop_rows(240))
    mtl.run(recipe(path), out=folder / "run")
    return folder
