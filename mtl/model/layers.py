"""Layers for K towers at once: each tower is one group of channels.

Shapes: B batch, K towers, C channels and F features of one tower, H W positions. An activation is
(B, K*C, H, W) or (B, K*F), tower-major. Every parameter has K*out as its first dimension, so tower k owns the k-th of
K equal slices in every layer.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl.model.parts import channel_statistics, current_part, normalized
from mtl.model.towers import SeparateTowers

SETTLED = 1e-8
"""Running statistics are not corrected any more once their start has this weight, below the rounding of float32."""
LARGE_MAP = 1 << 16
"""Weights of one tower from which on a copy of their gradient takes longer than copies of activations."""


class GroupedLinear(nn.Module):
    """K linear maps in one batched matrix product, y_k = W_k x_k + b_k.

    Args:
        n_towers: K.
        in_features: features of one tower's input.
        out_features: features of one tower's output.
        shared_input: whether all towers read the same x, (B, in). Otherwise each tower reads its own, (B, K*in).
        bias: whether the layer adds b.
    """

    def __init__(
        self,
        n_towers: int,
        in_features: int,
        out_features: int,
        *,
        shared_input: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.n_towers, self.in_features, self.out_features = n_towers, in_features, out_features
        self.shared_input = shared_input
        self.weight = nn.Parameter(torch.empty(n_towers * out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(n_towers * out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, K*in), or (B, in) for a shared input -> (B, K*out)."""
        if self.shared_input or self.n_towers == 1:
            return F.linear(x, self.weight, self.bias)
        y = self.mapped(x, self.weight)
        return y if self.bias is None else y + self.bias

    def mapped(self, x: Tensor, weight: Tensor) -> Tensor:
        """(B, K*in) -> (B, K*out), where slice k of the weight (K*out, in) maps the input of tower k."""
        x_BKF = x.reshape(-1, self.n_towers, self.in_features)
        weight_KGF = weight.view(self.n_towers, self.out_features, self.in_features)
        if self.in_features * self.out_features < LARGE_MAP:
            return torch.bmm(x_BKF.transpose(0, 1), weight_KGF.transpose(1, 2)).transpose(0, 1).flatten(1)
        # W x, and not x W: the gradient of the weight then lies as the weight does, and is not copied
        return torch.bmm(weight_KGF, x_BKF.permute(1, 2, 0)).permute(2, 0, 1).flatten(1).contiguous()

    def extra_repr(self) -> str:
        shared = ", shared_input=True" if self.shared_input else ""
        return f"n_towers={self.n_towers}, {self.in_features} -> {self.out_features} each{shared}"


def grouped_conv(
    n_towers: int,
    channels_in: int,
    channels_out: int,
    *,
    kernel: int,
    stride: int,
    padding: int,
    shared_input: bool,
) -> nn.Conv2d:
    """One convolution computes those of K towers: `groups` keeps the towers apart, and a shared input is read once.

    The arguments describe one tower. The convolution has no bias, since a norm follows.
    """
    return nn.Conv2d(
        channels_in if shared_input else n_towers * channels_in,
        n_towers * channels_out,
        kernel,
        stride=stride,
        padding=padding,
        groups=1 if shared_input else n_towers,
        bias=False,
    )


class _Debiased(nn.modules.batchnorm._BatchNorm):
    """Batch norm whose running statistics are corrected for their start, as Adam corrects its moments.

    The moving average r_t = (1 - m) r_{t-1} + m x_t starts at 0 and is divided by 1 - (1 - m)^t, so that no average
    holds a part of the start. The momentum m_t = m / (1 - (1 - m)^t) gives the same numbers. Plain batch norm with
    a small m still evaluates mostly with its initial statistics after few steps.
    """

    settled = False

    def forward(self, x: Tensor) -> Tensor:
        """Input -> normalized input of the same shape."""
        if not self.training or self.settled or x.is_meta:
            return super().forward(x)
        momentum, rest = self.momentum or 0.0, self._rest()
        # from here on the correction is smaller than the rounding of float32, so the code skips the wait for the device
        self.settled = rest < SETTLED
        self.momentum = momentum / (1 - rest)
        try:
            return super().forward(x)
        finally:
            self.momentum = momentum

    def _rest(self) -> float:
        """The weight that the start has in the running statistics after the next batch."""
        assert self.num_batches_tracked is not None
        return float((1 - (self.momentum or 0.0)) ** (int(self.num_batches_tracked.max()) + 1))

    def settle(self) -> bool:
        """Whether the next batch needs no correction; this looks at the count of batches."""
        self.settled = self.settled or self._rest() < SETTLED
        return self.settled


def is_settled(model: nn.Module) -> bool:
    """Whether no norm corrects its running statistics any more."""
    return all(part.settle() for part in model.modules() if isinstance(part, _Debiased))


class _Synced(_Debiased):
    """Batch norm with the statistics of the whole batch where several processes share it; else plain batch norm."""

    def forward(self, x: Tensor) -> Tensor:
        """Input -> normalized input of the same shape."""
        part = current_part()
        if part is None or not self.training or x.is_meta:
            return super().forward(x)
        mean_C, var_C, n = channel_statistics(x, part)
        momentum = self.momentum or 0.0
        if not self.settled:
            rest = self._rest()
            self.settled, momentum = rest < SETTLED, momentum / (1 - rest)
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            self.num_batches_tracked += 1
            for running, value_C in ((self.running_mean, mean_C), (self.running_var, var_C * n / (n - 1))):
                assert running is not None
                running.lerp_(value_C.to(running.dtype), momentum)
        return normalized(x, mean_C, var_C, self.eps, self.weight, self.bias)


class SyncedBatchNorm1d(_Synced, nn.BatchNorm1d):
    """Batch norm of (B, F) over the rows of all processes."""


class SyncedBatchNorm2d(_Synced, nn.BatchNorm2d):
    """Batch norm of (B, C, H, W) over the rows of all processes."""


class DebiasedBatchNorm1d(_Debiased, nn.BatchNorm1d):
    """Debiased batch norm of (B, F)."""


class DebiasedBatchNorm2d(_Debiased, nn.BatchNorm2d):
    """Debiased batch norm of (B, C, H, W)."""


def grouped_norm(
    kind: str,
    n_groups: int,
    width: int,
    *,
    spatial: bool,
    eps: float,
    momentum: float,
    debias: bool = False,
    sync: bool = False,
) -> nn.Module | None:
    """A norm that treats each of `n_groups` groups of `width` channels on its own.

    batch: statistics per channel over the batch (and positions). layer: statistics per row over the channels (and
    positions) of one group, which is a group norm with one group per tower. none: the result is None.

    With `sync`, the statistics are those of the rows of all processes that train together.
    """
    channels = n_groups * width
    if kind == "batch" and sync:
        norm = (SyncedBatchNorm2d if spatial else SyncedBatchNorm1d)(channels, eps=eps, momentum=momentum)
        norm.settled = not debias
        return norm
    if kind == "batch":
        plain = nn.BatchNorm2d if spatial else nn.BatchNorm1d
        debiased = DebiasedBatchNorm2d if spatial else DebiasedBatchNorm1d
        return (debiased if debias else plain)(channels, eps=eps, momentum=momentum)
    if kind == "layer":
        return nn.GroupNorm(n_groups, channels, eps=eps)
    return None


def derived_seed(*parts: object) -> int:
    """A 63-bit seed that depends on every part: the first bytes of the sha256 of their texts."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def drawn_from(*parts: object) -> Iterator[None]:
    """Random draws inside the context come from a seed made of `parts`; afterwards the CPU generator is as before.

    This serves modules that draw their parameters when they are made, as torch's own do.
    """
    with torch.random.fork_rng(devices=[]):  # parameters are made on the CPU
        torch.manual_seed(derived_seed(*parts))
        yield


# the standard deviation of a standard normal that is cut at 2; each draw is divided by it
_CUT_AT_2 = 0.8796256610342398


def init_weight(weight: Tensor, init: str, seed: int) -> None:
    """Fill one tower's slice of a weight, (out, in) or (out, in, h, w), from its own generator.

    he: normal with variance 2 / fan_in, cut at two standard deviations (He et al. 2015, eq. 10).
    xavier: uniform within sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, eq. 16).
    torch: uniform within 1 / sqrt(fan_in), as nn.Linear and nn.Conv2d draw.
    """
    fan_in = weight[0].numel()
    fan_out = weight.numel() // weight.shape[1]
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.empty(weight.shape)
    if init == "he":
        std = math.sqrt(2 / fan_in) / _CUT_AT_2
        nn.init.trunc_normal_(drawn, 0.0, std, -2 * std, 2 * std, generator=generator)
    elif init == "xavier":
        bound = math.sqrt(6 / (fan_in + fan_out))
        drawn.uniform_(-bound, bound, generator=generator)
    elif init == "torch":
        drawn.uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=generator)
    else:
        raise ValueError(f"unknown init {init!r}")
    with torch.no_grad():
        weight.copy_(drawn)


def init_weights(
    module: nn.Module, names: tuple[str, ...], init: str, *key: object, prefix: str = ""
) -> None:
    """Fill every weight of `module` group by group, the k-th slice from the seed of (*key, names[k], parameter).

    One-dimensional parameters (scales, shifts, biases) keep the values that their modules gave them. Separate towers
    draw their weights by their own rules, each from the seed of (*key, its name).
    """
    if isinstance(module, SeparateTowers):
        module.reset([derived_seed(*key, name, prefix) for name in names])
        return
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.ndim > 1 and not parameter.is_meta:
            slices = parameter.detach().unflatten(0, (len(names), -1))
            for k, tower in enumerate(names):
                init_weight(slices[k], init, derived_seed(*key, tower, prefix + name))
    for name, child in module.named_children():
        init_weights(child, names, init, *key, prefix=f"{prefix}{name}.")
