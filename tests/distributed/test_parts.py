"""Layers on a part of a batch give what they give on the whole batch."""

import pytest
import torch
from torch import nn

from mtl.distributed.ranks import Together
from mtl.model.layers import grouped_norm
from mtl.model.parts import Dropout, Part, drawn_by_row, part_of_batch


def parts(total: int, *sizes: int) -> list[Part]:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [Part(start, n, total, lambda x: x) for start, n in zip(starts, sizes, strict=True)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_row_loses_the_same_values_in_whichever_part_it_is(layout: torch.memory_format) -> None:
    x = torch.randn(7, 3, 4, 5).to(memory_format=layout)
    dropout = Dropout(0.4)
    torch.manual_seed(5)
    whole = dropout(x)
    found = []
    for part in parts(7, 4, 3):
        torch.manual_seed(5)
        with part_of_batch(part):
            found.append(dropout(x[part.start : part.start + part.n_rows]))
    assert torch.equal(torch.cat(found), whole)
    assert 0.2 < (whole == 0).float().mean() < 0.6


def test_dropout_is_off_in_evaluation_and_where_rows_are_folded_it_still_drops() -> None:
    x, dropout = torch.randn(6, 4), Dropout(0.5)
    with part_of_batch(Part(0, 3, 6, lambda y: y)):
        assert (dropout(x) == 0).any()
        assert torch.equal(dropout.eval()(x), x)


def test_draws_of_a_row_do_not_depend_on_its_part() -> None:
    x = torch.zeros(5, 2)
    torch.manual_seed(1)
    whole = drawn_by_row(x, torch.rand_like)
    torch.manual_seed(1)
    with part_of_batch(Part(2, 3, 5, lambda y: y)):
        assert torch.equal(drawn_by_row(x[2:], torch.rand_like), whole[2:])


@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize("debias", [False, True])
def test_a_synced_norm_of_one_part_is_batch_norm(spatial: bool, debias: bool) -> None:
    shape = (6, 4, 3, 2) if spatial else (6, 4)
    synced = grouped_norm("batch", 2, 2, spatial=spatial, eps=1e-3, momentum=0.1, debias=debias, sync=True)
    plain = grouped_norm("batch", 2, 2, spatial=spatial, eps=1e-3, momentum=0.1, debias=debias)
    assert synced is not None
    assert plain is not None
    for _ in range(3):
        x = torch.randn(shape)
        own, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        with part_of_batch(Part(0, 6, 6, lambda y: y)):
            found = synced(own)
        expected = plain(other)
        torch.testing.assert_close(found, expected)
        (found.sin().sum()).backward()
        (expected.sin().sum()).backward()
        torch.testing.assert_close(own.grad, other.grad)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(synced.state_dict()[name], value)


def test_a_synced_norm_in_one_process_is_batch_norm() -> None:
    synced = grouped_norm("batch", 1, 3, spatial=False, eps=1e-5, momentum=0.1, sync=True)
    assert isinstance(synced, nn.Module)
    x = torch.randn(8, 3)
    assert torch.equal(synced(x), nn.BatchNorm1d(3)(x))


@pytest.mark.parametrize(
    ("n_rows", "n", "expected"),
    [
        (10, 2, [0, 5, 10]),
        (7, 2, [0, 3, 7]),
        (3, 2, [0, 3, 3]),  # a share of one row could not be normalized
        (1, 3, [0, 1, 1, 1]),
        (4, 3, [0, 2, 4, 4]),
        (9, 4, [0, 2, 4, 6, 9]),
    ],
)
def test_shares_have_two_rows_or_none(n_rows: int, n: int, expected: list[int]) -> None:
    class Two(Together):
        def __init__(self) -> None:
            self.rank, self.n = 0, n

    found = Two().bounds(n_rows)
    assert found == expected
    assert found[-1] == n_rows
