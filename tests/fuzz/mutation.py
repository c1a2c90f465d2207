"""Inputs that are almost right: seeded mutations of a few good ones."""

from __future__ import annotations

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
