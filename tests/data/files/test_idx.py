"""Every way in which an IDX file can be wrong, each by its text."""

from __future__ import annotations

import gzip
import io
import tracemalloc

import numpy as np
import pytest

from mtl.data.files import idx
from mtl.errors import USER, UserError

IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
PLAIN = idx.write(IMAGES)
PACKED = gzip.compress(PLAIN, mtime=0)


def read(data: bytes, limit: int = idx.LIMIT) -> np.ndarray:
    return idx.parse(idx.read(io.BytesIO(data), "a.gz", limit))


def fault(data: bytes, limit: int = idx.LIMIT) -> str:
    with pytest.raises(UserError) as caught:
        read(data, limit)
    assert caught.value.code == USER
    text = str(caught.value)
    assert text.startswith("a.gz: ")
    assert "\n" not in text
    return text


@pytest.mark.parametrize("data", [PLAIN, PACKED], ids=["plain", "gz"])
def test_reads_plain_and_gzipped_files(data: bytes) -> None:
    values = read(data)
    assert values.dtype == np.uint8
    assert values.flags.writeable
    np.testing.assert_array_equal(values, IMAGES)


def test_reads_files_longer_than_a_chunk_and_files_without_rows() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3 << 20,), dtype=np.uint8)
    for values in (noise, np.zeros((0, 28, 28), np.uint8)):
        np.testing.assert_array_equal(read(gzip.compress(idx.write(values), 1)), values)
        np.testing.assert_array_equal(read(idx.write(values)), values)


BAD = {
    "empty": (b"", "the file is empty"),
    "html": (b"<!DOCTYPE html>", "is neither gzip nor IDX: it starts with b'<!DOCTYPE'"),
    "empty_gz": (gzip.compress(b""), "holds 0 bytes, which is less than an IDX header"),
    "cut_header": (PLAIN[:10], "holds 10 bytes, which is less than an IDX header"),
    "truncated_gz": (PACKED[:-20], "the gzip data end too early"),
    "no_trailer": (PACKED[:-8], "the gzip data end too early"),
    "wrong_crc": (PACKED[:-8] + b"abcd" + PACKED[-4:], "(incorrect data check)"),
    "wrong_length": (PACKED[:-1] + b"\x01", "(incorrect length check)"),
    "not_deflate": (PACKED[:10] + b"\xff" * 20, "the gzip data are damaged after 0 unpacked bytes"),
    "trailing": (PACKED + b"junk", "b'junk' follows the end of the gzip data"),
    "two_members": (PACKED + PACKED, "holds more than one gzip member; keep the first one only"),
    "long": (PLAIN + b"x", "unpacks to more than the 76 bytes that its IDX header announces"),
    "short": (PLAIN[:-1], "holds 75 bytes, its IDX header announces 76"),
    "short_gz": (gzip.compress(PLAIN[:-1]), "holds 75 bytes, its IDX header announces 76"),
    "magic": (b"\0\0\x0d\x03" + PLAIN[4:], "is not an IDX file of bytes: its magic number is 0x00000d03"),
    "no_axes": (b"\0\0\x08\0", "its magic number is 0x00000800"),
    "magic_gz": (gzip.compress(b"%PDF-1.4 and more"), "its magic number is 0x25504446"),
    "huge_header": (
        b"\0\0\x08\x03" + b"\xff" * 20,
        "its IDX header announces 79,228,162,458,924,105,385,300,197,391 bytes",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_says_what_is_wrong(case: str) -> None:
    data, text = BAD[case]
    assert text in fault(data)


def test_a_limit_below_the_announced_size_is_an_error() -> None:
    assert "announces 76 bytes, more than the 75 allowed" in fault(PLAIN, limit=75)


def test_an_empty_array_that_numpy_cannot_hold_is_an_error() -> None:
    header = bytes((0, 0, idx.UNSIGNED_BYTE, 3)) + bytes(4) + b"\xff" * 8
    assert f"announces {16 + (2**32 - 1) ** 2:,} bytes, more than the" in fault(header)


def test_a_bomb_is_stopped_at_the_announced_size() -> None:
    bomb = gzip.compress(PLAIN + bytes(50 << 20), 9)
    assert len(bomb) * 500 < 50 << 20
    tracemalloc.start()
    try:
        assert "unpacks to more than the 76 bytes" in fault(bomb)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_no_single_wrong_bit_and_no_missing_end_goes_unnoticed() -> None:
    for at in range(len(PACKED)):
        for bit in range(8):
            bent = bytearray(PACKED)
            bent[at] ^= 1 << bit
            try:
                values = read(bytes(bent))
            except UserError:
                continue
            # what may differ: time and system in gzip's header, and the unused bits of the last data byte
            assert at < 10 or at == len(PACKED) - 9
            np.testing.assert_array_equal(values, IMAGES)
        fault(PACKED[:at])
