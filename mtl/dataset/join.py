"""Joins several sources: their rows follow one another, and a label is present only if the row's source has it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mtl.data import room
from mtl.data.columns.labels import called_together, narrow
from mtl.data.columns.spelling import Known, number, together
from mtl.data.types import Array, Columns, Header, Labels, Layout, Mask, Names, Rows, row_number, stable_order
from mtl.errors import UserError, quoted


@dataclass(frozen=True)
class Joined:
    """The columns of all sources; row r of source s is row `start[s] + r` here.

    Args:
        inputs: the rows of all sources.
        layout: the layout of a table's rows, with the values of all sources.
        sources: source name -> its columns.
        start: source name -> its first row.
        splits: the splits that the sources give.
        fingerprint: sha256 over the fingerprints of the sources.
    """

    inputs: Array
    layout: Layout | None
    sources: Mapping[str, Columns]
    start: Mapping[str, int]
    splits: Mapping[str, Rows]
    fingerprint: str

    @property
    def n_rows(self) -> int:
        """The number of rows of all sources."""
        return len(self.inputs)

    def streams(self) -> dict[str, range]:
        """Source name -> its rows."""
        return {name: range(rows.start, rows.stop) for name, rows in self._rows.items()}

    @property
    def _rows(self) -> dict[str, slice]:
        return {
            name: slice(start, start + len(self.sources[name].inputs)) for name, start in self.start.items()
        }

    def place(self, row: int) -> str:
        """The name of a row in messages."""
        name = [name for name, start in self.start.items() if start <= row][-1]
        columns = self.sources[name]
        place = columns.place(row - self.start[name])
        plain = len(self.sources) > 1 and columns.place is row_number
        return f"source {quoted(name)}, {place}" if plain else place

    def labels(self, columns: Sequence[str], source: str | None, header: Header) -> Labels:
        """One label column over all rows, or several side by side; a source without the column has no labels in it."""
        parts = [self._column(column, source, header) for column in columns]
        if len(parts) == 1:
            return parts[0]
        values = np.stack([part.values for part in parts], axis=1)
        return Labels(values, np.stack([part.present for part in parts], axis=1), place=self.place)

    def called(self, column: str, source: str | None, header: Header) -> tuple[Names, bool]:
        """The names of a label column's codes over all sources, and whether these names are the column's own values."""
        headers = {name: self._header(name, header) for name in self._holding(column, source)}
        # a source without any label knows no names, which says nothing about the names of the others
        known = [name for name, own in headers.items() if own.labels.get(column) != ()]
        text = any(column in headers[name].text for name in known or headers)
        return called_together([self._names(name, column, header, text) for name in known], text), text

    def _holding(self, column: str, source: str | None) -> dict[str, Columns]:
        held = {n: c for n, c in self.sources.items() if column in c.labels and source in (None, n)}
        if not held:
            where = f" in source {quoted(source)}" if source else ""
            raise UserError("", f"no column {quoted(column)}{where}", path=("target",))
        return held

    def _header(self, name: str, header: Header) -> Header:
        return self.sources[name].header or header.of(name)

    def _names(self, name: str, column: str, header: Header, text: bool) -> Names:
        """The names of one source's codes; its distinct numbers if other sources have text."""
        names = self._header(name, header).labels.get(column)
        if names is None and text:
            return tuple(_number_text(value) for value in self._numbers(name, column).tolist())
        return names

    def _numbers(self, name: str, column: str) -> Array:
        columns = self.sources[name]
        values, there = columns.labels[column], columns.present.get(column)
        return np.unique(values if there is None else values[there])

    def _column(self, column: str, source: str | None, header: Header) -> Labels:
        held = self._holding(column, source)
        called, text = self.called(column, source, header)
        if len(self.sources) == 1:
            ((name, only),) = held.items()
            values, there = only.labels[column], only.present.get(column)
            there = np.ones(len(values), dtype=bool) if there is None else there
            return Labels(values, _like(there, values), called, text, self.place)
        if called is None and not text:
            self._require_same_classes(column, {n: self._names(n, column, header, text) for n in held})
        parts = {name: self._coded(name, column, header, called, text) for name in held}
        shapes = {part.shape[1:] for part in parts.values()}
        if len(shapes) > 1:
            what = f"column {quoted(column)} lists labels in one source and holds single ones in another"
            raise UserError("", what, path=("target",))
        values = np.zeros((self.n_rows, *shapes.pop()), np.result_type(*parts.values()))
        present = np.zeros(self.n_rows, dtype=bool)
        for name, part in parts.items():
            own = held[name].present.get(column)
            rows = self._rows[name]
            values[rows], present[rows] = part, True if own is None else own
        return Labels(values, _like(present, values), called, text, self.place)

    def _require_same_classes(self, column: str, names: Mapping[str, Names]) -> None:
        known = [name for name, own in names.items() if own]
        if None not in names.values() and len({names[name] for name in known}) > 1:
            shown = " and ".join(map(quoted, known[:2]))
            raise UserError(
                "", f"sources {shown} have other classes in column {quoted(column)}",
                "give each task the source that it learns from", path=("target",),
            )  # fmt: skip

    def _coded(self, name: str, column: str, header: Header, called: Names, text: bool) -> Array:
        """The values of one source as codes into the names of all sources, if these are text."""
        values = self.sources[name].labels[column]
        if not text:
            return values
        if self._header(name, header).labels.get(column) is None:
            numbers = self._numbers(name, column)
            values = np.searchsorted(numbers, values)
            values[values == len(numbers)] = -1  # the value of a missing label
        return _renamed(values, self._names(name, column, header, text), called)

    def extra(self, column: str) -> tuple[Array, Names]:
        """A further column over all rows, and the names of its codes; a source without the column gets -1 or NaN."""
        held = {n: c for n, c in self.sources.items() if column in c.extra}
        if not held:
            raise UserError("", f"no column {quoted(column)} in the data")
        names = {n: c.extra_names.get(column) for n, c in held.items()}
        if len(self.sources) == 1:
            ((name, only),) = held.items()
            return only.extra[column], names[name]
        if all(own is None for own in names.values()):
            values = np.full(self.n_rows, np.nan)
            for name, columns in held.items():
                values[self._rows[name]] = columns.extra[column]
            return values, None
        called = stable_order(together(own or () for own in names.values()))
        codes = np.full(self.n_rows, -1, dtype=np.int64)
        for name, columns in held.items():
            codes[self._rows[name]] = _renamed(columns.extra[column], names[name], called)
        return codes, called

    def units(self) -> Rows | None:
        """(n,) codes of rows that always stay together; None if every row is a unit of its own."""
        if all(columns.units is None for columns in self.sources.values()):
            return None
        units = np.arange(self.n_rows)
        for name, columns in self.sources.items():
            if columns.units is not None:
                # units are numbered by their first rows, so that units of two sources always differ
                _, first, unit = np.unique(columns.units, return_index=True, return_inverse=True)
                units[self._rows[name]] = self.start[name] + first[unit]
        return units


def _number_text(value: float) -> str:
    """A number in the form in which a text column would hold it."""
    return number(str(value)) or str(value)


def _like(present: Mask, values: Array) -> Mask:
    return present if present.ndim == values.ndim else np.broadcast_to(present[:, None], values.shape)


def _renamed(codes: Array, own: Names, called: Names) -> Array:
    """Turn codes into `own` into codes into `called`; a missing one stays -1. For lists of labels, columns move."""
    known = Known(called or ())
    lookup = narrow(np.array([known.position_of(name) for name in own or ()] + [-1], dtype=np.int64))
    if codes.ndim == 2:
        moved = np.zeros((len(codes), len(known.position)), dtype=codes.dtype)
        moved[:, lookup[:-1].astype(np.int64)] = codes
        return moved
    return lookup[codes.astype(np.intp, copy=False)]


def join(sources: dict[str, Columns]) -> Joined:
    """The rows of several sources, one after the other; a single source keeps its own arrays.

    If a source gives splits, rows of other sources that are in no split are for training. Inputs are not held
    twice: in `sources` they become views into the joined rows, one source at a time.
    """
    start, n_rows = {}, 0
    for name, columns in sources.items():
        start[name] = n_rows
        n_rows += len(columns.inputs)
    layouts = [c.header.layout if c.header is not None else None for c in sources.values()]
    if len(sources) == 1:
        ((_, only),) = sources.items()
        return Joined(only.inputs, layouts[0], sources, start, only.splits, only.fingerprint)
    first = next(iter(sources.values())).inputs
    dtype = np.result_type(*(columns.inputs.dtype for columns in sources.values()))
    inputs = room.zeros((n_rows, *first.shape[1:]), dtype)
    splits: dict[str, list[Rows]] = {}
    any_given = any(columns.splits for columns in sources.values())
    for name, columns in list(sources.items()):
        own = inputs[start[name] : start[name] + len(columns.inputs)]
        own[:] = columns.inputs
        sources[name] = replace(columns, inputs=own)
        for split, rows in _completed(columns, any_given).items():
            splits.setdefault(split, []).append(rows + start[name])
    layout = layouts[0]
    if layout is not None:
        layout = _joined_layout(inputs, [x for x in layouts if x is not None], list(start.values()))
    digest = hashlib.sha256("".join(f"{n}={c.fingerprint};" for n, c in sources.items()).encode()).hexdigest()
    return Joined(inputs, layout, sources, start, {s: np.concatenate(r) for s, r in splits.items()}, digest)


def _completed(columns: Columns, any_given: bool) -> Mapping[str, Rows]:
    if not any_given or "train" in columns.splits:
        return columns.splits
    free = np.ones(len(columns.inputs), dtype=bool)
    for rows in columns.splits.values():
        free[rows] = False
    return {"train": np.flatnonzero(free), **columns.splits}


def _joined_layout(inputs: Array, layouts: Sequence[Layout], starts: Sequence[int]) -> Layout:
    """The values of all sources in a stable order; the codes in `inputs` are renumbered to it."""
    ends = [*starts[1:], len(inputs)]
    values = {}
    for i, name in enumerate(layouts[0].categorical):
        every = stable_order(together(layout.values[name] for layout in layouts))
        known = Known(every)
        column = inputs[:, layouts[0].n_numeric + i]
        for layout, start, end in zip(layouts, starts, ends, strict=True):
            own = (known.position_of(value) + 1 for value in layout.values[name])
            lookup = np.array([0, *own], dtype=np.float32)
            column[start:end] = lookup[column[start:end].astype(np.int64)]
        values[name] = every
    return replace(layouts[0], values=values)
