"""User errors of one line, and the exit codes of the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

OK, BUG, USER, ENVIRONMENT, NOT_FINITE, HUNG_UP, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 4, 129, 130, 143

KeyPath = tuple[str | int, ...]
"""The path of a value in a recipe: `("model", "sharing", "after", 0)`."""


@dataclass(frozen=True)
class Place:
    """A position in a text that a user wrote. Lines and columns count from 1; 0 means unknown."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class UserError(Exception):
    """An error that only the user can correct: its place, the fault, and the advice.

    Its text is the line that the command line prints after `error: `, namely
    `place: path.in.recipe: what; todo`.

    Args:
        place: the file and position, or another name of the place of the fault; may be empty.
        what: the fault. Text from the user must go through `quoted`.
        todo: the advice; may be empty.
        path: the keys that lead to the value, if it is in a recipe.
    """

    code = USER

    def __init__(self, place: Place | str, what: str, todo: str = "", *, path: KeyPath = ()) -> None:
        super().__init__(place, what, todo, path)
        self.place, self.what, self.todo, self.path = place, what, todo, path

    def __str__(self) -> str:
        head = [part for part in (str(self.place), dotted(self.path)) if part]
        return ": ".join([*head, self.what]) + (f"; {self.todo}" if self.todo else "")

    @property
    def errors(self) -> tuple[UserError, ...]:
        """The single errors; only `ManyErrors` has more than one."""
        return (self,)


class ManyErrors(UserError):
    """Several faults that were found together."""

    def __init__(self, errors: Iterable[UserError]) -> None:
        self._errors = tuple(errors)
        first = self._errors[0]
        super().__init__(first.place, first.what, first.todo, path=first.path)
        codes = {error.code for error in self._errors}
        self.code = codes.pop() if len(codes) == 1 else USER  # the user has to mend something in any case

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self._errors)

    @property
    def errors(self) -> tuple[UserError, ...]:
        """The errors, in the order in which they were found."""
        return self._errors


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""

    code = TERMINATED


class HungUp(Terminated):
    """SIGHUP came: the terminal is gone."""

    code = HUNG_UP


class ToldElsewhere(SystemExit):
    """The end of one of several processes that work together; another one tells the user why."""

    code: int


class EnvironmentFault(UserError):
    """A fault of the machine, not of the user's text: disk, permission, network, memory, or a missing package."""

    code = ENVIRONMENT


class NotFinite(UserError):
    """A loss or a gradient became infinite or NaN; `facts` describes that step."""

    code = NOT_FINITE
    facts: dict[str, object] | None = None


def raise_all(errors: Sequence[UserError]) -> None:
    """Raise the one error, or all as `ManyErrors`; without errors, return."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ManyErrors(errors)


@contextmanager
def gathered(faults: list[UserError]) -> Iterator[None]:
    """Catch a UserError inside and add it to `faults`; the caller raises all of them later."""
    try:
        yield
    except UserError as error:
        faults.extend(error.errors)


@contextmanager
def without_paths() -> Iterator[None]:
    """Remove the recipe's paths from errors inside: these concern a file that the command line names."""
    try:
        yield
    except UserError as error:
        raise_all([type(e)(e.place, e.what, e.todo) for e in error.errors])


def quoted(value: object) -> str:
    """A user's value in printable form: its repr (no control characters), cut at 40 characters."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 40 else text[:36] + "..." + text[-1:]


def printable(text: str) -> str:
    """A text with its control characters written as escapes, because a terminal would obey them; line ends stay."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c == "\n" or c.isprintable() else ascii(c)[1:-1] for c in text)


def dotted(path: KeyPath) -> str:
    """The path `("model", "after", 0)` as `model.after[0]`; each key is printable and of bounded length."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if part.isprintable() and len(part) <= 40 and part else quoted(part)
            text += f".{shown}" if text else shown
    return text


MOST_COMPARED, LONGEST_COMPARED = 1000, 80
"""A name is compared with at most so many others, and with no longer ones, since each takes 10 microseconds."""


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that is most similar to `name`, or None if none is similar.

    Upper and lower case are equal, and spaces around a name do not count. Among very many names, those with the same
    beginning are compared.
    """
    asked = str(name)[:LONGEST_COMPARED].strip().casefold()
    by_folded: dict[str, str] = {}
    for each in known:
        if len(each) <= LONGEST_COMPARED:
            by_folded.setdefault(each.strip().casefold(), each)
    if asked in by_folded:
        return by_folded[asked]
    among = list(by_folded)
    for n in (1, 2, 3):
        if len(among) > MOST_COMPARED:
            among = [each for each in among if each[:n] == asked[:n]]
    near = difflib.get_close_matches(asked, among[:MOST_COMPARED], n=1, cutoff=0.6)
    return by_folded[near[0]] if near else None


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """` (did you mean 'seed'?)` with the nearest known name, or an empty text."""
    near = nearest(name, known)
    if near is None:
        return ""
    spaces = ", with its spaces" if near != near.strip() else ""
    return f" (did you mean {quoted(near)}{spaces}?)"
