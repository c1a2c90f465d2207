"""Links say what each target takes from each source where a trunk mixes; they observe it, and cut it for a while.

A trunk that lists its links needs no other code in its forward pass: links watch the call of the module that mixes.
Without an observer or a cut, no hook is there, and the forward pass is as fast as ever.
Shapes: B batch, T targets, S sources, C channels or features of one of them, H W positions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Pair = tuple[int, int]
"""The number of a target, and that of a source."""


@dataclass
class Observed:
    """Sums over the rows that passed while links were watched; float64, so that they do not depend on batches.

    Args:
        total: (T, S) the sum over rows.
        square: (T, S) the sum of squares over rows.
        n_rows: the number of rows.
    """

    total: Tensor | None = None
    square: Tensor | None = None
    n_rows: int = 0

    def add(self, total_TS: Tensor, square_TS: Tensor, n_rows: int) -> None:
        """Add the sums of one batch."""
        self.total = total_TS if self.total is None else self.total + total_TS
        self.square = square_TS if self.square is None else self.square + square_TS
        self.n_rows += n_rows


class Links:
    """The links of one place of a network: its targets take from its sources in the call of one module.

    Args:
        module: the module of the trunk whose call mixes.
        targets: the T towers (or tasks) that take.
        sources: the S towers, or experts, that are taken from.
        apart: whether no target reaches another one after this place; one pass then cuts links of many targets.
    """

    def __init__(
        self, module: nn.Module, targets: Sequence[str], sources: Sequence[str], *, apart: bool
    ) -> None:
        self.module, self.targets, self.sources, self.apart = module, tuple(targets), tuple(sources), apart

    def pairs(self) -> list[Pair]:
        """The links that can be cut: those from other sources than the target itself."""
        return [
            (i, j)
            for i, target in enumerate(self.targets)
            for j, source in enumerate(self.sources)
            if target != source
        ]

    def observed(self) -> AbstractContextManager[Observed]:
        """A context manager; it gives an `Observed`, which the passes inside it fill."""
        raise NotImplementedError

    def shares(self, seen: Observed) -> Tensor:
        """(T, S) the share of each source in what a target takes; the shares of a target sum to 1 or are all 0."""
        raise NotImplementedError

    def spread(self, seen: Observed) -> Tensor | None:
        """(T, S) the standard deviation over rows, or None for shares that are the same in every row."""
        return None

    def cut(self, pairs: Collection[Pair]) -> AbstractContextManager[None]:
        """A context manager; in the passes inside it, the targets take nothing from these sources."""
        raise NotImplementedError


class UnitLinks(Links):
    """Links of a unit that maps the activations of K towers, (B, K*C, ...), to new ones of the same shape.

    The unit itself defines everything. With x_j set to 0 it gives y_i without what tower i takes from j, so that

        c_ij = y_i(x) - y_i(x with x_j = 0),   share_ij = rms(c_ij) / sum_k rms(c_ik),

    where the rms is over rows, channels and positions. For y_i = sum_j alpha_ij x_j with one number per pair this is
    |alpha_ij| rms(x_j). A cut gives y_i(x with x_j = 0) to tower i alone, which sets alpha_ij to 0.
    """

    def __init__(self, unit: nn.Module, towers: Sequence[str], *, apart: bool) -> None:
        super().__init__(unit, towers, towers, apart=apart)

    @contextmanager
    def observed(self) -> Iterator[Observed]:
        seen, n = Observed(), len(self.sources)

        def watch(_: nn.Module, given: tuple[Tensor, ...], y: Tensor) -> None:
            columns = []
            for j in range(n):
                lost = (y - self._without(given[0], [j])).unflatten(1, (n, -1))
                others = tuple(axis for axis in range(lost.ndim) if axis != 1)
                columns.append(lost.square().sum(others, dtype=_exact(lost)))
            square_TS = torch.stack(columns, 1)
            seen.add(square_TS, square_TS, len(y))

        handle = self.module.register_forward_hook(watch)
        try:
            yield seen
        finally:
            handle.remove()

    def shares(self, seen: Observed) -> Tensor:
        assert seen.square is not None
        return _parts_of_one(seen.square.sqrt())

    @contextmanager
    def cut(self, pairs: Collection[Pair]) -> Iterator[None]:
        without: dict[
            tuple[int, ...], list[int]
        ] = {}  # targets that lose the same sources need one pass together
        for target in sorted({i for i, _ in pairs}):
            lost = tuple(sorted(j for i, j in pairs if i == target))
            without.setdefault(lost, []).append(target)

        def replace(_: nn.Module, given: tuple[Tensor, ...], y: Tensor) -> Tensor:
            width, kept = y.shape[1] // len(self.targets), y.clone()  # a clone keeps the layout in memory
            for lost, targets in without.items():
                other = self._without(given[0], lost)
                for i in targets:
                    kept[:, i * width : (i + 1) * width] = other[:, i * width : (i + 1) * width]
            return kept

        handle = self.module.register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()

    def _without(self, x: Tensor, sources: Sequence[int]) -> Tensor:
        """What the unit gives if the activations of some sources are 0; `forward` itself calls no hook."""
        width, rest = x.shape[1] // len(self.sources), x.clone()
        for j in sources:
            rest[:, j * width : (j + 1) * width] = 0
        found: Tensor = self.module.forward(rest)
        return found


class Mixture(nn.Module):
    """y_t = sum_s w_ts x_s with weights of each row: (B, T, S) and (B, S, ...) -> (B, T, ...).

    Schemes with gates mix through this module, so that `GateLinks` can watch its weights.
    """

    def forward(self, weights_BTS: Tensor, x_BS: Tensor) -> Tensor:
        """Weights (B, T, S) and the activations of the sources (B, S, ...) -> those of the targets (B, T, ...)."""
        y: Tensor = torch.einsum("bke,be...->bk...", weights_BTS, x_BS)
        return y


class GateLinks(Links):
    """Links of a module whose first argument holds the weights of each row, (B, T, S), as those of `Mixture`.

    The share of a source is the mean of its weight over rows; its spread is the standard deviation over rows. A cut
    sets the weights of a source to 0 and scales the others, so that the sum of a row stays as it was.
    """

    def pairs(self) -> list[Pair]:
        """The links that can be cut: all of them, if the target has another source left."""
        return super().pairs() if len(self.sources) > 1 else []

    def rows(self, weights: Tensor) -> Tensor:
        """(B, T, S) the weight of each source in each row."""
        return weights

    def columns(self, values_TS: Tensor) -> Tensor:
        """A number of each target and source, (T, S), in the order of the columns of the weights."""
        return values_TS

    @contextmanager
    def observed(self) -> Iterator[Observed]:
        seen = Observed()

        def watch(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            weights = self.rows(given[0])
            rows = weights.to(_exact(weights))
            seen.add(rows.sum(0), rows.square().sum(0), len(rows))

        handle = self.module.register_forward_pre_hook(watch)
        try:
            yield seen
        finally:
            handle.remove()

    def shares(self, seen: Observed) -> Tensor:
        assert seen.total is not None
        return seen.total / seen.n_rows

    def spread(self, seen: Observed) -> Tensor:
        assert seen.total is not None and seen.square is not None
        mean = seen.total / seen.n_rows
        return (seen.square / seen.n_rows - mean.square()).clamp(min=0).sqrt()

    @contextmanager
    def cut(self, pairs: Collection[Pair]) -> Iterator[None]:
        keep = torch.ones(len(self.targets), len(self.sources))
        for i, j in pairs:
            keep[i, j] = 0
        keep = self.columns(keep)

        def replace(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            weights = given[0]
            left = weights * keep.to(weights)
            sums, rest = weights.sum(-1, keepdim=True), left.sum(-1, keepdim=True)
            scaled = torch.where(rest != 0, left * (sums / torch.where(rest != 0, rest, 1)), left)
            touched = (keep.to(weights) == 0).any(-1, keepdim=True)
            return (torch.where(touched, scaled, weights), *given[1:])

        handle = self.module.register_forward_pre_hook(replace)
        try:
            yield
        finally:
            handle.remove()


class MaskLinks(GateLinks):
    """Links of a module whose first argument masks the features of one source, (B, T, C, ...).

    The weight of a row is the mean of its mask over channels and positions. Nothing is left without the only source,
    so that no link can be cut.
    """

    def rows(self, weights: Tensor) -> Tensor:
        return weights.flatten(2).mean(2, keepdim=True)


class Masking(nn.Module):
    """y_t = m_t * x: the masks of T targets, (B, T, C, ...), on the features of one source, (B, C, ...)."""

    def forward(self, masks_BTC: Tensor, x_BC: Tensor) -> Tensor:
        """Masks (B, T, C, ...) and features (B, C, ...) -> masked features (B, T*C, ...)."""
        return (masks_BTC * x_BC.unsqueeze(1)).flatten(1, 2)


def _exact(values: Tensor) -> torch.dtype:
    """The type of sums over rows."""
    return torch.float32 if values.device.type == "mps" else torch.float64  # MPS has no float64


def _parts_of_one(values_TS: Tensor) -> Tensor:
    """Each row divided by its sum; a row of zeros stays as it is."""
    sums = values_TS.sum(1, keepdim=True)
    return torch.where(sums == 0, 0.0, values_TS / torch.where(sums == 0, 1, sums))
