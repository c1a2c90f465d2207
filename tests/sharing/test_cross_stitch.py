"""How a recipe describes cross-stitch units: start, sites, granularity."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from mtl.errors import UserError
from mtl.model.stitch import CrossStitch
from mtl.model.trunk import StitchedTowers
from mtl.recipe.load import load_recipe
from mtl.recipe.specs import SHARING, SharingSpec
from tests.support.plans import plan


def sharing(**options: Any) -> SharingSpec:
    return SHARING["cross_stitch"](**{"after": ("a", "b"), **options})


def built(spec: SharingSpec, n_towers: int, shape: tuple[int, ...]) -> StitchedTowers:
    """The trunk of towers with a task each."""
    trunk = spec.build(plan({f"tower{k}": (f"task{k}",) for k in range(n_towers)}, shape=shape))
    assert isinstance(trunk, StitchedTowers)
    return trunk


def unit(spec: SharingSpec, n_towers: int, shape: tuple[int, ...]) -> CrossStitch:
    """The unit after the first stage."""
    found = built(spec, n_towers, shape).stitches["a"]
    assert isinstance(found, CrossStitch)
    return found


@pytest.mark.parametrize(
    ("init", "n_towers", "diagonal", "other"),
    [
        ("identity", 3, 1.0, 0.0),
        ("uniform", 4, 0.25, 0.25),
        ({"convex": 0.7}, 3, 0.7, 0.15),
        ({"convex": 1.0}, 2, 1.0, 0.0),
    ],
)
@pytest.mark.parametrize("granularity", ["scalar", "channel", "dense"])
def test_alpha_starts_as_the_recipe_says(
    granularity: str, init: Any, n_towers: int, diagonal: float, other: float
) -> None:
    alpha = unit(sharing(init=init, granularity=granularity), n_towers, (2, 2, 1)).sharing_matrix()
    eye = torch.eye(n_towers)
    torch.testing.assert_close(alpha, diagonal * eye + other * (1 - eye))


def test_the_default_start_is_nine_tenths() -> None:
    alpha = unit(sharing(), 2, (3,)).sharing_matrix()
    torch.testing.assert_close(alpha, torch.tensor([[0.9, 0.1], [0.1, 0.9]]))


@pytest.mark.parametrize("init", ["identity", "uniform", {"convex": 0.4}])
def test_one_tower_keeps_its_activation(init: Any) -> None:
    assert unit(sharing(init=init), 1, (3,)).sharing_matrix().tolist() == [[1.0]]


def test_sites_and_rate_are_as_given() -> None:
    assert sharing(after=("b", "a")).sites() == ("b", "a")
    assert sharing().sharing_lr_scale() == 1.0
    assert sharing(lr_scale=7.0).sharing_lr_scale() == 7.0


@pytest.mark.parametrize("after", [("b",), ("a", "b"), ("b", "a")])
@pytest.mark.parametrize("shape", [(3,), (2, 4, 4)])
def test_each_site_has_a_unit_of_its_stages_shape(shape: tuple[int, ...], after: tuple[str, ...]) -> None:
    trunk = built(sharing(after=after, granularity="channel"), 2, shape)
    assert set(trunk.stitches) == set(after)
    assert [p.shape for p in trunk.stitches.parameters()] == [(shape[0], 2, 2)] * len(after)
    assert trunk.copies == ("tower0", "tower1")
    assert trunk(torch.randn(4, *shape)).shape == (4, 2, *shape)


def test_a_site_given_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="site 'a' is given twice"):
        sharing(after=("a", "b", "a"))


@pytest.mark.parametrize(
    "options",
    [
        {"after": ()},
        {"init": "ones"},
        {"init": {"convex": 0.0}},
        {"init": {"convex": 1.5}},
        {"granularity": "pixel"},
        {"lr_scale": -1.0},
        {"lr_scale": float("nan")},
    ],
)
def test_values_out_of_bounds_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        sharing(**options)


@pytest.mark.parametrize(
    ("init", "n_towers", "equal"),
    [("uniform", 3, True), ({"convex": 0.25}, 4, True), ({"convex": 0.25}, 3, False), ("identity", 2, False)],
)
def test_even_mixing_is_known_to_keep_equal_towers_equal(init: Any, n_towers: int, equal: bool) -> None:
    assert sharing(init=init).keeps_equal_towers_equal(n_towers) is equal


def recipe(**model: Any) -> dict[str, Any]:
    tasks = {name: {"kind": "multiclass", "target": "task0"} for name in ("x", "y")}
    return {
        "schema_version": 1,
        "name": "toy",
        "data": {"source": {"kind": "synthetic"}},
        "tasks": tasks,
        "model": {
            "backbone": {"kind": "layers", "stages": [{"name": "fc1", "kind": "linear", "features": 4}]},
            **model,
        },
        "optimizer": {"kind": "sgd", "lr": 0.1},
        "train": {"epochs": 1},
    }


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (
            {"sharing": {"kind": "cross_stitch", "after": ["fc1"], "init": "uniform"}, "tower_init": "same"},
            "recipe: model.tower_init: towers that start the same and mix evenly would stay identical "
            "for ever; use 'different', or another init of the sharing",
        ),
        (
            {"sharing": {"kind": "cross_stitch", "after": ["fc2"]}},
            "recipe: model.sharing.after[0]: no stage 'fc2'; stages: fc1 (did you mean 'fc1'?)",
        ),
        (
            {"sharing": {"kind": "cross_stitch", "after": ["fc1"]}, "towers": "one"},
            "recipe: model.sharing: cross_stitch mixes towers, but 'towers: one' gives one; use kind 'none'",
        ),
    ],
)
def test_a_sharing_that_cannot_work_is_refused(model: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(recipe(**model))
    assert str(caught.value) == text


@pytest.mark.parametrize("granularity", ["scalar", "channel"])
def test_towers_that_start_the_same_and_mix_evenly_would_stay_identical(granularity: str) -> None:
    """The reason for refusing it: y_i and the gradients of all x_j are the same."""
    stitch = unit(sharing(init="uniform", granularity=granularity), 2, (3,))
    x = torch.randn(4, 3).repeat(1, 2).requires_grad_()
    y = stitch(x)
    (y[:, :3].sin().sum() + y[:, 3:].cos().sum()).backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad[:, :3], x.grad[:, 3:])
