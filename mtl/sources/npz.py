"""Arrays in one .npz file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from mtl.data.columns import Array, Columns, Header, Mask, Rows, Wanted
from mtl.data.fingerprint import fingerprint
from mtl.errors import UserError, did_you_mean, quoted
from mtl.recipe.spec import SOURCES, FilePath, SourceSpec

ArrayName = Annotated[str, Field(min_length=1, max_length=200)]


@SOURCES.register("npz")
class Npz(SourceSpec):
    """Inputs (n, F) or (n, C, H, W) and label arrays (n,) by name; objects are never unpickled.

    A label is a number or text; NaN and empty text are missing."""

    reference: ClassVar[str] = "ours"

    path: FilePath = Field(description="the .npz file")
    inputs: ArrayName = Field("inputs", description="the array of inputs")
    id: ArrayName | None = Field(
        None, description="an array that names rows; one id may not be in two splits"
    )

    def input_array(self) -> str:
        return self.inputs

    def elsewhere(self, path: str) -> SourceSpec | None:
        return self.model_copy(update={"path": path})

    def row_ids(self) -> str | None:
        return self.id

    def header(self) -> Header:
        from mtl.data.npz import names

        path = Path(self.path)
        found = names(path)
        if self.inputs not in found:
            raise UserError(
                path.name,
                f"no array {quoted(self.inputs)}{did_you_mean(self.inputs, found)}; arrays: {', '.join(found)}",
                path=("inputs",),
            )
        shape, _ = found[self.inputs]
        if len(shape) not in (2, 4):
            raise UserError(
                path.name, f"array {quoted(self.inputs)} has shape {shape}; inputs are (n, F) or (n, C, H, W)",
                path=("inputs",),
            )  # fmt: skip
        columns = tuple(name for name, (s, _) in found.items() if name != self.inputs and s[:1] == shape[:1])
        return Header(tuple(shape[1:]), dict.fromkeys(columns), columns=columns)

    def columns(self, seed: int) -> Columns:
        header = self.header()
        return self.read(seed, Wanted(dict.fromkeys(header.labels, "classes")))

    def read(self, seed: int, wanted: Wanted) -> Columns:
        from mtl.data.npz import arrays

        path = Path(self.path)
        header = self.header()
        known = [name for name in (*wanted.labels, *wanted.extra) if name in header.columns]
        missing = [name for name in (*wanted.labels, *wanted.extra) if name not in header.columns]
        if missing:
            raise UserError(
                path.name, f"no array {quoted(missing[0])}{did_you_mean(missing[0], header.columns)}; "
                f"arrays: {', '.join(header.columns)}",
            )  # fmt: skip
        found = arrays(path, list(dict.fromkeys([self.inputs, *known])))
        inputs = found[self.inputs]
        inputs = inputs.astype(np.float32) if inputs.dtype == np.float64 else inputs
        labels: dict[str, Array] = {}
        present: dict[str, Mask] = {}
        names: dict[str, tuple[str, ...] | None] = {}
        extra: dict[str, Array] = {}
        extra_names: dict[str, tuple[str, ...]] = {}
        for name in wanted.labels:
            labels[name], there, names[name] = typed(path.name, name, found[name])
            if not there.all():
                present[name] = there
        for name, how in wanted.extra.items():
            if how == "codes":
                extra[name], extra_names[name] = coded(found[name])
            else:
                extra[name] = np.asarray(found[name], dtype=np.float64)
        mark = fingerprint(inputs, {n: found[n] for n in wanted.labels}, {}, {})
        header = Header(
            header.input_shape,
            {**header.labels, **names},
            text=frozenset(name for name, called in names.items() if called is not None),
            columns=header.columns,
        )
        return Columns(
            inputs, labels, {}, mark, present, header=header, extra=extra, extra_names=extra_names,
            place=lambda row: f"{path.name}:row {row}",
        )  # fmt: skip


def typed(file: str, name: str, values: Array) -> tuple[Array, Mask, tuple[str, ...] | None]:
    """A label array as numbers or codes, which of them are there, and what codes are called."""
    if values.ndim != 1:
        raise UserError(file, f"array {quoted(name)} has shape {values.shape}, labels are (n,)")
    if values.dtype.kind in "US":
        codes, names = coded(values)
        return codes, codes >= 0, names
    if values.dtype.kind == "b":
        return values.astype(np.int64), np.ones(len(values), dtype=bool), ("false", "true")
    there = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(len(values), dtype=bool)
    return values, there, None


def coded(values: Array) -> tuple[Rows, tuple[str, ...]]:
    """Values as codes in the order of their texts, -1 for an empty one."""
    texts = values.astype(str)  # bytes are taken as ASCII
    distinct, codes = np.unique(texts, return_inverse=True)
    if len(distinct) and distinct[0] == "":
        return codes.astype(np.int64) - 1, tuple(distinct[1:].tolist())
    return codes.astype(np.int64), tuple(distinct.tolist())
