"""Layers that treat the rows of one process as a part of a batch that several processes share.

Shapes: B rows of this process, W rows of the whole batch, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Part:
    """The place of B rows in a batch of W rows.

    Args:
        start: the rows of the batch before them.
        n_rows: B.
        total: W.
        sum: the sum of a tensor over all processes, with a gradient; each process calls it equally often.
    """

    start: int
    n_rows: int
    total: int
    sum: Callable[[Tensor], Tensor]


_parts: list[Part] = []


@contextmanager
def part_of_batch(part: Part | None) -> Iterator[None]:
    """A forward pass inside has the rows of this part; None stands for a whole batch."""
    if part is None:
        yield
        return
    _parts.append(part)
    try:
        yield
    finally:
        _parts.pop()


def current_part() -> Part | None:
    """The part of the pass under way; None for a whole batch."""
    return _parts[-1] if _parts else None


def drawn_by_row(x: Tensor, draw: Callable[[Tensor], Tensor]) -> Tensor:
    """`draw` for the rows of x (B, ...) as it would be for the whole batch (W, ...).

    So a row gets the same numbers in whichever process it is. Where a layer has folded something into the rows, x has
    not B of them, and the numbers depend on how many processes there are.
    """
    part = current_part()
    if part is None or len(x) != part.n_rows:
        return draw(x)
    dense = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    layout = torch.channels_last if dense else torch.contiguous_format
    like = torch.empty((part.total, *x.shape[1:]), dtype=x.dtype, device=x.device, memory_format=layout)
    return draw(like)[part.start : part.start + part.n_rows]


class Dropout(nn.Dropout):
    """Dropout (Srivastava et al. 2014), where a row loses the same values in whichever process it is."""

    def forward(self, input: Tensor) -> Tensor:
        """Input (B, ...) -> the same shape, with values set to 0 in training and the rest scaled."""
        if not self.training or self.p == 0 or current_part() is None:
            return super().forward(input)
        return input * drawn_by_row(input.detach(), lambda x: F.dropout(torch.ones_like(x), self.p))


def channel_statistics(x: Tensor, part: Part) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), biased variance (C,) and the number of values of each channel, over the parts of all processes.

        mean_c = sum_b x_bc / n,   var_c = sum_b (x_bc - mean_c)^2 / n

    Args:
        x: (B, C) or (B, C, H, W).
        part: the place of the rows in the batch.
    """
    dims, shape = [d for d in range(x.dim()) if d != 1], (1, -1, *(1,) * (x.dim() - 2))
    wide = x.float()
    n_own = wide.new_tensor([wide.numel() / wide.shape[1]])
    sums = part.sum(torch.cat([wide.sum(dims), n_own]))
    mean_C, n = sums[:-1] / sums[-1], sums[-1].detach()
    return mean_C, part.sum((wide - mean_C.view(shape)).square().sum(dims)) / n, n


def normalized(
    x: Tensor, mean_C: Tensor, var_C: Tensor, eps: float, scale_C: Tensor, shift_C: Tensor
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * scale + shift, for x of (B, C) or (B, C, H, W)."""
    shape = (1, -1, *(1,) * (x.dim() - 2))
    factor_C = torch.rsqrt(var_C + eps) * scale_C
    return ((x.float() - mean_C.view(shape)) * factor_C.view(shape) + shift_C.view(shape)).to(x.dtype)
