"""Takes a data set apart into arrays and plain values, and puts it together again."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import TypeAdapter

from mtl.data import room
from mtl.data.learned import from_record
from mtl.data.types import Array, Header
from mtl.dataset.batch import Dataset, ResidentRows
from mtl.dataset.functions.derivation import Derivation
from mtl.dataset.functions.found import LabelFunction
from mtl.dataset.stored.arrays import Entry, RowFile, mapped
from mtl.dataset.stored.rows import StoredRows

HEADER = TypeAdapter(Header)
FUNCTIONS = TypeAdapter(tuple[LabelFunction, ...])
LEARNED = ("mean", "std", "fill")
BLOCK = 1 << 16
"""Rows whose labels are put beside each other at once."""


def arrays_of(dataset: Dataset) -> Iterator[tuple[str, Array]]:
    """Name -> array, for each array of a data set."""
    yield "inputs", dataset.rows.inputs.numpy()
    yield "labels", _records(dataset.rows)
    for name, values in _fields(dataset.rows):
        if name.startswith("present/"):  # many parts of a run ask for these alone
            yield name, values
    for split, own in dataset.splits.items():
        yield f"split/{split}", own
    if dataset.groups is not None:
        yield "groups", dataset.groups
    for name in LEARNED:
        values = getattr(dataset.learned, name)
        if values is not None:
            yield name, values


def _fields(rows: ResidentRows) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """The fields of the records; presence is left out where no label is missing."""
    for kind, parts in (("target", rows.target), ("present", rows.present), ("weight", rows.weight)):
        for group, values in parts.items():
            if kind != "present" or values.stride(0) != 0:
                yield f"{kind}/{group}", values.numpy()


def _record_type(fields: Sequence[tuple[str, str, Sequence[int]]]) -> np.dtype[np.void]:
    """The type of a record of these fields, each with its type and its shape in one row."""
    return np.dtype([(name, dtype, tuple(shape)) for name, dtype, shape in fields], align=True)


def _described(rows: ResidentRows) -> list[tuple[str, str, Sequence[int]]]:
    return [(name, values.dtype.str, values.shape[1:]) for name, values in _fields(rows)]


def _records(rows: ResidentRows) -> Array:
    """(n, bytes of a record) the labels of each row beside each other."""
    records = room.zeros((len(rows),), _record_type(_described(rows)))
    for start in range(0, len(rows), BLOCK):
        for name, values in _fields(rows):
            records[name][start : start + BLOCK] = values[start : start + BLOCK]
    return records.view(np.uint8).reshape(len(rows), records.dtype.itemsize)


def facts_of(dataset: Dataset) -> dict[str, Any]:
    """What else is known of a data set, as plain values."""
    rows = dataset.rows
    return {
        "task_groups": {group: values.shape[1] for group, values in rows.target.items()},
        "label_fields": _described(rows),
        "splits": list(dataset.splits),
        "streams": {name: [own.start, own.stop] for name, own in dataset.streams.items()},
        "header": HEADER.dump_python(dataset.header, mode="json"),
        "learned": dataset.learned.record(dataset.header),
        "fingerprint": dataset.fingerprint,
        "ceiling": {task: float(best) for task, best in dataset.ceiling.items()},
        "notices": list(dataset.notices),
        "undefined": dataset.undefined,
        "derived": {task: [each.of, each.shares.tolist()] for task, each in dataset.derived.items()},
        "functions": FUNCTIONS.dump_python(dataset.functions, mode="json"),
    }


def put_together(entries: Mapping[str, Entry], facts: Mapping[str, Any], home: Path) -> Dataset:
    """The data set of which these are the arrays, in files of a folder, and the facts."""
    arrays = {name: mapped(entry, home) for name, entry in entries.items()}
    record, inputs = _record_type(facts["label_fields"]), entries["inputs"]
    records, n = arrays["labels"].view(record)[:, 0], len(arrays["inputs"])
    groups: dict[str, int] = facts["task_groups"]
    weighed = [group for group in groups if f"weight/{group}" in (record.names or ())]
    with _read_only_tensors():
        rows = StoredRows(
            inputs=torch.from_numpy(arrays["inputs"]),
            target={group: torch.from_numpy(records[f"target/{group}"]) for group in groups},
            present={
                group: torch.from_numpy(arrays[f"present/{group}"])
                if f"present/{group}" in arrays
                else torch.ones(1, width, dtype=torch.bool).expand(n, -1)
                for group, width in groups.items()
            },
            weight={group: torch.from_numpy(records[f"weight/{group}"]) for group in weighed},
            input_file=RowFile(home / inputs.sha256, inputs.shape, inputs.dtype),
            label_file=RowFile(home / entries["labels"].sha256, (n,), record),
        )
    _, learned = from_record(facts["learned"])
    mean, std, fill = (np.array(arrays[name]) if name in arrays else None for name in LEARNED)
    return Dataset(
        rows=rows,
        splits={split: np.array(arrays[f"split/{split}"]) for split in facts["splits"]},
        streams={name: range(start, stop) for name, (start, stop) in facts["streams"].items()},
        header=HEADER.validate_python(facts["header"]),
        learned=replace(learned, mean=mean, std=std, fill=fill),
        fingerprint=facts["fingerprint"],
        ceiling=facts["ceiling"],
        notices=tuple(facts["notices"]),
        undefined=facts["undefined"],
        groups=np.array(arrays["groups"]) if "groups" in arrays else None,
        derived={task: Derivation(of, np.array(shares)) for task, (of, shares) in facts["derived"].items()},
        functions=FUNCTIONS.validate_python(facts["functions"]),
    )


@contextmanager
def _read_only_tensors() -> Iterator[None]:
    """Without torch's warning that a write into such a tensor would fail; nothing writes into rows of a data set."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        yield
