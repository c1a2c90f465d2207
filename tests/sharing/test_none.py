"""Towers that never mix."""

import torch

from mtl.model.trunk import StitchedTowers
from mtl.recipe.specs import SHARING
from tests.support.plans import plan


def test_there_is_no_site() -> None:
    sharing = SHARING["none"]()
    assert sharing.sites() == ()
    assert sharing.sharing_lr_scale() == 1.0
    assert not sharing.keeps_equal_towers_equal(2)


def test_the_trunk_is_the_towers_and_nothing_else() -> None:
    towers = {"left": ("t1", "t2"), "right": ("t0",)}
    trunk = SHARING["none"]().build(plan(towers))
    assert isinstance(trunk, StitchedTowers)
    assert list(trunk.parameters()) == list(trunk.towers.parameters())
    assert trunk.copies == ("left", "right")
    assert trunk.reading_of == (1, 0, 0)
    assert trunk.readings() == {}
    x = torch.randn(4, 3)
    assert torch.equal(trunk(x).flatten(1), trunk.towers(x))
