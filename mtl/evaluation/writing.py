"""Predictions into a CSV, Parquet or npz file, batch by batch: memory does not grow with the rows."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mtl.errors import EnvironmentFault, UserError, quoted

if TYPE_CHECKING:
    import pyarrow as pa

    from mtl.evaluation.predict import TrainedModel

SUFFIXES = (".csv", ".parquet", ".npz")


class Writer(Protocol):
    """Takes in one batch of columns after the other."""

    def write(self, columns: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


def write_predictions(model: TrainedModel, data: str, output: str, keep: Sequence[str] = ()) -> int:
    """Predict for every row of a file; returns their number. `output` appears only when it is whole.

    Raises:
        UserError: the input is not like the run's, or the output's name has another suffix or is taken.
    """
    target = Path(output)
    if target.suffix not in SUFFIXES:
        raise UserError("--output", f"{quoted(output)} is none of {', '.join(SUFFIXES)}")
    if target.is_dir():
        raise UserError("--output", f"{quoted(output)} is a directory")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    n_rows = 0
    writer: Writer | None = None
    try:
        for kept, predictions in model.batches(data, keep):
            taken = [name for name in kept if name in predictions]
            if taken:
                raise UserError("--keep", f"column {quoted(taken[0])} is the name of a prediction")
            columns = {**kept, **predictions}
            writer = writer or _writer(temporary, target.suffix)
            writer.write(columns)
            n_rows += len(next(iter(predictions.values())))
        if writer is None:
            raise UserError(data, "no rows")
        writer.close()
        os.replace(temporary, target)
    except OSError as error:
        raise EnvironmentFault(
            str(target), f"cannot write: {(error.strerror or str(error)).lower()}"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return n_rows


def _writer(path: Path, suffix: str) -> Writer:
    kinds: dict[str, type[_Csv] | type[_Parquet] | type[_Npz]] = {
        ".csv": _Csv,
        ".parquet": _Parquet,
        ".npz": _Npz,
    }
    return kinds[suffix](path)


def _arrow(columns: dict[str, Any], text_lists: bool) -> pa.Table:
    """The columns as a table; in a CSV a list of labels is one text."""
    import pyarrow as pa

    arrays = {}
    for name, values in columns.items():
        if isinstance(values, list):
            values = pa.array(["|".join(row) for row in values] if text_lists else values)
        elif isinstance(values, np.ndarray) and values.dtype == object:
            values = pa.array(values.tolist(), pa.string())
        arrays[name] = values
    return pa.table(arrays)


class _Csv:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer: Any = None

    def write(self, columns: dict[str, Any]) -> None:
        import pyarrow.csv as pc

        table = _arrow(columns, text_lists=True)
        if self.writer is None:
            self.writer = pc.CSVWriter(
                str(self.path), table.schema, write_options=pc.WriteOptions(quoting_style="needed")
            )
        self.writer.write_table(table)

    def close(self) -> None:
        self.writer.close()


class _Parquet:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer: Any = None

    def write(self, columns: dict[str, Any]) -> None:
        import pyarrow.parquet as pq

        table = _arrow(columns, text_lists=False)
        if self.writer is None:
            self.writer = pq.ParquetWriter(str(self.path), table.schema)
        self.writer.write_table(table)

    def close(self) -> None:
        self.writer.close()


class _Npz:
    """Each column grows in a file of its own; the archive is put together at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = TemporaryDirectory(dir=path.parent, prefix=".mtl-predict-")
        self.parts: dict[str, list[Path]] = {}

    def write(self, columns: dict[str, Any]) -> None:
        for name, values in columns.items():
            numbers = self.parts.setdefault(name, [])
            part = (
                Path(self.folder.name)
                / f"{len(self.parts)}-{len(numbers)}-{list(self.parts).index(name)}.npy"
            )
            np.save(part, _plain(values), allow_pickle=False)
            numbers.append(part)

    def close(self) -> None:
        with zipfile.ZipFile(self.path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, parts in self.parts.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    _join_arrays(parts, member)
        self.folder.cleanup()


def _plain(values: Any) -> np.ndarray[Any, Any]:
    """A column as an array without objects."""
    if isinstance(values, list):
        return np.array(["|".join(row) for row in values], dtype=str)
    array = np.asarray(values)
    return array.astype(str) if array.dtype == object else array


def _join_arrays(parts: list[Path], member: Any) -> None:
    """One .npy out of several, in order, a part at a time."""
    dtypes, n_rows, tail = [], 0, ()
    for array in _parts(parts):
        dtypes.append(array.dtype)
        n_rows += len(array)
        tail = array.shape[1:]
    dtype = np.result_type(*dtypes)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (n_rows, *tail)}
    np.lib.format.write_array_header_2_0(member, header)
    for array in _parts(parts):
        member.write(np.ascontiguousarray(array.astype(dtype)).tobytes())


def _parts(parts: list[Path]) -> Iterator[np.ndarray[Any, Any]]:
    for part in parts:
        yield np.load(part, allow_pickle=False)
