"""Hashes the data of a run, so that the run notices when they change."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from mtl.data.types import Array, Mask, Rows
from mtl.errors import UserError, quoted


def fingerprint(
    inputs: Array,
    labels: Mapping[str, Array],
    splits: Mapping[str, Rows],
    present: Mapping[str, Mask] | None = None,
) -> str:
    """sha256, in hex, over names, dtypes, shapes and bytes of everything that a source gives.

    The order of columns and of splits does not change the hash.

    Raises:
        UserError: an array holds Python objects.
    """
    digest = hashlib.sha256()
    parts: dict[str, Mapping[str, Array]] = {
        "inputs": {"": inputs},
        "label": labels,
        "split": splits,
        "present": present or {},
    }
    for part, arrays in parts.items():
        for name in sorted(arrays):
            values = np.ascontiguousarray(arrays[name])
            if values.dtype.hasobject:
                what = f"{part} {quoted(name)} holds Python objects, which have no bytes of their own"
                raise UserError("", what, "let the source give numbers or numpy text (dtype U)")
            digest.update(f"{part}\0{name}\0{values.dtype.str}\0{values.shape}\0".encode())
            digest.update(values.view(np.uint8).data if values.size else b"")
    return digest.hexdigest()
