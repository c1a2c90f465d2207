"""How errors read: one line each, its place first; text of the user's is quoted and cut."""

from __future__ import annotations

import time

import pytest

from mtl.errors import (
    ENVIRONMENT,
    NOT_FINITE,
    USER,
    EnvironmentFault,
    ManyErrors,
    NotFinite,
    Place,
    UserError,
    did_you_mean,
    dotted,
    quoted,
    raise_all,
)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            UserError(Place("r.yaml", 2, 5), "what", "todo", path=("a", "b", 0)),
            "r.yaml:2:5: a.b[0]: what; todo",
        ),
        (UserError(Place("r.yaml"), "what"), "r.yaml: what"),
        (UserError("train.csv:row 3", "what", "todo"), "train.csv:row 3: what; todo"),
        (UserError("", "what", path=("a",)), "a: what"),
        (UserError("", "what"), "what"),
        (EnvironmentFault("disk", "is full"), "disk: is full"),
        (NotFinite("", "task 'a': loss is nan at step 57"), "task 'a': loss is nan at step 57"),
    ],
)
def test_an_error_is_one_line(error: UserError, line: str) -> None:
    assert str(error) == line
    assert error.errors == (error,)


def test_codes() -> None:
    codes = [type_("", "what").code for type_ in (UserError, EnvironmentFault, NotFinite)]
    assert codes == [USER, ENVIRONMENT, NOT_FINITE] == [2, 3, 4]


def test_many_errors_are_a_line_each() -> None:
    errors = [UserError(Place("r.yaml", i, 1), f"fault {i}") for i in (1, 2)]
    many = ManyErrors(errors)
    assert str(many) == "r.yaml:1:1: fault 1\nr.yaml:2:1: fault 2"
    assert many.errors == tuple(errors)
    assert many.place == errors[0].place
    assert many.code == USER
    machine = EnvironmentFault("", "no room")
    assert ManyErrors([machine, machine]).code == ManyErrors([machine]).code == ENVIRONMENT
    assert ManyErrors([machine, *errors]).code == USER


def test_raise_all() -> None:
    one, two = UserError("", "one"), UserError("", "two")
    raise_all([])
    with pytest.raises(UserError) as caught:
        raise_all([one])
    assert caught.value is one
    with pytest.raises(ManyErrors) as both:
        raise_all([one, two])
    assert both.value.errors == (one, two)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "'plain'"),
        ("größe", "'größe'"),
        ("a\nb\x1b[31m\x00", "'a\\nb\\x1b[31m\\x00'"),
        ("\u2028\ud800", "'\\u2028\\ud800'"),
        (1.5, "1.5"),
        (None, "None"),
        ("x" * 38, "'" + "x" * 38 + "'"),
        ("x" * 39, "'" + "x" * 35 + "...'"),
        (("x" * 39,), "('" + "x" * 34 + "...)"),
    ],
)
def test_quoted(value: object, text: str) -> None:
    assert quoted(value) == text
    assert len(text) <= 40
    assert text.isprintable()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("model", "after", 0), "model.after[0]"),
        (("a", 0, 1, "b"), "a[0][1].b"),
        (("", "b"), "''.b"),
        (("a\n", "b"), "'a\\n'.b"),
        (("k" * 41,), "'" + "k" * 35 + "...'"),
        (("k" * 40,), "k" * 40),
    ],
)
def test_dotted(path: tuple[str | int, ...], text: str) -> None:
    assert dotted(path) == text


def test_did_you_mean() -> None:
    assert did_you_mean("sed", ["seed", "name"]) == " (did you mean 'seed'?)"
    assert did_you_mean("zzz", ["seed", "name"]) == ""
    assert did_you_mean(7, ["seed"]) == ""
    assert did_you_mean("s" * 10_000, ["seed"]) == ""
    assert did_you_mean("seed", []) == ""
    assert did_you_mean("LABEL", ["x", "label"]) == " (did you mean 'label'?)"
    assert did_you_mean("label", ["Labels", "LABEL"]) == " (did you mean 'LABEL'?)"
    assert did_you_mean("STRASSE", ["Straße"]) == " (did you mean 'Straße'?)"
    assert did_you_mean("a", ["b", " a "]) == " (did you mean ' a ', with its spaces?)"
    assert did_you_mean(" label", ["label"]) == " (did you mean 'label'?)"


def test_the_nearest_of_very_many_names_is_found_at_once() -> None:
    """Compared with all of them, a name would take seconds, and a recipe may have a thousand that are unknown."""
    known = [f"column_{i:06d}" for i in range(100_000)] + ["Age of the customer", "z" * 100_000]
    began = time.process_time()
    assert did_you_mean("age of the custmer", known) == " (did you mean 'Age of the customer'?)"
    assert did_you_mean("COLUMN_000007 ", known) == " (did you mean 'column_000007'?)"
    assert did_you_mean("x" * 100_000, known) == ""
    assert time.process_time() - began < 2
