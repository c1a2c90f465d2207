"""What a process exchanges with those that train the same network; here for one that trains alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mtl.model.parts import Part

T = TypeVar("T")


class Ranks:
    """One process that trains alone; `Together` is one of several.

    Attributes:
        rank: the number of this process, from 0 on.
        n: the number of processes.
        local_rank: the number of this process on its machine, which is that of its CUDA device; None for one alone.
        asked: the stop signal that some rank got, once all ranks know of it.
    """

    rank, n = 0, 1
    local_rank: int | None = None
    asked: int | None = None

    def bounds(self, n_rows: int) -> list[int]:
        """The n + 1 bounds of the shares of a batch."""
        return [0, n_rows]

    def share(self, n_rows: int) -> slice:
        """The rows of a batch that this rank computes."""
        bounds = self.bounds(n_rows)
        return slice(bounds[self.rank], bounds[self.rank + 1])

    def part(self, n_rows: int) -> Part | None:
        """The place of this rank's share in a batch; None for a whole batch."""
        return None

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all ranks, the same bits everywhere."""
        return tensor

    def sum_gradients(self, model: nn.Module, n_rows: int, n_total: int) -> None:
        """Give each parameter the sum of its gradients over all ranks, and each rank the same buffers.

        Args:
            model: the network.
            n_rows: the rows of this rank in the step.
            n_total: the rows of the step.
        """

    def gather(
        self, shapes: Sequence[Sequence[tuple[int, ...]]], own: Sequence[Tensor]
    ) -> list[list[Tensor]]:
        """The tensors of each rank, in the order of ranks.

        Args:
            shapes: for each rank the shapes of its tensors.
            own: the tensors of this rank.
        """
        return [list(own)]

    def draw_alike(self, sizes: Sequence[int]) -> None:
        """Let torch's generator go on as that of rank 0; ranks with other numbers of rows may have drawn others.

        Args:
            sizes: the rows of each rank since all generators were alike.
        """

    def agreed(self, action: Callable[[], T]) -> T:
        """The result of an action that no rank may go on without; a fault of one rank ends all."""
        return action()

    def first(self, action: Callable[[], T]) -> T | None:
        """The result of an action that rank 0 alone takes, None elsewhere; its fault ends all."""
        return self.agreed(action if self.rank == 0 else lambda: None)

    def told(self, value: bytes) -> bytes:
        """The bytes that rank 0 gives; what other ranks give is ignored."""
        return value

    def all_told(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order: what JSON can hold."""
        return [value]

    def end(self, result: str | None) -> str:
        """The result of rank 0, which the others wait for; rank 0 does not wait."""
        assert result is not None
        return result


ALONE = Ranks()
