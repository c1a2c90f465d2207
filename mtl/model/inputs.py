"""The first layer of a network on tables: raw rows -> standardized numbers and categories.

Shapes: B batch, K towers, N numeric columns, C categorical columns, V values of all categories, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TableInputs(nn.Module):
    """This layer turns raw rows (B, N + C) into the numbers that the first stage reads.

    A missing number (NaN) becomes `fill`; then x = (x - mean) / std. Each indicator is 1 where its number was
    missing. A category with code 1..c becomes a one-hot vector of c numbers, or a vector that each tower learns. Code
    0 stands for every other value and becomes zeros, so a value that training never saw adds nothing.

    Args:
        mean, std, fill: (N,) of the numeric columns.
        indicators: positions of the numbers that have an indicator.
        n_values: c of each categorical column.
        embedding: D, or None for one-hot.
        n_towers: K.

    The result is (B, F), which all towers share. With embeddings it is (B, K*F), tower-major.
    """

    mean: Tensor
    std: Tensor
    fill: Tensor
    indicators: Tensor
    offsets: Tensor

    def __init__(
        self,
        mean: Tensor,
        std: Tensor,
        fill: Tensor,
        indicators: Sequence[int],
        n_values: Sequence[int],
        embedding: int | None,
        n_towers: int,
    ) -> None:
        super().__init__()
        self.n_numeric, self.n_values, self.n_towers = len(mean), tuple(n_values), n_towers
        self.embedding = embedding if n_values else None
        for name, values in (("mean", mean), ("std", std), ("fill", fill)):
            self.register_buffer(name, values)
        self.register_buffer(
            "indicators", torch.tensor(tuple(indicators), dtype=torch.long), persistent=False
        )
        starts = [sum(self.n_values[:j]) for j in range(len(self.n_values))]
        self.register_buffer("offsets", torch.tensor(starts, dtype=torch.long), persistent=False)
        self.n_codes = sum(self.n_values)
        if self.embedding is not None:
            self.weight = nn.Parameter(torch.empty(n_towers * self.n_codes, self.embedding))

    @property
    def per_tower(self) -> bool:
        """Whether each tower reads an input of its own."""
        return self.embedding is not None

    @property
    def width(self) -> int:
        """F, the number of features that one tower reads."""
        categories = self.n_codes if self.embedding is None else self.embedding * len(self.n_values)
        return self.n_numeric + len(self.indicators) + categories

    def forward(self, x: Tensor) -> Tensor:
        """Raw rows (B, N + C) -> (B, F), or (B, K*F) with embeddings."""
        x = x.to(self.mean.dtype)
        numbers = x[:, : self.n_numeric]
        missing = numbers.isnan()
        parts = [(torch.where(missing, self.fill, numbers) - self.mean) / self.std]
        if len(self.indicators):
            parts.append(missing.index_select(1, self.indicators).to(x.dtype))
        if not self.n_values:
            return torch.cat(parts, dim=1)
        codes_BC = x[:, self.n_numeric :].long()
        if self.embedding is None:
            return torch.cat([*parts, self._one_hot(codes_BC)], dim=1)
        shared = torch.cat(parts, dim=1)
        own_BKD = self._embedded(codes_BC)
        rows_BKF = torch.cat([shared.unsqueeze(1).expand(-1, self.n_towers, -1), own_BKD], dim=2)
        return rows_BKF.flatten(1)

    def _one_hot(self, codes_BC: Tensor) -> Tensor:
        """Codes (B, C) -> (B, V). Code 0 takes the place after the last one, which is then cut off."""
        place_BC = torch.where(codes_BC > 0, self.offsets + codes_BC - 1, self.n_codes)
        hot = torch.zeros(codes_BC.shape[0], self.n_codes + 1, dtype=self.mean.dtype, device=codes_BC.device)
        return hot.scatter(1, place_BC, 1.0)[:, :-1]

    def _embedded(self, codes_BC: Tensor) -> Tensor:
        """Codes (B, C) -> (B, K, C * D)."""
        known_BC = codes_BC > 0
        place_BC = torch.where(known_BC, self.offsets + codes_BC - 1, 0)
        tower_K = torch.arange(self.n_towers, device=codes_BC.device) * self.n_codes
        vectors_BKCD = F.embedding(place_BC.unsqueeze(1) + tower_K[:, None], self.weight)
        return (vectors_BKCD * known_BC[:, None, :, None]).flatten(2)

    def extra_repr(self) -> str:
        how = "one-hot" if self.embedding is None else f"{self.embedding}-d vectors"
        return f"{self.n_numeric} numbers, {len(self.indicators)} indicators, {len(self.n_values)} categories as {how}"
