"""Numbers as people write them: decimal commas, thousands, units."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from mtl.data.columns.numbers import numbers
from mtl.data.files.formats.form import ColumnForm
from mtl.data.files.table import MemoryTable
from mtl.errors import UserError

NAN = np.nan
SWISS = ColumnForm(thousands="'", unit="CHF")
GERMAN = ColumnForm(decimal=",", thousands=".")


def read(form: ColumnForm, *texts: str | None) -> list[float]:
    array = pa.array(list(texts), pa.string())
    file = MemoryTable(pa.table({"v": array}), columns={"v": form})
    return numbers(file, "v", 0, array).tolist()


@pytest.mark.parametrize(
    ("form", "texts", "expected"),
    [
        (GERMAN, ("1.234,5", "0,5", "-12", "1.234.567", ",25", "1e3"), (1234.5, 0.5, -12, 1234567, 0.25, 1000)),
        (ColumnForm(decimal=","), ("28588,68", "7", " 3,0 "), (28588.68, 7, 3)),
        (ColumnForm(thousands=","), ("39,552,631.01", "950", "1,234"), (39552631.01, 950, 1234)),
        (SWISS, ("CHF 1'234.50", "1\u2019234 CHF", "-CHF 5", "12"), (1234.5, 1234, -5, 12)),
        (ColumnForm(thousands=" "), ("1 234", "1\u00a0234\u202f567"), (1234, 1234567)),
        (ColumnForm(unit="%"), ("12%", "7 %", "-0.5%", "3"), (12, 7, -0.5, 3)),
        (ColumnForm(unit="$"), ("$5", "-$5.25", "$ 1"), (5, -5.25, 1)),
    ],
)  # fmt: skip
def test_as_written(form: ColumnForm, texts: tuple[str, ...], expected: tuple[float, ...]) -> None:
    assert read(form, *texts) == list(expected)
    np.testing.assert_array_equal(read(form, None, texts[0]), [NAN, expected[0]])


@pytest.mark.parametrize(
    ("form", "text", "said"),
    [
        (ColumnForm(decimal=","), "1.234", "with decimal ','"),
        (ColumnForm(thousands=","), "1,23", "with thousands ','"),
        (ColumnForm(thousands=","), "1,2345", "with thousands ','"),
        (ColumnForm(thousands=","), ",123", "with thousands ','"),
        (GERMAN, "1,234.5", "with decimal ',', thousands '.'"),
        (SWISS, "EUR 12", "with thousands \"'\", unit 'CHF'"),
        (ColumnForm(unit="%"), "%", "with unit '%'"),
        (ColumnForm(unit="%"), "?", "with unit '%'"),
        (ColumnForm(unit="%"), "nan", "with unit '%'"),
    ],
)
def test_a_number_in_another_form_is_refused(form: ColumnForm, text: str, said: str) -> None:
    """Read carelessly, each of them would be another number."""
    with pytest.raises(UserError) as caught:
        read(form, "12", None, text, "x")
    assert str(caught.value).startswith(f"table:row 2, column 'v': {text!r} is not a number {said}; ")


def test_numbers_that_are_no_text_have_no_form() -> None:
    array = pa.array([1.5, None])
    file = MemoryTable(pa.table({"v": array}), columns={"v": GERMAN})
    np.testing.assert_array_equal(numbers(file, "v", 0, array), [1.5, NAN])
