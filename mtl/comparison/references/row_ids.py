"""The ids of the rows of a data set, by which predictions from elsewhere find their rows.

Shapes: n rows of the data, m rows that are asked for, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mtl.console import counted
from mtl.data.columns.inputs import KnownCodes
from mtl.data.columns.unseen import Unseen
from mtl.data.columns.values import texts
from mtl.data.files.table import Table
from mtl.data.types import Rows
from mtl.dataset.assemble import read_sources
from mtl.errors import UserError, quoted
from mtl.recipe.keys.recipe import Recipe

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN = 3
"""Most ids that a message shows."""


def id_column(recipe: Recipe) -> str:
    """The column of ids.

    Raises:
        UserError: the data have no ids, or the sources have them in columns of other names.
    """
    names = {name: source.row_ids() for name, source in recipe.data.by_name.items()}
    lacking = [name for name, column in names.items() if column is None]
    if lacking:
        where = f" of source {quoted(lacking[0])}" if len(names) > 1 else ""
        raise UserError(
            "", f"predictions from elsewhere are joined by the ids of rows, and the rows{where} have none",
            "name the column of ids in the recipe, as `id` of the source",
            path=("data", *recipe.data.path_of(lacking[0])),
        )  # fmt: skip
    found = list(dict.fromkeys(column for column in names.values() if column is not None))
    if len(found) > 1:
        what = f"the sources have ids in columns of several names: {', '.join(map(quoted, found[:SHOWN]))}"
        raise UserError("", what, "rename them to one", path=("data", "sources"))
    return found[0]


class AskedRows:
    """The rows that are asked for, and the rows of a file that name them by their ids.

    Args:
        recipe: the checked recipe, whose sources are read again for the ids.
        rows: the m rows that are asked for.

    Raises:
        UserError: two of these rows have one id, or one has none.
    """

    def __init__(self, recipe: Recipe, rows: Rows) -> None:
        self.column = id_column(recipe)
        codes, names = read_sources(recipe).extra(self.column)
        self.names: Sequence[str] = names or ()
        self.codes = codes.astype(np.int64)[rows]
        if (self.codes < 0).any():
            n = int((self.codes < 0).sum())
            what = f"no id in column {quoted(self.column)} of {counted(n, 'row')} of validation and test"
            raise UserError("", what, "give every row an id")
        counts = np.bincount(self.codes, minlength=len(self.names))
        if (counts > 1).any():
            twice = np.flatnonzero(counts > 1)
            what = f"column {quoted(self.column)} gives one id to several rows: {self.shown(twice)}"
            raise UserError("", what, "take a column in which every row has an id of its own")
        self.position = np.full(len(self.names) + 1, -1, np.int64)  # the last place is that of an unknown id
        self.position[self.codes] = np.arange(len(rows))
        self.unknown = Unseen(self.column, self.names[0])
        self.coder = KnownCodes(tuple(self.names), self.unknown)
        self.times = np.zeros(len(rows), np.int64)
        self.n_ignored = 0

    def add(self, file: Table, first: int, batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
        """(B,) which of the m rows each row of a batch is; -1 for another one.

        Raises:
            UserError: a row of the file has no id.
        """
        array = texts(file, self.column, first, batch.column(self.column))
        if array.null_count:
            row = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
            raise UserError(file.where(self.column, first + row), "the id is missing")
        position = self.position[self.coder.add(array)]
        np.add.at(self.times, position[position >= 0], 1)
        self.n_ignored += int((position < 0).sum())
        return position

    def shown(self, codes: npt.NDArray[np.int64]) -> str:
        """The first ids of these codes, and how many there are."""
        names = ", ".join(quoted(self.names[code]) for code in codes[:SHOWN].tolist())
        return names + (f" and {len(codes) - SHOWN:,} more" if len(codes) > SHOWN else "")

    def of(self, chosen: npt.NDArray[np.bool_]) -> str:
        """The ids of the chosen ones of the m rows, for a message."""
        return self.shown(self.codes[chosen])
