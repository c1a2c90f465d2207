"""Several sources as one: rows one after the other, a label present only where its source has it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mtl.data.columns import Array, Columns, Header, Labels, Layout, Mask, Rows
from mtl.errors import UserError, quoted


def joined_header(headers: Mapping[str, Header]) -> Header:
    """What is known of all sources together before rows are read.

    Raises:
        UserError: they do not give the same inputs; the path is relative to `data`.
    """
    (first_name, first), *others = headers.items()
    if not others:
        return first
    labels = dict(first.labels)
    for name, header in others:
        if header.input_shape != first.input_shape or _kinds(header.layout) != _kinds(first.layout):
            raise UserError(
                "",
                f"source {quoted(name)} gives inputs {header.input_shape}, source {quoted(first_name)} "
                f"{first.input_shape}: one network reads one kind of input",
                path=("data", "sources", name),
            )
        for column, names in header.labels.items():
            known = labels.get(column)
            both = names is not None and known is not None and column not in header.text | first.text
            labels[column] = known if both else names if column not in labels else None
    counts: dict[str, int] = {}
    for header in headers.values():
        for split, count in header.row_counts.items():
            counts[split] = counts.get(split, 0) + count
    notes = dict.fromkeys(header.note for header in headers.values() if header.note)
    columns = dict.fromkeys(c for header in headers.values() for c in header.columns or header.labels)
    return replace(
        first,
        labels=labels,
        row_counts=counts,
        note="; ".join(notes),
        text=frozenset().union(*(header.text for header in headers.values())),
        columns=tuple(columns),
    )


def _kinds(layout: Layout | None) -> object:
    return None if layout is None else replace(layout, values={})


@dataclass(frozen=True)
class Joined:
    """The columns of all sources; row r of source s is row `start[s] + r` here.

    Args:
        inputs: the rows of all.
        layout: of a table's rows, with the values of all sources.
        sources: source name -> its columns.
        start: source name -> its first row.
        splits: the splits that the sources give.
        fingerprint: sha256 over those of the sources.
    """

    inputs: Array
    layout: Layout | None
    sources: Mapping[str, Columns]
    start: Mapping[str, int]
    splits: Mapping[str, Rows]
    fingerprint: str

    @property
    def n_rows(self) -> int:
        """Rows of all sources."""
        return len(self.inputs)

    def streams(self) -> dict[str, Rows]:
        """Source name -> its rows."""
        return {
            name: np.arange(self.start[name], self.start[name] + len(columns.inputs))
            for name, columns in self.sources.items()
        }

    def place(self, row: int) -> str:
        """What a row is called in messages."""
        name = [name for name, start in self.start.items() if start <= row][-1]
        return self.sources[name].place(row - self.start[name])

    def labels(self, columns: Sequence[str], source: str | None, header: Header) -> Labels:
        """One label column over all rows, or several side by side; missing in sources without it."""
        parts = [self._column(column, source, header) for column in columns]
        if len(parts) == 1:
            return parts[0]
        values = np.stack([part.values for part in parts], axis=1)
        return Labels(values, np.stack([part.present for part in parts], axis=1), place=self.place)

    def _column(self, column: str, source: str | None, header: Header) -> Labels:
        held = {n: c for n, c in self.sources.items() if column in c.labels and source in (None, n)}
        if not held:
            raise UserError(
                "",
                f"no column {quoted(column)}" + (f" in source {quoted(source)}" if source else ""),
                path=("target",),
            )
        names = {n: (c.header or header).labels.get(column) for n, c in held.items()}
        text = any(c.header is not None and column in c.header.text for c in held.values())
        if len(held) == len(self.sources) == 1:
            ((name, only),) = held.items()
            values = only.labels[column]
            present = only.present.get(column)
            present = np.ones(len(values), dtype=bool) if present is None else present
            return Labels(values, _like(present, values), names[name], text, self.place)
        return self._over_all(column, held, names, text)

    def _over_all(
        self,
        column: str,
        held: Mapping[str, Columns],
        names: Mapping[str, tuple[str, ...] | None],
        text: bool,
    ) -> Labels:
        called: tuple[str, ...] | None = next(iter(names.values()))
        if text:
            called = tuple(sorted({value for own in names.values() for value in own or ()}))
        example = next(iter(held.values())).labels[column]
        width = (len(called),) if example.ndim == 2 and called is not None else ()
        kind = np.int64 if text else np.result_type(*(c.labels[column] for c in held.values()))
        values = np.zeros((self.n_rows, *width), dtype=kind)
        present = np.zeros(self.n_rows, dtype=bool)
        for name, columns in held.items():
            rows = slice(self.start[name], self.start[name] + len(columns.inputs))
            own = columns.labels[column]
            there = columns.present.get(column)
            present[rows] = True if there is None else there
            values[rows] = _renamed(own, names[name], called) if text else own
        return Labels(values, _like(present, values), called, text, self.place)

    def extra(self, column: str) -> tuple[Array, tuple[str, ...] | None]:
        """A further column over all rows and what its codes are called; -1 or NaN in sources without it."""
        held = {n: c for n, c in self.sources.items() if column in c.extra}
        if not held:
            raise UserError("", f"no column {quoted(column)} in the data")
        names = [c.extra_names.get(column) for c in held.values()]
        if all(own is None for own in names):
            values = np.full(self.n_rows, np.nan)
            for name, columns in held.items():
                values[self.start[name] : self.start[name] + len(columns.inputs)] = columns.extra[column]
            return values, None
        called = tuple(sorted({value for own in names for value in own or ()}))
        codes = np.full(self.n_rows, -1, dtype=np.int64)
        for (name, columns), own in zip(held.items(), names, strict=True):
            rows = slice(self.start[name], self.start[name] + len(columns.inputs))
            codes[rows] = _renamed(columns.extra[column], own, called)
        return codes, called

    def units(self) -> Rows | None:
        """Rows that always stay together, or None where every row stands for itself."""
        if all(columns.units is None for columns in self.sources.values()):
            return None
        units = np.arange(self.n_rows)
        for name, columns in self.sources.items():
            if columns.units is not None:
                rows = slice(self.start[name], self.start[name] + len(columns.inputs))
                units[rows] = self.start[name] + columns.units
        return units


def _like(present: Mask, values: Array) -> Mask:
    return present if present.ndim == values.ndim else np.broadcast_to(present[:, None], values.shape)


def _renamed(
    codes: Array, own: tuple[str, ...] | None, called: tuple[str, ...] | None
) -> npt.NDArray[np.int64]:
    """Codes into `own` as codes into `called`; a missing one stays -1. Lists of labels move their columns."""
    position = {name: i for i, name in enumerate(called or ())}
    lookup = np.array([position[name] for name in own or ()] + [-1], dtype=np.int64)
    if codes.ndim == 2:
        moved = np.zeros((len(codes), len(called or ())), dtype=np.int64)
        moved[:, lookup[:-1]] = codes
        return moved
    return lookup[codes.astype(np.int64)]


def join(sources: Mapping[str, Columns]) -> Joined:
    """The rows of several sources, one after the other; of a single source, its own arrays."""
    start, n_rows = {}, 0
    for name, columns in sources.items():
        start[name] = n_rows
        n_rows += len(columns.inputs)
    layouts = [c.header.layout if c.header is not None else None for c in sources.values()]
    if len(sources) == 1:
        ((_, only),) = sources.items()
        return Joined(only.inputs, layouts[0], sources, start, only.splits, only.fingerprint)
    inputs, layout = np.concatenate([columns.inputs for columns in sources.values()]), layouts[0]
    if layout is not None:
        layout = _joined_layout(inputs, [x for x in layouts if x is not None], list(start.values()))
    splits: dict[str, list[Rows]] = {}
    for name, columns in sources.items():
        for split, rows in columns.splits.items():
            splits.setdefault(split, []).append(rows + start[name])
    digest = hashlib.sha256("".join(f"{n}={c.fingerprint};" for n, c in sources.items()).encode()).hexdigest()
    return Joined(inputs, layout, sources, start, {s: np.concatenate(r) for s, r in splits.items()}, digest)


def _joined_layout(inputs: Array, layouts: Sequence[Layout], starts: Sequence[int]) -> Layout:
    """The values of all sources in a stable order, and the codes in `inputs` renumbered by it."""
    ends = [*starts[1:], len(inputs)]
    values = {}
    for i, name in enumerate(layouts[0].categorical):
        every = sorted({value for layout in layouts for value in layout.values[name]})
        position = {value: code for code, value in enumerate(every, start=1)}
        column = inputs[:, layouts[0].n_numeric + i]
        for layout, start, end in zip(layouts, starts, ends, strict=True):
            lookup = np.array([0, *(position[value] for value in layout.values[name])], dtype=np.float32)
            column[start:end] = lookup[column[start:end].astype(np.int64)]
        values[name] = tuple(every)
    return replace(layouts[0], values=values)
