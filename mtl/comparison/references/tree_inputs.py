"""The inputs of a data set as boosted trees take them: raw numbers, and categories as categories.

Shapes: n rows, F inputs of one row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from mtl.data.learned import Float32
from mtl.data.types import Rows
from mtl.dataset.assemble import Dataset
from mtl.errors import UserError, quoted

MOST_CATEGORIES = 255
"""scikit-learn's trees take no more values of a category: it keeps a bin of one byte for each, and one for missing."""


class TreeInputs:
    """The rows of a data set for trees; the data set keeps its one matrix, and rows are copied when they are asked for.

    A missing number stays NaN. A category is its code; a missing value, or one that training never saw, becomes NaN
    too, which trees send to the better side. A category with more than 255 values keeps the 254 that are most frequent
    in the training rows, and all others become one.

    Args:
        dataset: the rows, whose inputs are not standardized.

    Raises:
        UserError: the input of a row is no vector.
    """

    def __init__(self, dataset: Dataset) -> None:
        shape = tuple(dataset.header.input_shape)
        if len(shape) > 1:
            raise UserError(
                "", f"trees read one vector of numbers a row, and the rows are images of shape {shape}",
                "leave the trees out of this comparison",
            )  # fmt: skip
        self.inputs = dataset.rows.inputs
        layout = dataset.learned.layout
        self.n_numeric = shape[0] if layout is None else layout.n_numeric
        self.lookups: list[Float32] = []
        self.told: list[str] = []
        if layout is not None:
            for i, name in enumerate(layout.categorical, start=self.n_numeric):
                self._learn(name, self._column(dataset.splits["train"], i), len(layout.values[name]))

    def _learn(self, name: str, codes: npt.NDArray[np.int64], n_values: int) -> None:
        self.lookups.append(categories_of(codes, n_values))
        if n_values > MOST_CATEGORIES:
            most = f"the {MOST_CATEGORIES - 1} most frequent stay, the others count as one"
            self.told.append(f"trees: column {quoted(name)} has {n_values:,} values; {most}")

    @property
    def categorical(self) -> list[int] | None:
        """The positions of the categories in a row; None without any."""
        return list(range(self.n_numeric, self.n_numeric + len(self.lookups))) or None

    def _column(self, rows: Rows, i: int) -> npt.NDArray[np.int64]:
        index = torch.from_numpy(rows).to(self.inputs.device)
        return self.inputs[index, i].cpu().numpy().astype(np.int64)

    def rows(self, rows: Rows) -> Float32:
        """(n, F) a copy of these rows."""
        index = torch.from_numpy(rows).to(self.inputs.device)
        x = self.inputs[index].float().cpu().numpy()
        for i, lookup in enumerate(self.lookups, start=self.n_numeric):
            x[:, i] = lookup[x[:, i].astype(np.int64)]
        return x


def categories_of(codes: npt.NDArray[np.int64], n_values: int) -> Float32:
    """(n_values + 1,) code -> the category that trees see; code 0 becomes NaN.

    Args:
        codes: those of the training rows, from which the frequencies come; of equal ones the lower code stays.
        n_values: the values with the codes 1, 2, ...
    """
    lookup = np.arange(-1, n_values, dtype=np.float32)
    if n_values > MOST_CATEGORIES:
        counts = np.bincount(codes, minlength=n_values + 1)[1:]
        kept = np.sort(np.argsort(-counts, kind="stable")[: MOST_CATEGORIES - 1])
        lookup[1:] = MOST_CATEGORIES - 1
        lookup[1 + kept] = np.arange(MOST_CATEGORIES - 1)
    lookup[0] = np.nan
    return lookup
