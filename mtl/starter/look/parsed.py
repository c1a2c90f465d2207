"""Reads the texts of a column as numbers or dates, and keeps what is neither."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mtl.data.columns.numbers import as_written
from mtl.data.files.formats.form import ColumnForm
from mtl.starter.look.dates import date_form, reads_date
from mtl.starter.look.numbers import SAMPLE, number_form, points_in_thousands, tells_comma
from mtl.starter.words import MARKERS

FEW_ROWS = 0.01
"""Largest share of rows whose text may be neither number nor marker, such as `Total`, in a column of numbers."""
FEW_TEXTS = 3
"""Most distinct texts of that sort."""
INFINITE = 0.2
"""Largest share of numbers that may be infinite, as a division by zero leaves them."""
ENOUGH = 10
"""Fewest numbers beside which another text is taken for a slip."""
MOST_ODD = 90
"""Most distinct texts that are kept; a column with more holds text."""
PLAIN = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"


@dataclass
class Odd:
    """A text that is no number or date: its rows, the first of them, and whether it is an infinite number."""

    rows: int
    first: int
    infinite: bool = False


@dataclass
class Parsed:
    """A column of text, read as numbers or as dates.

    Args:
        form: how it is read.
        dates: whether it holds dates.
        good: rows with a finite number, or with a date.
        whole: whether every number is a whole number.
        largest, smallest: of the absolute values of its numbers.
        zeros: numbers of two or more digits that begin with 0, such as `01067`.
        bare: numbers without the unit of the others.
        odd: text that is no number or date -> where it is.
    """

    form: ColumnForm
    dates: bool = False
    good: int = 0
    whole: bool = True
    largest: float = 0.0
    smallest: float = inf
    zeros: int = 0
    bare: int = 0
    odd: dict[str, Odd] = field(default_factory=dict)

    def add(self, array: pa.StringArray, first: int) -> None:
        """Read one batch, whose first row is row `first` of the file."""
        counted = pc.value_counts(array.drop_null())
        values, rows = counted.field(0), counted.field(1)
        if not len(values) or len(self.odd) > MOST_ODD:
            return
        good = self._dates(values) if self.dates else self._numbers(values, rows)
        self.good += pc.sum(rows.filter(good)).as_py() or 0
        wrong = pc.invert(good)
        for value, n in zip(values.filter(wrong).to_pylist(), rows.filter(wrong).to_pylist(), strict=True):
            if value not in self.odd:
                infinite = not self.dates and _infinite(value)
                self.odd[value] = Odd(0, first + pc.index(array, value).as_py(), infinite)
            self.odd[value].rows += n
            if len(self.odd) > MOST_ODD:
                return

    def _dates(self, values: pa.StringArray) -> pa.BooleanArray:
        """(n,) which texts are dates, both in the strict sense and for the parser that will read them."""
        form = self.form.date_format
        strict = pa.array([reads_date(text, form) for text in values.to_pylist()], pa.bool_())
        if not form:
            return strict
        read = pc.strptime(pc.utf8_trim_whitespace(values), form, "s", error_is_null=True)
        return pc.and_(strict, pc.is_valid(read))

    def _numbers(self, values: pa.StringArray, rows: pa.Array) -> pa.BooleanArray:
        """(n,) which texts are finite numbers, for the parser that will read them."""
        plain = as_written(values, self.form)
        fits = pc.match_substring_regex(plain, PLAIN)
        numbers = pc.cast(pc.if_else(fits, plain, None), pa.float64()).to_numpy(zero_copy_only=False)
        finite = np.isfinite(numbers)
        size = np.abs(numbers[finite])
        self.whole = self.whole and bool((size == np.floor(size)).all())
        self.largest = max(self.largest, float(size.max(initial=0)))
        self.smallest = min(self.smallest, float(size.min(initial=inf)))
        self.zeros += _rows(rows, pc.match_substring_regex(pc.utf8_trim_whitespace(values), "^0[0-9]+$"))
        if self.form.unit:
            without = pc.invert(pc.match_substring(values, self.form.unit))
            self.bare += _rows(rows, pc.and_(without, pa.array(finite)))
        return pa.array(finite)

    def holds(self) -> bool:
        """Whether the column is one of numbers or dates: what else is in it is rare, or means a missing value."""
        if not self.good or len(self.odd) > MOST_ODD or self.padded:
            return False
        infinite = sum(odd.rows for odd in self.odd.values() if odd.infinite)
        others = self.slips()
        rows = sum(odd.rows for odd in others.values())
        if infinite > INFINITE * (self.good + infinite) or len(others) > FEW_TEXTS:
            return False
        return not others or (self.good >= ENOUGH and rows <= max(1, FEW_ROWS * (self.good + rows)))

    @property
    def padded(self) -> bool:
        """Whether numbers begin with 0 as codes do, and not by a slip."""
        return self.zeros > max(1, FEW_ROWS * self.good)

    def slips(self) -> dict[str, Odd]:
        """The odd texts that are neither infinite numbers nor words for a missing value."""
        return {text: odd for text, odd in self.odd.items() if not (odd.infinite or means_missing(text))}

    def form_with_missing(self) -> ColumnForm:
        """The form in which the odd texts mean a missing value."""
        return replace(self.form, na_values=("", *self.odd))


def means_missing(text: str) -> bool:
    """Whether a text among numbers is empty or a usual word for a missing value."""
    return not text.strip() or text.strip() in MARKERS


def _infinite(text: str) -> bool:
    """Whether a text is an infinite number: a word for it, or a number beyond float64."""
    word = text.strip().lower().lstrip("+-")
    return word in ("inf", "infinity") or re.match(PLAIN, text.strip()) is not None


def _rows(rows: pa.Array, where: pa.BooleanArray) -> int:
    return int(pc.sum(rows.filter(where)).as_py() or 0)


def forms_of(columns: Mapping[str, Mapping[str, int]], delimiter: str) -> dict[str, tuple[Parsed, str]]:
    """The columns that are mostly numbers or dates: how each is written, and what is in doubt.

    Args:
        columns: column -> its distinct texts.
        delimiter: the delimiter of a CSV; a semicolon goes with a decimal comma where a column has two readings.
    """
    samples = {}
    for name, counts in columns.items():
        texts = [
            text for text in list(counts)[: 2 * SAMPLE] if not (means_missing(text) or _infinite_word(text))
        ]
        if texts:
            samples[name] = texts[:SAMPLE]
    comma = True if any(tells_comma(texts) for texts in samples.values()) else None
    found = {}
    for name, texts in samples.items():
        number = number_form(texts, comma)
        if number is not None and number[1] and delimiter == ";":
            number = number_form(texts, True)
        if number is not None and not number[1]:
            number = points_in_thousands(columns[name], number[0])
        if number is not None:
            found[name] = (Parsed(number[0]), number[1])
        elif (date := date_form(texts)) is not None:
            found[name] = (Parsed(ColumnForm(date_format=date[0]), dates=True), date[1])
    return found


def _infinite_word(text: str) -> bool:
    return text.strip().lower().lstrip("+-") in ("inf", "infinity")
