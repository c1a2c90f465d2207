"""The naive references agree with what the papers say of special cases, and with each other."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torchjd.aggregation import UPGrad
from torchjd.linalg import QuadprogProjector
from torchjd.scalarization import UW

from tests.support.reference_networks import (
    Attention,
    kendall_classification,
    kendall_regression,
    mmoe,
    mtan,
    split_parameters,
    stitched,
    upgrad_gradients,
    upgrad_gradients_mtl,
    uw_step_gradients,
)

EXACT = QuadprogProjector(norm_eps=0.0, reg_eps=1e-12)


@pytest.fixture(autouse=True)
def double_precision():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> None:
    assert_close(a, b, rtol=tolerance, atol=tolerance)


# MMoE


def test_mmoe_shapes():
    x = torch.randn(5, 7)
    experts = [nn.Linear(7, 4) for _ in range(3)]
    gates = [nn.Linear(7, 3, bias=False) for _ in range(2)]
    outputs = mmoe(x, experts, gates, [nn.Linear(4, 1), nn.Linear(4, 6)])
    assert [tuple(y.shape) for y in outputs] == [(5, 1), (5, 6)]


def test_mmoe_images():
    x = torch.randn(5, 3, 8, 8)
    experts = [nn.Conv2d(3, 4, 3, padding=1) for _ in range(2)]
    gates = [nn.Linear(3 * 8 * 8, 2, bias=False)]
    (mixed,) = mmoe(x, experts, gates, [nn.Identity()])
    assert mixed.shape == (5, 4, 8, 8)
    weight = torch.softmax(gates[0](x.flatten(1))[2], dim=0)
    close(mixed[2], weight[0] * experts[0](x)[2] + weight[1] * experts[1](x)[2])


def test_mmoe_with_one_expert_is_the_plain_network():
    x = torch.randn(5, 7)
    expert, heads = nn.Linear(7, 4), [nn.Linear(4, 2) for _ in range(3)]
    outputs = mmoe(x, [expert], [nn.Linear(7, 1) for _ in range(3)], heads)
    for y, head in zip(outputs, heads, strict=True):
        close(y, head(expert(x)))


def test_mmoe_with_zero_gates_averages_the_experts():
    x = torch.randn(5, 7)
    experts, gate = [nn.Linear(7, 4) for _ in range(3)], nn.Linear(7, 3, bias=False)
    nn.init.zeros_(gate.weight)
    (y,) = mmoe(x, experts, [gate], [nn.Identity()])
    close(y, sum(expert(x) for expert in experts) / 3)


# MTAN


def vector_attention(features: int, own: nn.Module | None) -> Attention:
    g = nn.Linear(features if own is None else 2 * features, features)
    return Attention(own, g, nn.BatchNorm1d(features), nn.Linear(features, features), nn.Identity())


def test_mtan_vectors():
    x = torch.randn(6, 5)
    blocks = [nn.Linear(5, 4), nn.Linear(4, 4)]
    attentions = [[vector_attention(4, None), vector_attention(4, nn.Linear(4, 4))] for _ in range(3)]
    outputs = mtan(x, blocks, attentions, [nn.Linear(4, n) for n in (1, 2, 3)])
    assert [tuple(y.shape) for y in outputs] == [(6, 1), (6, 2), (6, 3)]

    first, second = attentions[0]
    p1 = blocks[0](x)
    p2 = blocks[1](p1)
    a1 = torch.sigmoid(first.h(torch.relu(first.norm_g(first.g(p1))))) * p1
    joined = torch.cat([p2, second.own(a1)], dim=1)
    a2 = torch.sigmoid(second.h(torch.relu(second.norm_g(second.g(joined))))) * p2
    (by_hand,) = mtan(x, blocks, attentions[:1], [nn.Identity()])
    close(by_hand, a2)


def test_mtan_images():
    def stage(c_in: int, c_out: int) -> nn.Module:
        conv = nn.Conv2d(c_in, c_out, 3, padding=1)
        return nn.Sequential(nn.MaxPool2d(2), conv, nn.BatchNorm2d(c_out), nn.ReLU())

    def attention(c: int, own: nn.Module | None) -> Attention:
        g = nn.Conv2d(c if own is None else 2 * c, c, 1)
        return Attention(own, g, nn.BatchNorm2d(c), nn.Conv2d(c, c, 1), nn.BatchNorm2d(c))

    blocks = [stage(3, 4), stage(4, 8)]
    attentions = [[attention(4, None), attention(8, stage(4, 8))] for _ in range(2)]
    outputs = mtan(torch.randn(2, 3, 16, 16), blocks, attentions, [nn.Conv2d(8, 2, 1)] * 2)
    assert [tuple(y.shape) for y in outputs] == [(2, 2, 4, 4)] * 2


def test_mtan_with_open_masks_is_the_shared_network():
    x = torch.randn(6, 5)
    blocks = [nn.Linear(5, 4), nn.Linear(4, 4)]
    attentions = [[vector_attention(4, None), vector_attention(4, nn.Linear(4, 4))]]
    for attention in attentions[0]:
        nn.init.zeros_(attention.h.weight)
        nn.init.constant_(attention.h.bias, 50.0)
    head = nn.Linear(4, 2)
    close(mtan(x, blocks, attentions, [head])[0], head(blocks[1](blocks[0](x))))


# Cross-stitch


def make_alphas(values: Tensor) -> list[list[nn.Parameter]]:
    return [[nn.Parameter(value.clone()) for value in row] for row in values]


def make_towers(n: int, features: int = 4) -> list[list[nn.Module]]:
    def stage(f_in: int) -> nn.Module:
        return nn.Sequential(nn.Linear(f_in, features), nn.Tanh())

    return [[stage(5), stage(features), stage(features)] for _ in range(n)]


def test_stitched_with_identity_gives_separate_networks():
    x = torch.randn(6, 5)
    towers, heads = make_towers(2), [nn.Linear(4, n) for n in (1, 2, 3)]
    alphas = {0: make_alphas(torch.eye(2)), 2: make_alphas(torch.eye(2))}
    outputs = stitched(x, towers, alphas, heads, [0, 1, 0])
    assert [tuple(y.shape) for y in outputs] == [(6, 1), (6, 2), (6, 3)]
    for y, head, k in zip(outputs, heads, [0, 1, 0], strict=True):
        close(y, head(nn.Sequential(*towers[k])(x)))


def test_stitched_by_hand():
    x = torch.randn(6, 5)
    towers, values = make_towers(2), torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    outputs = stitched(x, towers, {1: make_alphas(values)}, [nn.Identity()] * 2, [0, 1])
    a, b = (tower[1](tower[0](x)) for tower in towers)
    close(outputs[0], towers[0][2](0.9 * a + 0.1 * b))
    close(outputs[1], towers[1][2](0.3 * a + 0.7 * b))


def test_gradient_of_alpha_follows_equation_1_not_3():
    x = torch.randn(6, 5)
    towers, alphas = make_towers(2), make_alphas(torch.rand(2, 2))
    outputs = stitched(x, towers, {2: alphas}, [nn.Identity()] * 2, [0, 1])
    outputs[0].sum().backward()
    close(alphas[0][1].grad, nn.Sequential(*towers[1])(x).sum())
    assert alphas[1][0].grad is None


# Uncertainty weighting


def test_uw_gradients_by_hand():
    weight = torch.randn(3, requires_grad=True)
    losses = [(weight - 1).square().sum(), (2 * weight + 1).square().sum()]
    uw = UW(2)
    with torch.no_grad():
        uw.log_var.copy_(torch.tensor([0.5, -1.0]))
    (gradient,), log_var = uw_step_gradients(losses, uw, [weight])

    first, second = 2 * (weight - 1), 4 * (2 * weight + 1)
    close(gradient, 0.5 * math.exp(-0.5) * first + 0.5 * math.exp(1.0) * second)
    close(log_var[0], 0.5 - 0.5 * math.exp(-0.5) * losses[0])
    close(log_var[1], 0.5 - 0.5 * math.exp(1.0) * losses[1])


def test_uw_is_the_regression_form():
    losses, uw = torch.rand(3), UW(3)
    nn.init.normal_(uw.log_var)
    close(uw(losses), kendall_regression(losses, uw.log_var).sum())


def test_uw_moved_by_log_2_is_the_classification_form():
    loss, s = torch.rand(1), torch.randn(1, requires_grad=True)
    uw = UW(1)
    with torch.no_grad():
        uw.log_var.copy_(s - math.log(2))
    term = kendall_classification(loss, s).sum()
    close(term, uw(loss) + 0.5 * math.log(2))
    close(torch.autograd.grad(term, s)[0], torch.autograd.grad(uw(loss), uw.log_var)[0])


def test_classification_form_is_exact_at_sigma_1():
    logits, s = torch.randn(4), torch.zeros(())
    exact = -torch.log_softmax(logits / torch.exp(s), dim=0)[1]
    close(kendall_classification(-torch.log_softmax(logits, dim=0)[1], s), exact)


# UPGrad


def stitched_problem(tower_of: list[int]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Losses, parameters, and the last stage's features before the last stitch, which is a site."""
    x, n_towers = torch.randn(6, 5), max(tower_of) + 1
    towers, heads = make_towers(n_towers), [nn.Linear(4, 1) for _ in tower_of]
    early = make_alphas(torch.eye(n_towers) * 0.8 + 0.1)
    late = make_alphas(torch.eye(n_towers) * 0.8 + 0.1)
    before = stitched(x, towers, {0: early}, [nn.Identity()] * n_towers, range(n_towers))
    mixed = [sum(alpha * f for alpha, f in zip(row, before, strict=True)) for row in late]
    after = [head(mixed[k]) for head, k in zip(heads, tower_of, strict=True)]
    losses = [(y - torch.randn(6, 1)).square().mean() for y in after]
    modules = [*(stage for tower in towers for stage in tower), *heads]
    parameters = [p for module in modules for p in module.parameters()]
    parameters += [alpha for rows in (early, late) for row in rows for alpha in row]
    return losses, parameters, before


PREFERENCES: list[Callable[[], Tensor | None]] = [
    lambda: None,
    lambda: torch.ones(3),
    lambda: torch.tensor([0.2, 1.5, 0.7]),
]


@pytest.mark.parametrize("preference", PREFERENCES)
@pytest.mark.parametrize("tower_of", [[0, 1, 2], [0, 1, 0]])
def test_both_upgrad_versions_agree(tower_of, preference):
    losses, parameters, _ = stitched_problem(tower_of)
    shared, own, unreached = split_parameters(losses, parameters)
    assert not unreached
    assert sum(map(len, own)) + len(shared) == len(parameters)
    by_hand = upgrad_gradients(losses, shared, own, preference())
    library = upgrad_gradients_mtl(losses, shared, own, preference())
    assert by_hand.keys() == library.keys() == set(parameters)
    for parameter in parameters:
        close(by_hand[parameter], library[parameter], 1e-6)


def test_mtl_backward_with_true_features_agrees():
    losses, parameters, features = stitched_problem([0, 1, 2])
    shared, own, _ = split_parameters(losses, parameters)
    assert [len(o) for o in own] == [2 + 3] * 3  # the head, and the task's row of the last alpha
    by_hand = upgrad_gradients(losses, shared, own)
    library = upgrad_gradients_mtl(losses, shared, own, features=features)
    for parameter in parameters:
        close(by_hand[parameter], library[parameter], 1e-6)


def test_shared_tower_makes_its_alpha_row_shared():
    losses, parameters, _ = stitched_problem([0, 1, 0])
    _, own, _ = split_parameters(losses, parameters)
    assert [len(o) for o in own] == [2, 2 + 2, 2]


def linear_losses(rows: Tensor) -> tuple[list[Tensor], Tensor]:
    """Losses whose Jacobian is exactly `rows`."""
    theta = torch.zeros(rows.shape[1], requires_grad=True)
    return [row @ theta for row in rows], theta


def test_own_parameters_get_the_plain_gradient_whatever_the_preference():
    theta, mine = torch.ones(2, requires_grad=True), torch.ones(1, requires_grad=True)
    losses = [theta.sum() * 3 * mine.sum(), -theta.sum()]
    result = upgrad_gradients(losses, [theta], [[mine], []], torch.tensor([0.1, 0.1]))
    close(result[mine], torch.tensor([6.0]))


def test_no_conflict_and_ones_gives_the_gradient_of_the_sum():
    rows = torch.rand(3, 5)
    losses, theta = linear_losses(rows)
    close(upgrad_gradients(losses, [theta], [[]] * 3, torch.ones(3))[theta], rows.sum(dim=0))
    close(upgrad_gradients(losses, [theta], [[]] * 3)[theta], rows.mean(dim=0))


def test_two_conflicting_rows_by_hand():
    rows = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    losses, theta = linear_losses(rows)
    dot = rows[0] @ rows[1]
    projected = [
        rows[0] - dot / rows[1].square().sum() * rows[1],
        rows[1] - dot / rows[0].square().sum() * rows[0],
    ]
    preference = torch.tensor([0.3, 2.0])
    expected = 0.3 * projected[0] + 2.0 * projected[1]
    result = upgrad_gradients(losses, [theta], [[], []], preference, EXACT)[theta]
    close(result, expected, 1e-8)
    default = upgrad_gradients(losses, [theta], [[], []], preference)[theta]
    assert 1e-6 < (default - expected).norm() / expected.norm() < 1e-2  # reg_eps


def test_exact_upgrad_never_conflicts_and_is_linear_in_the_preference():
    rows = torch.randn(4, 6) + torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    a, b = torch.rand(4), torch.rand(4)
    upgrad = {key: UPGrad(c, EXACT)(rows) for key, c in {"a": a, "b": b, "ab": a + b}.items()}
    assert (rows @ upgrad["a"]).min() > -1e-8
    close(upgrad["ab"], upgrad["a"] + upgrad["b"], 1e-8)


def test_zero_preference_still_protects():
    rows = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    direction = UPGrad(torch.tensor([1.0, 0.0]), EXACT)(rows)
    close(direction, torch.tensor([0.5, 0.5]), 1e-8)  # row 0 projected off its conflict with row 1


def test_small_jacobians_are_only_averaged():
    rows = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    small = rows * 0.0099 / rows.norm()
    close(UPGrad()(small), small.mean(dim=0))
    assert (small @ UPGrad()(small)).min() < 0
    assert (small @ UPGrad(None, EXACT)(small)).min() > -1e-12


def test_upgrad_is_stateless():
    rows, aggregator = torch.randn(3, 4), UPGrad()
    first = aggregator(rows)
    aggregator(torch.randn(3, 4))
    assert torch.equal(aggregator(rows), first)
    assert not aggregator.state_dict()
    assert not list(aggregator.parameters())


def test_wrong_preference_length_raises():
    with pytest.raises(ValueError, match="rows"):
        UPGrad(torch.ones(2))(torch.randn(3, 4))
