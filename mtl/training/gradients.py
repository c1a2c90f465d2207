"""Gradients of several tasks with respect to what they share: parameters slice by slice, or features.

Shapes: B batch, N tasks, S of them seen in a step, K copies, P numbers in the parameters that have a shared slice, or
in an activation of B rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mtl.model.stitched import StitchedMultiTower


class SharedNumbers(ABC):
    """The numbers of a step by which the gradients of the tasks are combined.

    A step calls `passing` around each forward pass, then `jacobian` and `backward`, and `add` at its end.
    """

    n_shared: int
    """How many numbers of the network are shared, whatever the rows are."""
    is_shared: Tensor
    """(P,) bool, whether at least two tasks reach a number."""
    all_shared: bool
    """Whether they reach every number."""
    at_once: bool
    """Whether the gradients of all losses are computed in one pass."""

    def to(self, device: torch.device) -> SharedNumbers:
        """The same on another device."""
        return self

    @abstractmethod
    def width(self, n_rows: int) -> int:
        """P for a step of so many rows."""

    @contextmanager
    def passing(self) -> Iterator[None]:
        """A context for the forward pass of a step."""
        yield

    @abstractmethod
    def jacobian(self, losses_S: Sequence[Tensor]) -> Tensor:
        """(S, P) the gradient of each loss; the graph is kept."""

    @abstractmethod
    def backward(self, losses_N: Tensor, weights_N: Tensor) -> None:
        """Add the gradient of the weighted sum to all parameters that `add` does not serve."""

    @abstractmethod
    def add(self, gradient: Tensor, own_P: Tensor) -> None:
        """Give the parameters the combined gradient.

        Args:
            gradient: for the shared numbers.
            own_P: for all other numbers, in the places where `is_shared` is false.
        """

    def _rows(self, losses_S: Sequence[Tensor], by: Sequence[Tensor]) -> Tensor:
        """(S, P) the gradient of each loss by tensors with P numbers together.

        A pass for all losses at once takes half of the time of one for each, and for images longer; the numbers agree.
        """
        options: Any = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
        if self.at_once:
            each_S = torch.eye(len(losses_S), device=losses_S[0].device, dtype=losses_S[0].dtype)
            try:
                found = torch.autograd.grad(
                    torch.stack(list(losses_S)), by, each_S, is_grads_batched=True, **options
                )
            except RuntimeError:  # an operation of a plug-in that torch cannot batch
                self.at_once = False
            else:
                return torch.cat([gradient.flatten(1) for gradient in found], 1)
        rows = [torch.autograd.grad(loss, by, **options) for loss in losses_S]
        return torch.stack([torch.cat([gradient.flatten() for gradient in row]) for row in rows])

    def shared_part(self, jacobian_SP: Tensor) -> Tensor:
        """The columns of the jacobian (S, P) that belong to shared numbers."""
        return jacobian_SP if self.all_shared else jacobian_SP[:, self.is_shared]

    def whole(self, gradient: Tensor, own_P: Tensor) -> Tensor:
        """(P,) the gradient of all numbers."""
        whole = own_P.clone()
        whole[self.is_shared] = gradient.to(whole.dtype)
        return whole


class SharedSlices(SharedNumbers):
    """The slices of a network's parameters that at least two tasks reach; the structure of the network decides this.

    In grouped tensors, sharing is a property of slices: towers after the last stitch, row i of the last alpha, and
    every head belong to the tasks of one tower. A slice of one task alone takes the gradient of that task's loss.

    Args:
        model: the network.
        tasks: the N tasks, in the order of their losses.
    """

    def __init__(self, model: StitchedMultiTower, tasks: tuple[str, ...]) -> None:
        reach = model.reach(tasks)
        self.shared: list[nn.Parameter] = []
        self.own: list[nn.Parameter] = []
        masks: list[Tensor] = []
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:  # frozen
                continue
            is_shared = reach[name].sum(-1) > 1
            if is_shared.any():
                self.shared.append(parameter)
                masks.append(is_shared.expand(parameter.shape).flatten())
            else:
                self.own.append(parameter)
        self.is_shared = torch.cat(masks) if masks else torch.zeros(0, dtype=torch.bool)
        self.n_shared = int(self.is_shared.sum())
        self.at_once = _reads_vectors(model)
        self.all_shared = self.n_shared == len(self.is_shared)

    def to(self, device: torch.device) -> SharedSlices:
        self.is_shared = self.is_shared.to(device)
        return self

    def width(self, n_rows: int) -> int:
        return len(self.is_shared)

    def jacobian(self, losses_S: Sequence[Tensor]) -> Tensor:
        return self._rows(losses_S, self.shared)

    def backward(self, losses_N: Tensor, weights_N: Tensor) -> None:
        torch.autograd.backward((losses_N * weights_N).sum(), inputs=self.own)

    def add(self, gradient: Tensor, own_P: Tensor) -> None:
        sizes = [parameter.numel() for parameter in self.shared]
        parts = self.whole(gradient, own_P).split(sizes)
        for parameter, part in zip(self.shared, parts, strict=True):
            part = part.view_as(parameter)
            parameter.grad = part.clone() if parameter.grad is None else parameter.grad + part


class SharedFeatures(SharedNumbers):
    """The last activation that several tasks read, such as the input of the last stitch or the outputs of experts.

    The gradients of the tasks with respect to this activation are combined, and one backward pass takes the result
    through the layers before it. Layers behind it, and what passes beside it, take the weighted sum of the tasks'
    gradients. For P = B * D features a jacobian costs S backward passes through the layers behind the activation alone.

    Args:
        model: the network.
        tasks: the N tasks, in the order of their losses.
    """

    n_shared = 0

    def __init__(self, model: StitchedMultiTower, tasks: tuple[str, ...]) -> None:
        self.trunk = model.trunk
        features = model.trunk.shared_features()
        self.module = model.trunk if features is None else features.module
        self.of_output = features is None
        reach_KN = features.reach if features is not None else _reach_of_readings(model.trunk.reading_of)
        self.at_once = _reads_vectors(model)
        self.is_shared_K = reach_KN.sum(1) > 1
        self.all_shared = bool(self.is_shared_K.all())
        self.is_shared = torch.zeros(0, dtype=torch.bool)
        self.leaf: Tensor | None = None
        self.activation: Tensor | None = None
        self.per_row = 0

    def width(self, n_rows: int) -> int:
        """P for a step of so many rows; 0 before the first pass."""
        return self.per_row * n_rows

    @contextmanager
    def passing(self) -> Iterator[None]:
        def before(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            return (*given[:-1], self._cut(given[-1]))

        def after(_: nn.Module, __: object, h: Tensor) -> Tensor:
            return self._cut(h)

        hook = (
            self.module.register_forward_hook(after)
            if self.of_output
            else self.module.register_forward_pre_hook(before)
        )
        try:
            yield
        finally:
            hook.remove()

    def _cut(self, activation: Tensor) -> Tensor:
        """The same numbers without a way back to the layers before; `add` goes that way once."""
        size = activation.shape[1] // len(self.is_shared_K)
        mask = self.is_shared_K.to(activation.device).repeat_interleave(size)
        self.is_shared = mask.view(1, -1, *(1,) * (activation.ndim - 2)).expand(activation.shape).flatten()
        self.activation, self.leaf = activation, activation.detach().requires_grad_()
        self.per_row = activation[0].numel()
        return self.leaf

    def jacobian(self, losses_S: Sequence[Tensor]) -> Tensor:
        assert self.leaf is not None
        return self._rows(losses_S, [self.leaf])

    def backward(self, losses_N: Tensor, weights_N: Tensor) -> None:
        (losses_N * weights_N).sum().backward(retain_graph=True)  # gates may read layers before the cut

    def add(self, gradient: Tensor, own_P: Tensor) -> None:
        activation, self.activation, self.leaf = self.activation, None, None
        assert activation is not None
        if activation.requires_grad:
            activation.backward(self.whole(gradient, own_P).view_as(activation))


def _reads_vectors(model: StitchedMultiTower) -> bool:
    """Whether no weight is that of a convolution."""
    return all(parameter.ndim < 4 for parameter in model.parameters())


def _reach_of_readings(reading_of: Sequence[int]) -> Tensor:
    """(R, N) bool, whether task n reads reading r."""
    readings = torch.tensor(reading_of, device="cpu")
    return readings == torch.arange(int(readings.max()) + 1, device="cpu").unsqueeze(1)
