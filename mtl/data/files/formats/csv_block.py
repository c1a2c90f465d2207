"""Finds the records of a part of a CSV all at once, where its structure shows without a parser."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LF, CR, QUOTE = b'\n\r"'

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Block:
    """Whole records without faults: how many they are, their bytes, and the bytes of the longest one."""

    n_records: int
    n_bytes: int
    longest: int


def plain_block(part: bytes, delimiter: str, width: int) -> Block | None:
    """The whole records at the beginning of a part of a CSV; None if a parser must look for faults or blank lines.

    Args:
        part: bytes that begin with a record; they are no more than a field may have.
        delimiter: the sign between fields.
        width: the fields of each record.
    """
    # in a file of one column a blank line looks like a record
    if width < 2 or b"\0" in part:
        return None
    data, between = np.frombuffer(part, np.uint8), ord(delimiter)
    places = np.flatnonzero((data == between) | (data == LF) | (data == CR) | (data == QUOTE))
    if b'"' in part:
        quotes = data[places] == QUOTE
        # a quote within a quoted field stands twice: the first one ends the field, and the second one begins it again
        unquoted = ~(np.bitwise_xor.accumulate(quotes) | quotes)
        places = places.compress(unquoted)
    returns = data[places] == CR
    places, returns = places.compress(~returns), places.compress(returns)
    ends = places[width - 1 :: width]
    if len(ends) == 0:
        return None
    inner = places[: len(ends) * width].reshape(-1, width)[:, :-1]
    records = data[: int(ends[-1]) + 1]
    faultless = (
        (data[ends] == LF).all()
        and (data[inner] == between).all()
        and (data[returns.compress(returns < len(records)) + 1] == LF).all()
        and _quotes_enclose_fields(records, between)
        and _is_text(part[: len(records)])
    )
    return Block(len(ends), len(records), int(np.diff(ends, prepend=-1).max())) if faultless else None


def _quotes_enclose_fields(records: Bytes, between: int) -> bool:
    """Whether each quote begins a field, ends one, or is one of two within a quoted field."""
    quotes = np.flatnonzero(records == QUOTE)
    # before the first byte stands the last one, which is a line end
    before, after = records[quotes[::2] - 1], records[quotes[1::2] + 1]
    begin = (before == between) | (before == LF) | (before == QUOTE)
    end = (after == between) | (after == LF) | (after == CR) | (after == QUOTE)
    return bool(begin.all() and end.all())


def _is_text(part: bytes) -> bool:
    with suppress(UnicodeDecodeError):
        part.decode("utf-8")
        return True
    return False
