"""The unit of learning to branch.

Shapes: B batch, K towers, C channels or features of one tower.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Branching(nn.Module):
    """y_i = sum_j d_ij x_j, where row i of d is a sample of a Gumbel-softmax over towers, or one tower in evaluation.

        d_i = softmax((logits_i + g) / temperature),   g_j = -log(-log u_j),   u_j uniform on (0, 1)

    Step s has the temperature max(coldest, temperature * decay^s). The paper anneals it too and gives no numbers.

    Source: Guo, Lee and Ulbricht 2020, arXiv:2006.01895, eq. 3 and 4.

    Args:
        n_towers: K.
        temperature: of the first step.
        decay: what is left of it after each step.
        coldest: its lower bound.
    """

    n_steps: Tensor

    def __init__(self, n_towers: int, temperature: float, decay: float, coldest: float) -> None:
        super().__init__()
        self.n_towers, self.temperature, self.decay, self.coldest = n_towers, temperature, decay, coldest
        self.logits = nn.Parameter(torch.zeros(n_towers, n_towers))
        self.register_buffer("n_steps", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        """Activations (B, K*C, ...) -> those that the towers go on with, of the same shape."""
        choice_KK = self._sampled() if self.training and not x.is_meta else self.tree().to(x.dtype)
        x_BK = x.unflatten(1, (self.n_towers, -1))
        return torch.einsum("ij,bj...->bi...", choice_KK, x_BK).flatten(1, 2)

    def _sampled(self) -> Tensor:
        steps = self.n_steps.to(self.logits.dtype)
        temperature = torch.clamp(self.temperature * self.decay**steps, min=self.coldest)
        self.n_steps += 1
        # drawn on the CPU, so that every device has the same numbers; a step begins at a state of its own
        uniform = torch.rand(self.n_towers, self.n_towers, device="cpu").clamp(1e-7, 1 - 1e-7).to(self.logits)
        gumbel = -torch.log(-torch.log(uniform))
        return torch.softmax((self.logits + gumbel) / temperature, dim=1)

    @torch.no_grad()
    def tree(self) -> Tensor:
        """(K, K): 1 where tower i goes on with the activation of tower j; of equal ones its own, then the first."""
        own = torch.eye(self.n_towers, device=self.logits.device, dtype=self.logits.dtype)
        best = self.logits == self.logits.amax(1, keepdim=True)
        chosen = (best.to(own.dtype) + own * best).argmax(1)
        return torch.nn.functional.one_hot(chosen, self.n_towers)

    @torch.no_grad()
    def sharing_matrix(self) -> Tensor:
        """(K, K): the probability that tower i goes on with the activation of tower j."""
        return self.logits.softmax(1)

    def rows_of(self, name: str) -> int:
        """The axis along which the parts of towers lie."""
        return 0

    def extra_repr(self) -> str:
        return f"n_towers={self.n_towers}, {self.temperature:g} * {self.decay:g}^step >= {self.coldest:g}"
