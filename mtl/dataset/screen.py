"""Leaves out the input columns of a table that tell nothing about any label, as far as the training rows show.

Shapes: n training rows, M outputs of all tasks, C columns, F numbers that a linear model reads of one row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mtl.data.types import Header, Layout, Rows, shown_columns
from mtl.dataset.join import Joined
from mtl.dataset.labels import TaskLabels
from mtl.errors import UserError
from mtl.recipe.specs import TaskSpec

MOST_BINS, ROWS_OF_A_BIN = 8, 20
"""A column of numbers has at most this many bins, and about this many rows or more in each."""
MOST_ROWS, MOST_NUMBERS = 50_000, 2**24
"""Training rows, and numbers of them (134 MB), that are tested; more rows are thinned out evenly."""
COMPARED_ROWS, COMPARED_NUMBERS, COMPARED_OUTPUTS, FOLDS = 1000, 2**22, 4, 5
"""Most rows, numbers and outputs of the comparison of linear models, and its folds."""
STRENGTHS = 10.0 ** np.arange(2, -4.5, -0.5)

Codes = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]


def screen(
    rate: float,
    joined: Joined,
    header: Header,
    train: Rows,
    specs: Mapping[str, TaskSpec],
    tasks: Mapping[str, TaskLabels],
) -> tuple[Joined, Header, list[str]]:
    """The same rows with the columns that tell something about a label.

    `p_values` tests each column alone, and `discoveries` says which ones stay. All columns stay if none does, or if a
    linear model of all of them predicts better than those that stay: then many columns tell a little each. A column
    that tells something only together with another one is left out. Columns of vectors always stay.

    Args:
        rate: the false discovery rate, the expected share of columns that tell nothing among those that stay.
        joined: the rows of all sources.
        header: their header.
        train: the training rows; no other row is looked at.
        specs: task -> its spec.
        tasks: task -> its labels.

    Returns:
        The rows and the header without the other columns, and a line that says which columns stay.

    Raises:
        UserError: the inputs are no table.
    """
    layout = joined.layout
    if layout is None:
        raise UserError("", "only the columns of a table can be screened", "remove this key")
    most = max(100, min(MOST_ROWS, MOST_NUMBERS // layout.width))
    if len(train) > most:
        train = train[np.linspace(0, len(train) - 1, most).astype(np.int64)]
    outputs = np.stack(
        [y for task, labels in tasks.items() for y in _outputs(specs[task], labels, train)]
    )  # fmt: skip
    names = [*layout.numeric, *layout.categorical]
    places = [*range(len(layout.numeric)), *range(layout.n_numeric, layout.width)]
    columns = joined.inputs[train][:, places].astype(np.float64)
    codes = [
        column.astype(np.int64) if name in layout.categorical else quantile_bins(column)
        for name, column in zip(names, columns.T, strict=True)
    ]
    stays = discoveries(p_values(codes, outputs), rate)
    if not stays.any():
        return joined, header, [f"screen: none of {len(names)} inputs tells anything by itself; all stay"]
    if not stays.all() and _all_are_better(columns, codes, len(layout.numeric), outputs, rate):
        return joined, header, [f"screen: many of {len(names)} inputs tell a little each; all stay"]
    kept = [name for name, there in zip(names, stays.tolist(), strict=True) if there]
    narrow, chosen = _narrowed(layout, kept, dict(zip(names, places, strict=True)))
    return (
        replace(joined, inputs=np.ascontiguousarray(joined.inputs[:, chosen]), layout=narrow),
        replace(header, layout=narrow, input_shape=(len(chosen),)),
        [f"screen: {len(kept)} of {len(names)} inputs stay: {shown_columns(kept)}"],
    )


def _narrowed(layout: Layout, kept: Sequence[str], places: Mapping[str, int]) -> tuple[Layout, list[int]]:
    """The layout with the kept columns, and their places in the raw rows; vectors stay."""
    vectors = range(len(layout.numeric), layout.n_numeric)
    narrow = replace(
        layout,
        numeric=tuple(name for name in layout.numeric if name in kept),
        categorical=tuple(name for name in layout.categorical if name in kept),
        values={name: values for name, values in layout.values.items() if name in kept},
    )
    return narrow, sorted([*vectors, *(places[name] for name in kept)])


def _outputs(spec: TaskSpec, labels: TaskLabels, train: Rows) -> list[Float64]:
    """(n,) the values of each output, NaN where there is none; a quantity and ordered classes count by their ranks."""
    there, target = labels.present[train], labels.targets[train].astype(np.float64)
    if labels.weight is not None:
        there = there & (labels.weight[train] > 0)
    if target.ndim == 2:
        return [np.where(there & (y >= 0), y, np.nan) for y in target.T]
    if spec.reads == "numbers" or spec.kind == "ordinal":
        ranks = np.full(len(target), np.nan)
        ranks[there] = mean_ranks(target[there])
        return [ranks]
    classes = np.unique(target[there])
    classes = classes[1:] if len(classes) == 2 else classes  # yes and no say the same
    return [np.where(there, target == value, np.nan) for value in classes]


def quantile_bins(column: Float64) -> Codes:
    """(n,) the bin of each number by the quantiles of the column; missing numbers have a bin of their own."""
    known = ~np.isnan(column)
    if not known.any():
        return np.zeros(len(column), np.int64)
    n_bins = max(2, min(MOST_BINS, int(known.sum()) // ROWS_OF_A_BIN))
    edges = np.unique(np.quantile(column[known], np.arange(1, n_bins) / n_bins))
    return np.where(known, np.searchsorted(edges, column, side="right"), len(edges) + 1)


def p_values(codes: Sequence[Codes], outputs_MN: Float64) -> Float64:
    """(C,) for each column the smallest p-value over the M outputs, times M (Bonferroni)."""
    there_MN = ~np.isnan(outputs_MN)
    return np.array(
        [
            len(outputs_MN)
            * min(p_value(code[there], y[there]) for y, there in zip(outputs_MN, there_MN, strict=True))
            for code in codes
        ]
    )


def p_value(codes: Codes, y: Float64) -> float:
    """The p-value of the analysis of variance of y between the bins of a column (Fisher 1925).

    F = (B between bins / (k - 1)) / (W within bins / (n - k)) has an F distribution if the k bins say nothing of y. Of
    ranks, this is the test of Kruskal and Wallis 1952 but for the distribution.
    """
    if len(y) < 3:
        return 1.0
    count, y = np.bincount(codes), y - y.mean()
    used = count > 0
    between = float((np.bincount(codes, weights=y)[used] ** 2 / count[used]).sum())
    within, k = float((y**2).sum()) - between, int(used.sum())
    if k < 2 or len(y) <= k or between <= 0:
        return 1.0
    if within <= 1e-12 * between:
        return 0.0
    from scipy import special  # it takes longer to load than torchmetrics

    return float(special.fdtrc(k - 1, len(y) - k, between / (k - 1) / (within / (len(y) - k))))


def mean_ranks(values: Float64) -> Float64:
    """(n,) the rank of each value from 1 on; equal values have the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Float64 = (counts.cumsum() - (counts - 1) / 2)[place]
    return ranks


def discoveries(p: Float64, rate: float) -> Mask:
    """(C,) the columns with the k smallest p-values, k the largest number with p_(k) <= rate * k / C.

    The expected share of columns that tell nothing among them is at most `rate` (Benjamini and Hochberg 1995).
    """
    order = np.argsort(p, kind="stable")
    passed = np.flatnonzero(p[order] <= rate * np.arange(1, len(p) + 1) / max(len(p), 1))
    found = np.zeros(len(p), bool)
    if passed.size:
        found[order[: passed[-1] + 1]] = True
    return found


def _all_are_better(
    columns: Float64, codes: Sequence[Codes], n_numeric: int, outputs_MN: Float64, rate: float
) -> bool:
    """Whether a linear model of all columns predicts better than an additive one of those that stay.

    Both are ridge regressions, judged by cross-validation; the second one reads the bins of its columns too. Each fold
    screens the columns anew, because columns that were chosen by the rows which judge them look too good.
    """
    sizes = [int(code.max()) + 1 for code in codes]
    widths = [1] * n_numeric + sizes[n_numeric:]
    most = max(50, min(COMPARED_ROWS, COMPARED_NUMBERS // sum(widths)))
    rows = np.linspace(0, len(columns) - 1, min(most, len(columns))).astype(np.int64)
    codes, outputs_MN = [code[rows] for code in codes], outputs_MN[:, rows]
    numbers = [_standardized(column[rows])[:, None] for column in columns.T[:n_numeric]]
    whole = np.concatenate([*numbers, *_one_hot(codes[n_numeric:], sizes[n_numeric:])], axis=1)
    compared = np.linspace(0, len(outputs_MN) - 1, min(COMPARED_OUTPUTS, len(outputs_MN))).astype(int)
    errors = np.zeros(2)
    for fold in range(FOLDS):
        held = np.arange(len(rows)) % FOLDS == fold
        stays = discoveries(p_values([code[~held] for code in codes], outputs_MN[:, ~held]), rate)
        some = np.flatnonzero(stays).tolist()
        bins = _one_hot([codes[c] for c in some], [sizes[c] for c in some])
        kept = np.concatenate(
            [np.zeros((len(rows), 0)), *(numbers[c] for c in some if c < n_numeric), *bins], axis=1
        )
        for y in outputs_MN[compared]:
            there, spread = ~np.isnan(y), np.nanvar(y)
            fit, judge = there & ~held, there & held
            if fit.sum() > 2 and judge.any() and spread > 0:
                for i, x in enumerate((whole, kept)):
                    found = _ridge(x[fit], y[fit], x[judge])
                    errors[i] += float(((found - y[judge]) ** 2).sum() / spread)
    return bool(errors[0] < errors[1])


def _one_hot(codes: Sequence[Codes], sizes: Sequence[int]) -> list[Float64]:
    """For each column (n, k): 1 where the row is in the bin."""
    return [np.eye(size)[code] for code, size in zip(codes, sizes, strict=True)]


def _standardized(column: Float64) -> Float64:
    """z-scores; a missing number becomes 0."""
    if np.isnan(column).all():
        return np.zeros(len(column))
    spread = np.nanstd(column)
    return np.nan_to_num((column - np.nanmean(column)) / (spread if spread > 0 else 1.0))


def _ridge(x: Float64, y: Float64, x_new: Float64) -> Float64:
    """Predictions of ridge regression at the strength of generalized cross-validation (Golub, Heath, Wahba 1979)."""
    n, mean = len(x), x.mean(0)
    centred = x - mean
    variance, axes = np.linalg.eigh(centred @ centred.T / n)
    along = axes.T @ (y - y.mean())

    def criterion(strength: float) -> float:
        left = strength / (variance.clip(0) + strength)
        return float(((left * along) ** 2).sum() / max(left.sum(), 1e-9) ** 2)

    strength = min(STRENGTHS.tolist(), key=criterion)
    dual = axes @ (along / (variance.clip(0) + strength)) / n
    prediction: Float64 = y.mean() + (x_new - mean) @ (centred.T @ dual)
    return prediction
