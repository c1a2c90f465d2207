"""Each sharing scheme as its equation in plain torch, written by hand for the network of bench/methods.py.

The network has three linear stages of 32 features without bias, each with batch norm and ReLU. All copies of a stage
are one batched tensor, and nothing loops over towers or experts. Of several ways that were tried, the fastest is here.

Shapes: B batch, K towers, E experts (or copies of a stage in general), F features that a map reads, C features of one
copy, L layers, S selectors of a tower, M bits of an expert's number. An activation is (B, E*C), copy by copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.hand_grouped.weights import STAGES, Weights, each

Step = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""Input (B, F) -> readings (B, K, C), and the penalty of the step, if the scheme has one."""


def none(own: Weights, k: int) -> Step:
    """y_k = x_k."""
    stages = own.copies("towers.stages", k)

    def step(x: Tensor) -> tuple[Tensor, Tensor | None]:
        for stage in stages:
            x = stage(x)
        return x.unflatten(1, (k, -1)), None

    return step


def soft(own: Weights, k: int) -> Step:
    """y_k = x_k, and penalty / 2 * sum_{k<l} ||W_k - W_l||^2 = penalty * K / 2 * sum_k ||W_k - mean||^2."""
    towers = none(own, k)
    weights = [own.taken[f"towers.stages.{name}.map.weight"][0] for name in STAGES]

    def step(x: Tensor) -> tuple[Tensor, Tensor | None]:
        y, _ = towers(x)
        copies = [weight.view(k, -1) for weight in weights]
        return y, 1e-3 * k / 2 * sum((w_KD - w_KD.mean(0)).square().sum() for w_KD in copies)

    return step


def cross_stitch(own: Weights, k: int) -> Step:
    """y_i = sum_j alpha_ij x_j after each stage."""
    stages = own.copies("towers.stages", k)
    alphas = [own.leaf(f"stitches.{name}.alpha") for name in STAGES]

    def step(x: Tensor) -> tuple[Tensor, Tensor | None]:
        for stage, alpha_KK in zip(stages, alphas, strict=True):
            x = torch.einsum("ij,bjc->bic", alpha_KK, stage(x).unflatten(1, (k, -1))).flatten(1)
        return x.unflatten(1, (k, -1)), None

    return step


def sluice(own: Weights, k: int) -> Step:
    """A stitch between the two halves of all towers after each stage, and sum_l beta_kl y_kl over the stages."""
    stages, beta_KL = own.copies("towers.stages", k), own.leaf("beta")
    alphas = [own.leaf(f"stitches.{name}.alpha") for name in STAGES]

    def step(x: Tensor) -> tuple[Tensor, Tensor | None]:
        layers = []
        for stage, alpha in zip(stages, alphas, strict=True):
            x = torch.einsum("ij,bjc->bic", alpha, stage(x).unflatten(1, (2 * k, -1))).flatten(1)
            layers.append(x.unflatten(1, (k, -1)))
        y = layers[0] * beta_KL[:, :1]
        for layer, beta_K in zip(layers[1:], beta_KL.unbind(1)[1:], strict=True):
            y = torch.addcmul(y, layer, beta_K[:, None])
        return y, None

    return step


def nddr(own: Weights, k: int) -> Step:
    """y_i = norm(sum_j W_ij x_j) after each stage."""
    stages = own.copies("towers.stages", k)
    weights = [own.leaf(f"stitches.{name}.weight") for name in STAGES]
    norms = [own.norm(f"stitches.{name}.norm") for name in STAGES]

    def step(x: Tensor) -> tuple[Tensor, Tensor | None]:
        for stage, weight, norm in zip(stages, weights, norms, strict=True):
            x = norm(F.linear(stage(x), weight))
        return x.unflatten(1, (k, -1)), None

    return step


def ltb(own: Weights, k: int) -> Step:
    """y_i = sum_j d_ij x_j after each stage, d_i = softmax((logits_i + Gumbel noise) / temperature)."""
    stages = own.copies("towers.stages", k)
    logits = [own.leaf(f"stitches.{name}.logits") for name in STAGES]
    temperature = [5.0]

    def step(x: Tensor) -> tuple[Tensor, Tensor | None]:
        for stage, logits_KK in zip(stages, logits, strict=True):
            uniform = torch.rand(k, k).clamp(1e-7, 1 - 1e-7).to(logits_KK)
            choice_KK = ((logits_KK - torch.log(-torch.log(uniform))) / temperature[0]).softmax(1)
            x = torch.einsum("ij,bjc->bic", choice_KK, stage(x).unflatten(1, (k, -1))).flatten(1)
        temperature[0] = max(0.1, temperature[0] * 0.999)
        return x.unflatten(1, (k, -1)), None

    return step


def mmoe(own: Weights, k: int) -> Step:
    """y_k = sum_e softmax(W_k x)_e f_e(x) over as many experts as towers, and at least two."""
    n = max(k, 2)
    stages, gates = own.copies("experts.stages", n), own.leaf("gates.weight")

    def step(x: Tensor) -> tuple[Tensor, Tensor | None]:
        gates_BKE = F.linear(x, gates).unflatten(1, (k, n)).softmax(-1)
        for stage in stages:
            x = stage(x)
        return torch.bmm(gates_BKE, x.unflatten(1, (n, -1))), None

    return step


def dselect_k(own: Weights, k: int) -> Step:
    """y_k = sum_e q_ke f_e(x), q_k = sum_s softmax(w_k)_s r_ks, and the entropy of all r as penalty.

    r_kse is the product over bits m of S(z_ksm) where bit m of e is 1, and of 1 - S(z_ksm) where it is 0.
    """
    codes_KSM, weights_KS = own.leaf("codes"), own.leaf("weights")
    n = 1 << codes_KSM.shape[2]
    stages = own.copies("experts.stages", n)
    bits_EM = (torch.arange(n)[:, None] >> torch.arange(codes_KSM.shape[2])) % 2 == 1

    def step(x: Tensor) -> tuple[Tensor, Tensor | None]:
        inside = codes_KSM.clamp(-0.5, 0.5)
        ones_KSM = -2 * inside**3 + 1.5 * inside + 0.5
        r_KSE = torch.where(bits_EM, ones_KSM.unsqueeze(2), 1 - ones_KSM.unsqueeze(2)).prod(-1)
        q_KE = torch.einsum("ks,kse->ke", weights_KS.softmax(1), r_KSE)
        for stage in stages:
            x = stage(x)
        y = torch.bmm(q_KE.expand(len(x), -1, -1), x.unflatten(1, (n, -1)))
        return y, -1e-3 * torch.special.xlogy(r_KSE, r_KSE.clamp(min=1e-12)).sum()

    return step


def own_and_shared(gates_BK2: Tensor, h_BEC: Tensor) -> Tensor:
    """g_k0 h_k + g_k1 h_K: each tower mixes an expert of its own with the last one, which all share."""
    return torch.baddbmm(gates_BK2[..., :1] * h_BEC[:, :-1], gates_BK2[..., 1:], h_BEC[:, -1:])


def cgc(own: Weights, k: int) -> Step:
    """y_k = sum_e softmax(W_k x)_e f_e(x) over one expert of tower k and a shared one."""
    stages, gates = own.copies("levels.fc3.stages", k + 1), own.leaf("gates.fc3.of_towers.weight")

    def step(x: Tensor) -> tuple[Tensor, Tensor | None]:
        gates_BK2 = F.linear(x, gates).unflatten(1, (k, 2)).softmax(-1)
        for stage in stages:
            x = stage(x)
        return own_and_shared(gates_BK2, x.unflatten(1, (k + 1, -1))), None

    return step


def ple(own: Weights, k: int) -> Step:
    """As `cgc` in each stage; what the gates give is the input of the next one, that of the shared expert too."""
    first, *others = STAGES
    stages = [
        own.alone(f"levels.{first}.stages.{first}"),
        *(own.grouped(f"levels.{name}.stages.{name}", k + 1) for name in others),
    ]
    gates = [
        own.leaf(f"gates.{first}.of_towers.weight"),
        *(own.maps(f"gates.{name}.of_towers.weight", k) for name in others),
    ]
    over_all = [own.leaf(f"gates.{name}.over_all.weight") for name in STAGES[:-1]]

    def step(x: Tensor) -> tuple[Tensor, Tensor | None]:
        h_BEC = stages[0](x).unflatten(1, (k + 1, -1))
        mixed = own_and_shared(F.linear(x, gates[0]).unflatten(1, (k, 2)).softmax(-1), h_BEC)
        shared = x
        for j in range(1, len(STAGES)):
            gate_BE = F.linear(shared, over_all[j - 1]).softmax(-1)
            shared = torch.bmm(gate_BE.unsqueeze(1), h_BEC).squeeze(1)
            inputs = torch.cat([mixed, shared.unsqueeze(1)], dim=1).flatten(1)
            h_BEC = stages[j](inputs).unflatten(1, (k + 1, -1))
            of_towers = each(mixed.flatten(1), gates[j]).unflatten(1, (k, 2)).softmax(-1)
            mixed = own_and_shared(of_towers, h_BEC)
        return mixed, None

    return step


def mtan(own: Weights, k: int) -> Step:
    """a_k^j = sigmoid(norm(W_h relu(norm(W_g [p_j ; f_j(a_k^{j-1})])))) * p_j, with one f_j for all towers."""
    trunk = [own.alone(f"shared.stages.{name}") for name in STAGES]
    extractors = [own.alone(f"extractors.{name}.stages.{name}") for name in STAGES[1:]]
    of_trunk = [own.leaf(f"attention.{name}.of_trunk.weight") for name in STAGES]
    of_tower = [own.maps(f"attention.{name}.of_tower.weight", k) for name in STAGES[1:]]
    inner = [own.norm(f"attention.{name}.norm_inner") for name in STAGES]
    mask = [own.maps(f"attention.{name}.mask.weight", k) for name in STAGES]
    outer = [own.norm(f"attention.{name}.norm_outer") for name in STAGES]

    def step(x: Tensor) -> tuple[Tensor, Tensor | None]:
        a_BKC = x  # only from the second stage on is there something to read
        for j, stage in enumerate(trunk):
            x = stage(x)
            read = F.linear(x, of_trunk[j])
            if j:
                found = extractors[j - 1](a_BKC.flatten(0, 1)).view(len(x), -1)
                read = read + each(found, of_tower[j - 1])
            masks = outer[j](each(inner[j](read).relu_(), mask[j])).sigmoid()
            a_BKC = masks.unflatten(1, (k, -1)) * x.unsqueeze(1)
        return a_BKC, None

    return step


def film(own: Weights, k: int) -> Step:
    """y_k = (1 + s_k) * x_k + b_k after each stage; one trunk reads the rows of all towers as one batch."""
    stages = [own.alone(f"shared.stages.{name}") for name in STAGES]

    def per_tower(values: Tensor) -> Tensor:
        return values.unflatten(0, (k, -1))

    scales = [own.leaf(f"modulations.{name}.scale", per_tower) for name in STAGES]
    shifts = [own.leaf(f"modulations.{name}.shift", per_tower) for name in STAGES]

    def step(x: Tensor) -> tuple[Tensor, Tensor | None]:
        rows, n_rows = x, len(x)
        for stage, scale_KC, shift_KC in zip(stages, scales, shifts, strict=True):
            h_BKC = stage(rows).unflatten(0, (n_rows, -1))
            rows = torch.addcmul(shift_KC, h_BKC, 1 + scale_KC).flatten(0, 1)
        return rows.unflatten(0, (n_rows, k)), None

    return step


def lora(own: Weights, k: int) -> Step:
    """y_k = (W + B_k A_k) x_k in each stage; all towers share the norms.

    W x is one row for all towers in the first stage. Later on, one weight W + B_k A_k for each tower is the faster way.
    """
    first, *others = STAGES
    shared = [
        own.leaf(f"shared.stages.{first}.map.weight"),
        *(own.leaf(f"shared.stages.{name}.map.weight", Tensor.t) for name in others),
    ]
    norms = [own.norm(f"shared.stages.{name}.norm") for name in STAGES]
    down = [
        own.leaf(f"adapters.{first}.down.weight"),
        *(own.maps(f"adapters.{name}.down.weight", k) for name in others),
    ]
    up = [own.maps(f"adapters.{name}.up.weight", k) for name in STAGES]

    def step(x: Tensor) -> tuple[Tensor, Tensor | None]:
        added = each(F.linear(x, down[0]), up[0]).unflatten(1, (k, -1))
        rows = norms[0]((F.linear(x, shared[0]).unsqueeze(1) + added).flatten(0, 1)).relu_()
        for j in range(1, len(STAGES)):
            weight_KFC = torch.baddbmm(shared[j].expand(k, -1, -1), down[j], up[j])
            rows = norms[j](each(rows.view(len(x), -1), weight_KFC).view(len(rows), -1)).relu_()
        return rows.view(len(x), k, -1), None

    return step


SCHEMES: Mapping[str, Callable[[Weights, int], Step]] = {
    made.__name__: made
    for made in (none, soft, cross_stitch, sluice, nddr, ltb, mmoe, dselect_k, cgc, ple, mtan, film, lora)
}
