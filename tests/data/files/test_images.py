"""Images of every form that PNG and JPEG have, and every way in which such a file can be wrong or hostile."""

from __future__ import annotations

import io
import os
import struct
import threading
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtl.data import memory
from mtl.data.files import images
from mtl.data.files.images import Images, Mode, first_image, located, read_images
from mtl.errors import ENVIRONMENT, EnvironmentFault, UserError

RGB = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def place(row: int) -> str:
    return f"t.csv:row {row}"


def read(folder: Path, *names: str | None, size: tuple[int, int] | None = None, mode: Mode = "rgb") -> Images:
    return read_images(names, root=folder, size=size, mode=mode, place=place)


def fault(folder: Path, *names: str | None, size: tuple[int, int] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read(folder, *names, size=size)
    assert not isinstance(caught.value, EnvironmentFault)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 200
    return text


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, pixels: bytes, *, bits: int = 8, colour: int = 0, extra: bytes = b""
) -> bytes:
    """A PNG by hand, with rows that begin with filter 0 and any claim about its size."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def luma(rgb: np.ndarray) -> np.ndarray:
    """ITU-R 601-2: 0.299 R + 0.587 G + 0.114 B."""
    return np.asarray(rgb, float) @ (0.299, 0.587, 0.114)


# --- what is read ---


def test_colours_and_grey(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    found = read(tmp_path, "a.png", "a.png")
    assert found.dtype == np.uint8
    assert found.shape == (2, 3, 6, 5)
    np.testing.assert_array_equal(found[1], RGB.transpose(2, 0, 1))
    grey = read(tmp_path, "a.png", mode="grey")
    assert grey.shape == (1, 1, 6, 5)
    np.testing.assert_allclose(grey[0, 0], luma(RGB), atol=1)


def test_a_jpeg_is_nearly_what_it_was(tmp_path: Path) -> None:
    smooth = np.broadcast_to(np.linspace(0, 240, 16, dtype=np.uint8)[:, None, None], (16, 16, 3))
    Image.fromarray(smooth.copy()).save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(read(tmp_path, "a.jpg")[0].transpose(1, 2, 0), smooth, atol=6)


def test_grey_images_as_colours(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path, "a.png")[0], np.stack([GREY] * 3))
    np.testing.assert_array_equal(read(tmp_path, "a.png", mode="grey")[0, 0], GREY)


def test_one_bit(tmp_path: Path) -> None:
    Image.fromarray(GREY > 100).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path, "a.png", mode="grey")[0, 0], np.where(GREY > 100, 255, 0))


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    wide = np.array([[0, 1, 128, 129, 257, 65535, 65407, 65406]], np.uint16)
    pixels = b"\0" + wide.astype(">u2").tobytes()
    (tmp_path / "a.png").write_bytes(png(8, 1, pixels, bits=16))
    assert read(tmp_path, "a.png", mode="grey")[0, 0, 0].tolist() == [0, 0, 0, 1, 1, 255, 255, 254]
    assert read(tmp_path, "a.png")[0, 2, 0].tolist() == [0, 0, 0, 1, 1, 255, 255, 254]


def test_a_palette_with_and_without_transparent_entries(tmp_path: Path) -> None:
    colours = chunk(b"PLTE", bytes([200, 100, 50, 10, 20, 30]))
    pixels = b"\0\0\1"
    (tmp_path / "a.png").write_bytes(png(2, 1, pixels, colour=3, extra=colours))
    assert read(tmp_path, "a.png")[0, :, 0].T.tolist() == [[200, 100, 50], [10, 20, 30]]
    (tmp_path / "a.png").write_bytes(png(2, 1, pixels, colour=3, extra=colours + chunk(b"tRNS", b"\x00\xff")))
    assert read(tmp_path, "a.png")[0, :, 0].T.tolist() == [[0, 0, 0], [10, 20, 30]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_lies_on_black(mode: str, tmp_path: Path) -> None:
    alpha = np.linspace(0, 255, GREY.size).astype(np.uint8).reshape(GREY.shape)
    colours = RGB if mode == "RGBA" else GREY[..., None]
    Image.fromarray(np.concatenate([colours, alpha[..., None]], axis=2)).save(tmp_path / "a.png")
    over_black = np.broadcast_to(colours * (alpha[..., None] / 255), RGB.shape).transpose(2, 0, 1)
    np.testing.assert_allclose(read(tmp_path, "a.png")[0], over_black, atol=1)


def test_one_transparent_colour(tmp_path: Path) -> None:
    pixels = b"\0" + bytes([1, 2, 3, 4, 5, 6])
    transparent = chunk(b"tRNS", struct.pack(">HHH", 4, 5, 6))
    (tmp_path / "a.png").write_bytes(png(2, 1, pixels, colour=2, extra=transparent))
    assert read(tmp_path, "a.png")[0, :, 0].T.tolist() == [[1, 2, 3], [0, 0, 0]]


def test_cmyk(tmp_path: Path) -> None:
    cmyk = np.zeros((16, 16, 4), np.uint8)
    cmyk[..., :] = (0, 255, 255, 0)  # no cyan, all magenta and yellow: red
    Image.frombytes("CMYK", (16, 16), cmyk.tobytes()).save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(read(tmp_path, "a.jpg")[0, :, 8, 8], [255, 0, 0], atol=4)


def test_an_orientation_is_applied(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=turned)
    np.testing.assert_array_equal(read(tmp_path, "a.png")[0], np.rot90(RGB, -1).transpose(2, 0, 1))


def test_of_a_photo_with_several_pictures_the_first_is_taken(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (16, 16), (200, 0, 0)), Image.new("RGB", (16, 16), (0, 200, 0))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second], quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.n_frames == 2  # type: ignore[attr-defined]
    np.testing.assert_allclose(read(tmp_path, "a.jpg")[0, :, 8, 8], [200, 0, 0], atol=4)


def test_resizing_is_antialiased(tmp_path: Path) -> None:
    checks = (np.indices((8, 8)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(checks).save(tmp_path / "a.png")
    small = read(tmp_path, "a.png", size=(2, 4))
    assert small.shape == (1, 3, 2, 4)
    np.testing.assert_allclose(small, 127.5, atol=24)  # every other pixel alone would be 0 or 255
    assert read(tmp_path, "a.png", size=(8, 8), mode="grey")[0, 0].tolist() == checks.tolist()


def test_the_first_image_is_read_for_the_header_and_not_again(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    assert first_image("a.png", tmp_path, "grey", place(0)).shape == (1, 6, 5)
    first = first_image("a.png", tmp_path, "rgb", place(0))
    assert first.shape == (3, 6, 5)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "a.png").unlink()
    options: dict[str, Any] = {"root": tmp_path, "size": None, "mode": "rgb", "place": place}
    np.testing.assert_array_equal(read_images(["a.png", "b.png"], first=first, **options), [first, first])
    with pytest.raises(UserError, match=r"t\.csv:row 0: no such file a\.png"):
        first_image("a.png", tmp_path, "rgb", place(0))


# --- many at once ---


def test_many_are_decoded_by_several_threads_each_into_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "CHUNK", 3)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    decoded, threads = images._image, set()

    def noted(*arguments: object) -> object:
        threads.add(threading.get_ident())
        return decoded(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(images, "_image", noted)
    names = [f"{i}.png" for i in range(40)]
    for i, name in enumerate(names):
        Image.new("L", (30, 30), i).save(tmp_path / name)
    found = read(tmp_path, *names, mode="grey")
    assert found[:, 0, 0, 0].tolist() == list(range(40))
    assert (found == found[:, :, :1, :1]).all()
    assert len(threads) > 1
    (tmp_path / "11.png").write_bytes(b"no")
    (tmp_path / "37.png").unlink()
    for _ in range(5):
        assert fault(tmp_path, *names) == "t.csv:row 11: 11.png is not PNG or JPEG", "always the first"


def test_a_users_own_warning_filters_are_as_before(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    before = list(warnings.filters)
    read(tmp_path, "a.png")
    fault(tmp_path, "b.png")
    assert list(warnings.filters) == before


def test_what_does_not_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (100, 200)).save(tmp_path / "a.png")
    with pytest.raises(EnvironmentFault) as caught:
        read_images(["a.png"] * 30_000, root=tmp_path, size=None, mode="rgb", place=place, limit_bytes=10**9)
    text = "30,000 images of 200 x 100 take 1.8 GB, 1.0 GB are free; lower inputs.image.size"
    assert str(caught.value) == text
    assert caught.value.code == ENVIRONMENT
    monkeypatch.setattr(memory, "available_memory", lambda: 59_999)
    with pytest.raises(EnvironmentFault):
        read(tmp_path, "a.png")
    monkeypatch.setattr(memory, "available_memory", lambda: 60_000)
    assert read(tmp_path, "a.png").nbytes == 60_000


# --- what is refused ---


def as_bytes(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)  # type: ignore[arg-type]
    return file.getvalue()


PICTURE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8))
WHOLE = {form: as_bytes(PICTURE, form) for form in ("PNG", "JPEG")}
ZEROS = b"\0" * 20
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", " is not PNG or JPEG"),
    "html": (b"<!DOCTYPE html><html>", " is not PNG or JPEG"),
    "text": (b"no image\n", " is not PNG or JPEG"),
    "gzip": (b"\x1f\x8b\x08\0" + b"\0" * 60, " is not PNG or JPEG"),
    **{form: (as_bytes(PICTURE, form), " is not PNG or JPEG") for form in ("GIF", "BMP", "TIFF", "PPM")},
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", " is not PNG or JPEG"),
    "png_half": (WHOLE["PNG"][: len(WHOLE["PNG"]) // 2], ": image is truncated"),
    "png_head": (WHOLE["PNG"][:60], ": image is truncated"),
    "png_no_end": (WHOLE["PNG"][:-14], ": image is truncated"),
    "jpeg_half": (WHOLE["JPEG"][: len(WHOLE["JPEG"]) // 2], ": image is truncated"),
    "jpeg_head": (WHOLE["JPEG"][:100], ": image is truncated"),
    "jpeg_last": (WHOLE["JPEG"][:-40], ": image is truncated"),
    "no_pixels": (png(4, 4, b""), ": image is truncated"),
    "few_pixels": (png(4, 4, b"\0" * 7), ": image is truncated"),
    "no_size": (png(0, 0, ZEROS), ": image is truncated or damaged"),
    "animated": (
        as_bytes(PICTURE, "PNG", save_all=True, append_images=[PICTURE.rotate(90)]),
        " is animated; give one frame",
    ),
    "60_million": (png(10_000, 6_000, ZEROS), " has 60000000 pixels, at most 50000000"),
    "100_million": (png(10_000, 10_000, ZEROS), " has more than 50000000 pixels"),
    "400_million": (png(20_000, 20_000, ZEROS), " has more than 50000000 pixels"),
    "largest": (png(2**31 - 1, 2**31 - 1, ZEROS), " has more than 50000000 pixels"),
    "text_bomb": (
        png(4, 4, ZEROS, extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 25)))),
        ": image is damaged (Decompressed data too large",
    ),
    "profile_bomb": (
        png(4, 4, ZEROS, extra=chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 25)))),
        ": image is damaged (Decompressed data too large",
    ),
    "control": (
        png(4, 4, ZEROS)[:-12] + chunk(b"\x1b[3\n", b"") + chunk(b"IEND", b""),
        ": image is damaged (broken PNG file (chunk b'\\x1b[3",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_says_what_is_wrong_with_a_file(case: str, tmp_path: Path) -> None:
    data, text = BAD[case]
    (tmp_path / "img").mkdir()
    (tmp_path / "ok.png").write_bytes(WHOLE["PNG"])
    (tmp_path / "img" / "9.png").write_bytes(data)
    tracemalloc.start()
    try:
        assert fault(tmp_path, "ok.png", "img/9.png").startswith(f"t.csv:row 1: img/9.png{text}")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_pixels_beyond_the_stated_size_are_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(4, 4, bytes(64 << 20)))
    assert (tmp_path / "a.png").stat().st_size < 100_000
    tracemalloc.start()
    try:
        assert read(tmp_path, "a.png").shape == (1, 3, 4, 4)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_no_wrong_bit_of_a_png_changes_a_pixel_unnoticed(tmp_path: Path) -> None:
    whole, told = as_bytes(Image.fromarray(RGB), "PNG"), set()
    for at in range(len(whole)):
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :]):
            (tmp_path / "a.png").write_bytes(data)
            try:
                found = read(tmp_path, "a.png")
            except UserError as error:
                told.add(str(error)[:18])
            else:
                assert at >= len(whole) - 12, "only the closing part has nothing to check"
                np.testing.assert_array_equal(found[0], RGB.transpose(2, 0, 1))
    assert told == {"t.csv:row 0: a.png"}


def test_a_jpeg_cut_anywhere_is_refused_and_a_bent_one_is_never_a_crash(tmp_path: Path) -> None:
    whole, told = as_bytes(Image.fromarray(RGB), "JPEG"), set()
    for at in range(len(whole)):
        (tmp_path / "a.jpg").write_bytes(whole[:at])
        fault(tmp_path, "a.jpg")
        (tmp_path / "a.jpg").write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            read(tmp_path, "a.jpg")
        except UserError as error:
            told.add(str(error)[:18])
    assert told == {"t.csv:row 0: a.jpg"}


def test_different_sizes(tmp_path: Path) -> None:
    Image.new("L", (5, 6)).save(tmp_path / "a.png")
    Image.new("L", (6, 5)).save(tmp_path / "b.png")
    text = "t.csv:row 2: 'b.png' is 5 x 6, t.csv:row 0 is 6 x 5; give inputs.image.size to resize them"
    assert fault(tmp_path, "a.png", "a.png", "b.png", "b.png") == text
    assert read(tmp_path, "a.png", "b.png", size=(3, 3)).shape == (2, 3, 3, 3)


def test_no_rows(tmp_path: Path) -> None:
    assert fault(tmp_path) == "no rows"


# --- paths ---

OUTSIDE = "is outside the data's folder; name images relative to the table"
LEADS = "leads outside the data's folder; links must stay inside"
PATHS: dict[str, tuple[str | None, str]] = {
    "none": (None, "no image is named"),
    "empty": ("", "no image is named"),
    "missing": ("img/9.png", "no such file img/9.png"),
    "below_a_file": ("ok.png/9.png", "no such file ok.png/9.png"),
    "long": ("x" * 300, "no such file 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...'"),
    "deep": ("x/" * 3000, "no such file 'x/x/"),
    "escape": ("\x1b[31m.png", "no such file '\\x1b[31m.png'"),
    "home": ("~/secret.png", "no such file ~/secret.png"),
    "up": ("../secret.png", f"'../secret.png' {OUTSIDE}"),
    "up_twice": ("../../etc/passwd", f"'../../etc/passwd' {OUTSIDE}"),
    "up_and_down": ("sub/../ok.png", f"'sub/../ok.png' {OUTSIDE}"),
    "absolute": ("/etc/passwd", f"'/etc/passwd' {OUTSIDE}"),
    "nul": ("ok.png\0.txt", f"'ok.png\\x00.txt' {OUTSIDE}"),
    "backslash": ("..\\secret.png", f"'..\\\\secret.png' {OUTSIDE}"),
    "link": ("link.png", f"'link.png' {LEADS}"),
    "link_to_etc": ("passwd.png", f"'passwd.png' {LEADS}"),
    "linked_folder": ("etc/passwd", f"'etc/passwd' {LEADS}"),
    "linked_above": ("above/secret.png", f"'above/secret.png' {LEADS}"),
    "dangling": ("dangling.png", "no such file dangling.png"),
    "circle": ("circle.png", "no such file circle.png"),
    "folder": ("sub", "'sub' is not a file"),
    "itself": (".", "'.' is not a file"),
    "pipe": ("pipe.png", "'pipe.png' is not a file"),
}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A data folder with links, and a file beside it that nobody should reach."""
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    for path in (tmp_path / "secret.png", data / "ok.png"):
        path.write_bytes(WHOLE["PNG"])
    links = {"link.png": "../secret.png", "passwd.png": "/etc/passwd", "etc": "/etc", "above": ".."}
    links |= {"dangling.png": "nowhere.png", "circle.png": "circle.png", "inside.png": "sub/../ok.png"}
    for name, target in links.items():
        (data / name).symlink_to(target)
    os.mkfifo(data / "pipe.png")
    return data


@pytest.mark.parametrize("case", PATHS)
def test_a_path_stays_below_its_table(case: str, world: Path) -> None:
    path, text = PATHS[case]
    assert fault(world, "ok.png", path).startswith(f"t.csv:row 1: {text}")


def test_a_link_inside_the_folder_and_a_folder_behind_a_link_are_fine(world: Path) -> None:
    (world.parent / "elsewhere").symlink_to("data")
    for folder in (world, world.parent / "elsewhere"):
        np.testing.assert_array_equal(read(folder, "inside.png"), read(folder, "ok.png"))


def test_no_permission(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "resolve", refuse)
        with pytest.raises(UserError, match=r"^here: ok\.png: permission denied$"):
            located("ok.png", world, "here")
    monkeypatch.setattr(Path, "open", refuse)
    assert fault(world, "ok.png") == "t.csv:row 0: ok.png: permission denied"


def test_no_memory_for_pixels_is_no_damage(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(images, "_converted", full)
    with pytest.raises(MemoryError):
        read(world, "ok.png")


# --- what a decoder does not say ---


def test_a_jpeg_whose_second_half_is_missing(tmp_path: Path) -> None:
    """Pillow gives grey for what zeros do not tell; an end that is appended behind them is believed."""
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg", quality=95)
    data = (tmp_path / "whole.jpg").read_bytes()
    assert read(tmp_path, "whole.jpg").shape == (1, 3, 64, 64)
    (tmp_path / "zeros.jpg").write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    assert fault(tmp_path, "zeros.jpg").endswith("zeros.jpg: image is truncated")
    (tmp_path / "more.jpg").write_bytes(data + bytes(100))  # as some cameras write it
    assert read(tmp_path, "more.jpg").shape == (1, 3, 64, 64)


def test_a_png_of_very_many_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = b"\0" + bytes(4)
    for n, fits in ((20, True), (200, False)):
        monkeypatch.setattr(images, "MAX_CHUNKS", 100)
        (tmp_path / "a.png").write_bytes(png(4, 1, pixels, extra=chunk(b"teSt", b"") * n))
        if fits:
            assert read(tmp_path, "a.png", mode="grey").shape == (1, 1, 1, 4)
        else:
            assert fault(tmp_path, "a.png").endswith("a.png has more than 100 chunks; save the image anew")


def test_wide_grey_is_narrowed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = np.random.default_rng(2).integers(0, 65536, (37, 11), dtype=np.uint16)
    expected = np.round(wide / 257).astype(np.uint8)
    for at_once in (1, 11, 100, 1 << 20):
        monkeypatch.setattr(images, "PIXELS_AT_ONCE", at_once)
        np.testing.assert_array_equal(images._narrowed(wide), expected)


# --- memory of the decoding ---


def test_the_memory_of_a_large_image_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (2000, 1000)).save(tmp_path / "a.png")
    monkeypatch.setattr(memory, "available_memory", lambda: 34_000_000)
    assert first_image("a.png", tmp_path, "grey", place(0)).shape == (1, 1000, 2000)
    monkeypatch.setattr(memory, "available_memory", lambda: 33_999_999)
    with pytest.raises(EnvironmentFault) as caught:
        first_image("a.png", tmp_path, "grey", place(0))
    what = "the 2,000,000 pixels of a.png take 34.0 MB, 34.0 MB are free; make the image smaller"
    assert str(caught.value) == f"t.csv:row 0: {what}"


def test_threads_decode_no_more_pixels_together_than_one_image_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight threads would hold eight images of 100 x 100; there is room for three of them."""
    for name in "abcdefgh":
        Image.new("L", (100, 100)).save(tmp_path / f"{name}.png")
    room = images._Room(35_000)
    monkeypatch.setattr(images, "_ROOM", room)
    monkeypatch.setattr(images, "CHUNK", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    lowest, plain = [], images._converted

    def converted(*given: Any) -> Images:
        lowest.append(room.free)
        return plain(*given)

    monkeypatch.setattr(images, "_converted", converted)
    assert read(tmp_path, *(f"{name}.png" for name in "abcdefgh"), mode="grey").shape == (8, 1, 100, 100)
    assert len(lowest) == 8
    assert min(lowest) >= 5_000
    assert room.free == 35_000
