"""Generated tasks of known relatedness and known best accuracy; they show when sharing helps.

Shape letters: N rows, F features, T tasks, K latent dimensions of a task.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from mtl.console import counted, file_size
from mtl.data.fingerprint import fingerprint
from mtl.data.rows.order import generator_bits, order
from mtl.data.types import Array, Columns, Header, Mask
from mtl.errors import did_you_mean, quoted
from mtl.recipe.base import MAX_TASKS
from mtl.recipe.specs import SOURCES, SourceSpec, recipe_errors

Float64 = npt.NDArray[np.float64]

MAX_BYTES = 4_000_000_000
"""Most bytes of inputs, labels and masks."""
N_QUANTILES = 20_000
"""Draws that give the class borders; a class then has its share of rows within 1%."""


def _fractions(value: object) -> object:
    """Give one error for the three forms of `labelled`, instead of one per form."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else (value,)
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, int | float) or not 0 < part <= 1:
            what = f"a labelled fraction is a number above 0 and at most 1, got {quoted(part)}"
            raise PydanticCustomError("recipe", "{what}", {"what": what})
    return value


Fractions = Annotated[
    float | Annotated[tuple[float, ...], Field(max_length=256)] | dict[str, float],
    BeforeValidator(_fractions),
]


@SOURCES.register("synthetic")
class Synthetic(SourceSpec):
    """Gaussian inputs and `tasks` classification tasks, in columns `task0`, `task1`, ...

        x ~ N(0, I_F)        z_t = P_t^T x        s_t = sum_k a_tk |z_tk|        y_t = quantile bin of s_t

    P_t = sqrt(r) C + sqrt(1 - r) U_t, with r the relatedness: C (F x K) spans the subspace that all tasks
    share and U_t the task's own one. Columns of C and U_t are orthonormal and C is orthogonal to
    every U_t, so P_t is orthonormal whatever r is. The U_t are orthogonal to each other as long as
    F >= K (T + 1), and in groups of floor(F / K) - 1 tasks beyond. Then corr(z_tk, z_uk) = r for two
    tasks: r = 1 is one subspace for all with a readout a_t (unit norm) for each, r = 0 is none in common.

    s_t is even in x, so that a linear model is at chance. A class is one of `classes` equally likely bins.

    Noise replaces the labels of round(noise * n) random rows of a split by another class, each other
    class being equally likely. Given x, the label is the teacher's with probability 1 - noise and any
    other one with noise / (classes - 1), which is less if noise < 1 - 1/classes; so no predictor has a higher
    expected accuracy than the teacher, whose accuracy on the test split is exactly

        ceiling = 1 - round(noise * test_rows) / test_rows.

    Rows, teacher, noise and the choice of labelled rows come from separate random streams: more rows,
    tasks or labels leave what was there as it is.
    """

    reference: ClassVar[str] = "ours"
    example: ClassVar[Mapping[str, Any]] = {"rows": 20, "test_rows": 10, "features": 8}
    generated: ClassVar[bool] = True

    tasks: int = Field(2, ge=1, le=MAX_TASKS, description="number of tasks")
    relatedness: float = Field(
        0.5, ge=0, le=1, description="1: all tasks see one subspace; 0: nothing in common"
    )
    rows: int = Field(2000, ge=2, le=10_000_000, description="training rows")
    test_rows: int = Field(1000, ge=1, le=10_000_000, description="test rows, all labelled")
    features: int = Field(32, ge=2, le=4096, description="input dimension F")
    latent: int = Field(4, ge=1, le=16, description="dimensions K of x that one task depends on")
    classes: int = Field(2, ge=2, le=20, description="classes per task")
    labelled: Fractions = Field(
        1.0, description="fraction of training rows with a label: of every task, or per task (others 1.0)"
    )
    noise: float = Field(0.0, ge=0, lt=1, description="fraction of labels replaced by another class")
    seed: int | None = Field(None, ge=0, lt=1 << 63, description="seed of the data; default: the recipe's")

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        errors: list[tuple[tuple[str | int, ...], str]] = []
        if self.features < 2 * self.latent:
            needed = f"a shared and an own subspace of {self.latent} dimensions need {2 * self.latent}"
            errors.append((("features",), f"{self.features} features are too few: {needed}"))
        if self.noise >= 1 - 1 / self.classes:
            limit = f"with {self.classes} classes it must be below {1 - 1 / self.classes:.3g}"
            errors.append((("noise",), f"{self.noise:g} leaves nothing to learn: {limit}"))
        size = (self.rows + self.test_rows) * (4 * self.features + 9 * self.tasks)
        if size > MAX_BYTES:
            what = f"the data would take {file_size(size)}, at most {file_size(MAX_BYTES)} are generated"
            errors.append((("rows",), what))
        errors += self._labelled_errors()
        if errors:
            raise recipe_errors("synthetic", errors)
        return self

    def _labelled_errors(self) -> list[tuple[tuple[str | int, ...], str]]:
        if isinstance(self.labelled, Mapping):
            unknown = [name for name in self.labelled if name not in self.names()]
            if unknown:
                hint = did_you_mean(unknown[0], self.names())
                known = f"tasks are task0 to task{self.tasks - 1}"
                return [(("labelled", unknown[0]), f"no task {quoted(unknown[0])}; {known}{hint}")]
        if isinstance(self.labelled, tuple) and len(self.labelled) != self.tasks:
            return [
                (
                    ("labelled",),
                    f"{counted(len(self.labelled), 'fraction')} for {counted(self.tasks, 'task')}",
                )
            ]
        for name, count in zip(self.names(), self.labelled_counts(), strict=True):
            if count == 0:
                what = f"{name} has no labelled row ({counted(self.rows, 'row')} x {self._fraction(name):g})"
                return [(("labelled",), what)]
        return []

    def names(self) -> tuple[str, ...]:
        """The names of the label columns, one per task."""
        return tuple(f"task{t}" for t in range(self.tasks))

    def labelled_counts(self) -> tuple[int, ...]:
        """The number of labelled training rows of each task."""
        return tuple(_rounded(self._fraction(name) * self.rows) for name in self.names())

    def _fraction(self, name: str) -> float:
        if isinstance(self.labelled, Mapping):
            return self.labelled.get(name, 1.0)
        return self.labelled[int(name[4:])] if isinstance(self.labelled, tuple) else self.labelled

    def header(self) -> Header:
        classes = tuple(str(c) for c in range(self.classes))
        return Header(
            input_shape=(self.features,),
            labels=dict.fromkeys(self.names(), classes),
            row_counts={"train": self.rows, "test": self.test_rows},
            note=f"the data are generated (synthetic, relatedness {self.relatedness:g})",
        )

    def columns(self, seed: int) -> Columns:
        """Training rows, then test rows; a missing label is -1."""
        seed = seed if self.seed is None else self.seed
        n, n_train = self.rows + self.test_rows, self.rows
        inputs = np.empty((n, self.features), dtype=np.float32)
        _normal(seed, "train rows").standard_normal(out=inputs[:n_train], dtype=np.float32)
        _normal(seed, "test rows").standard_normal(out=inputs[n_train:], dtype=np.float32)
        classes_TN = self._teach(inputs, seed)
        labels: dict[str, Array] = {}
        present: dict[str, Mask] = {}
        for name, label, count in zip(self.names(), classes_TN, self.labelled_counts(), strict=True):
            self._add_noise(label[:n_train], seed, f"{name} train noise")
            self._add_noise(label[n_train:], seed, f"{name} test noise")
            if count < n_train:
                present[name] = np.ones(n, dtype=bool)
                present[name][order(n_train, seed, 0, f"synthetic {name} labelled")[count:]] = False
                label[~present[name]] = -1
            labels[name] = label
        rows = np.arange(n, dtype=np.int64)
        splits = {"train": rows[:n_train], "test": rows[n_train:]}
        ceiling = 1 - _rounded(self.noise * self.test_rows) / self.test_rows
        mark = fingerprint(inputs, labels, splits, present)
        return Columns(inputs, labels, splits, mark, present, dict.fromkeys(self.names(), ceiling))

    def _teach(self, inputs: Array, seed: int) -> npt.NDArray[np.int64]:
        """(T, N) the classes that the teacher gives, without noise."""
        K, T = self.latent, self.tasks
        a_TK = _normal(seed, "readouts").standard_normal((T, K))
        a_TK /= np.linalg.norm(a_TK, axis=1, keepdims=True)
        subspaces_FTK = subspaces(T, self.features, K, self.relatedness, seed)
        draws = np.abs(_normal(seed, "quantiles").standard_normal((N_QUANTILES, K)))
        borders_CT = np.quantile(draws @ a_TK.T, np.arange(1, self.classes) / self.classes, axis=0)
        classes_TN = np.empty((T, len(inputs)), dtype=np.int64)
        step = max(1, (1 << 22) // (T * K))
        for at in range(0, len(inputs), step):
            x_NF = inputs[at : at + step].astype(np.float64)
            z_NTK = np.tensordot(x_NF, subspaces_FTK, axes=1)
            score_TN = np.einsum("ntk,tk->tn", np.abs(z_NTK), a_TK)
            for t in range(T):
                classes_TN[t, at : at + step] = np.searchsorted(borders_CT[:, t], score_TN[t])
        return classes_TN

    def _add_noise(self, label_N: npt.NDArray[np.int64], seed: int, stream: str) -> None:
        """Replace the labels of some rows, in place, by other classes."""
        n = len(label_N)
        rows = order(n, seed, 0, f"synthetic {stream} rows")[: _rounded(self.noise * n)]
        raw = generator_bits(seed, 0, f"synthetic {stream} classes").random_raw(n)[rows]
        shift = 1 + (raw % np.uint64(self.classes - 1)).astype(np.int64)
        label_N[rows] = (label_N[rows] + shift) % self.classes


def subspaces(n_tasks: int, features: int, latent: int, relatedness: float, seed: int) -> Float64:
    """P_t of every task, (F, T, K): sqrt(r) C + sqrt(1 - r) U_t, as in `Synthetic`."""
    per_group = features // latent - 1
    common, own = _normal(seed, "common subspace"), _normal(seed, "own subspaces")
    common_KF = common.standard_normal((latent, features))
    P_FTK = np.empty((features, n_tasks, latent))
    for first in range(0, n_tasks, per_group):
        tasks = min(per_group, n_tasks - first)
        own_F = own.standard_normal((tasks * latent, features))
        Q, R = np.linalg.qr(np.concatenate([common_KF, own_F]).T)
        # the signs of Gram-Schmidt: more tasks then leave the first ones unchanged
        Q *= np.sign(np.diag(R))
        shared, owned = Q[:, :latent], Q[:, latent:].reshape(features, tasks, latent)
        P_FTK[:, first : first + tasks] = math.sqrt(relatedness) * shared[:, np.newaxis]
        P_FTK[:, first : first + tasks] += math.sqrt(1 - relatedness) * owned
    return P_FTK


def _normal(seed: int, stream: str) -> np.random.Generator:
    return np.random.Generator(generator_bits(seed, 0, f"synthetic {stream}"))


def _rounded(number: float) -> int:
    return math.floor(number + 0.5)
