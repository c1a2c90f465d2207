"""Inputs that are almost right: seeded mutations of a few good ones."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**64 - 1)
TOKENS = (
    b"\x00", b"\x1b[31m", b"\n", b"\r", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", "\u202e".encode(),
    b'"', b"'", b"{", b"}",
    b"[", b"]", b":", b",", b"-", b"!!python/object/apply:os.system", b"&a", b"*a", b"<<", b"nan", b"NaN", b"-inf",
    b"Infinity", b"1e999", b"-1", b"0", b"9" * 30, b"null", b"true", b"[" * 40, b"-" * 4000, b"(" * 300, b"../", b"/",
)  # fmt: skip


def mutations(corpus: Sequence[bytes], tokens: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """The corpus as it is, and then no end of inputs that are one to eight changes away from it."""
    yield from corpus
    rng = random.Random(seed)
    while True:
        data = bytearray(rng.choice(corpus))
        for _ in range(1 << rng.randrange(4)):
            _change(data, corpus, (*TOKENS, *tokens), rng)
        yield bytes(data)


VALUES: tuple[object, ...] = (
    None, True, -1, 0, 1, 3, 2**31, 2**63, 10**40, 0.5, -1e308, "", "x", "\x1b[31m", "../x", "y" * 3000, [], [1],
    [[]], ["a"], {}, {"a": 1}, {"a": "x"}, {"": {}},
)  # fmt: skip


def changed_parts(whole: object, seed: bytes) -> object:
    """A JSON value of which one to three parts are replaced, doubled, left out or given to other keys."""
    rng = random.Random(seed)
    value = copy.deepcopy(whole)
    for _ in range(rng.randrange(1, 4) if seed else 0):
        holders = list(_holders(value))
        holder = rng.choice(holders)
        if isinstance(holder, dict):
            key = rng.choice([*holder]) if holder else "x"
            place = rng.choice((key, key, key, *rng.sample(("a", "b", "c/d/e", "\x07", ""), 1)))
            if rng.randrange(6) == 0:
                holder.pop(key, None)
            else:
                holder[place] = copy.deepcopy(rng.choice((*VALUES, *holders[:30])))
        elif rng.randrange(4) == 0:
            del holder[:1]
        else:
            holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(rng.choice(VALUES)))
    return value


def _holders(value: object) -> Iterator[dict[str, object] | list[object]]:
    """Every object and list inside a JSON value, itself included."""
    if isinstance(value, dict | list):
        yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from _holders(part)


def _change(data: bytearray, corpus: Sequence[bytes], tokens: Sequence[bytes], rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    span = slice(at, at + (1 << rng.randrange(8)))
    match rng.randrange(8):
        case 0 if at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        case 1:
            del data[span]
        case 2:
            data[at:at] = data[span] * rng.choice((1, 2, 50))
        case 3:
            data[at:at] = rng.choice(tokens)
        case 4:
            token = rng.choice(tokens)
            data[at : at + len(token)] = token
        case 5:
            other = rng.choice(corpus)
            data[at:] = other[rng.randrange(len(other) + 1) :]
        case 6 if rng.randrange(8) == 0:
            del data[at:]
        case _:
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice(NUMBERS) % (1 << 8 * width)
            data[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))  # type: ignore[arg-type]
