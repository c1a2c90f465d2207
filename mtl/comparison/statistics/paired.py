"""The arithmetic of paired comparisons, for many comparisons side by side.

Shapes: ... comparisons side by side, k seeds, R bootstrap replicates. Everything is oriented: more is better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

Array = npt.NDArray[np.float64]

ROUNDING = 2.0**-20
"""A spread below this share of the values is rounding: metrics may have been summed in single precision."""


@dataclass(frozen=True)
class Evidence:
    """What k paired differences, and the bootstrap over test rows, say about the true difference.

    Two standard errors are kept apart. The seeds' is `s / sqrt(k)` with k - 1 degrees of freedom (Student 1908). That
    of new rows adds the rows' variance,

        se^2 = s^2 / k + u^2,   df = se^4 / ((s^2 / k)^2 / (k - 1) + u^4 / (n_units - 1))

    (Welch 1938, Satterthwaite 1946). Both tests must pass: a p-value here is the larger of the two, since a claim about
    new rows that the present rows do not bear out would be an artefact of the approximate degrees of freedom. If the
    test split is drawn anew for each seed, there is one standard error, `s^2 (1 / k + n_test / n_train)` with k - 1
    degrees of freedom (Nadeau and Bengio 2003).

    If all differences are equal, s says nothing. The p-value is then that of the signs, 2^-k on one side: exact when
    the differences scatter symmetrically (Fisher 1935).

    Args:
        mean: (...), the mean difference.
        sd: (...), the standard deviation of the differences, 0 where it is rounding or k = 1.
        k: the number of pairs.
        rows: (...), u, the rows' own standard error; None if unknown.
        n_units: rows, or groups of rows, that were resampled; None counts as very many.
        ratio: n_test / n_train if the split is drawn anew for each seed.
    """

    mean: Array
    sd: Array
    k: int
    rows: Array | None = None
    n_units: int | None = None
    ratio: float | None = None

    @property
    def se_seeds(self) -> Array:
        """(...), the standard error of the mean over seeds."""
        return np.asarray(self.sd * np.sqrt(1 / self.k + (self.ratio or 0.0)))

    @property
    def se(self) -> Array:
        """(...), the standard error for new seeds and new rows."""
        return self.se_seeds if self.rows is None else np.hypot(self.se_seeds, self.rows)

    @property
    def df(self) -> Array:
        """(...), the degrees of freedom of `se`, by Satterthwaite's approximation."""
        few = np.full(self.mean.shape, float(max(self.k - 1, 1)))
        if self.rows is None:
            return few
        many = 1e9 if self.n_units is None else max(self.n_units - 1.0, 1.0)
        return satterthwaite(self.se_seeds, few, self.rows, many)

    def p_above(self, point: float | Array) -> Array:
        """(...), the p-value of "the true difference is at most `point`"; small where it is larger."""
        gap = self.mean - point
        signs = np.where(gap > 0, 0.5**self.k, np.where(gap < 0, 1 - 0.5**self.k, 0.5))
        p = np.where(self.sd > 0, _upper_tail(gap, self.se_seeds, max(self.k - 1, 1)), signs)
        if self.rows is None:
            return np.asarray(p)
        return np.where(self.rows > 0, np.maximum(p, _upper_tail(gap, self.se, self.df)), p)

    def p_below(self, point: float | Array) -> Array:
        """(...), the p-value of "the true difference is at least `point`"; small where it is smaller."""
        return Evidence(-self.mean, self.sd, self.k, self.rows, self.n_units, self.ratio).p_above(-point)

    @property
    def p(self) -> Array:
        """(...), the two-sided p-value of "there is no difference"."""
        return np.asarray(np.minimum(1.0, 2 * np.minimum(self.p_above(0.0), self.p_below(0.0))))

    def p_equivalent(self, margin: float | Array) -> Array:
        """(...), the p-value of "the true difference is `margin` or more, in either direction".

        The larger of two one-sided p-values (Schuirmann 1987): small where the difference is certainly within.
        """
        within = np.asarray(margin, dtype=np.float64)
        return np.asarray(np.maximum(self.p_above(-within), self.p_below(within)))

    def half_seeds(self, level: float = 0.95) -> Array:
        """(...), half the width of the interval for another seed on this test set; 0 where s is 0."""
        return np.asarray(_quantile(max(self.k - 1, 1), level) * self.se_seeds)

    def half(self, level: float = 0.95) -> Array:
        """(...), half the width of the interval for new seeds and new rows, never less than `half_seeds`."""
        return np.maximum(self.half_seeds(level), _quantile(self.df, level) * self.se)


def satterthwaite(se_a: Array, df_a: Array, se_b: Array, df_b: float) -> Array:
    """The degrees of freedom of `se_a^2 + se_b^2` (Satterthwaite 1946); `df_a` where both are 0."""
    total = np.hypot(se_a, se_b)
    share = np.divide(se_a, total, out=np.ones_like(total), where=total > 0) ** 2
    return np.asarray(1 / (share**2 / df_a + (1 - share) ** 2 / df_b))


def gather(
    values: Array,
    against: Array,
    rows: Array | None = None,
    n_units: int | None = None,
    ratio: float | None = None,
) -> Evidence:
    """The evidence of paired values.

    Args:
        values: (..., k), the metric of one arm, oriented; (..., 1) if it has one value for all seeds.
        against: (..., k) or (..., 1), that of the other arm.
        rows: (...), from `rows_spread`.
        n_units: rows or groups that were resampled.
        ratio: n_test / n_train if the split is drawn anew for each seed.
    """
    difference = values - against
    k = difference.shape[-1]
    scale = np.maximum(np.abs(values).max(-1), np.abs(against).max(-1)) * ROUNDING
    mean = difference.mean(-1)
    sd = difference.std(-1, ddof=1) if k > 1 else np.zeros_like(mean)
    mean = np.where(np.abs(difference).max(-1) > scale, mean, 0.0)
    return Evidence(mean, np.where(sd > scale, sd, 0.0), k, rows, n_units, ratio)


def rows_spread(differences: Array, n_units: int | None = None) -> Array:
    """The standard error that test rows add to the mean over seeds: (..., k, R) -> (...).

        u^2 = mean over pairs of seeds i != j of cov_R(D_i, D_j),   D_i: replicates of the difference on seed i

    It is the bootstrap variance of the seed-averaged difference without its double count. On a row x the difference
    of seed i is g(x) + h_i(x). The noise of mean_x h_i is in the spread s of the seeds already, since each seed is
    measured on rows; the bootstrap variance of the average contains it a second time, divided by k. The covariance of
    two seeds has no such part. With var_i = var_R(D_i) and V = var_R(mean_i D_i) it is
    V - (mean_i var_i - V) / (k - 1), the rows' part of a crossed design of seeds and rows (Owen 2007, "The pigeonhole
    bootstrap"). Negative estimates are 0. With one seed it is var_R(D_1).

    The bootstrap's variance is too small by the factor (n_units - 1) / n_units, which is undone (Efron and Tibshirani
    1993, section 5.3).
    """
    k = differences.shape[-2]
    u2 = differences.mean(-2).var(-1, ddof=1)
    if k > 1:
        u2 = u2 - (differences.var(-1, ddof=1).mean(-1) - u2) / (k - 1)
    if n_units is not None and n_units > 1:
        u2 = u2 * n_units / (n_units - 1)
    return np.asarray(np.sqrt(np.maximum(u2, 0.0)))


def _upper_tail(gap: Array, se: Array, df: Array | float) -> Array:
    """P(T > gap / se) for Student's t; 0.5 where se is 0."""
    t = np.divide(gap, se, out=np.zeros_like(gap), where=se > 0)
    return np.asarray(special.stdtr(df, -t))


def _quantile(df: Array | float, level: float) -> Array:
    """The number of standard errors on each side of a two-sided interval."""
    return np.asarray(special.stdtrit(df, 0.5 + level / 2))
