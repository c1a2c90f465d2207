"""What the author of a first recipe should know: what was guessed, and why."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from itertools import chain

from mtl.console import counted
from mtl.errors import quoted
from mtl.starter.guess.gaps import lacks_like
from mtl.starter.guess.kinds import lists_labels, yes_values
from mtl.starter.guess.roles import like_a_split, names_groups
from mtl.starter.guess.settings import Settings
from mtl.starter.look.columns import Look
from mtl.starter.look.numbers import described
from mtl.starter.look.parsed import means_missing
from mtl.starter.plan import NAMES_SPLITS, Plan
from mtl.starter.words import MARKERS, OUTCOMES, WORDS_FOR_NOTHING

MOST_SHOWN = 3
"""Most texts or columns that one line names."""
MOST_LISTED = 12
UNNAMED_VALUES = (
    "the first column has no name and is left out; its values are no row numbers: name it to use it"
)


def notes(plan: Plan, first_row: int, settings: Settings, n_inputs: int, n_rows: int) -> list[str]:
    """Lines for the author, the important ones first.

    Args:
        plan: what the recipe makes of the table.
        first_row: the number of the table's first row in messages.
        settings: the settings of the recipe.
        n_inputs, n_rows: of the table, from which the settings follow.
    """
    lines = list(of_totals(plan, first_row))
    if plan.copies:
        lines.append(of_copies(plan.copies))
    lines += [
        f"column {quoted(name)} is left out, because it gives a label away: {how}"
        for name, how in plan.leaks.items()
    ]
    lines += [
        f"column {quoted(far.column)}: {far.value:.15g} in row {far.row + first_row} is more than 1000 times as large "
        "as 99% of its numbers; correct it in the file if it is a slip"
        for far in plan.far
    ]
    lines += _outcomes(plan)
    lines += _splits(plan)
    marked = [name for name in plan.used if _is_marked(plan.looks[name])]
    if len(marked) > MOST_SHOWN:
        lines += _of_many(plan, marked)
    for name in plan.used:
        own = _of_column(plan, plan.looks[name], first_row, said=len(marked) > MOST_SHOWN)
        lines += [f"column {quoted(name)}: {line}" for line in own]
    lines += [*_sides(plan), *_screen(settings, n_inputs, n_rows)]
    lines += [UNNAMED_VALUES] if plan.unnamed else []
    return [*lines, *_left_out(plan)]


def of_totals(plan: Plan, first_row: int) -> Iterator[str]:
    """A line for each row that looks like a total; a recipe cannot leave a row out."""
    for total in plan.totals[:MOST_SHOWN]:
        yield (
            f"row {total.row + first_row} looks like a total ({quoted(total.text)} in column {quoted(total.column)}): "
            "remove it from the file, or it is learned from as a row"
        )
    if len(plan.totals) > MOST_SHOWN:
        more = counted(len(plan.totals) - MOST_SHOWN, "other row looks", "other rows look")
        yield f"{more} like a total: remove each from the file"


def of_copies(rows: int) -> str:
    """What copies do to a split."""
    one = "row is an exact copy of another"
    return (
        f"{counted(rows, one, 'rows are exact copies of others')}; copies may be on both sides of the split"
    )


def is_code(seen: Look) -> bool:
    """Whether a category is written as a number or as a flag, so that its role needs a reason."""
    return seen.numeric or seen.padded or seen.flag


def of_form(seen: Look, first_row: int) -> str:
    """How the texts of a column are read, for a comment beside the settings that say so."""
    parts = []
    how = described(seen.form)
    if how:
        parts.append(f"numbers with {how}")
    if seen.form.date_format:
        parts.append(f"dates such as {_example(seen)}")
    if seen.parsed is not None and seen.parsed.odd:
        parts.append(_odd(seen, first_row))
    elif seen.form.na_values:
        parts.append(f"{_listed(seen.form.na_values[1:])} means a missing value")
    if seen.doubt:
        parts.append(seen.doubt)
    return "; ".join(parts)


def _example(seen: Look) -> str:
    """A value with the sign that leaves a doubt, such as `1,234`."""
    return next((value for value in seen.counts if not value.strip("+-").isdigit()), "")


def _odd(seen: Look, first_row: int) -> str:
    """`200 numbers and 'Total' in row 202`."""
    assert seen.parsed is not None
    kind = "date" if seen.parsed.dates else "number"
    good = seen.parsed.good
    said = [counted(good, kind)]
    odd = sorted(seen.parsed.odd.items(), key=lambda pair: pair[1].first)
    for text, where in odd[:MOST_SHOWN]:
        at = f"row {where.first + first_row}" if where.rows == 1 else counted(where.rows, "row")
        said.append(f"{quoted(text)} in {at}")
    if len(odd) > MOST_SHOWN:
        said.append(counted(len(odd) - MOST_SHOWN, "other text"))
    return f"{', '.join(said[:-1])} and {said[-1]}"


def _listed(names: Sequence[str], most: int = MOST_SHOWN) -> str:
    shown = ", ".join(map(quoted, names[:most]))
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def _is_marked(seen: Look) -> bool:
    """Whether usual words for a missing value are all that stands among the numbers or dates of a column."""
    return seen.parsed is not None and bool(seen.parsed.odd) and all(map(means_missing, seen.parsed.odd))


def _of_many(plan: Plan, marked: Sequence[str]) -> Iterator[str]:
    """One line for many columns with usual words for a missing value."""
    odd = (plan.looks[name].parsed for name in marked)
    words = list(dict.fromkeys(text for parsed in odd if parsed is not None for text in parsed.odd))
    yield (
        f"{counted(len(marked), 'column')} of numbers or dates hold {_listed(words, 9)}, "
        f"which {_be(words)} taken for missing values: {_listed(marked, MOST_LISTED)}"
    )


def _of_column(plan: Plan, seen: Look, first_row: int, said: bool) -> Iterator[str]:
    """The lines on one column; `said` if one line tells of the words for a missing value in many."""
    if seen.parsed is not None and seen.parsed.odd and not (said and _is_marked(seen)):
        one = len(seen.parsed.odd) == 1
        what = "it is taken for a missing value" if one else "these texts are taken for missing values"
        yield f"{_odd(seen, first_row)}; {what}"
    if seen.parsed is not None and seen.parsed.bare:
        lack = counted(seen.parsed.bare, "number lacks", "numbers lack")
        yield f"{lack} the unit {seen.form.unit} of the others; what counts is the number alone"
    if seen.doubt:
        yield f"{seen.doubt}; an example is {quoted(_example(seen))}"
    dropped = plan.dropped.get(seen.name)
    if dropped:
        yield f"{_listed(dropped)} {_be(dropped)} taken for a missing label, because the other values are yes and no"
    role = plan.roles.get(seen.name, ("", ""))
    kind = plan.kinds.get(seen.name)
    if role[0] == "categorical" and is_code(seen):
        yield f"its values are categories: {role[1]}"
    if role[0] == "categorical" and seen.mixture:
        yield f"its values are categories: {seen.mixture}"
    if kind is not None and kind[0] == "multilabel" and seen.type == "text" and seen.blank:
        yield (
            f"{counted(seen.blank, 'empty cell is', 'empty cells are')} taken to say that no label applies; "
            "if the labels are not known there, write empty: missing"
        )
    if not seen.numeric and (
        role[0] == "categorical" or (kind is not None and kind[0] in ("multiclass", "ordinal"))
    ):
        yield from _of_words(seen, "class" if kind is not None else "category")
    if kind is not None and kind[0] == "binary" and isinstance(kind[1].get("positive"), list):
        no = [value for value in seen.counts if value not in kind[1]["positive"]]
        yield f"{_listed(kind[1]['positive'], 9)} mean yes, {_listed(no, 9)} mean no: two classes"


def _be(things: Sequence[str]) -> str:
    return "is" if len(things) == 1 else "are"


def _of_words(seen: Look, what: str) -> Iterator[str]:
    """What is doubtful about the values of a column of text."""
    markers = [value for value in seen.counts if value.strip() in MARKERS - WORDS_FOR_NOTHING]
    if markers:
        rows = sum(seen.counts[value] for value in markers)
        yield (
            f"{_listed(markers)} in {counted(rows, 'row')} {_be(markers)} kept as a {what}; "
            "if that means a missing value, write na_values for the column in data.source.formats"
        )
    if seen.distinct > 2 and yes_values(seen.counts) is not None:
        yield (
            f"{seen.distinct} spellings of yes and no are {seen.distinct} values: {_listed(list(seen.counts), 9)}; "
            "spell them alike in the table to make them two"
        )
        return
    spelled: dict[str, list[str]] = {}
    for value in seen.counts:
        spelled.setdefault(" ".join(value.split()).casefold(), []).append(value)
    alike = [values for values in spelled.values() if len(values) > 1]
    if alike:
        more = f", and {len(alike) - 1} more such groups" if len(alike) > 1 else ""
        yield f"{_listed(alike[0])} differ in case or spaces alone and are {len(alike[0])} values{more}"


def _outcomes(plan: Plan) -> Iterator[str]:
    """The inputs that may be labels too."""
    found = [name for name in plan.used if name in plan.roles and _is_outcome(plan.looks[name], plan.targets)]
    if found:
        looks = counted(len(found), "input looks like a label", "inputs look like labels")
        yield f"{looks}: {_listed(found, MOST_LISTED)}; take out what is known only afterwards"
    targets = [plan.looks[name] for name in plan.targets]
    others = [plan.looks[name] for name in plan.used if name in plan.roles and name not in found]
    lacking = [seen.name for seen in others if lacks_like(seen, targets)]
    lists = [seen.name for seen in others if lists_labels(seen) and seen.name not in lacking]
    for names, have in (
        (lacking, ("has", "have", "gaps like the labels")),
        (lists, ("lists", "list", "several values in a cell")),
    ):
        if names:
            which = counted(len(names), f"input {have[0]}", f"inputs {have[1]}")
            are = "is it a label" if len(names) == 1 else "are they labels"
            yield f"{which} {have[2]}: {_listed(names, MOST_LISTED)}; {are}, or known only later?"


def _is_outcome(seen: Look, targets: Sequence[str]) -> bool:
    if seen.words & OUTCOMES or (re.search("[a-z]{3}ed$", seen.name) and yes_values(seen.counts) is not None):
        return True
    lower = seen.name.lower()
    alike = re.sub("[0-9]+", "0", lower)
    for target in (target.lower() for target in targets):
        if lower.startswith(f"{target}_") or (alike != lower and alike == re.sub("[0-9]+", "0", target)):
            return True
    return False


def _splits(plan: Plan) -> Iterator[str]:
    if plan.split_column is not None:
        words = list(plan.looks[plan.split_column].counts)
        yield f"column {quoted(plan.split_column)} names the split of each row: {_listed(words, 9)}"
    for name, (_, why) in plan.roles.items():
        seen = plan.looks[name]
        if why == NAMES_SPLITS:
            yield f"column {quoted(name)} names splits too, and is left out"
        elif like_a_split(seen):
            yield (
                f"column {quoted(name)} seems to name splits, but {_listed(list(seen.counts), 9)} are not all of "
                "train, validation (val, valid, dev) and test; rename them to use the column"
            )


def _sides(plan: Plan) -> Iterator[str]:
    """The options that keep rows which belong together, or later rows, on one side of the split."""
    if plan.split_column is not None or plan.group is not None or plan.time is not None:
        return
    for seen in (plan.looks[name] for name in plan.roles):
        if names_groups(seen):
            values = f"{seen.many} values in {counted(seen.there, 'row')}"
            yield f"column {quoted(seen.name)} has {values}: --group {_word(seen.name)} keeps rows of one on one side"
    days = [name for name in plan.roles if plan.looks[name].dates and not plan.looks[name].missing]
    if days:
        yield (
            f"{counted(len(days), 'column holds', 'columns hold')} dates: {_listed(days)}; "
            f"--time {_word(days[0])} holds out the latest rows"
        )


def _word(name: str) -> str:
    return shlex.quote(name) if name.isprintable() else quoted(name)


def _screen(settings: Settings, n_inputs: int, n_rows: int) -> Iterator[str]:
    if settings.screen is not None:
        yield (
            f"data.screen: {settings.screen} leaves out inputs that tell nothing of the labels, "
            f"because there are {n_inputs:,} inputs for {n_rows:,} rows"
        )


def _left_out(plan: Plan) -> Iterator[str]:
    """A line for each reason for which columns are left out."""
    used = {*plan.used, *plan.leaks}
    reasons: dict[str, list[str]] = {}
    for name, (_, why) in plan.roles.items():
        if name not in used and why != NAMES_SPLITS:
            reasons.setdefault(why, []).append(name)
    for why, names in reasons.items():
        one = f"column {quoted(names[0])} is"
        many = f"{len(names)} columns ({_listed(names, MOST_LISTED)}) are"
        yield f"{one if len(names) == 1 else many} left out: {why}"


def cut(lines: Sequence[str], most: int) -> Iterator[str]:
    """The first lines; the last one says how many more there are."""
    return chain(lines[:most], [f"... and {len(lines) - most} more"] if len(lines) > most else [])
