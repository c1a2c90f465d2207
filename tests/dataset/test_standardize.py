"""Means and deviations against numpy's own, and the inputs that have none."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from mtl.dataset import standardize
from mtl.dataset.standardize import fit
from mtl.errors import UserError
from mtl.recipe.keys.data import Standardize

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (500, 3, 6, 5), dtype=np.uint8)
VECTORS = RNG.normal(1e3, 1e-2, (500, 7))
ROWS = RNG.permutation(500)[:400]


@pytest.fixture(params=[1, 64, 1 << 20], autouse=True)
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few and many chunks give the same."""
    monkeypatch.setattr(standardize, "CHUNK", request.param * 105)


def test_per_feature_is_numpys_mean_and_population_deviation() -> None:
    for inputs in (IMAGES, VECTORS, VECTORS.astype(np.float32)):
        mean, std = fit(inputs, ROWS, "per_feature")
        x = inputs[ROWS].astype(np.float64)
        assert mean.dtype == std.dtype == np.float32
        assert mean.shape == std.shape == inputs.shape[1:]
        np.testing.assert_array_equal(mean, x.mean(axis=0).astype(np.float32))
        np.testing.assert_allclose(std, x.std(axis=0), rtol=1e-6)


def test_per_channel_takes_all_positions_together() -> None:
    mean, std = fit(IMAGES, ROWS, "per_channel")
    x = IMAGES[ROWS].astype(np.float64)
    assert mean.shape == std.shape == (3, 1, 1)
    np.testing.assert_allclose(mean[:, 0, 0], x.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std[:, 0, 0], x.std(axis=(0, 2, 3)), rtol=1e-6)


def test_none_changes_nothing() -> None:
    mean, std = fit(IMAGES, ROWS, "none")
    np.testing.assert_array_equal((IMAGES - mean) / std, IMAGES)
    assert mean.dtype == std.dtype == np.float32


def test_a_constant_feature_has_deviation_one() -> None:
    inputs = np.stack([np.full(400, 0.1), np.linspace(0, 1, 400), np.full(400, 1e-60)], axis=1)
    inputs[0, 2] = 2e-60  # varies, by less than float32 can hold
    mean, std = fit(inputs, np.arange(400), "per_feature")
    assert std[0] == std[2] == 1
    assert 0 < std[1] < 1
    assert mean[0] == np.float32(0.1)


def test_a_recorded_fit() -> None:
    inputs = np.array([[0, 10], [2, 10], [4, 40]], dtype=np.int16)
    mean, std = fit(inputs, np.array([0, 1, 2]), "per_feature")
    assert mean.tolist() == [2, 20]
    np.testing.assert_allclose(std, [np.sqrt(8 / 3), np.sqrt(200)], rtol=1e-7)


@pytest.mark.parametrize("kind", ["per_feature", "none"])
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.nan, "nan"),
        (np.inf, "inf, or a number too large for float32"),
        (-np.inf, "-inf, or a number too large for float32"),
    ],
)
def test_a_row_that_is_not_finite_is_named(kind: standardize.Scale, value: float, shown: str) -> None:
    inputs = VECTORS.copy()
    inputs[17, 3] = value
    with pytest.raises(UserError) as caught:
        fit(inputs, np.arange(500), kind)
    assert str(caught.value) == f"inputs:row 17: holds {shown}; remove the row or fill the value"
    fit(inputs, np.arange(100, 500), kind)


def test_values_that_float32_cannot_hold_are_refused() -> None:
    for large in (1e39, 1e200):
        with pytest.raises(UserError, match="inputs: hold values too large for float32; scale them down"):
            fit(VECTORS * large, ROWS, "per_feature")


def test_other_faults() -> None:
    with pytest.raises(UserError) as caught:
        fit(VECTORS, ROWS, "per_channel")
    assert str(caught.value) == (
        "kind: per_channel needs inputs of shape (C, H, W), got (7,); write kind: per_feature"
    )
    with pytest.raises(UserError, match="there are no training rows to standardize with"):
        fit(IMAGES, ROWS[:0], "per_feature")
    with pytest.raises(ValidationError, match="per_channel"):
        Standardize.model_validate({"kind": "minmax"})
    assert Standardize().kind == "per_feature"
