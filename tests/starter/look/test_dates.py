"""How columns write their dates."""

from __future__ import annotations

import pytest

from mtl.starter.look.dates import date_form

FORMS: dict[str, tuple[list[str], str | None]] = {
    "ISO": (["2024-03-01", "2024-12-31"], ""),
    "ISO with hours": (["2024-03-01T12:00:00", "2024-03-01 13:30"], ""),
    "German": (["04.03.2023", "31.12.2024"], "%d.%m.%Y"),
    "German with hours": (["04.03.2023 12:30", "31.12.2024 00:00"], "%d.%m.%Y %H:%M"),
    "short years": (["04.03.23", "31.12.24"], "%d.%m.%y"),
    "British": (["04/03/2023", "31/12/2024"], "%d/%m/%Y"),
    "American": (["03/04/2023", "12/31/2024"], "%m/%d/%Y"),
    "years first": (["2023/03/04", "2024/12/31"], "%Y/%m/%d"),
    "hyphens": (["04-03-2023", "31-12-2024"], "%d-%m-%Y"),
    "names of months": (["04 Mar 2023", "31 Dec 2024"], "%d %b %Y"),
    "a few words among dates": ([*(f"{i:02d}.03.2023" for i in range(1, 30)), "never"], "%d.%m.%Y"),
    "versions": (["1.2.3", "1.10.2"], None),
    "months that are none": (["04.13.2023", "31.14.2024"], None),
    "words": (["a", "b"], None),
    "nothing": ([], None),
}


@pytest.mark.parametrize("case", FORMS)
def test_the_form_of_dates(case: str) -> None:
    texts, form = FORMS[case]
    found = date_form(texts)
    assert (found and found[0]) == form
    assert found is None or found[1] == ""


@pytest.mark.parametrize(
    ("texts", "form", "first"),
    [
        (["04.03.2023", "05.06.2023"], "%d.%m.%Y", "day"),
        (["04/03/2023", "05/06/2023"], "%m/%d/%Y", "month"),
        (["04-03-2023", "05-06-2023"], "%d-%m-%Y", "day"),
    ],
)
def test_days_that_could_be_months(texts: list[str], form: str, first: str) -> None:
    found = date_form(texts)
    assert found is not None
    assert found[0] == form
    assert f"the {first} is taken to be first" in found[1]
