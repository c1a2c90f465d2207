"""The network of the multi-gate mixture of experts.

Shapes: B batch, E experts, K gates (one per tower), C channels or features of one expert, N tasks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mtl.model.layers import GroupedLinear
from mtl.model.links import GateLinks, Links, Mixture
from mtl.model.parts import drawn_by_row
from mtl.model.trunk import Features, Plan, SharingMatrix, Trunk, along


class MixtureOfExperts(Trunk):
    """y_k = sum_e g_k(x)_e f_e(x), g_k(x) = softmax(W_k x): each tower mixes the same E experts by its own gate.

    The gates read the flattened input of the experts. One grouped backbone computes all experts, one linear map all
    gates. With a hidden layer, g_k(x) = softmax(W_k relu(V_k x)). In training a gate may leave experts out and share
    their weights among the others (Zhao et al. 2019, doi:10.1145/3298689.3346997).

    Source: Ma et al. 2018, KDD, eq. 6 and 7.

    Args:
        plan: the values and functions that the network is built from.
        n_experts: E.
        hidden: features of the hidden layer of each gate; 0 for none.
        gate_dropout: the probability that a row's mixture leaves an expert out.
    """

    mean_gates: Tensor

    def __init__(self, plan: Plan, n_experts: int, hidden: int = 0, gate_dropout: float = 0.0) -> None:
        names = tuple(f"expert_{e + 1}" for e in range(n_experts))
        experts = plan.stages(names)
        experts.pool_before_activation()
        super().__init__(names, experts.shape, plan.reading_of())
        self.experts = experts
        self.towers, self.tasks_of_towers = tuple(plan.towers), plan.tasks_of_towers()
        n_inputs = math.prod(plan.input_shape) * (n_experts if plan.own_inputs else 1)
        n, self.gate_dropout = len(self.towers), gate_dropout
        first = GroupedLinear(n, n_inputs, hidden or n_experts, shared_input=True)
        self.gates = nn.Sequential(first, nn.ReLU(), GroupedLinear(n, hidden, n_experts)) if hidden else first
        plan.start(self.gates, self.towers, "gate")
        self.mixture = Mixture()
        even = torch.full((len(self.towers), n_experts), 1 / n_experts)
        self.register_buffer("mean_gates", even)

    def forward(self, x: Tensor) -> Tensor:
        h_BEC = self.experts(x).unflatten(1, (len(self.copies), self.shape[0]))
        gates_BKE = self.gates(x.flatten(1)).unflatten(1, (len(self.towers), len(self.copies))).softmax(-1)
        if self.training and not gates_BKE.is_meta:
            self.mean_gates.copy_(gates_BKE.detach().mean(0))
            gates_BKE = self._dropped(gates_BKE)
        y: Tensor = self.mixture(gates_BKE, h_BEC)
        return y

    def _dropped(self, gates_BKE: Tensor) -> Tensor:
        """The gates without some experts, and with the same sum; a gate that would lose all keeps all."""
        if self.gate_dropout == 0:
            return gates_BKE
        kept = drawn_by_row(gates_BKE.detach(), torch.rand_like) >= self.gate_dropout
        left = gates_BKE * (kept | ~kept.any(-1, keepdim=True))
        return left / left.sum(-1, keepdim=True).clamp(min=1e-12)

    def roles(self) -> dict[str, str]:
        return {
            **super().roles(),
            **{f"gates.{name}": "sharing" for name, _ in self.gates.named_parameters()},
        }

    def reach(self) -> dict[str, Tensor]:
        gates = self.gates.named_parameters()
        return {**super().reach(), **{f"gates.{name}": along(self.tasks_of_towers, p) for name, p in gates}}

    def readings(self) -> dict[str, SharingMatrix]:
        """`gates` -> the gates of each tower, averaged over the last training batch."""
        return {"gates": SharingMatrix(self.mean_gates.clone(), self.towers, self.copies)}

    def links(self) -> dict[str, Links]:
        return {"gates": GateLinks(self.mixture, self.towers, self.copies, apart=True)}

    def shared_features(self) -> Features:
        return Features(self.mixture, self.reach_of_copies())
