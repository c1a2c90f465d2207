"""Z-scores: inputs minus the mean of the training split, divided by its standard deviation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from mtl.data.learned import Learned
from mtl.data.types import Array, Rows
from mtl.dataset.join import Joined
from mtl.errors import UserError
from mtl.recipe.keys.recipe import Recipe

Scale = Literal["per_feature", "per_channel", "none"]
Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

CHUNK = 1 << 20
"""Values held in float64 at once (8 MB)."""


def _place(row: int) -> str:
    return f"inputs:row {row}"


def fit(
    inputs: Array, rows: Rows, kind: Scale, place: Callable[[int], str] = _place
) -> tuple[Float32, Float32]:
    """Mean and standard deviation for `(x - mean) / std`.

        mean = 1/n sum_i x_i        std = sqrt(1/n sum_i (x_i - mean)^2)

    They are computed in float64 over chunks of rows, so that memory does not grow with the data. Means and
    sums of squares of two parts are joined as in Chan, Golub, LeVeque 1983, eq. 2.1. If all values are
    equal, std is 1.

    Args:
        inputs: (n, C, H, W) or (n, F), any real dtype.
        rows: the training rows.
        kind: the values that share one mean.
        place: row number -> its name in messages.

    Returns:
        mean and std, float32, which broadcast to one row: the row's shape (`per_feature`), (C, 1, 1)
        (`per_channel`), or all dimensions of length 1 (`none`: 0 and 1).

    Raises:
        UserError: a value is NaN, infinite, or too large for float32; or vectors are scaled
            per channel.
    """
    check_finite(inputs, rows, place)
    n_axes = inputs.ndim - 1
    if kind == "none":
        return np.zeros((1,) * n_axes, np.float32), np.ones((1,) * n_axes, np.float32)
    if kind == "per_channel" and n_axes < 2:
        raise UserError(
            "",
            f"per_channel needs inputs of shape (C, H, W), got ({', '.join(map(str, inputs.shape[1:]))},)",
            "write kind: per_feature",
            path=("kind",),
        )
    axes = (0,) if kind == "per_feature" else (0, *range(2, inputs.ndim))
    mean, std = _moments(inputs, rows, axes)
    with np.errstate(over="ignore"):
        mean32, std32 = mean.astype(np.float32), std.astype(np.float32)
    if not (np.isfinite(mean32).all() and np.isfinite(std32).all()):
        raise UserError("inputs", "hold values too large for float32", "scale them down")
    std32[std32 == 0] = 1
    return mean32, std32


def check_finite(inputs: Array, rows: Rows, place: Callable[[int], str] = _place) -> None:
    """Refuse inputs that are NaN or infinite.

    Raises:
        UserError: one of these rows holds such a value; the message names the first such row.
    """
    if not np.issubdtype(inputs.dtype, np.floating):
        return
    for part in _chunks(inputs, rows):
        bad = ~np.isfinite(inputs[part]).reshape(len(part), -1).all(axis=1)
        if bad.any():
            row = int(part[np.argmax(bad)])
            values = inputs[row][~np.isfinite(inputs[row])]
            more = "" if np.isnan(values[0]) else ", or a number too large for float32"
            raise UserError(place(row), f"holds {values[0]}{more}", "remove the row or fill the value")


def _moments(inputs: Array, rows: Rows, axes: tuple[int, ...]) -> tuple[Float64, Float64]:
    count = 0
    mean: Float64 | float = 0.0
    squares: Float64 | float = 0.0
    low: Float64 | float = np.inf
    high: Float64 | float = -np.inf
    with np.errstate(over="ignore", invalid="ignore"):
        for part in _chunks(inputs, rows):
            x = inputs[part].astype(np.float64)
            n = x.size // np.prod([x.shape[axis] for axis in range(x.ndim) if axis not in axes], dtype=int)
            part_mean = x.mean(axis=axes, keepdims=True)
            low = np.minimum(low, x.min(axis=axes, keepdims=True))
            high = np.maximum(high, x.max(axis=axes, keepdims=True))
            x -= part_mean
            np.square(x, out=x)
            gap = part_mean - mean
            total = count + n
            squares = squares + x.sum(axis=axes, keepdims=True) + gap * gap * (count * n / total)
            mean = mean + gap * (n / total)
            count = total
        # equality is tested on the values, because rounding leaves a tiny deviation to a constant such as 0.1
        std = np.where(low == high, 1.0, np.sqrt(squares / count))
    return np.asarray(mean)[0], std[0]


def _chunks(inputs: Array, rows: Rows) -> Iterator[Rows]:
    if len(rows) == 0:
        raise UserError("inputs", "there are no training rows to standardize with")
    values_per_row = max(1, inputs[0].size)
    step = max(1, CHUNK // values_per_row)
    for at in range(0, len(rows), step):
        yield rows[at : at + step]


def learn_inputs(recipe: Recipe, joined: Joined, splits: Mapping[str, Rows], learned: Learned) -> Learned:
    """`learned` with what the training rows say of the inputs: their layout, fillings, means and deviations."""
    scale = recipe.data.standardize.kind
    if joined.layout is not None:
        from mtl.data.columns.inputs import fit_layout  # it loads pyarrow, which only a table needs

        layout, mean, std, fill, indicators = fit_layout(
            cast(npt.NDArray[np.float32], joined.inputs),
            joined.layout,
            splits["train"],
            np.sort(np.concatenate(list(splits.values()))),
            scale != "none",
            joined.place,
        )
        return replace(learned, layout=layout, mean=mean, std=std, fill=fill, indicators=indicators)
    mean, std = fit(joined.inputs, splits["train"], scale, joined.place)
    for name, rows in splits.items():
        if name != "train":  # the training rows were checked before
            check_finite(joined.inputs, rows, joined.place)
    return replace(learned, mean=mean, std=std) if scale != "none" else learned
