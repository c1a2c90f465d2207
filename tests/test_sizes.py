"""The budgets of the house: a file is read in one go, a folder is seen at a glance."""

import pytest

from mtl.recipe.specs import FAMILIES
from tests.support.sizes import LONGEST_FILE, MOST_FILES, main, measured, spread

FAMILY_FOLDERS = {registry.package.replace(".", "/") for registry in FAMILIES.values()}


def test_no_file_is_longer_than_the_budget() -> None:
    sizes = measured()
    assert len(sizes.files) >= 150
    assert {name: n for name, n in sizes.files.items() if n > LONGEST_FILE} == {}


def test_no_folder_has_more_files_than_the_budget() -> None:
    """A family's folder has as many files as it has members."""
    folders = measured().folders
    assert len(folders) >= 25
    assert {name: n for name, n in folders.items() if n > MOST_FILES and name not in FAMILY_FOLDERS} == {}


def test_the_spread_is_median_ninetieth_percentile_and_maximum() -> None:
    assert spread(range(1, 101)) == (51, 91, 100)


def test_the_check_prints_what_was_and_what_is(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    out = capsys.readouterr().out
    assert "132/258/419" in out
    assert "7/23/65" in out
