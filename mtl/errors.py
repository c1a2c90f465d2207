"""What a user did wrong, said in one line; and the exit codes of the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

OK, BUG, USER, ENVIRONMENT, NOT_FINITE, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 4, 130, 143

KeyPath = tuple[str | int, ...]
"""Where a value sits in a recipe: `("model", "sharing", "after", 0)`."""


@dataclass(frozen=True)
class Place:
    """A position in a text that a user wrote. Lines and columns count from 1; 0 means unknown."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class UserError(Exception):
    """Something only the user can put right: where it is, what is wrong, what to do.

    Its text is the line that the command line prints after `error: `, namely
    `place: path.in.recipe: what; todo`.

    Args:
        place: the file and position, or any other name of where the fault lies; may be empty.
        what: what is wrong. Text taken from the user goes through `quoted`.
        todo: what to do about it; may be empty.
        path: the keys that lead to the value in the recipe, if it is in one.
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
        """The single errors; more than one only for `ManyErrors`."""
        return (self,)


class ManyErrors(UserError):
    """Several faults found in one go."""

    def __init__(self, errors: Iterable[UserError]) -> None:
        self._errors = tuple(errors)
        first = self._errors[0]
        super().__init__(first.place, first.what, first.todo, path=first.path)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self._errors)

    @property
    def errors(self) -> tuple[UserError, ...]:
        return self._errors


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP."""


class EnvironmentFault(UserError):
    """The machine is at fault, not the user's text: disk, permission, network, memory, a missing package."""

    code = ENVIRONMENT


class NotFinite(UserError):
    """A loss or a gradient became infinite or NaN; `facts` is what is known of that step."""

    code = NOT_FINITE
    facts: dict[str, object] | None = None


def raise_all(errors: Sequence[UserError]) -> None:
    """Raise nothing, the one error, or all of them as `ManyErrors`."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ManyErrors(errors)


@contextmanager
def gathered(faults: list[UserError]) -> Iterator[None]:
    """An error inside is added to `faults`, so that others can be found before all are raised."""
    try:
        yield
    except UserError as error:
        faults.extend(error.errors)


@contextmanager
def without_paths() -> Iterator[None]:
    """Errors inside are about a file that the command line names: they have no path in a recipe."""
    try:
        yield
    except UserError as error:
        raise_all([type(e)(e.place, e.what, e.todo) for e in error.errors])


def quoted(value: object) -> str:
    """A user's value as it may be printed: its repr (no control characters), cut at 40 characters."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 40 else text[:36] + "..." + text[-1:]


def printable(text: str) -> str:
    """A text whose control characters, which a terminal would obey, are written as escapes; line ends stay."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c == "\n" or c.isprintable() else ascii(c)[1:-1] for c in text)


def dotted(path: KeyPath) -> str:
    """`("model", "after", 0)` as `model.after[0]`, each key printable and of bounded length."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if part.isprintable() and len(part) <= 40 and part else quoted(part)
            text += f".{shown}" if text else shown
    return text


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that is most like `name`, if any is much like it; capitals count as small letters."""
    by_folded: dict[str, str] = {}
    for each in known:
        by_folded.setdefault(each.casefold(), each)
    near = difflib.get_close_matches(str(name)[:80].casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[near[0]] if near else None


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """` (did you mean 'seed'?)` for the nearest known name, or an empty text."""
    near = nearest(name, known)
    return f" (did you mean {quoted(near)}?)" if near is not None else ""
