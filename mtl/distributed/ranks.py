"""The processes that train one network together, and what they exchange in a step.

Each process, a rank, holds the whole network and reads all rows. It computes its share of each batch. The labels of
the whole batch are at hand everywhere, so the totals that divide the losses need no exchange, and the sum of the
ranks' gradients is the gradient that one process would compute.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mtl.distributed.alone import Ranks
from mtl.distributed.told import told_of
from mtl.distributed.watch import Watch
from mtl.model.layers import SyncedBatchNorm1d, SyncedBatchNorm2d
from mtl.model.parts import Part
from mtl.model.tasks.norm import LabelledBatchNorm

T = TypeVar("T")


class Together(Ranks):
    """One of several processes, which exchange sums by torch.distributed.

    Args:
        local_rank: the number of this process on its machine.
        watch: tells which rank is gone when an exchange fails.

    Attributes:
        signal: gives the stop signal that this process got, or None.
        device: the device of the tensors that are exchanged.
    """

    def __init__(self, local_rank: int, watch: Watch) -> None:
        self.rank, self.n = dist.get_rank(), dist.get_world_size()
        self.local_rank, self.watch, self.call = local_rank, watch, watch.call
        self.device = torch.device("cpu")
        self.signal: Callable[[], int | None] = lambda: None

    def bounds(self, n_rows: int) -> list[int]:
        """As in `Ranks`.

        A share has two rows or none, for a norm needs two; the rows of a small batch go to the first ranks.
        """
        n_sharing = min(self.n, max(1, n_rows // 2))
        cuts = [n_rows * i // n_sharing for i in range(n_sharing + 1)]
        return cuts + [n_rows] * (self.n - n_sharing)

    def part(self, n_rows: int) -> Part:
        own = self.share(n_rows)
        return Part(own.start, own.stop - own.start, n_rows, self.sum_with_gradient)

    def sum_with_gradient(self, tensor: Tensor) -> Tensor:
        """As `sum`, for a tensor of a graph."""
        total: Tensor = _Sum.apply(tensor, self)  # type: ignore[no-untyped-call]
        return total

    def sum(self, tensor: Tensor) -> Tensor:
        total = tensor.detach().clone()
        self.call(lambda: dist.all_reduce(total))
        return total

    @torch.no_grad()
    def sum_gradients(self, model: nn.Module, n_rows: int, n_total: int) -> None:
        """As in `Ranks`, with one exchange for each type of number.

        The running statistics of norms become the mean over ranks, weighted by their rows, unless they are those of
        the whole batch already. Any other buffer becomes that of rank 0.
        """
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        buffers, averaged = list(model.buffers()), running_statistics(model)
        device = next(model.parameters()).device
        given = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        for buffer in buffers:
            if id(buffer) in averaged:
                given.append(buffer * (n_rows / n_total))
            else:
                given.append(buffer if self.rank == 0 else torch.zeros_like(buffer))
        given.append(torch.tensor([parameter.grad is not None for parameter in parameters], device=device))
        *sums, there = self._sum_all(given)
        for parameter, total, is_there in zip(parameters, sums, there.tolist(), strict=False):
            parameter.grad = total if is_there else None
        for buffer, total in zip(buffers, sums[len(parameters) :], strict=True):
            buffer.copy_(total)

    def _sum_all(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sums of many tensors, each with the layout of its own, as of numbers of at least 32 bits."""
        found: dict[int, Tensor] = {}
        for dtype in dict.fromkeys(_summable(tensor.dtype) for tensor in tensors):
            own = [(i, tensor) for i, tensor in enumerate(tensors) if _summable(tensor.dtype) == dtype]
            flat = torch.cat([tensor.reshape(-1).to(dtype) for _, tensor in own])
            self.call(partial(dist.all_reduce, flat))
            for (i, tensor), total in zip(own, flat.split([t.numel() for _, t in own]), strict=True):
                as_own = total.view(tensor.shape)
                if tensor.dtype != dtype or not tensor.is_contiguous():
                    as_own = torch.empty_like(tensor).copy_(as_own)
                found[i] = as_own
        return [found[i] for i in range(len(tensors))]

    @torch.no_grad()
    def gather(
        self, shapes: Sequence[Sequence[tuple[int, ...]]], own: Sequence[Tensor]
    ) -> list[list[Tensor]]:
        """As in `Ranks`: one exchange of float64, which holds the numbers of any type here, and the stop signals."""
        lengths = [[torch.Size(shape).numel() for shape in each] for each in shapes]
        flat = torch.zeros(max(map(sum, lengths)) + 1, dtype=torch.float64, device=self.device)
        mine = torch.cat([tensor.reshape(-1).double() for tensor in own])
        flat[: len(mine)] = mine
        flat[-1] = self.signal() or 0
        everyone = [torch.empty_like(flat) for _ in range(self.n)]
        self.call(lambda: dist.all_gather(everyone, flat))
        self.asked = int(torch.stack([each[-1] for each in everyone]).max().item()) or None
        found = []
        for each, own_shapes, own_lengths in zip(everyone, shapes, lengths, strict=True):
            pieces = each[: sum(own_lengths)].split(own_lengths)
            found.append([piece.view(shape) for piece, shape in zip(pieces, own_shapes, strict=True)])
        return found

    def draw_alike(self, sizes: Sequence[int]) -> None:
        if len(set(sizes)) > 1:
            state = self.told(torch.get_rng_state().numpy().tobytes())
            torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))

    def agreed(self, action: Callable[[], T]) -> T:
        """As in `Ranks`.

        Raises:
            Exception: that of this rank, or else `FaultOfRank` with that of the first rank that has one.
        """
        fault, result = None, None
        try:
            result = action()
        except Exception as error:
            fault = error
        told = None if fault is None else list(told_of(fault))
        faults = self.all_told(told)
        if fault is not None:
            raise fault
        for rank, other in enumerate(faults):
            if other is not None:
                raise FaultOfRank(rank, *other)
        return result  # type: ignore[return-value]

    def told(self, value: bytes) -> bytes:
        size = torch.tensor([len(value)], device=self.device)
        self.call(lambda: dist.broadcast(size, src=0))
        data = torch.zeros(int(size), dtype=torch.uint8, device=self.device)
        if self.rank == 0:
            data.copy_(torch.frombuffer(bytearray(value), dtype=torch.uint8) if value else data)
        self.call(lambda: dist.broadcast(data, src=0))
        return data.cpu().numpy().tobytes()

    def all_told(self, value: Any) -> list[Any]:
        own = json.dumps(value).encode()
        sizes = [torch.zeros(1, dtype=torch.long, device=self.device) for _ in range(self.n)]
        self.call(lambda: dist.all_gather(sizes, torch.tensor([len(own)], device=self.device)))
        data = torch.zeros(int(max(sizes)), dtype=torch.uint8, device=self.device)
        data[: len(own)] = torch.frombuffer(bytearray(own), dtype=torch.uint8)
        found = [torch.empty_like(data) for _ in range(self.n)]
        self.call(lambda: dist.all_gather(found, data))
        return [
            json.loads(each[: int(size)].cpu().numpy().tobytes())
            for each, size in zip(found, sizes, strict=True)
        ]

    def end(self, result: str | None) -> str:
        if self.rank == 0:
            self.watch.publish("result", super().end(result))
        return self.watch.awaited("result")


class FaultOfRank(Exception):
    """A fault that another rank has told of.

    Args:
        rank: the rank.
        text: its error in one line.
        code: its exit code.
    """

    def __init__(self, rank: int, text: str, code: int) -> None:
        super().__init__(f"rank {rank}: {text}")
        self.rank, self.code = rank, code


class _Sum(torch.autograd.Function):
    """y = sum_r x_r over ranks r. Each rank's loss is a share of one objective, so dL/dx_r = sum_q dL_q/dy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Together) -> Tensor:
        ctx.ranks = ranks
        return ranks.sum(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        return ctx.ranks.sum(gradients[0].contiguous()), None


def running_statistics(model: nn.Module) -> set[int]:
    """The identities of running statistics that each rank has computed from its own rows; a frozen norm has none."""
    found = set()
    for module in model.modules():
        synced = isinstance(module, SyncedBatchNorm1d | SyncedBatchNorm2d)
        synced = synced or (isinstance(module, LabelledBatchNorm) and module.sync)
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training and not synced:
            found |= {id(module.running_mean), id(module.running_var)}
    return found


def _summable(dtype: torch.dtype) -> torch.dtype:
    if not dtype.is_floating_point:
        return torch.int64
    return dtype if dtype.itemsize >= 4 else torch.float32
