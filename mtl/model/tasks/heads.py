"""Output layers: one grouped head serves the tasks of one kind and output size.

Shapes: B batch, R readings, F features of one reading, T tasks of a group, O outputs per task.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl.model.layers import GroupedLinear
from mtl.model.parts import Dropout
from mtl.model.tasks.norm import through


class GroupedHead(nn.Module):
    """T output layers in one: logits_t = norm(W_t h_reading(t)).

    Args:
        tasks: the T tasks; the tasks of one reading stand side by side.
        readings: for each task the number of its reading, in ascending order, each below R.
        n_readings: R.
        width: F.
        n_outputs: O.
        norm: a norm of the outputs (B, T*O); without one the layer has a bias.
        hidden: for each hidden layer its number of features and its norm, or None; each layer ends in a ReLU.
        dropout: the rate on the readings and on the hidden layers; None: the rate of the network for all heads.

    Raises:
        ValueError: readings do not ascend, or one is not below R.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        readings: Sequence[int],
        n_readings: int,
        width: int,
        n_outputs: int,
        norm: nn.Module | None = None,
        *,
        hidden: Sequence[tuple[int, nn.Module | None]] = (),
        dropout: float | None = None,
    ) -> None:
        super().__init__()
        if list(readings) != sorted(readings) or not 0 <= readings[0] <= readings[-1] < n_readings:
            what = f"readings of a head's tasks ascend from 0 to {n_readings - 1} at most"
            raise ValueError(f"{what}, got {list(readings)}")
        self.tasks, self.n_outputs = tuple(tasks), n_outputs
        self.dropout = None if dropout is None else Dropout(dropout)
        self.take = Take(sorted(set(readings)), n_readings)
        layers: list[nn.Module] = []
        for features, hidden_norm in hidden:
            layer = self._linear(readings, width, features, bias=hidden_norm is None, first=not layers)
            parts = [layer, hidden_norm, nn.ReLU(), Dropout(dropout) if dropout else None]
            layers.append(nn.Sequential(*(part for part in parts if part is not None)))
            width = features
        self.hidden = nn.Sequential(*layers)
        self.linear = self._linear(readings, width, n_outputs, bias=norm is None, first=not layers)
        self.norm = norm if norm is not None else nn.Identity()

    def _linear(
        self, readings: Sequence[int], width: int, features: int, *, bias: bool, first: bool
    ) -> GroupedLinear:
        """A linear map for each task: the first one reads the trunk's readings, a later one the task's own features."""
        if not first:
            return GroupedLinear(len(self.tasks), width, features, bias=bias)
        counts = [list(readings).count(reading) for reading in sorted(set(readings))]
        return LinearOfReadings(counts, width, features, bias=bias)

    def forward(self, h: Tensor, present_BT: Tensor | None = None) -> Tensor:
        """(B, R, *shape) -> (B, T, O); `present_BT` tells which rows have a label, None that all have."""
        h_BRF = self.take(h.flatten(2))
        features = through(self.hidden, h_BRF.flatten(1), present_BT)
        logits = through(self.norm, self.linear(features), present_BT)
        return logits.view(-1, len(self.tasks), self.n_outputs)

    def extra_repr(self) -> str:
        return f"tasks={list(self.tasks)}, n_outputs={self.n_outputs}"


class Take(nn.Module):
    """R' chosen readings out of R, as a view if they lie side by side.

    Args:
        chosen: the numbers of the chosen readings, in ascending order.
        n_readings: R.
    """

    positions: Tensor

    def __init__(self, chosen: Sequence[int], n_readings: int) -> None:
        super().__init__()
        self.chosen, self.n_readings = tuple(chosen), n_readings
        self.is_slice = self.chosen == tuple(range(chosen[0], chosen[0] + len(chosen)))
        self.register_buffer("positions", torch.tensor(self.chosen, dtype=torch.long), persistent=False)

    def forward(self, h_BRF: Tensor) -> Tensor:
        """(B, R, F) -> (B, R', F)."""
        if len(self.chosen) == self.n_readings:
            return h_BRF
        if self.is_slice:
            return h_BRF.narrow(1, self.chosen[0], len(self.chosen))
        return h_BRF.index_select(1, self.positions)

    def extra_repr(self) -> str:
        return f"{list(self.chosen)} of {self.n_readings}"


class LinearOfReadings(GroupedLinear):
    """A linear map for each task, where several tasks may read one reading; no reading is copied for its tasks.

    The maps of all tasks of a reading form one map. A reading with fewer tasks than another one gets additional maps,
    and their outputs are dropped.

    Args:
        counts: for each reading the number of its tasks.
        in_features: features of one reading.
        out_features: outputs of one task.
        bias: whether each map has a bias.
    """

    rows: Tensor
    kept: Tensor

    def __init__(self, counts: Sequence[int], in_features: int, out_features: int, *, bias: bool) -> None:
        n_tasks, most = sum(counts), max(counts)
        self.even = all(count == most for count in counts)
        super().__init__(len(counts), in_features, most * out_features, bias=bias)
        if self.even:
            return
        self.weight = nn.Parameter(torch.empty(n_tasks * out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(n_tasks * out_features)) if bias else None
        with torch.device("cpu"):  # boolean masks need values; the meta device has none
            filled = torch.zeros(len(counts), most, dtype=torch.long)
            is_task = torch.arange(most) < torch.tensor(counts)[:, None]
            filled[is_task] = torch.arange(n_tasks)
            outputs = torch.arange(out_features)
        rows = (filled[..., None] * out_features + outputs).flatten()
        kept = is_task[..., None].expand(-1, -1, out_features).flatten().nonzero().squeeze(1)
        self.register_buffer("rows", rows.to(self.weight.device), persistent=False)
        self.register_buffer("kept", kept.to(self.weight.device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, R*F) -> (B, T*O)."""
        if self.even:
            return super().forward(x)
        y = self.mapped(x, self.weight.index_select(0, self.rows)).index_select(1, self.kept)
        return y if self.bias is None else y + self.bias
