"""A source: rows that are made up by a formula, with a class and a count to learn."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

import mtl
from mtl.data.fingerprint import fingerprint
from mtl.data.types import Columns, Header


@mtl.register_source("waves")
class Waves(mtl.SourceSpec):
    """Noisy sine waves; labels are whether they are fast, and how many whole periods they have."""

    reference: ClassVar[str] = "ours"
    generated: ClassVar[bool] = True

    rows: int = Field(400, ge=10, le=1_000_000, description="a fifth of them are the test split")
    points: int = Field(16, ge=4, le=1024, description="samples of each wave")
    noise: float = Field(0.1, ge=0, le=10, description="standard deviation of each sample")

    def header(self) -> Header:
        n_test = self.rows // 5
        return Header(
            input_shape=(self.points,),
            labels={"fast": ("slow", "fast"), "periods": None},
            row_counts={"train": self.rows - n_test, "test": n_test},
            note="the data are generated (waves)",
        )

    def columns(self, seed: int) -> Columns:
        draw = np.random.default_rng(seed)
        frequency_N = draw.uniform(0.5, 4, self.rows)
        angle_NF = 2 * np.pi * frequency_N[:, None] * np.linspace(0, 1, self.points)
        inputs_NF = (np.sin(angle_NF) + self.noise * draw.standard_normal(angle_NF.shape)).astype(np.float32)
        labels = {"fast": (frequency_N > 2).astype(np.int64), "periods": np.floor(frequency_N)}
        rows, n_test = np.arange(self.rows), self.rows // 5
        splits = {"train": rows[n_test:], "test": rows[:n_test]}
        return Columns(inputs_NF, labels, splits, fingerprint(inputs_NF, labels, splits, {}))
