"""Shapes: B batch, K towers, N numeric columns, C categorical columns, V values of all categories, D embedding."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import pytest
import torch

from mtl.model.inputs import TableInputs

MEAN, STD, FILL = torch.tensor([1.0, -2.0]), torch.tensor([2.0, 0.5]), torch.tensor([3.0, -1.0])
ROWS = torch.tensor([[3.0, -1.0, 1, 2], [nan, -2.0, 0, 1], [1.0, nan, 2, 0], [nan, nan, 2, 3]])
"""Two numbers and the codes of two categories, of 2 and 3 values."""
NUMBERS = [[1.0, 2.0], [1.0, 0.0], [0.0, 2.0], [1.0, 2.0]]
"""(x - mean) / std by hand, where a missing x is 3 or -1."""


def inputs(
    indicators: Sequence[int] = (),
    n_values: Sequence[int] = (),
    embedding: int | None = None,
    n_towers: int = 1,
) -> TableInputs:
    return TableInputs(MEAN, STD, FILL, indicators, n_values, embedding, n_towers)


@pytest.mark.parametrize(
    ("indicators", "there"),
    [
        ((), [[], [], [], []]),
        ((0,), [[0.0], [1.0], [0.0], [1.0]]),
        ((1, 0), [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]),
    ],
)
def test_numbers(indicators: Sequence[int], there: list[list[float]]) -> None:
    module = inputs(indicators)
    expected = [number + flag for number, flag in zip(NUMBERS, there, strict=True)]
    assert module(ROWS[:, :2]).tolist() == expected
    assert module.width == 2 + len(indicators)
    assert not module.per_tower


def test_one_hot() -> None:
    """Code 0 is all zeros; each category has places of its own."""
    module = inputs((1,), (2, 3))
    hot = [[1, 0, 0, 1, 0], [0, 0, 1, 0, 0], [0, 1, 0, 0, 0], [0, 1, 0, 0, 1]]
    flags = [[0], [0], [1], [1]]
    assert module(ROWS).tolist() == [n + f + h for n, f, h in zip(NUMBERS, flags, hot, strict=True)]
    assert module.width == 8
    assert not module.per_tower
    assert not list(module.parameters())


def test_one_hot_as_torch_has_it() -> None:
    n_values = (7, 1, 300)
    codes = torch.stack([torch.randint(0, n + 1, (64,)) for n in n_values], dim=1)
    module = TableInputs(torch.zeros(0), torch.ones(0), torch.zeros(0), (), n_values, None, 1)
    expected = torch.cat(
        [torch.nn.functional.one_hot(codes[:, c], n + 1)[:, 1:] for c, n in enumerate(n_values)], dim=1
    )
    assert torch.equal(module(codes.float()), expected.float())


@pytest.mark.parametrize("n_towers", [1, 3])
def test_embeddings(n_towers: int) -> None:
    """Each tower has vectors of its own, and gets numbers, flags and then its vectors, tower after tower."""
    module = inputs((0,), (2, 3), embedding=2, n_towers=n_towers)
    assert module.per_tower
    assert module.width == 2 + 1 + 2 * 2
    weight = torch.arange(n_towers * 5 * 2, dtype=torch.float32).reshape(n_towers, 5, 2) + 1
    with torch.no_grad():
        module.weight.copy_(weight.flatten(0, 1))
    flags = [[0.0], [1.0], [0.0], [1.0]]
    codes = [(1, 2), (0, 1), (2, 0), (2, 3)]
    expected = []
    for numbers, flag, (c, d) in zip(NUMBERS, flags, codes, strict=True):
        row = []
        for k in range(n_towers):
            own = weight[k].tolist()
            row += numbers + flag + (own[c - 1] if c else [0.0, 0.0]) + (own[2 + d - 1] if d else [0.0, 0.0])
        expected.append(row)
    assert module(ROWS).tolist() == expected


def test_gradients_of_embeddings() -> None:
    """A vector learns from the rows that have its value, those of code 0 from none; no tower from another's."""
    module = inputs((), (2, 3), embedding=1, n_towers=2)
    with torch.no_grad():
        module.weight.zero_()
    out = module(ROWS).view(4, 2, 4)
    (out[:, 0, 2:].sum() + 10 * out[:, 1, 3].sum()).backward()
    counts = [1.0, 2.0, 1.0, 1.0, 1.0]  # of values 1, 2 of the first category and 1, 2, 3 of the second
    grad = module.weight.grad
    assert grad is not None
    assert grad.flatten().tolist() == [*counts, 0.0, 0.0, 10.0, 10.0, 10.0]


def test_embedding_without_categories_is_none() -> None:
    module = inputs(embedding=4, n_towers=3)
    assert not module.per_tower
    assert module.width == 2
    assert not list(module.parameters())


@pytest.mark.parametrize("embedding", [None, 2])
def test_a_value_first_seen_later_changes_nothing_else(embedding: int | None) -> None:
    module = inputs((0,), (2, 3), embedding, n_towers=2)
    if embedding is not None:
        with torch.no_grad():
            module.weight.normal_()
    known, new = ROWS[:1], ROWS[:1].clone()
    new[0, 2] = 0
    difference = (module(known) - module(new))[0].nonzero().flatten().tolist()
    per_tower = [3, 4] if embedding is not None else [3]
    towers = [k * module.width for k in range(2 if embedding is not None else 1)]
    assert difference == [start + place for start in towers for place in per_tower]


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.uint8])
def test_the_type_of_rows(kind: torch.dtype) -> None:
    rows = torch.tensor([[3, 2, 1, 2]], dtype=kind)
    out = inputs((), (2, 3))(rows)
    assert out.dtype == torch.float32
    assert out.tolist() == [[1.0, 8.0, 1.0, 0.0, 0.0, 1.0, 0.0]]


def test_large_codes_are_exact() -> None:
    """Codes travel as float32, which holds whole numbers up to 2^24; tables allow 100000 values."""
    n = 100_000
    module = TableInputs(torch.zeros(0), torch.ones(0), torch.zeros(0), (), (n,), None, 1)
    assert module(torch.tensor([[float(n)], [float(n - 1)]])).argmax(1).tolist() == [n - 1, n - 2]


def test_a_batch_without_rows() -> None:
    assert inputs((0,), (2, 3))(torch.empty(0, 4)).shape == (0, 8)
    assert inputs((0,), (2, 3), 2, 3)(torch.empty(0, 4)).shape == (0, 3 * 7)


def test_what_is_saved() -> None:
    """Scales and vectors; not what the record of the run says."""
    state = inputs((0,), (2, 3), 2, 3).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "mean": (2,), "std": (2,), "fill": (2,), "weight": (15, 2),
    }  # fmt: skip


def test_it_says_what_it_is() -> None:
    assert "2 numbers, 1 indicators, 2 categories as one-hot" in repr(inputs((0,), (2, 3)))
    assert "2 numbers, 0 indicators, 2 categories as 4-d vectors" in repr(inputs((), (2, 3), 4))
