"""Batches are the rows asked for, in their order, as a loss takes them."""

import numpy as np
import pytest
import torch

from mtl.dataset.batch import ResidentRows

N, T = 6, 2
PRESENT = torch.tensor(
    [[True, True], [True, False], [False, True], [True, True], [False, False], [True, True]]
)
ROWS = ResidentRows(
    inputs=torch.arange(N * 3, dtype=torch.uint8).view(N, 3),
    target={
        "classes": torch.arange(N * T, dtype=torch.int8).view(N, T),
        "values": torch.arange(N, dtype=torch.float64).view(N, 1) / 3,
    },
    present={"classes": PRESENT, "values": torch.ones(1, 1, dtype=torch.bool).expand(N, -1)},
    weight={
        "classes": torch.tensor([[0.5, 2.0], [3.0, torch.nan], [torch.nan, 0.0], [1, 1], [1, 1], [1, 1]])
    },
)


@pytest.mark.parametrize("chosen", [[3, 0, 2], [5], [], [1, 1], list(range(N))])
def test_the_rows_asked_for_in_their_order(chosen: list[int]) -> None:
    batch = ROWS.batch(np.array(chosen, dtype=np.int64))
    assert len(ROWS) == N
    assert batch.rows.tolist() == chosen
    assert batch.inputs.dtype == torch.uint8  # the model scales them
    assert batch.inputs.tolist() == [ROWS.inputs[i].tolist() for i in chosen]
    for group in ("classes", "values"):
        assert batch.target[group].tolist() == [ROWS.target[group][i].tolist() for i in chosen]
        assert batch.present[group].tolist() == [ROWS.present[group][i].tolist() for i in chosen]
    assert (batch.target["classes"].dtype, batch.target["values"].dtype) == (torch.int64, torch.float64)
    labels = ROWS.targets(np.array(chosen, dtype=np.int64))
    for group in ("classes", "values"):
        assert torch.equal(labels.target[group], batch.target[group])
        assert torch.equal(labels.weight[group], batch.weight[group])


def test_a_weight_is_0_where_a_label_is_missing_and_1_where_no_column_gives_it() -> None:
    batch = ROWS.batch(np.arange(4))
    assert batch.weight["classes"].tolist() == [[0.5, 2], [3, 0], [0, 0], [1, 1]]
    assert batch.weight["values"].tolist() == [[1]] * 4
    assert batch.weight["values"].dtype == torch.float32


def test_on_another_device_they_are_the_same_rows() -> None:
    moved = ROWS.to(torch.device("meta"))
    tensors = [moved.inputs, *moved.target.values(), *moved.present.values(), *moved.weight.values()]
    assert all(tensor.is_meta for tensor in tensors)
    assert moved.target["values"].dtype == torch.float64
    assert moved.weight.keys() == ROWS.weight.keys()
