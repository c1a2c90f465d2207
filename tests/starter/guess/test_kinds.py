"""The kind of task that a data scientist would take a label column for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl.errors import UserError
from mtl.starter.guess.kinds import drop_markers, guess_kind
from tests.support.columns import N, cycle, floats, seen

KINDS: dict[str, tuple[list[Any], str, str, dict[str, Any]]] = {
    "zero and one": (cycle(0, 0, 1), "churned", "binary", {}),
    "yes and no": (cycle("yes", "no"), "v", "binary", {}),
    "capital letters": (cycle("Yes", "No"), "v", "binary", {}),
    "truth values": (cycle("TRUE", "FALSE"), "v", "binary", {}),
    "y and n": (cycle("Y", "N"), "v", "binary", {}),
    "zero and one as floats": (cycle("0.0", "1.0", "1.0"), "v", "binary", {"positive": "1.0"}),
    "minus one and one": (cycle(-1, 1, 1), "v", "binary", {"positive": 1}),
    "one and two": (cycle(1, 1, 2), "v", "binary", {"positive": 2}),
    "two words": (cycle("good", "bad", "good"), "v", "binary", {"positive": "bad"}),
    "two floats": (cycle(0.5, 1.5, 1.5), "v", "binary", {"positive": "0.5"}),
    "five grades": (cycle(1, 2, 3, 4, 5), "rating", "ordinal", {}),
    "grades of a camel": (cycle(1, 2, 3), "riskLevel", "ordinal", {}),
    "grades as floats": (cycle("1.0", "2.0", "10.0"), "grade", "ordinal", {"order": ["1.0", "2.0", "10.0"]}),
    "a usual order": (cycle("high", "low", "medium"), "v", "ordinal", {"order": ["low", "medium", "high"]}),
    "a usual order in capitals": (cycle("L", "S", "M"), "v", "ordinal", {"order": ["S", "M", "L"]}),
    "four words": (cycle("a", "b", "c", "d"), "v", "multiclass", {}),
    "digits": (cycle(*range(10)), "digit", "multiclass", {}),
    "codes as floats": (cycle("1.0", "2.0", "3.0"), "v", "multiclass", {}),
    "an asterisk is no risk": (cycle(1, 2, 3), "asterisk", "multiclass", {}),
    "floats": (floats(), "v", "regression", {}),
    "exponents": (cycle("1e-3", "2.5e4", ".5", "+1."), "v", "regression", {}),
    "many whole numbers": (list(range(N)), "v", "regression", {}),
    "a count": (cycle(0, 1, 2, 3), "n_visits", "regression", {}),
    "an age": (cycle(20, 30, 40), "age", "regression", {}),
    "few rows of whole numbers": (cycle(3, 5, 8, 9, 11, 12, 20, 25, n=16), "v", "regression", {}),
    "spellings of yes and no": (
        cycle("yes", "Y", "YES", "no", "N", "No"), "v", "binary", {"positive": ["Y", "YES", "yes"]},
    ),
    "two spellings of yes": (cycle("yes", "Y", "no"), "v", "binary", {"positive": ["Y", "yes"]}),
    "yes and n": (cycle("yes", "yes", "n"), "v", "binary", {"positive": "yes"}),
    "ja and nein": (cycle("ja", "ja", "nein"), "v", "binary", {"positive": "ja"}),
    "codes of industries": (cycle(*range(100, 140)), "industry_code", "multiclass", {}),
    "as many codes as rows": (list(range(N)), "industry_code", "regression", {}),
    "postal codes": (cycle("01067", "02150", "80331"), "zip", "multiclass", {}),
    "percent": (cycle("10%", "12.5%", "7%"), "v", "regression", {"unit": "%"}),
    "thousands": (cycle("1,234", "12,500", "700"), "v", "regression", {}),
    "few whole numbers and a slip": ([*cycle(*range(9), n=200), "inf"], "v", "multiclass", {}),
    "a count and a slip": ([*cycle(*range(9), n=200), "inf"], "n", "regression", {}),
    "lists of labels": (cycle("a|b", "a", "b|c"), "v", "multilabel", {}),
}  # fmt: skip


@pytest.mark.parametrize("case", KINDS)
def test_the_kind_of_a_label(case: str, tmp_path: Path) -> None:
    values, name, kind, options = KINDS[case]
    found = guess_kind(seen(tmp_path, values, name))
    assert found[:2] == (kind, options)
    assert found[2].isprintable()
    there = np.random.default_rng(1).random(len(values)) < 0.7
    half = [value if kept else "" for value, kept in zip(values, there, strict=True)]
    assert guess_kind(seen(tmp_path, half, name))[0] == kind  # some are missing


REFUSED: dict[str, tuple[list[Any], str]] = {
    "nothing": ([""] * N, "column 'v' has no value"),
    "a constant": (["a"] * N, "column 'v' has one value throughout: nothing to learn"),
    "free text": (
        [f"text number {i}" for i in range(N)],
        f"column 'v' holds text with {N} distinct values in {N} rows: no kind of task is for it",
    ),
    "dates": (
        ["04.03.2023", "05.03.2023"] * 30,
        "column 'v' holds dates: no kind of task is for it",
    ),
    "vectors": (["[1, 2]", "[3, 4]"] * 30, "column 'v' holds lists of numbers: no kind of task is for it"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_column_that_is_no_label(case: str, tmp_path: Path) -> None:
    values, text = REFUSED[case]
    with pytest.raises(UserError) as caught:
        guess_kind(seen(tmp_path, values))
    assert str(caught.value) == f"--targets: {text}"


@pytest.mark.parametrize(
    ("values", "words", "kind"),
    [
        (("yes", "no", "n/a"), ["n/a"], "binary"),
        (("Y", "N", "unknown", " "), ["unknown", " "], "binary"),
        (("none", "mild", "severe"), [], "ordinal"),
        (("NA", "EU", "AS"), [], "multiclass"),
    ],
)
def test_a_word_for_a_missing_label(
    values: tuple[str, ...], words: list[str], kind: str, tmp_path: Path
) -> None:
    found = seen(tmp_path, cycle(*values))
    assert drop_markers(found) == words
    assert guess_kind(found)[0] == kind
    assert found.missing == len(words) * N // len(values)
    assert found.form.na_values == (("", *words) if words else None)
