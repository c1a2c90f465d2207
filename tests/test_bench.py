"""The code by hand in bench/ computes what the networks compute. Nothing is timed here."""

from __future__ import annotations

import pytest

from bench.hand_grouped.pairs import require_same, trunk_of
from bench.hand_grouped.schemes import SCHEMES
from mtl.recipe.specs import SHARING


def test_every_sharing_scheme_is_there() -> None:
    built_in = [kind for kind in SHARING.names() if SHARING[kind].__module__.startswith("mtl.")]
    assert sorted(SCHEMES) == built_in


@pytest.mark.parametrize("kind", sorted(SCHEMES))
def test_a_scheme_by_hand_has_the_readings_and_gradients_of_its_network(kind: str) -> None:
    require_same(kind, trunk_of(kind, 3), 3)


def test_another_gradient_is_told_from_the_right_one() -> None:
    with pytest.raises(
        AssertionError, match=r"soft: gradient of towers\.stages\.fc1\.map\.weight: Tensor-likes"
    ):
        require_same("soft", trunk_of("none", 3), 3)  # the penalty moves no reading


def test_a_weight_that_is_left_out_is_named() -> None:
    with pytest.raises(AssertionError, match=r"stitches\.fc1\.alpha"):
        require_same("none", trunk_of("cross_stitch", 3), 3)
