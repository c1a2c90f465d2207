"""A quantity: standardized inside, and in its own unit outside, whatever its offset."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from mtl.data.types import Header, Labels
from mtl.errors import UserError
from mtl.model.tasks.module import TaskModule
from mtl.recipe.specs import TASKS, TaskSpec
from tests.support.task_samples import decoded, mean_loss, module_of


def task(**options: Any) -> TaskSpec:
    return TASKS["regression"](**{"target": "x", **options})


def fitted(spec: TaskSpec, *columns: np.ndarray) -> TaskModule:
    """The module of a task for each column of training labels; it holds their constants as float32."""
    module = module_of(spec, 1, *(spec.constants(column, ("value",)) for column in columns))
    assert {buffer.dtype for buffer in module.buffers() if buffer.is_floating_point()} == {torch.float32}
    return module


OFFSETS = [(0.0, 1.0), (1e6, 1e-2), (-2.5e8, 0.7), (1e-12, 1e-15), (1e12, 3e10), (123_456_789.0, 1e-3)]


@pytest.mark.parametrize(("mean", "std"), OFFSETS)
@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_losses_are_of_standardized_labels(loss: str, mean: float, std: float) -> None:
    generator = np.random.default_rng(0)
    y = mean + std * generator.normal(size=(300, 2))
    z = generator.normal(size=(300, 2)).astype(np.float32)
    spec = task(loss=loss, delta=0.8)
    module = fitted(spec, y[:, 0], y[:, 1])
    found = mean_loss(module, torch.from_numpy(z)[..., None], torch.from_numpy(y), torch.ones(300, 2))
    r = z - (y - y.mean(0)) / y.std(0)
    huber = np.where(np.abs(r) <= 0.8, r**2 / 2, 0.8 * (np.abs(r) - 0.4))
    expected = {"mse": r**2, "mae": np.abs(r), "huber": huber}[loss].mean(0)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize(("mean", "std"), OFFSETS)
def test_predictions_are_in_the_labels_own_unit(mean: float, std: float) -> None:
    """mean + std * z of the training labels, to 48 bits of the mean and a millionth of a standard deviation."""
    y = mean + std * np.random.default_rng(1).normal(size=400)
    z = torch.linspace(-3, 3, 7)[:, None]
    (column,) = decoded(task(), fitted(task(), y), z, ("value",)).items()
    assert column[0] == ""
    values = np.asarray(column[1])
    assert values.dtype == np.float64
    resolution = abs(mean) * 2**-48 + 1e-6 * std
    np.testing.assert_allclose(values, y.mean() + y.std() * z[:, 0].double().numpy(), rtol=0, atol=resolution)


def test_metrics_of_a_perfect_prediction_of_an_offset_quantity() -> None:
    y = 1e6 + 1e-2 * np.random.default_rng(2).normal(size=(200, 1))
    metric = fitted(task(), y[:, 0]).metric(frozenset())
    z = torch.from_numpy((y - y.mean()) / y.std())[..., None].float()
    metric.update(z, torch.from_numpy(y), torch.ones(200, 1, dtype=torch.bool))
    found = metric.compute()
    assert found["r2"].item() == pytest.approx(1, abs=1e-9)
    assert found["rmse"].item() < 1e-8


def test_equal_labels_are_shifted_and_not_scaled() -> None:
    found = task().constants(np.array([4.5, 4.5, 4.5]), ("value",))
    assert found == {"mean": (4.5,), "mean_rest": (0.0,), "std": (1.0,)}
    # summed and divided, seven times 0.1 is not 0.1: the spread of such a column is rounding
    assert task().constants(np.full(7, 0.1), ("value",))["std"] == (1.0,)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1e300, -1e300, 1e300], "target: labels are too large to be averaged; scale them down"),
        ([1e38, 2e38], "target: labels are too large to be averaged; scale them down"),
        ([1e-300, 2e-300], "target: labels differ by 1e-300 at most; scale them up"),
    ],
)
def test_numbers_beyond_float32_are_refused_without_a_warning(values: list[float], text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError) as caught:
            task().constants(np.array(values), ("value",))
    assert str(caught.value) == text


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_a_label_that_is_not_finite_is_named(wrong: float) -> None:
    values, present = np.array([1.0, wrong, 2.0, wrong]), np.array([True, False, True, True])
    with pytest.raises(UserError) as caught:
        task().encode(Labels(values, present), ("value",))
    assert str(caught.value) == f"row 3: target: label {wrong!r} is not finite"
    assert task().encode(Labels(values[:3], present[:3]), ("value",)).tolist() == [1.0, 0.0, 2.0]


@pytest.mark.parametrize("filler", [0.0, 1e30, -1e30])
def test_what_stands_for_a_missing_number_does_not_reach_loss_or_gradient(filler: float) -> None:
    spec, y = task(), np.array([[5.0], [6.0], [filler]])
    z = torch.zeros(3, 1, 1, requires_grad=True)
    module = fitted(spec, y[:2, 0])
    loss = mean_loss(module, z, torch.from_numpy(y), torch.tensor([[1.0], [1.0], [0.0]]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(1.0)  # both are one standard deviation off
    assert z.grad is not None
    assert z.grad.flatten().tolist() == pytest.approx([1.0, -1.0, 0.0])


def test_the_unit_names_the_output_and_text_is_refused() -> None:
    header = Header((1,), {"x": None, "t": ("a", "b")}, text=frozenset({"t"}))
    assert task(unit="EUR").outputs(header) == ("EUR",)
    assert task().outputs(header) == ("value",)
    with pytest.raises(UserError) as caught:
        task(target="t").outputs(header)
    assert str(caught.value) == "target: column 't' holds text; use kind: multiclass"


@pytest.mark.parametrize(
    ("options", "together"),
    [
        ({"unit": "EUR"}, True),
        ({"loss": "mae"}, False),
        ({"delta": 2.0}, True),  # which mse does not use
        ({"loss": "huber"}, False),
    ],
)
def test_what_splits_a_group(options: dict[str, Any], together: bool) -> None:
    assert (task(**options).group(1) == task().group(1)) is together
    assert task(loss="huber", delta=2.0).group(1) != task(loss="huber").group(1)
