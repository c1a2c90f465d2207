"""What a source must say and do, and what it may."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from mtl.recipe.base import Spec

if TYPE_CHECKING:
    import pyarrow as pa

    from mtl.data.files.table import MemoryTable, TableFile
    from mtl.data.types import Columns, Header, Layout, Wanted


class SourceSpec(Spec):
    """Where rows come from. Members: `mtl/sources/`.

    A member also says `generated: ClassVar[bool]`: True where the data are made up.
    """

    generated: ClassVar[bool] = False
    can_be_stored: ClassVar[bool] = False
    """Whether `data.in_memory: false` works: `stamp` then says which rows the source has, without reading them."""

    def header(self) -> Header:
        """Shapes and label columns; no row is read for them.

        Raises:
            UserError: the source cannot be found, or is not what it should be.
        """
        raise NotImplementedError

    def columns(self, seed: int) -> Columns:
        """The data; only a source of generated data uses `seed`."""
        raise NotImplementedError

    def read(self, seed: int, wanted: Wanted) -> Columns:
        """The data, with the columns that `wanted` names; a source that has many columns overrides this."""
        return self.columns(seed)

    def stamp(self) -> str:
        """A text that changes whenever the rows of the source's files change; no row is read for it.

        Raises:
            UserError: a file cannot be read.
        """
        raise NotImplementedError

    def generated_now(self) -> bool:
        """Whether these settings give made-up rows."""
        return self.generated

    def table(self, path: str | None = None) -> TableFile | None:
        """The table that the source reads, or the table at `path` in the same form; None for a source of arrays."""
        return None

    def in_memory(self, rows: pa.Table) -> MemoryTable:
        """Rows in memory, whose texts are read as those of the source's own table."""
        from mtl.data.files.table import MemoryTable

        return MemoryTable(rows)

    def image_column(self) -> tuple[str, tuple[int, int] | None, Literal["grey", "rgb"]] | None:
        """For a table of images: the column of paths, (height, width) or None, and the mode; else None."""
        return None

    def label_separator(self, column: str) -> str:
        """The text between the labels of a column that lists several."""
        return "|"

    def input_array(self) -> str:
        """The name of the array of inputs in an .npz file of the same form."""
        return "inputs"

    def elsewhere(self, path: str, layout: Layout | None) -> SourceSpec | None:
        """The same source with its rows in another file; None if the source reads no file of the user's.

        A run on a table has read the columns in `layout`, and reads the same ones again: patterns of names are not
        matched against the new file.
        """
        return None

    def found_in(self) -> str | None:
        """The folder on this machine of files that the source may download; None without them. No file is read."""
        return None

    def row_ids(self) -> str | None:
        """The column that holds an id of each row, or None; an id may not appear in two splits."""
        return None
