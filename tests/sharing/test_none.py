"""Towers that never mix."""

from mtl.recipe.specs import SHARING


def test_there_is_no_site() -> None:
    sharing = SHARING["none"]()
    assert sharing.sites() == ()
    assert sharing.alpha_lr_scale() == 1.0
    assert not sharing.keeps_equal_towers_equal(2)
