"""The network of soft parameter sharing.

Shapes: K towers, D numbers of one tower in a parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mtl.model.towers import SeparateTowers
from mtl.model.trunk import Plan, StitchedTowers


class AlikeTowers(StitchedTowers):
    """Separate towers, and a penalty on every weight with W_k (D,) in tower k:

        l2:    penalty / 2 * sum_{k < l} ||W_k - W_l||^2
        trace: penalty * ||[W_1, ..., W_K]||_*, the sum of the singular values of the (D, K) matrix

    Source: Duong et al. 2015 (l2); Yang and Hospedales 2017, arXiv:1606.04038, section 2.1, "last axis flattening"
    (trace).

    Args:
        plan: the values and functions that the network is built from.
        penalty: its factor.
        norm: which of the two.
        stages: the stages whose weights are kept alike.
    """

    def __init__(
        self, plan: Plan, penalty: float, norm: Literal["l2", "trace"], stages: Sequence[str]
    ) -> None:
        super().__init__(plan.stages(tuple(plan.towers)), {}, plan.tasks_of_towers(), plan.reading_of())
        self.factor, self.norm, self.alike = penalty, norm, tuple(stages)

    def penalty(self) -> Tensor | None:
        if self.factor == 0 or len(self.copies) == 1:
            return None
        weights = [weight_KD for stage in self.alike for weight_KD in self._weights(stage)]
        terms = [self._term(weight_KD) for weight_KD in weights]
        return self.factor * torch.stack(terms).sum() if terms else None

    def _weights(self, stage: str) -> list[Tensor]:
        """Each weight of a stage as (K, D)."""
        module, n = self.towers.stages[stage], len(self.copies)
        if isinstance(module, SeparateTowers):
            each = zip(*(tower.parameters() for tower in module.towers), strict=True)
            return [
                torch.stack([p.flatten() for p in of_towers]) for of_towers in each if of_towers[0].ndim > 1
            ]
        return [p.unflatten(0, (n, -1)).flatten(1) for p in module.parameters() if p.ndim > 1]

    def _term(self, weight_KD: Tensor) -> Tensor:
        if self.norm == "trace":
            values: Tensor = torch.linalg.svdvals(weight_KD)
            return values.sum()
        # sum_{k < l} ||W_k - W_l||^2 = K sum_k ||W_k - mean||^2
        return (weight_KD - weight_KD.mean(0)).square().sum() * len(weight_KD) / 2
