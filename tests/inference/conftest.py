"""A trained run on a small table, made once for the tests of prediction."""

from __future__ import annotations

from pathlib import Path

import pytest

import mtl
from tests.inference.shop import recipe, shop_rows, write_csv


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end without their figures, which take most of the time of a run on a small table."""
    monkeypatch.setattr("mtl.report.plots.plot_run", lambda *_: None)


@pytest.fixture(scope="package")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shop.csv and a finished run in run/; tests must not change it."""
    folder = tmp_path_factory.mktemp("shop")
    path = write_csv(folder / "shop.csv", shop_rows(240))
    with pytest.MonkeyPatch.context() as patch:  # undone at once: other tests run while this fixture lives
        patch.setattr("mtl.report.plots.plot_run", lambda *_: None)
        mtl.run(recipe(path), out=folder / "run")
    return folder
