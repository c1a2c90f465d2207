"""The network of progressive layered extraction, and with one level that of customized gate control.

Shapes: B batch, K towers, M own experts of each tower, S shared experts, E = K*M + S, A = M + S experts
that one gate covers, C channels or features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl.model.layers import GroupedLinear
from mtl.model.links import GateLinks, Links, Pair
from mtl.model.trunk import Features, Plan, SharingMatrix, Trunk, along, reach_of_slices


class ExtractionNetwork(Trunk):
    """g_k = sum_e softmax(W_k s_k)_e f_e over the experts of tower k and the shared ones, level by level.

    In the first level all experts and all gates read the input. In each further level the experts and the gate of tower
    k read what its gate gave, and the shared experts read what a gate over all experts gave, which itself reads the
    mixture of its kind. The last level has no such gate.

    Source: Tang et al. 2020, doi:10.1145/3383313.3412236, eq. 1 to 8.

    Args:
        plan: the values and functions that the network is built from.
        sites: the last stage of each level, in order.
        n_own: M.
        n_shared: S.
    """

    def __init__(self, plan: Plan, sites: Sequence[str], n_own: int, n_shared: int) -> None:
        names = tuple(plan.towers)
        experts = tuple(f"{name}_{e + 1}" for name in names for e in range(n_own))
        experts += tuple(f"shared_{e + 1}" for e in range(n_shared))
        stages = list(plan.stage_names)
        firsts = [stages[0], *(stages[stages.index(site) + 1] for site in sites[:-1])]
        levels = [
            plan.stages(experts, first=first, last=site) for first, site in zip(firsts, sites, strict=True)
        ]
        super().__init__(experts, levels[-1].shape, plan.reading_of())
        self.towers, self.sites, self.tasks_of_towers = names, tuple(sites), plan.tasks_of_towers()
        self.n_own, self.n_shared = n_own, n_shared
        self.levels = nn.ModuleDict(dict(zip(sites, levels, strict=True)))
        self.gates = nn.ModuleDict()
        width = math.prod(plan.input_shape) * (len(experts) if plan.own_inputs else 1)
        for site, level in zip(sites, levels, strict=True):
            is_last, is_first = site == sites[-1], site == sites[0]
            mixes = not is_last and n_shared > 0
            self.gates[site] = Gates(
                plan, site, width, (n_own, n_shared), shared_input=is_first, for_all=mixes
            )
            width = math.prod(level.shape)
        n, own = len(names), range(n_own)
        common = [n * n_own + e for e in range(n_shared)]
        self.experts_of = [[k * n_own + e for e in own] + common for k in range(n)]
        self.groups = [k for k in range(len(names)) for _ in range(n_own)] + [len(names)] * n_shared

    def forward(self, x: Tensor) -> Tensor:
        of_experts, of_gates = x, x.flatten(1)
        for site, level in self.levels.items():
            h_BE = level(of_experts).unflatten(1, (len(self.copies), -1))
            mixed = self.gates[site](of_gates, h_BE)
            if site != self.sites[-1]:
                of_experts = mixed[:, self.groups].flatten(1, 2)
                of_gates = mixed.flatten(1)
        readings: Tensor = mixed
        return readings

    def roles(self) -> dict[str, str]:
        gates = {name: "sharing" for name, _ in self.named_parameters() if name.startswith("gates.")}
        return {**super().roles(), **gates}

    def reach(self) -> dict[str, Tensor]:
        """With one level, own experts and gates serve their tower; with shared ones above, all serve all."""
        reach, last = super().reach(), self.sites[-1]
        sealed = self.sites if self.n_shared == 0 else (last,)
        for site in sealed:
            reached = reach_of_slices(self.levels[site], self._reach_of_experts(), f"levels.{site}.")
            for name, served in reached.items():
                reach[name] = served
            weight = self.gates[site].get_parameter("of_towers.weight")
            reach[f"gates.{site}.of_towers.weight"] = along(self.tasks_of_towers, weight)
        return reach

    def reach_of_copies(self) -> Tensor:
        if len(self.sites) > 1 and self.n_shared:
            return super().reach_of_copies()
        return self._reach_of_experts()

    def _reach_of_experts(self) -> Tensor:
        """(E, N) bool, whether task n reaches the output of expert e in the last level."""
        every_SN = torch.ones(self.n_shared, len(self.reading_of), dtype=torch.bool, device="cpu")
        return torch.cat([self.tasks_of_towers.repeat_interleave(self.n_own, dim=0), every_SN])

    def shared_features(self) -> Features:
        return Features(self.gates[self.sites[-1]], self._reach_of_experts())

    def readings(self) -> dict[str, SharingMatrix]:
        """Site -> the gates of each tower, averaged over the last training batch."""
        found = {}
        for site, gates in self.gates.items():
            gates_KE = spread(gates.get_buffer("mean_gates"), self.experts_of, len(self.copies))
            found[site] = SharingMatrix(gates_KE, self.towers, self.copies)
        return found

    def links(self) -> dict[str, Links]:
        """Site -> what each tower takes from its own experts and from the shared ones.

        A tower takes nothing from the experts of another one: what these know reaches it through the shared experts of
        the next level, by the gate over all experts. That gate serves no tower, and is not among the links.
        """
        return {
            site: PartialGateLinks(
                self.gates[site].get_submodule("mixture"),
                self.towers,
                self.copies,
                self.experts_of,
                apart=self._apart(level),
            )
            for level, site in enumerate(self.sites)
        }

    def _apart(self, level: int) -> bool:
        """Whether what a tower mixes at this level reaches no other tower.

        It takes two levels to get there: the tower's own experts above read it, the gate over all experts mixes these,
        and the shared experts above that serve every tower.
        """
        return self.n_own == 0 or self.n_shared == 0 or level + 2 >= len(self.sites)


class Gates(nn.Module):
    """The gates of one level: K over M own and S shared experts, and one over all E if a further level follows.

    Args:
        plan: the values and functions that the network is built from.
        site: the last stage of the level.
        width: the number of features that a gate reads.
        n_experts: M and S.
        shared_input: whether all gates read the same features.
        for_all: whether there is a gate over all experts.
    """

    mean_gates: Tensor

    def __init__(
        self,
        plan: Plan,
        site: str,
        width: int,
        n_experts: tuple[int, int],
        *,
        shared_input: bool,
        for_all: bool,
    ) -> None:
        super().__init__()
        self.n_towers, (self.n_own, self.n_shared) = len(plan.towers), n_experts
        self.shared_input = shared_input
        each = self.n_own + self.n_shared
        self.of_towers = GroupedLinear(self.n_towers, width, each, shared_input=shared_input)
        plan.start(self.of_towers, tuple(plan.towers), "gate", site)
        self.over_all = (
            nn.Linear(width, self.n_towers * self.n_own + self.n_shared, bias=False) if for_all else None
        )
        if self.over_all is not None:
            plan.start(self.over_all, ("shared",), "gate over all", site)
        self.mixture = OwnAndShared(self.n_towers, self.n_own)
        self.register_buffer("mean_gates", torch.full((self.n_towers, each), 1 / each))

    def forward(self, x: Tensor, h_BE: Tensor) -> Tensor:
        """What the gates read (B, F) or (B, (K + 1)*F), and experts (B, E, C, ...) -> mixtures (B, K or K + 1, C, ...).

        The mixtures of the towers come first, then that of the gate over all experts, if there is one.
        """
        n, width = self.n_towers, self.of_towers.in_features
        gates_BKE = (
            self.of_towers(x if self.shared_input else x[:, : n * width]).unflatten(1, (n, -1)).softmax(-1)
        )
        if self.training and not gates_BKE.is_meta:
            self.mean_gates.copy_(gates_BKE.detach().mean(0))
        mixed: Tensor = self.mixture(gates_BKE, h_BE)
        if self.over_all is None:
            return mixed
        gate_BE = self.over_all(x if self.shared_input else x[:, -width:]).softmax(-1)
        whole = torch.einsum("be,be...->b...", gate_BE, h_BE)
        return torch.cat([mixed, whole.unsqueeze(1)], dim=1)


class OwnAndShared(nn.Module):
    """y_k = sum_m w_km x_km + sum_s w_ks x_s: each of K targets mixes M sources of its own and S shared ones.

    Args:
        n_targets: K.
        n_own: M.
    """

    def __init__(self, n_targets: int, n_own: int) -> None:
        super().__init__()
        self.n_targets, self.n_own = n_targets, n_own

    def forward(self, weights: Tensor, x_BE: Tensor) -> Tensor:
        """Weights (B, K, M + S) and sources (B, K*M + S, ...), the shared ones last -> mixtures (B, K, ...)."""
        n, m = self.n_targets, self.n_own
        y = torch.zeros((), dtype=x_BE.dtype, device=x_BE.device)
        if m:
            own = x_BE[:, : n * m].unflatten(1, (n, -1))
            y = y + torch.einsum("bkm,bkm...->bk...", weights[..., :m], own)
        if weights.shape[2] > m:
            y = y + torch.einsum("bks,bs...->bk...", weights[..., m:], x_BE[:, n * m :])
        return y


class PartialGateLinks(GateLinks):
    """Links of gates that cover A of the E experts each: those of the gate's own tower, and the shared ones.

    The first argument of the module holds the weights of each row, (B, K, A). A tower takes nothing from the experts
    that its gate does not cover: their share is 0, and no link leads there.

    Args:
        module: as in `Links`.
        targets: the K towers.
        sources: the E experts.
        covered: for each tower the numbers of the A experts that its gate covers, in the order of its weights.
        apart: as in `Links`.
    """

    def __init__(
        self,
        module: nn.Module,
        targets: Sequence[str],
        sources: Sequence[str],
        covered: Sequence[Sequence[int]],
        *,
        apart: bool,
    ) -> None:
        super().__init__(module, targets, sources, apart=apart)
        self.covered = covered

    def pairs(self) -> list[Pair]:
        """The links that can be cut: those to covered experts, if the gate covers another one."""
        return [(i, j) for i, own in enumerate(self.covered) for j in own if len(own) > 1]

    def rows(self, weights: Tensor) -> Tensor:
        return spread(weights, self.covered, len(self.sources))

    def columns(self, values_TS: Tensor) -> Tensor:
        return values_TS.gather(1, torch.tensor(self.covered, device=values_TS.device))


def spread(weights: Tensor, covered: Sequence[Sequence[int]], n_experts: int) -> Tensor:
    """(..., K, A) -> (..., K, E): the weights of the covered experts in their places, and 0 for the others."""
    places_KA = torch.tensor(covered, device=weights.device)
    nothing = weights.new_zeros(*weights.shape[:-1], n_experts)
    return nothing.scatter(-1, places_KA.expand_as(weights), weights)
