"""What a source hands over: the inputs, the raw labels by column, and the splits it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Header:
    """What is known of the data before a row is read; enough to build and check a model.

    Args:
        input_shape: shape of one row's input, `(C, H, W)` or `(F,)`.
        labels: the label columns; each with the names of its classes, where class c is the raw
            value c, or None where the source does not know them.
        row_counts: rows per given split (`train`, `validation`, `test`), where known.
        note: one line the user must see, such as that the data are generated.
    """

    input_shape: tuple[int, ...]
    labels: Mapping[str, tuple[str, ...] | None]
    row_counts: Mapping[str, int] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Columns:
    """The data, resident in memory, n rows.

    Args:
        inputs: (n, *input_shape), any real dtype; kept as the source stores it (uint8 for images).
        labels: column -> (n,) raw values.
        present: column -> (n,) bool, for those columns only in which a label may be missing.
        splits: `train`, `validation`, `test` -> row numbers, where the source gives them;
            a source without any leaves this empty.
        fingerprint: sha256 over everything above, in hex.
        ceiling: label column -> the best accuracy that any predictor can reach on the test split;
            known for generated data only.
    """

    inputs: Array
    labels: Mapping[str, Array]
    splits: Mapping[str, Rows]
    fingerprint: str
    present: Mapping[str, Mask] = field(default_factory=dict)
    ceiling: Mapping[str, float] = field(default_factory=dict)
