"""A scheme's trunk beside the same scheme by hand: whether both compute the same, and what a step of each takes."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from time import process_time

import torch
from torch import Tensor, nn

from bench.hand_grouped.schemes import SCHEMES, Step
from bench.hand_grouped.weights import Weights
from bench.methods import schemes, trainer_of
from mtl.model.trunk import Trunk

BATCH, FEATURES = 128, 128
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Pair:
    """One scheme twice, with the same weights.

    Args:
        kind: the registered name of the scheme.
        trunk: the network of mtl, in training mode.
        own: the weights of the other one.
        by_hand: the other one.
    """

    kind: str
    trunk: Trunk
    own: Weights
    by_hand: Step

    def network_step(self, x: Tensor, cotangent: Tensor) -> Tensor:
        """Readings and penalty of the trunk, and the gradients of all weights -> the readings."""
        return _backward(self.trunk(x), self.trunk.penalty(), cotangent)

    def hand_step(self, x: Tensor, cotangent: Tensor) -> Tensor:
        """The same by hand."""
        return _backward(*self.by_hand(x), cotangent)

    def forget(self) -> None:
        """Drop all gradients."""
        for parameter in (*self.trunk.parameters(), *(leaf for leaf, _ in self.own.taken.values())):
            parameter.grad = None


def _backward(y: Tensor, penalty: Tensor | None, cotangent: Tensor) -> Tensor:
    if penalty is None:
        y.backward(cotangent)
    else:
        torch.autograd.backward((y, penalty), (cotangent, torch.ones_like(penalty)))
    return y


def trunk_of(kind: str, n_tasks: int) -> Trunk:
    """The trunk of a scheme with a tower for each task, by the settings of bench/methods.py."""
    model = trainer_of("vectors", n_tasks, schemes("vectors", n_tasks)[kind], {"kind": "sum"}).built.model
    return model.train().trunk


def beside(kind: str, trunk: Trunk, n_tasks: int) -> Pair:
    """A trunk, and the same scheme by hand with the same weights.

    Raises:
        AssertionError: the trunk has a weight that the code by hand leaves out.
    """
    own = Weights(trunk)
    by_hand = SCHEMES[kind](own, n_tasks)
    assert set(own.taken) == set(own.of_trunk), (kind, set(own.of_trunk) - set(own.taken))
    return Pair(kind, trunk, own, by_hand)


def require_same(kind: str, trunk: Trunk, n_tasks: int) -> None:
    """Compare two steps with the same batch, once as the network starts and once with every weight drawn at random.

    The comparison is in float64: in float32 rounding may move an activation over the kink of ReLU. Each tensor may
    differ by TOLERANCE of its largest entry.

    Raises:
        AssertionError: readings or gradients differ; the text says where.
    """
    for random in (False, True):
        copy = deepcopy(trunk).double()
        generator = torch.Generator().manual_seed(1)
        if random:  # some start at 0, which hides what they multiply
            for parameter in copy.parameters():
                nn.init.normal_(parameter, std=0.5, generator=generator)
        pair = beside(kind, copy, n_tasks)
        x, cotangent = batch(n_tasks, torch.float64)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)  # the noise of `ltb`
            expected = pair.network_step(x, cotangent)
            torch.manual_seed(2)
            _close(pair.hand_step(x, cotangent), expected, f"{kind}: readings")
        for name, (leaf, layout) in pair.own.taken.items():
            theirs = pair.own.of_trunk[name].grad
            assert leaf.grad is not None, (kind, name)
            assert theirs is not None, (kind, name)
            _close(leaf.grad, layout(theirs), f"{kind}: gradient of {name}")


def _close(found: Tensor, expected: Tensor, what: str) -> None:
    # a shift before a batch norm has a gradient of 0, in which nothing but rounding is left
    atol = max(TOLERANCE * expected.detach().abs().max().item(), 1e-9)
    torch.testing.assert_close(found, expected, rtol=0, atol=atol, msg=lambda text: f"{what}: {text}")


def batch(n_tasks: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """An input (B, F) and a cotangent of the readings (B, K, C), both from a standard normal."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, FEATURES, generator=generator, dtype=dtype)
    return x, torch.randn(BATCH, n_tasks, 32, generator=generator, dtype=dtype)


def timed(pair: Pair, x: Tensor, cotangent: Tensor, hand_first: bool) -> tuple[float, float]:
    """Seconds of CPU time of a step of the network, and of one by hand."""
    found = {}
    for by_hand in (hand_first, not hand_first):
        pair.forget()
        step = pair.hand_step if by_hand else pair.network_step
        began = process_time()
        step(x, cotangent)
        found[by_hand] = process_time() - began
    return found[False], found[True]
