"""Naive references of four multi-task networks and two ways of training them, from the papers.

Shape letters: B batch, N tasks, E experts, K towers, S stages, J blocks, F features, P parameters.
Every module is called on its own, in a Python loop; nothing is grouped, stacked or vectorised.
The networks need PyTorch only; the two training functions need torchjd 0.18.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torchjd.linalg import DualConeProjector
    from torchjd.scalarization import UW


# 1. Multi-gate Mixture-of-Experts


def mmoe(
    x: Tensor,
    experts: Sequence[nn.Module],
    gates: Sequence[nn.Linear],
    heads: Sequence[nn.Module],
) -> list[Tensor]:
    """Every task mixes all experts with its own softmax gate, then applies its own head.

    g^k(x) = softmax(W_gk x),   f^k(x) = sum_e g^k(x)_e f_e(x),   y_k = h^k(f^k(x))

    x is (B, ...); experts give (B, F) or (B, C, H, W); gates map the flattened x to (B, E).
    The paper's W_gk is a matrix (E, D) without a bias; `gates` may carry one, and it is used.

    Source: Ma et al. 2018 (KDD), section 4.2, doi:10.1145/3219819.3220007.
    """
    features = [expert(x) for expert in experts]
    outputs = []
    for gate, head in zip(gates, heads, strict=True):
        weights = torch.softmax(gate(x.flatten(start_dim=1)), dim=1)  # (B, E)
        mixture = torch.zeros_like(features[0])
        for e, feature in enumerate(features):
            one_per_sample = weights[:, e].reshape(-1, *[1] * (feature.ndim - 1))
            mixture = mixture + one_per_sample * feature
        outputs.append(head(mixture))
    return outputs


# 2. Multi-Task Attention Network


class Attention(nn.Module):
    """What task i owns at block j: its feature module f (None at block 1) and its mask's g and h."""

    def __init__(
        self,
        own: nn.Module | None,
        g: nn.Module,
        norm_g: nn.Module,
        h: nn.Module,
        norm_h: nn.Module,
    ) -> None:
        super().__init__()
        self.own, self.g, self.norm_g, self.h, self.norm_h = own, g, norm_g, h, norm_h

    def mask(self, features: Tensor) -> Tensor:
        """m = sigmoid(norm_h(W_h relu(norm_g(W_g features)))), every entry in (0, 1)."""
        hidden = torch.relu(self.norm_g(self.g(features)))
        return torch.sigmoid(self.norm_h(self.h(hidden)))


def mtan(
    x: Tensor,
    blocks: Sequence[nn.Module],
    attentions: Sequence[Sequence[Attention]],
    heads: Sequence[nn.Module],
) -> list[Tensor]:
    """Every task masks the features of every shared block, and its head reads the last masked ones.

    p_0 = x,   p_j = block_j(p_{j-1})
    m_i^1 = sigmoid(norm_h(W_h relu(norm_g(W_g p_1))))
    m_i^j = sigmoid(norm_h(W_h relu(norm_g(W_g [p_j ; f_i^j(a_i^{j-1})]))))   for j >= 2
    a_i^j = m_i^j * p_j,   y_i = head_i(a_i^J)

    attentions[i][j - 1] belongs to task i and block j; [;] joins along dim 1. No gradient is
    stopped: task i trains the shared blocks through p_j both as masked and as the mask's input.

    Source: Liu, Johns and Davison 2019 (CVPR), eq. 1 and 2, arXiv:1803.10704. The paper differs in:
    - Names: its a is the mask (here m) and its a-hat the masked features (here a).
    - f: the paper's f^(j) has no task index ("a shared feature extractor"): all tasks use the same
      f, one per block; only g_i and h_i are per task. Here every task has its own f. Passing one
      module as `own` to all tasks gives the paper's sharing.
    - What f is: 3x3 convolution, batch norm, ReLU, then pooling (encoder) or resizing (decoder) to
      the next block's resolution: one layer, no copy of the whole block.
    - u versus p: the mask reads u^(j), which figure 2 places earlier inside block j than the masked
      p^(j). In the authors' SegNet code u is the output of the encoder block's first convolution
      (in the decoder: of the unpooling) and p that of its last convolution, before pooling; the
      first mask reads u^(1) too. In their Wide-ResNet code, as here, u^(j) = p^(j).
    - Pooling: p^(j) is before the block's pooling. To match, start block j + 1 with it.
    - Last block: the authors' SegNet heads read a_i^J as here, but their Wide-ResNet heads read
      f(a_i^J), averaged over space.
    - The paper's decoder has attention modules too: those are further blocks in this form.
    """
    shared = []
    features = x
    for block in blocks:
        features = block(features)
        shared.append(features)

    outputs = []
    for task_attentions, head in zip(attentions, heads, strict=True):
        attended: Tensor | None = None
        for p, attention in zip(shared, task_attentions, strict=True):
            if attended is None:
                mask_input = p
            else:
                assert attention.own is not None, "every block after the first needs its own f"
                mask_input = torch.cat([p, attention.own(attended)], dim=1)
            attended = attention.mask(mask_input) * p
        outputs.append(head(attended))
    return outputs


# 3. Cross-stitch network


def stitched(
    x: Tensor,
    towers: Sequence[Sequence[nn.Module]],
    alphas: Mapping[int, Sequence[Sequence[nn.Parameter]]],
    heads: Sequence[nn.Module],
    tower_of: Sequence[int],
) -> list[Tensor]:
    """K towers run side by side and exchange features linearly after every stage that is a site.

    x_i = stage_i^s(y_i of stage s - 1),   y_i = sum_j alpha_s[i][j] x_j   (y_i = x_i where no site)
    output_t = head_t(y_{tower_of[t]} of the last stage)

    alphas[s] (s counted from 0) holds K x K scalar parameters; row i makes tower i's new features.

    Source: Misra et al. 2016 (CVPR), eq. 1, arXiv:1604.03539, for K = 2 towers and one head each.
    There, segmentation with normals has one alpha per channel, detection with attributes one per
    map (as here). Eq. 3 prints the gradient of alpha_AB as dL/dy_B x_A; eq. 1 gives dL/dy_A x_B.
    """
    features = [x for _ in towers]
    for s in range(len(towers[0])):
        features = [tower[s](feature) for tower, feature in zip(towers, features, strict=True)]
        if s in alphas:
            mixed = []
            for row in alphas[s]:
                total = torch.zeros_like(features[0])
                for alpha, feature in zip(row, features, strict=True):
                    total = total + alpha * feature
                mixed.append(total)
            features = mixed
    return [head(features[k]) for head, k in zip(heads, tower_of, strict=True)]


# 4a. Uncertainty weighting


def uw_step_gradients(
    losses: Sequence[Tensor], uw: UW, parameters: Sequence[Tensor]
) -> tuple[list[Tensor], Tensor]:
    """Gradients of torchjd's UW with respect to the parameters (a list) and the log variances (N,).

    UW(L) = sum_i (exp(-s_i) L_i + s_i) / 2,   s_i = log sigma_i^2, starting at 0
    d/dtheta = sum_i exp(-s_i)/2 dL_i/dtheta,   d/ds_i = (1 - exp(-s_i) L_i) / 2

    UW uses the regression form of Kendall et al. for every task, classification included: it cannot
    be told a task's kind. The first weights are thus 1/2, not 1. The s_i are the nn.Parameter
    `uw.log_var` in the default dtype; the optimizer must be given `uw.parameters()`. A parameter no
    loss reaches gets zeros.

    Source: torchjd 0.18.0, torchjd/scalarization/_uw.py.
    """
    total = uw(torch.stack(list(losses)))
    *gradients, log_var = torch.autograd.grad(
        total, [*parameters, uw.log_var], retain_graph=True, materialize_grads=True
    )
    return gradients, log_var


def kendall_regression(squared_error: Tensor, log_variance: Tensor) -> Tensor:
    """A regression task's term: Gaussian likelihood with mean f(x) and learned variance.

    L / (2 sigma^2) + log sigma = exp(-s) L / 2 + s / 2,   L = ||y - f(x)||^2,   s = log sigma^2

    Exact up to a constant for a single output; for D outputs the likelihood has D log sigma where
    the paper keeps one log sigma, so L is then best a mean over the outputs. Same as UW's term.

    Source: Kendall, Gal and Cipolla 2018 (CVPR), eq. 5 and 7, arXiv:1705.07115.
    """
    return 0.5 * torch.exp(-log_variance) * squared_error + 0.5 * log_variance


def kendall_classification(cross_entropy: Tensor, log_variance: Tensor) -> Tensor:
    """A classification task's term: softmax likelihood at temperature sigma^2, approximated.

    L / sigma^2 + log sigma = exp(-s) L + s / 2,   L = -log softmax(f(x))_c,   s = log sigma^2

    The exact term is -log softmax(f(x) / sigma^2)_c (eq. 9); the approximation, explicit in the
    paper, is an equality at sigma = 1. (The paper prints L without its minus sign.) With
    s' = s - log 2 this is UW's term at s' plus log(2) / 2: UW gives this form, and the same steps
    on s, when the log variances of its classification tasks start at -log 2 rather than 0.

    Source: Kendall, Gal and Cipolla 2018 (CVPR), eq. 10, arXiv:1705.07115.
    """
    return torch.exp(-log_variance) * cross_entropy + 0.5 * log_variance


# 4b. Jacobian descent with UPGrad


def split_parameters(
    losses: Sequence[Tensor], parameters: Sequence[Tensor]
) -> tuple[list[Tensor], list[list[Tensor]], list[Tensor]]:
    """Shared parameters (reached by two losses or more), each loss's own, and unreached ones."""
    shared: list[Tensor] = []
    own: list[list[Tensor]] = [[] for _ in losses]
    unreached: list[Tensor] = []
    gradients = [
        torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True) for loss in losses
    ]
    for p, parameter in enumerate(parameters):
        reaching = [i for i in range(len(losses)) if gradients[i][p] is not None]
        if len(reaching) >= 2:
            shared.append(parameter)
        elif len(reaching) == 1:
            own[reaching[0]].append(parameter)
        else:
            unreached.append(parameter)
    return shared, own, unreached


def upgrad_gradients(
    losses: Sequence[Tensor],
    shared: Sequence[Tensor],
    own: Sequence[Sequence[Tensor]],
    preference: Tensor | None = None,
    projector: DualConeProjector | None = None,
) -> dict[Tensor, Tensor]:
    """UPGrad's direction for the shared parameters and the plain gradient for each loss's own ones.

    J (N x P), row i = dL_i/dshared;   A(J) = sum_i c_i pi_J(J_i),   c = preference
    pi_J(g) = the point closest to g that no row of J conflicts with: argmin ||y - g||, J y >= 0
    J_i's projection is J^T w_i,   w_i = argmin v^T J J^T v  subject to  v >= e_i   (prop. 1)

    What torchjd makes of it: weights = sum_i argmin v^T G' v subject to v >= c_i e_i, with
    G' = G / trace(G) + reg_eps I and G = J J^T (but G' = reg_eps I where trace(G) < norm_eps);
    the result is weights @ J. The QPs run in float64; G is in J's dtype.
    - preference: c is used as given, never normalised; the result is linear in it (c >= 0). The
      default is the mean, 1/N each. c_i = 0 drops loss i's own gradient, but J_i still bounds the
      projections of the others. A wrong length raises ValueError; signs are not checked, and a
      negative c_i breaks the no-conflict guarantee.
    - no pair of rows conflicts: the weights are c exactly (all constraints are active, whatever
      reg_eps). So preference = ones gives the gradient of the sum of the losses, for shared and own
      parameters alike. The default gives 1/N of it for the shared ones; own ones keep weight 1.
    - reg_eps (1e-4): makes the QP strictly convex; the rows may then still conflict very slightly.
    - norm_eps (1e-4): compared with the *squared* Frobenius norm of J. Below it (||J|| < 0.01) the
      conflicts are silently ignored and the weights are c (for c >= 0).

    `own[i]` holds the parameters that only loss i reaches; `shared` must not be empty. The result
    maps parameter to gradient.

    Source: Quinton and Rey 2024, eq. 3 to 6, arXiv:2406.16232; torchjd 0.18.0,
    torchjd/aggregation/_upgrad.py and torchjd/_linalg/_dual_cone.py.
    """
    from torchjd.aggregation import UPGrad

    rows = []
    for loss in losses:
        row = torch.autograd.grad(loss, list(shared), retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([gradient.flatten() for gradient in row]))
    jacobian = torch.stack(rows)  # (N, P)
    direction = UPGrad(pref_vector=preference, projector=projector)(jacobian)  # (P,)

    result: dict[Tensor, Tensor] = {}
    start = 0
    for parameter in shared:
        piece = direction[start : start + parameter.numel()]
        result[parameter] = piece.reshape(parameter.shape)
        start += parameter.numel()
    for loss, parameters in zip(losses, own, strict=True):
        for parameter in parameters:
            (result[parameter],) = torch.autograd.grad(loss, parameter, retain_graph=True)
    return result


def upgrad_gradients_mtl(
    losses: Sequence[Tensor],
    shared: Sequence[Tensor],
    own: Sequence[Sequence[Tensor]],
    preference: Tensor | None = None,
    projector: DualConeProjector | None = None,
    features: Sequence[Tensor] | None = None,
) -> dict[Tensor, Tensor]:
    """The same as `upgrad_gradients`, through torchjd's own mtl_backward and jac_to_grad.

    mtl_backward puts each loss's own gradients in .grad and the Jacobian of the shared parameters
    in .jac; jac_to_grad combines all .jac at once into .grad. Both fields are cleared here.

    `features` is a cut of the graph: every path from a loss to a shared parameter must cross it
    (paths around it are dropped without a word). By default the shared parameters are their own
    cut, which is always right; then every loss walks the whole graph, so it must be retained.

    Source: torchjd 0.18.0, torchjd/autojac/_mtl_backward.py and _jac_to_grad.py.
    """
    from torchjd.aggregation import UPGrad
    from torchjd.autojac import jac_to_grad, mtl_backward

    parameters = [*shared, *(parameter for parameters in own for parameter in parameters)]
    for parameter in parameters:
        parameter.grad = None
    mtl_backward(
        list(losses),
        features=list(shared) if features is None else list(features),
        tasks_params=own,
        shared_params=shared,
        retain_graph=True,
    )
    jac_to_grad(shared, UPGrad(pref_vector=preference, projector=projector))

    result: dict[Tensor, Tensor] = {}
    for parameter in parameters:
        assert parameter.grad is not None
        result[parameter] = parameter.grad
        parameter.grad = None
    return result
