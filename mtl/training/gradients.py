"""Gradients of several tasks with respect to the parameters that they share, slice by slice.

Shapes: N tasks, S of them seen in a step, P numbers in the parameters that have a shared slice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl.model.stitched import StitchedMultiTower


class SharedSlices:
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
            is_shared = reach[name].sum(-1) > 1
            if is_shared.any():
                self.shared.append(parameter)
                masks.append(is_shared.expand(parameter.shape).flatten())
            else:
                self.own.append(parameter)
        self.is_shared = torch.cat(masks) if masks else torch.zeros(0, dtype=torch.bool)
        self.n_shared = int(self.is_shared.sum())

    def to(self, device: torch.device) -> SharedSlices:
        """Move the mask to another device."""
        self.is_shared = self.is_shared.to(device)
        return self

    def jacobian(self, losses_S: Sequence[Tensor]) -> Tensor:
        """(S, P) the gradient of each loss with respect to the parameters with a shared slice; the graph is kept."""
        rows = []
        for loss in losses_S:
            found = torch.autograd.grad(
                loss, self.shared, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            rows.append(torch.cat([gradient.flatten() for gradient in found]))
        return torch.stack(rows)

    def shared_part(self, jacobian_SP: Tensor) -> Tensor:
        """The columns of the jacobian (S, P) that belong to shared slices."""
        return jacobian_SP if self.n_shared == jacobian_SP.shape[1] else jacobian_SP[:, self.is_shared]

    def add(self, gradient: Tensor, own_P: Tensor) -> None:
        """Add to `grad` of the parameters: `gradient` for the shared slices, and `own_P` (P,) for all other slices."""
        whole = own_P.clone()
        whole[self.is_shared] = gradient.to(whole.dtype)
        sizes = [parameter.numel() for parameter in self.shared]
        for parameter, part in zip(self.shared, whole.split(sizes), strict=True):
            part = part.view_as(parameter)
            parameter.grad = part.clone() if parameter.grad is None else parameter.grad + part
