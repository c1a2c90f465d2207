"""Gradients of several tasks by the parameters that they share, slice by slice.

Shapes: N tasks, S of them seen in a step, P numbers in the parameters that have a shared slice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl.model.stitched import StitchedMultiTower


class SharedSlices:
    """Which parts of a network's parameters at least two tasks reach, known from its structure.

    With grouped tensors, sharing is a property of slices: towers after the last stitch, row i of the last alpha and
    every head belong to one tower's tasks alone. Such own slices take the gradient of their own loss.

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
            is_shared = reach[name].sum(-1) > 1
            if is_shared.any():
                self.shared.append(parameter)
                masks.append(is_shared.expand(parameter.shape).flatten())
            else:
                self.own.append(parameter)
        self.is_shared = torch.cat(masks) if masks else torch.zeros(0, dtype=torch.bool)
        self.n_shared = int(self.is_shared.sum())

    def to(self, device: torch.device) -> SharedSlices:
        """The same with its mask on another device."""
        self.is_shared = self.is_shared.to(device)
        return self

    def jacobian(self, losses_S: Sequence[Tensor]) -> Tensor:
        """(S, P) the gradient of each loss by the parameters that have a shared slice; the graph is kept."""
        rows = []
        for loss in losses_S:
            found = torch.autograd.grad(
                loss, self.shared, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            rows.append(torch.cat([gradient.flatten() for gradient in found]))
        return torch.stack(rows)

    def shared_part(self, jacobian_SP: Tensor) -> Tensor:
        """The columns of the shared slices alone."""
        return jacobian_SP if self.n_shared == jacobian_SP.shape[1] else jacobian_SP[:, self.is_shared]

    def add(self, gradient: Tensor, own_P: Tensor) -> None:
        """Add to `grad` of the parameters: a gradient of the shared slices, and one of all P whose own slices count."""
        whole = own_P.clone()
        whole[self.is_shared] = gradient.to(whole.dtype)
        sizes = [parameter.numel() for parameter in self.shared]
        for parameter, part in zip(self.shared, whole.split(sizes), strict=True):
            part = part.view_as(parameter)
            parameter.grad = part.clone() if parameter.grad is None else parameter.grad + part
