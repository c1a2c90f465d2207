"""The linear map beside a network: its values are those of closed forms and of Newton's method."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtl.evaluation.linear import STRENGTHS, Examples, Whitened, fit_linear
from mtl.model.tasks.heads import GroupedHead
from mtl.model.tasks.kinds import Classes, Labels, OrderedClasses, Quantity, YesNo
from mtl.model.tasks.module import TaskModule

ONE = torch.ones(1)
QUANTITY = {"mean": 0 * ONE, "mean_rest": 0 * ONE, "std": ONE}


def never() -> None:
    """Nothing interrupts the fit."""


def module(
    kind: Any, n_outputs: int, constants: dict[str, Tensor], n_tasks: int = 1, **options: Any
) -> TaskModule:
    head = GroupedHead([f"t{i}" for i in range(n_tasks)], [0] * n_tasks, 1, 1, n_outputs)
    made: TaskModule = kind(
        head, {name: value.repeat(n_tasks) for name, value in constants.items()}, **options
    )
    return made


def drawn(n: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated inputs, and a score of them with noise."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, width)) + rng.standard_normal((n, 1)) + 3
    y = x[:, : min(width, 3)].sum(1) / 3 + rng.standard_normal(n)
    return torch.from_numpy(x), torch.from_numpy(y)


def examples(x: Tensor, y: Tensor, weight: Tensor | None = None) -> Examples:
    y = y[:, None] if y.ndim == 1 else y
    return Examples(x, y, torch.ones(len(x), y.shape[1]) if weight is None else weight)


def ridge(x: Tensor, y: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """argmin of mean (y - x w - b)^2 + strength |w|^2 by the normal equations."""
    centred, mean = x - x.mean(0), y.mean()
    gram = centred.T @ centred / len(x) + strength * torch.eye(x.shape[1], dtype=x.dtype)
    w = torch.linalg.solve(gram, centred.T @ (y - mean) / len(x))
    return w, mean - x.mean(0) @ w


@pytest.mark.parametrize(("n", "width"), [(80, 5), (30, 90)])
def test_a_squared_loss_is_ridge_regression_at_the_best_strength(n: int, width: int) -> None:
    (x, y), (x_v, y_v) = drawn(n, width), drawn(50, width, seed=1)
    made = module(Quantity, 1, QUANTITY)
    weight, bias = fit_linear(made, examples(x, y), examples(x_v, y_v), never)
    every = [ridge(x, y, strength) for strength in STRENGTHS]
    w, b = min(every, key=lambda wb: float(((x_v @ wb[0] + wb[1] - y_v) ** 2).mean()))
    torch.testing.assert_close(weight[:, 0], w, rtol=0, atol=2e-3)
    torch.testing.assert_close(x_v @ weight[:, 0] + bias[0], x_v @ w + b, rtol=0, atol=5e-3)


def newton(x: Tensor, y: Tensor, strength: float) -> Tensor:
    """argmin of the mean logistic loss + strength |w|^2; the bias comes last and is not penalized."""
    with_one = torch.cat([x, torch.ones(len(x), 1)], 1)
    penalty = torch.full((x.shape[1] + 1,), 2 * strength, dtype=x.dtype)
    penalty[-1] = 0
    w = torch.zeros(x.shape[1] + 1, dtype=x.dtype)
    for _ in range(30):
        p = (with_one @ w).sigmoid()
        gradient = with_one.T @ (p - y) / len(x) + penalty * w
        hessian = with_one.T @ (with_one * (p * (1 - p))[:, None]) / len(x) + penalty.diag()
        w = w - torch.linalg.solve(hessian, gradient)
    return w


def test_yes_or_no_is_logistic_regression() -> None:
    (x, s), (x_v, s_v) = drawn(120, 4), drawn(80, 4, seed=1)
    y, y_v = (s > 3).double(), (s_v > 3).double()
    made = module(YesNo, 1, {"temperature": ONE, "threshold": 0.5 * ONE})
    weight, bias = fit_linear(made, examples(x, y.long()), examples(x_v, y_v.long()), never)

    def loss(w: Tensor) -> float:
        z = x_v @ w[:-1] + w[-1]
        return float(torch.nn.functional.binary_cross_entropy_with_logits(z, y_v))

    best = min((newton(x, y, strength) for strength in STRENGTHS), key=loss)
    torch.testing.assert_close(torch.cat([weight[:, 0], bias]), best, rtol=0, atol=5e-3)


def test_rows_count_by_their_weight_and_rows_without_a_label_not_at_all() -> None:
    x, y = drawn(40, 3)
    twice = examples(torch.cat([x, x[:10]]), torch.cat([y, y[:10]]))
    weight = torch.ones(45, 1)
    weight[:10], weight[40:] = 2, 0
    weighed = examples(torch.cat([x, 99 * torch.ones(5, 3)]), torch.cat([y, 1e6 * torch.ones(5)]), weight)
    made, chooser = module(Quantity, 1, QUANTITY), examples(*drawn(30, 3, seed=1))
    for one, other in zip(
        fit_linear(made, twice, chooser, never), fit_linear(made, weighed, chooser, never), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=5e-3)


def test_each_task_has_a_penalty_of_its_own() -> None:
    """Beside a task that the inputs tell, a task of noise gets weights near zero."""
    x, y = drawn(60, 20)
    noise = torch.from_numpy(np.random.default_rng(5).standard_normal((160, 1)))
    x_v, y_v = drawn(100, 20, seed=1)
    train = examples(x, torch.cat([20 * y[:, None], noise[:60]], 1))
    chooser = examples(x_v, torch.cat([20 * y_v[:, None], noise[60:]], 1))
    weight, _ = fit_linear(module(Quantity, 1, QUANTITY, n_tasks=2), train, chooser, never)
    alone, _ = fit_linear(module(Quantity, 1, QUANTITY), examples(x, 20 * y), examples(x_v, 20 * y_v), never)
    torch.testing.assert_close(weight[:, :1], alone, rtol=0, atol=2e-2)
    assert weight[:, 0].norm() > 5 > 0.1 > weight[:, 1].norm()


def test_without_other_rows_every_fifth_training_row_chooses() -> None:
    """All rows are then fitted with the penalty that was chosen."""
    x, y = drawn(100, 30)
    made, fifth = module(Quantity, 1, QUANTITY), torch.arange(100) % 5 == 4
    every = [ridge(x[~fifth], y[~fifth], strength) for strength in STRENGTHS]
    losses = [float(((x[fifth] @ w + b - y[fifth]) ** 2).mean()) for w, b in every]
    best = STRENGTHS[int(np.argmin(losses))]
    nothing_known = examples(x, y, torch.zeros(100, 1))
    for chooser in (None, nothing_known):
        weight, _ = fit_linear(made, examples(x, y), chooser, never)
        torch.testing.assert_close(weight[:, 0], ridge(x, y, best)[0], rtol=0, atol=2e-3)


def test_without_inputs_it_is_the_best_constant() -> None:
    y = torch.tensor([0.0, 0, 0, 0, 1, 1, 2, 9, 9, 9])

    def constant(made: TaskModule, target: Tensor) -> Tensor:
        x = torch.zeros(len(target), 0, dtype=torch.float64)
        weight, bias = fit_linear(made, Examples(x, target, torch.ones(len(x), 1)), None, never)
        assert weight.shape == (0, made.head.n_outputs)
        return (
            made.predict(bias.float()[None, None])["value" if isinstance(made, Quantity) else "p"]
            .flatten()
            .double()
        )

    shares = torch.tensor([0.4, 0.2, 0.1, 0.3]).double()
    code = torch.where(y == 9, 3, y).long()[:, None]
    close = {"rtol": 0, "atol": 2e-3}
    torch.testing.assert_close(constant(module(Classes, 4, {"temperature": ONE}), code), shares, **close)
    torch.testing.assert_close(constant(module(OrderedClasses, 3, {}), code), shares, **close)
    torch.testing.assert_close(
        constant(module(YesNo, 1, {"temperature": ONE, "threshold": 0.5 * ONE}), (code == 0).long()),
        torch.tensor([0.4]).double(), **close,
    )  # fmt: skip
    torch.testing.assert_close(
        constant(
            module(Labels, 2, {"temperature": ONE, "threshold": 0.5 * ONE}),
            torch.stack([code == 3, torch.where(code < 2, -1, 1)], -1).long(),
        ),
        torch.tensor([0.1875, 1.0]).double(),  # a row's loss is the mean over its known labels: 1.5 of 8
 rtol=0, atol=2e-2,
    )  # fmt: skip
    mean, median = (
        constant(module(Quantity, 1, QUANTITY, loss=loss), y[:, None].double()) for loss in ("mse", "mae")
    )
    torch.testing.assert_close(mean, torch.tensor([3.1]).double(), **close)
    assert 1 - 2e-3 <= float(median) <= 1 + 2e-3


def test_the_axes_are_those_of_the_inputs() -> None:
    """Weights of the axes and weights of the inputs give the same values, however wide the inputs are."""
    for n, width in ((50, 7), (7, 50)):
        x, _ = drawn(n, width)
        whitened = Whitened(x)
        assert whitened.z.shape[1] == whitened.axes.shape[1] <= min(n, width)
        torch.testing.assert_close(whitened.z @ whitened.axes.T, x - x.mean(0), rtol=0, atol=1e-6)
        torch.testing.assert_close((whitened.z**2).mean(0), whitened.variance, rtol=0, atol=1e-9)
        some = torch.from_numpy(np.random.default_rng(1).standard_normal((whitened.z.shape[1], 2)))
        weight, bias = whitened.map_of(some, torch.tensor([1.0, -2.0]).double())
        expected = whitened.z @ some + torch.tensor([1.0, -2.0])
        torch.testing.assert_close(x @ weight + bias, expected, rtol=0, atol=1e-6)


def test_an_interruption_ends_the_fit() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_linear(module(Quantity, 1, QUANTITY), examples(*drawn(20, 2)), None, stop)
