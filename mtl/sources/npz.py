"""Arrays in one .npz file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import Field

from mtl.data.fingerprint import fingerprint
from mtl.data.types import Array, Columns, Header, Layout, Mask, Wanted
from mtl.errors import UserError, quoted
from mtl.recipe.specs import SOURCES, DataPath, SourceSpec

ArrayName = Annotated[str, Field(min_length=1, max_length=200)]


@SOURCES.register("npz")
class Npz(SourceSpec):
    """Inputs (n, F) or (n, C, H, W) and label arrays (n,) by name; objects are never unpickled.

    A label is a number or text; NaN and empty text are missing.
    """

    reference: ClassVar[str] = "ours"
    example: ClassVar[Mapping[str, Any]] = {"path": "four.npz"}
    can_be_stored: ClassVar[bool] = True

    path: DataPath = Field(description="the .npz file, or its address")
    inputs: ArrayName = Field("inputs", description="the array of inputs")
    id: ArrayName | None = Field(
        None, description="an array that names rows; one id may not be in two splits"
    )

    def input_array(self) -> str:
        return self.inputs

    def elsewhere(self, path: str, layout: Layout | None) -> SourceSpec | None:
        return self.model_copy(update={"path": path})

    def row_ids(self) -> str | None:
        return self.id

    def stamp(self) -> str:
        from mtl.data.files.opening import opened
        from mtl.data.files.remote.fetch import local

        return opened(local(self.path)).sha256

    def header(self) -> Header:
        from mtl.data.columns.arrays import require_numbers
        from mtl.data.files.npz import archive, require_array
        from mtl.data.files.remote.fetch import local

        opened = archive(local(self.path))
        file, found = opened.name, opened.headers
        require_array(file, self.inputs, found, path=("inputs",))
        shape, dtype = found[self.inputs]
        what = f"array {quoted(self.inputs)} has shape {shape}"
        if len(shape) not in (2, 4):
            raise UserError(file, f"{what}; inputs are (n, F) or (n, C, H, W)", path=("inputs",))
        if 0 in shape:
            raise UserError(file, "no rows" if shape[0] == 0 else what, path=("inputs",))
        require_numbers(file, self.inputs, dtype, path=("inputs",))
        columns = tuple(name for name in found if name != self.inputs)
        return Header(tuple(shape[1:]), dict.fromkeys(columns), columns=columns)

    def columns(self, seed: int) -> Columns:
        from mtl.data.files.npz import archive
        from mtl.data.files.remote.fetch import local

        found = archive(local(self.path)).headers
        n_rows = found[self.inputs][0][:1] if self.inputs in found else ()
        labels = [name for name, (shape, _) in found.items() if name != self.inputs and shape == n_rows]
        return self.read(seed, Wanted(dict.fromkeys(labels, "classes")))

    def read(self, seed: int, wanted: Wanted) -> Columns:
        from mtl.data.columns import arrays as array_columns
        from mtl.data.files import npz_stream
        from mtl.data.files.npz import archive
        from mtl.data.files.remote.fetch import local

        opened, header = archive(local(self.path)), self.header()
        file = opened.name
        needed = dict.fromkeys([self.inputs, *wanted.labels, *wanted.extra])
        found = dict(npz_stream.arrays(opened, list(needed)))
        inputs, notice = array_columns.input_rows(file, self.inputs, found.pop(self.inputs))
        for name, values in found.items():
            array_columns.require_one_each(file, name, values, len(inputs))
        labels: dict[str, Array] = {}
        present: dict[str, Mask] = {}
        called: dict[str, tuple[str, ...] | None] = {}
        for name, how in wanted.labels.items():
            labels[name], there, called[name] = array_columns.label_column(file, name, found[name], how)
            if not there.all():
                present[name] = there
        extra: dict[str, Array] = {}
        extra_names: dict[str, tuple[str, ...]] = {}
        for name, how in wanted.extra.items():
            if how == "codes":
                extra[name], extra_names[name] = array_columns.coded(file, name, found[name])
            else:
                read = array_columns.time_column if how == "times" else array_columns.number_column
                extra[name] = read(file, name, found[name])
        return Columns(
            inputs,
            labels,
            splits={},
            fingerprint=fingerprint(inputs, found, {}),
            present=present,
            header=replace(
                header,
                labels={**header.labels, **called},
                text=frozenset(name for name, names in called.items() if names is not None),
            ),
            extra=extra,
            extra_names=extra_names,
            place=lambda row: f"{file}:row {row}",
            notices=(notice,) if notice else (),
        )
