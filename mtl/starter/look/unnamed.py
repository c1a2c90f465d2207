"""Looks at a CSV's first column if it has no name: it is not read, because pandas writes row numbers there."""

from __future__ import annotations

from mtl.data.files.formats.csv import Csv
from mtl.data.files.formats.csv_structure import first_row
from mtl.data.files.table import TableFile
from mtl.errors import UserError
from mtl.starter.look.columns import SEEN_ROWS


def unnamed_values(file: TableFile) -> bool:
    """Whether a column without a name holds something else than the numbers of the rows, from 0 or from 1."""
    form = file.form
    if not isinstance(form, Csv):
        return False
    row = first_row(form.text, form.name, form.delimiter)
    if row is None or len(row) == len(form.column_names):
        return False
    begin, counting = 0, {0, 1}
    try:
        for batch in form.batches([""], ("",)):
            values = batch.column(0).to_pylist()
            counting = {
                start
                for start in counting
                if values == list(range(begin + start, begin + start + len(values)))
            }
            begin += len(values)
            if not counting or begin >= SEEN_ROWS:
                break
    except UserError:
        return True  # texts follow the numbers of the first rows
    return not counting
