"""The columns that `mtl predict --keep` carries from the input into the output, and their names there."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from mtl.errors import UserError, quoted

GIVEN = "_given"
"""What follows the name of a kept column that has the name of a prediction: a label of the input is `churned_given`."""


def kept_columns(asked: Sequence[str], known: Collection[str]) -> list[str]:
    """The columns to keep, each once; a text that is no column lists several with commas, as in `a,b` or `"a, b",c`.

    Args:
        asked: the texts that `--keep` was given.
        known: the columns of the input; a name that is not among them comes back as it was written.
    """
    names: list[str] = []
    for text in asked:
        names += [text] if text in known else _listed(text)
    return list(dict.fromkeys(names))


def _listed(text: str) -> Iterable[str]:
    with suppress(csv.Error):  # a line break outside of quotes separates nothing
        for fields in csv.reader([text], skipinitialspace=True):
            return [name.strip() for name in fields if name.strip()] or [text]
    return [text]


def beside(kept: Mapping[str, Any], predictions: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of the output: those that are kept, then the predictions.

    Raises:
        UserError: a kept column has the name of a prediction, and its name with `GIVEN` is taken as well.
    """
    columns: dict[str, Any] = {}
    for name, values in kept.items():
        called = f"{name}{GIVEN}" if name in predictions else name
        if called != name and (called in kept or called in predictions):
            what = f"column {quoted(name)} is the name of a prediction, and {quoted(called)} is taken too"
            raise UserError("--keep", what, "keep one of the two, or rename a column of the input")
        columns[called] = values
    return {**columns, **predictions}
