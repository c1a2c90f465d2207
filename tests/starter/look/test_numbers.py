"""How columns write their numbers."""

from __future__ import annotations

import pytest

from mtl.data.files.formats.form import ColumnForm
from mtl.starter.look.numbers import described, number_form, tells_comma

FORMS: dict[str, tuple[list[str], ColumnForm | None]] = {
    "as programs write them": (["1.5", "-2", "1e-3", ".5", "+7."], ColumnForm()),
    "whole": (["12", "7"], ColumnForm()),
    "decimal comma": (["1,5", "12,25", "7"], ColumnForm(decimal=",")),
    "decimal comma, three digits": (["0,125", "12,250"], ColumnForm(decimal=",")),
    "thousands": (["1,234", "12", "1,234,567"], ColumnForm(thousands=",")),
    "thousands and a fraction": (["39,552,631.01", "508,351.16"], ColumnForm(thousands=",")),
    "points and a decimal comma": (["1.234,50", "12,25"], ColumnForm(decimal=",", thousands=".")),
    "points": (["1.234.567", "12.345.678"], ColumnForm(decimal=",", thousands=".")),
    "Swiss": (["1'234.50", "12", "1\u2019234\u2019567"], ColumnForm(thousands="'")),
    "French": (["1 234,50", "12,5", "1\u202f234"], ColumnForm(decimal=",", thousands=" ")),
    "Swedish": (["1\u00a0234", "12"], ColumnForm(thousands=" ")),
    "percent": (["12%", "7.5 %", "-3%"], ColumnForm(unit="%")),
    "percent with a comma": (["12,5%", "7 %"], ColumnForm(decimal=",", unit="%")),
    "dollars": (["$1,234.50", "-$3", "$12"], ColumnForm(thousands=",", unit="$")),
    "euros": (["12,50 €", "1.234,00 €"], ColumnForm(decimal=",", thousands=".", unit="€")),
    "francs": (["CHF 1'234.50", "CHF 12"], ColumnForm(thousands="'", unit="CHF")),
    "kilograms": (["12.5 kg", "7 kg"], ColumnForm(unit="kg")),
    "two units": (["12 kg", "7 lb", "8 kg", "9 lb"], None),
    "products": (["P01", "P02"], None),
    "versions": (["1.2.3", "1.10.2"], None),
    "addresses": (["10.0.0.1", "192.168.1.4"], None),
    "times of day": (["12:30", "13:45"], None),
    "words": (["a", "b"], None),
    "nothing": ([], None),
    "a few words among numbers": ([*map(str, range(9)), "x"], ColumnForm()),
    "many words among numbers": (["1", "2", "x"], None),
    "units among words": (["12 kg", "heavy", "light"], None),
}


@pytest.mark.parametrize("case", FORMS)
def test_the_form_of_numbers(case: str) -> None:
    texts, form = FORMS[case]
    found = number_form(texts)
    assert (found and found[0]) == form
    assert found is None or found[1] == ""


def test_two_readings() -> None:
    """`1,234` is a thousand unless the table writes a decimal comma; `1.234` is a fraction unless it does."""
    commas, points = ["1,234", "12,500"], ["1.234", "12.500"]
    doubt = "the comma could be the decimal sign too"
    assert number_form(commas) == (ColumnForm(thousands=","), doubt)
    assert number_form(commas, comma=True) == (ColumnForm(decimal=","), "")
    assert number_form(points) == (ColumnForm(), "")
    assert number_form(points, comma=True) == (ColumnForm(decimal=",", thousands="."), "")
    assert number_form(["1", "2"], comma=True) == (ColumnForm(), "")
    assert [tells_comma(texts) for texts in (commas, points, ["1,5"], ["1", "2"])] == [
        False,
        False,
        True,
        False,
    ]


def test_a_form_in_words() -> None:
    assert described(ColumnForm()) == ""
    form = ColumnForm(decimal=",", thousands=".", unit="€")
    assert described(form) == "a decimal comma, points between thousands and the unit €"
    assert described(ColumnForm(decimal=",", unit="%")) == "a decimal comma and the unit %"
