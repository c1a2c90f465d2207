"""The network of DSelect-k.

Shapes: B batch, E experts, K towers, S selectors of a tower (the paper's k), M = log2(E) bits, C channels or features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtl.model.links import GateLinks, Links, Mixture
from mtl.model.trunk import Features, Plan, SharingMatrix, Trunk, along


class SelectedExperts(Trunk):
    """y_k = sum_e q_k,e f_e(x), q_k = sum_s softmax(w_k)_s r(z_ks), with gates that do not depend on the row.

        r(z)_e = prod_{bits m of e that are 1} S(z_m) prod_{bits m that are 0} (1 - S(z_m))
        S(t)   = 0 for t <= -gamma/2, 1 for t >= gamma/2, else -2 t^3 / gamma^3 + 3 t / (2 gamma) + 1/2
        penalty = entropy * sum_{k,s} -sum_e r(z_ks)_e log r(z_ks)_e

    Where every z lies beyond the steps, r is one expert, so that a tower mixes at most S experts.

    Source: Hazimeh et al. 2021, arXiv:2106.03760, eq. 3 to 6, the static gate. The number of experts is a power of two,
    so that every code is an expert. z starts uniform on +-gamma/100, and w at 0.

    Args:
        plan: the values and functions that the network is built from.
        n_experts: E.
        n_selectors: S.
        gamma: the width of the smooth steps.
        entropy: the factor of the penalty.
    """

    bits: Tensor

    def __init__(self, plan: Plan, n_experts: int, n_selectors: int, gamma: float, entropy: float) -> None:
        names = tuple(f"expert_{e + 1}" for e in range(n_experts))
        experts = plan.stages(names)
        experts.pool_before_activation()
        super().__init__(names, experts.shape, plan.reading_of())
        self.experts, self.gamma, self.entropy = experts, gamma, entropy
        self.towers, self.tasks_of_towers = tuple(plan.towers), plan.tasks_of_towers()
        n_bits = n_experts.bit_length() - 1
        n = len(self.towers)
        self.codes = nn.Parameter(torch.empty(n, n_selectors, n_bits))
        nn.init.uniform_(self.codes, -gamma / 100, gamma / 100)
        self.weights = nn.Parameter(torch.zeros(n, n_selectors))
        bits_EM = [[(e >> m) & 1 for m in range(n_bits)] for e in range(n_experts)]
        self.register_buffer("bits", torch.tensor(bits_EM, dtype=torch.bool), persistent=False)
        self.mixture = Mixture()

    def forward(self, x: Tensor) -> Tensor:
        h_BEC = self.experts(x).unflatten(1, (len(self.copies), self.shape[0]))
        y: Tensor = self.mixture(self.gates().expand(h_BEC.shape[0], -1, -1), h_BEC)
        return y

    def gates(self) -> Tensor:
        """(K, E) the weight of each expert in the mixture of each tower; a row sums to one."""
        return torch.einsum("ks,kse->ke", self.weights.softmax(1), self.selectors())

    def selectors(self) -> Tensor:
        """(K, S, E) what each selector gives each expert; over experts it sums to one."""
        steps_KSM = smooth_step(self.codes, self.gamma)
        factors = torch.where(self.bits, steps_KSM.unsqueeze(2), 1 - steps_KSM.unsqueeze(2))
        return factors.prod(-1)

    def penalty(self) -> Tensor | None:
        if self.entropy == 0:
            return None
        selectors = self.selectors()
        negative: Tensor = torch.special.xlogy(selectors, selectors.clamp(min=1e-12)).sum()
        return -self.entropy * negative

    def roles(self) -> dict[str, str]:
        return {**super().roles(), "codes": "sharing", "weights": "sharing"}

    def reach(self) -> dict[str, Tensor]:
        own = {name: along(self.tasks_of_towers, getattr(self, name)) for name in ("codes", "weights")}
        return {**super().reach(), **own}

    @torch.no_grad()
    def readings(self) -> dict[str, SharingMatrix]:
        """`gates` -> the weight of each expert in the mixture of each tower."""
        return {"gates": SharingMatrix(self.gates(), self.towers, self.copies)}

    def links(self) -> dict[str, Links]:
        return {"gates": GateLinks(self.mixture, self.towers, self.copies, apart=True)}

    def shared_features(self) -> Features:
        return Features(self.mixture, self.reach_of_copies())


def smooth_step(t: Tensor, gamma: float) -> Tensor:
    """S(t): 0 up to -gamma / 2, 1 from gamma / 2, and a cubic between that meets both with slope 0."""
    inside = (t / gamma).clamp(-0.5, 0.5)
    return -2 * inside**3 + 1.5 * inside + 0.5
