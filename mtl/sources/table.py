"""A table of the user's own: a CSV, a Parquet file, or arrays by name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from mtl.data.files.formats.encoding import Encoding
from mtl.data.files.remote.address import is_address
from mtl.data.files.states import state_of_all
from mtl.data.types import Header, Layout
from mtl.errors import UserError, quoted
from mtl.recipe.base import DataPath
from mtl.recipe.keys.table import ColumnFormat, ColumnName, Inputs, MissingText
from mtl.recipe.specs import SOURCES, SourceSpec

if TYPE_CHECKING:
    import pyarrow as pa

    from mtl.data.files.formats.form import ColumnForm
    from mtl.data.files.table import MemoryTable, TableFile
    from mtl.data.types import Columns, Wanted

NUMERIC = ("text", "integer", "boolean", "number")
HELD = {
    "list": "lists",
    "time": "dates or times",
    "integer": "numbers",
    "number": "numbers",
    "boolean": "truth values",
}
"""The type of a column -> what it holds, in words."""


@SOURCES.register("table")
class Table(SourceSpec):
    """Rows of a CSV, of Parquet files, or of an .npz file with one array per column; labels, weights and times too.

    Text becomes classes in a stable order: numerical where all values are whole numbers, else that of their
    code points. A value is the same in every form of file: `1` is `1.0`, and `True` is `true`, in a column of numbers
    or truth values; `01067` stays text. Empty cells are missing; `NA`, `null` and `None` are text unless `na_values`
    names them.
    """

    reference: ClassVar[str] = "ours"
    example: ClassVar[Mapping[str, Any]] = {
        "path": "four.csv",
        "inputs": {"numeric": ("x",), "categorical": ("city",)},
    }
    can_be_stored: ClassVar[bool] = True

    path: DataPath = Field(
        description="the file: .csv, .tsv, .txt, .parquet, .pq or .npz; or a folder of Parquet files, or a pattern "
        "such as `rows/**/*.parquet`; all of them also as an address that begins with s3://, gs:// or hf://"
    )
    validation: DataPath | None = Field(
        None, description="likewise, of validation rows, with the same columns"
    )
    test: DataPath | None = Field(None, description="likewise, of test rows")
    inputs: Inputs
    id: ColumnName | None = Field(
        None, description="a column that names rows; one id may not be in two splits"
    )
    delimiter: Annotated[str, Field(pattern=r"^[,;\t|: ]$")] | None = Field(
        None, description="of a CSV; default: a comma, or a tab in .tsv"
    )
    encoding: Encoding = Field("utf-8", description="of the text of a CSV")
    na_values: tuple[MissingText, ...] = Field(
        ("",), max_length=100, description="texts that mean a missing value, in columns without their own"
    )
    formats: Annotated[dict[ColumnName, ColumnFormat], Field(max_length=10_000)] = Field(
        {}, description="column -> how its texts are read: missing values, signs of numbers, form of dates"
    )
    separator: Annotated[str, Field(min_length=1, max_length=5)] = Field(
        "|", description="between the labels of a column that lists several"
    )

    def table(self, path: str | None = None) -> TableFile:
        from mtl.data.files.remote.fetch import local
        from mtl.data.files.table import TableFile

        return TableFile(
            local(path or self.path),
            delimiter=self.delimiter,
            encoding=self.encoding,
            na_values=self.na_values,
            columns=self._forms(),
        )

    def in_memory(self, rows: pa.Table) -> MemoryTable:
        from mtl.data.files.table import MemoryTable

        return MemoryTable(rows, self.na_values, self._forms())

    def _forms(self) -> dict[str, ColumnForm]:
        return {name: texts.form() for name, texts in self.formats.items()}

    def files(self) -> dict[str, TableFile]:
        """Split -> its file; the first file has the training rows, from which `split` may take other splits."""
        given = {"train": self.path, "validation": self.validation, "test": self.test}
        return {split: self.table(path) for split, path in given.items() if path is not None}

    def layout(self, file: TableFile) -> Layout:
        """The raw input row, from the names of columns and, for vectors, from the first row.

        Raises:
            UserError: a column is missing, holds only text, or is named twice.
        """
        inputs = self.inputs
        taken: dict[str, str] = {}
        found: dict[str, tuple[str, ...]] = {}
        for role in ("numeric", "categorical", "vector", "dates"):
            found[role] = _matching(getattr(inputs, role), file, ("inputs", role))
            for name in found[role]:
                if name in taken:
                    what = f"column {quoted(name)} is {taken[name]} already"
                    raise UserError("", what, path=("inputs", role))
                taken[name] = role
        if self.id in taken:
            what = f"column {quoted(self.id)} is the id of rows, which says nothing of other rows"
            raise UserError("", what, "leave it out of inputs", path=("inputs", taken[self.id]))
        for role, fit, wanted in (("numeric", NUMERIC, "numbers"), ("dates", ("text", "time"), "dates")):
            for name in found[role]:
                if file.types[name] not in fit:
                    held = HELD.get(file.types[name], "compound values")
                    todo = "name it under inputs.dates" if file.types[name] == "time" else ""
                    what = f"column {quoted(name)} holds {held}, not {wanted}"
                    raise UserError("", what, todo, path=("inputs", role))
        from mtl.data.columns.tables import vector_width

        return Layout(
            numeric=found["numeric"],
            vectors={name: vector_width(file, name) for name in found["vector"]},
            dates=found["dates"],
            categorical=found["categorical"],
            missing=inputs.missing,
            indicator=inputs.indicator,
            embedding=inputs.embedding,
        )

    def header(self) -> Header:
        from mtl.data.columns.tables import image_header

        if self.inputs.image is not None and is_address(self.path):
            todo = "bring the table and its images onto this machine"
            raise UserError("", "images are read from this machine", todo, path=("path",))
        file = self.table()
        for name in self.formats:
            if name not in file.column_names:
                raise UserError(file.name, file.lacks(name), path=("formats", name))
        labels: dict[str, tuple[str, ...] | None] = dict.fromkeys(file.column_names)
        if self.inputs.image is not None:
            image = self.image_column()
            assert image is not None
            shape, layout = image_header(file, image, file.folder), None
        else:
            layout = self.layout(file)
            shape = (layout.width,)
        known = {"validation": self.validation, "test": self.test}
        counts = dict.fromkeys((name for name, path in known.items() if path is not None), 0)
        return Header(shape, labels, row_counts=counts, layout=layout, columns=file.column_names)

    def image_column(self) -> tuple[str, tuple[int, int] | None, Literal["grey", "rgb"]] | None:
        image = self.inputs.image
        return None if image is None else (image.column, image.size, image.mode)

    def elsewhere(self, path: str, layout: Layout | None) -> SourceSpec | None:
        changed: dict[str, object] = {"path": path, "validation": None, "test": None}
        if layout is not None:
            read = {
                "numeric": layout.numeric,
                "vector": tuple(layout.vectors),
                "dates": layout.dates,
                "categorical": layout.categorical,
            }
            changed["inputs"] = self.inputs.model_copy(update=read)
        return self.model_copy(update=changed)

    def label_separator(self, column: str) -> str:
        own = self.formats.get(column)
        return own.separator if own is not None and own.separator else self.separator

    def row_ids(self) -> str | None:
        return self.id

    def stamp(self) -> str:
        digest, image, files = hashlib.sha256(), self.image_column(), self.files()
        root = next(iter(files.values())).folder
        for split, file in files.items():
            digest.update(f"{split}={file.sha256()};".encode())
            if image is not None:
                digest.update(state_of_all(root, _texts_of(file, image[0])).encode())
        return digest.hexdigest()

    def columns(self, seed: int) -> Columns:
        from mtl.data.types import Wanted

        return self.read(seed, Wanted())

    def read(self, seed: int, wanted: Wanted) -> Columns:
        from mtl.data.columns.tables import TableForm, read_table

        files = self.files()
        settings = self.model_dump(mode="json", exclude={"path", "validation", "test"})
        form = TableForm(
            files=files,
            layout=None if self.inputs.image is not None else self.layout(next(iter(files.values()))),
            image=self.image_column(),
            root=next(iter(files.values())).folder,
            separator=self.separator,
            settings=repr(sorted(settings.items())),
        )
        return read_table(form, wanted)


def _texts_of(file: TableFile, column: str) -> Iterator[str | None]:
    """The texts of a column, row by row."""
    from mtl.data.columns.values import texts

    for first, batch in file.batches([column]):
        yield from texts(file, column, first, batch.column(column)).to_pylist()


def _matching(patterns: tuple[str, ...], file: TableFile, path: tuple[str, ...]) -> tuple[str, ...]:
    """The columns that a list of names and patterns selects, in the order of the list, then of the file."""
    names: dict[str, None] = {}
    for i, pattern in enumerate(patterns):
        if pattern in file.column_names:
            names[pattern] = None
            continue
        found = (
            [name for name in file.column_names if fnmatchcase(name, pattern)]
            if set(pattern) & set("*?[")
            else []
        )
        if not found:
            raise UserError(file.name, file.lacks(pattern), path=(*path, i))
        names.update(dict.fromkeys(found))
    return tuple(names)
