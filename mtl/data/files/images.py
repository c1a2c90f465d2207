"""Reads the PNG and JPEG files that a table names into one array."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Condition
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from mtl.console import counted
from mtl.data import room
from mtl.data.memory import require_memory
from mtl.errors import UserError, quoted

MAX_PIXELS = 50_000_000
MAX_CHUNKS = 100_000
PIXELS_AT_ONCE = 1 << 20
CHUNK = 256
"""Images that are decoded in one task of a thread."""
BYTES_PER_PIXEL = 17
"""What decoding takes at its most, measured with every kind of image that Pillow reads: 16.1 with transparency."""
SMALL = 1 << 20
"""Pixels below which nobody asks the system for free memory, which takes longer than the decoding of an icon."""
Mode = Literal["grey", "rgb"]
Images = npt.NDArray[np.uint8]


def read_images(
    paths: Sequence[str | None],
    *,
    root: Path,
    size: tuple[int, int] | None,
    mode: Mode,
    place: Callable[[int], str],
    first: Images | None = None,
    limit_bytes: int | None = None,
    todo: str = "lower inputs.image.size",
) -> Images:
    """(n, C, H, W) the images of all rows, with values 0..255.

    An orientation stored in the file is applied. Transparent pixels lie on black. 16-bit grey is scaled to 8 bits.
    Palettes, 1-bit and CMYK are converted as Pillow does. A JPEG with several pictures gives its first one. With
    `size` the images are resized (bilinear, antialiased). Each core has a thread that decodes.

    Args:
        paths: relative to `root`; each must stay below it.
        root: the folder of the images.
        size: height and width; None if all images have one size.
        mode: grey (C = 1) or rgb (C = 3).
        place: row number -> its name in messages.
        first: the first row's image, as `first_image` gave it; it is then not read again.
        limit_bytes: the most memory; by default all that is free.
        todo: advice to the user where memory does not suffice.

    Raises:
        UserError: a file is missing, outside `root`, no PNG or JPEG, damaged or too large; the message names the
            first such row.
        EnvironmentFault: the images do not fit into memory.
    """
    if not paths:
        raise UserError("", "no rows")
    root = root.resolve()
    with _warnings_as_errors():
        first = _image(paths[0], root, size, mode, place(0)) if first is None else first
        what = f"{counted(len(paths), 'image')} of {first.shape[1]} x {first.shape[2]}"
        room.require(len(paths) * first.size, "", what, todo, limit_bytes)
        images = room.zeros((len(paths), *first.shape), np.uint8)
        images[0] = first

        def decode(start: int) -> None:
            for row in range(max(1, start), min(start + CHUNK, len(paths))):
                image = _image(paths[row], root, size, mode, place(row))
                if image.shape != first.shape:
                    here, there = (f"{shape[1]} x {shape[2]}" for shape in (image.shape, first.shape))
                    raise UserError(
                        place(row),
                        f"{quoted(paths[row])} is {here}, {place(0)} is {there}",
                        "give inputs.image.size to resize them",
                    )
                images[row] = image

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(
                decode, range(0, len(paths), CHUNK)
            ):  # in order, so that the error names the first faulty row
                pass
    return images


@contextmanager
def _warnings_as_errors() -> Iterator[None]:
    """Turn Pillow's warnings about a file into errors; set once for all threads, because they share the filters."""
    with warnings.catch_warnings():
        for category in (UserWarning, RuntimeWarning):
            warnings.simplefilter("error", category)
        yield


def first_image(path: str | None, root: Path, mode: Mode, place: str) -> Images:
    """(C, H, W) the image of the first row; it decides the size of all images if none is given."""
    with _warnings_as_errors():
        return _image(path, root.resolve(), None, mode, place)


def located(path: str | None, root: Path, place: str) -> Path:
    """The file that a path in a table names; it must lie below `root` after its links are followed.

    Raises:
        UserError: the file is outside `root` or does not exist.
    """
    if not path:
        raise UserError(place, "no image is named")
    relative = Path(path)
    if relative.is_absolute() or ".." in relative.parts or "\0" in path or "\\" in path:
        raise UserError(
            place, f"{quoted(path)} is outside the data's folder", "name images relative to the table"
        )
    try:
        found = (root / relative).resolve(strict=True)
        if not found.is_relative_to(root):
            raise UserError(
                place, f"{quoted(path)} leads outside the data's folder", "links must stay inside"
            )
        if not found.is_file():
            raise UserError(place, f"{quoted(path)} is not a file")
    except PermissionError:
        raise UserError(place, f"{_shown(path)}: permission denied") from None
    except (OSError, RuntimeError):  # RuntimeError: a circle of links, before Python 3.13
        raise UserError(place, f"no such file {_shown(path)}") from None
    return found


def _shown(path: str) -> str:
    return path if path.isprintable() and len(path) <= 40 else quoted(path)


def _image(path: str | None, root: Path, size: tuple[int, int] | None, mode: Mode, place: str) -> Images:
    """(C, H, W) one image; any exception of Pillow on the file means that the file is damaged."""
    from PIL import Image, UnidentifiedImageError

    found = located(path, root, place)
    shown = _shown(path or "")
    too_large = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        with found.open("rb") as file:
            _require_few_chunks(file, place, shown)
            with Image.open(file, formats=("PNG", "JPEG")) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UserError(
                        place, f"{shown} has {image.width * image.height} pixels, at most {MAX_PIXELS}"
                    )
                if image.format == "PNG" and getattr(image, "n_frames", 1) > 1:
                    raise UserError(place, f"{shown} is animated", "give one frame")
                n_pixels = image.width * image.height
                if image.format != "PNG":
                    with _ROOM.taken(n_pixels, place, shown):
                        pixels = _converted(image, size, mode)
                    _require_end(file)
                    return pixels
                image.verify()  # checks every part's checksum and the end; the file must be opened again afterwards
            file.seek(0)
            with Image.open(file, formats=("PNG",)) as image, _ROOM.taken(n_pixels, place, shown):
                return _converted(image, size, mode)
    except (UserError, MemoryError):
        raise
    except UnidentifiedImageError:
        broken = _begins_like_one(found)  # a damaged header hides from Pillow what the file is
        what = ": image is truncated or damaged" if broken else " is not PNG or JPEG"
        raise UserError(place, f"{shown}{what}") from None
    except too_large:
        raise UserError(place, f"{shown} has more than {MAX_PIXELS} pixels") from None
    except PermissionError:
        raise UserError(place, f"{shown}: permission denied") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:80]
        reason = reason if reason.isprintable() else quoted(reason)
        cut = isinstance(error, EOFError) or any(
            word in reason.lower() for word in ("truncated", "incomplete")
        )
        raise UserError(
            place, f"{shown}: image is truncated" if cut else f"{shown}: image is damaged ({reason})"
        ) from None


class _Room:
    """Lets threads decode as many pixels together as one image may have, since each pixel takes memory meanwhile.

    Args:
        pixels: the most pixels at once.
    """

    def __init__(self, pixels: int) -> None:
        self.free, self._changed = pixels, Condition()

    @contextmanager
    def taken(self, pixels: int, place: str, shown: str) -> Iterator[None]:
        """Wait until so many pixels are free, and hold them; at most as many as there are may be asked for.

        Raises:
            EnvironmentFault: the memory that they need is not free.
        """
        with self._changed:
            self._changed.wait_for(lambda: pixels <= self.free)
            self.free -= pixels
        try:
            if pixels > SMALL:
                what = f"the {pixels:,} pixels of {shown}"
                require_memory(BYTES_PER_PIXEL * pixels, place, what, "make the image smaller")
            yield
        finally:
            with self._changed:
                self.free += pixels
                self._changed.notify_all()


_ROOM = _Room(MAX_PIXELS)


def _begins_like_one(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8).startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"))


def _narrowed(wide: npt.NDArray[Any]) -> Images:
    """16-bit grey as 8-bit grey; rows are taken in blocks, since a large image would take a gigabyte as float64."""
    narrow = np.empty(wide.shape, np.uint8)
    block = max(1, PIXELS_AT_ONCE // max(1, wide.shape[1]))
    for start in range(0, len(wide), block):
        part = wide[start : start + block].astype(np.float64)
        narrow[start : start + block] = np.round(np.clip(part / 257, 0, 255))
    return narrow


def _require_few_chunks(file: BinaryIO, place: str, shown: str) -> None:
    """Refuse a PNG with so many chunks that Pillow would take minutes for them; a large image has some ten thousand.

    Raises:
        UserError: it has more than `MAX_CHUNKS`.
    """
    at, n, is_png = 8, 0, file.read(8) == b"\x89PNG\r\n\x1a\n"
    size = file.seek(0, os.SEEK_END)
    while is_png and at < size and size > 12 * MAX_CHUNKS:  # a chunk takes at least 12 bytes
        file.seek(at)
        at += 12 + int.from_bytes(file.read(4), "big")
        n += 1
        if n > MAX_CHUNKS:
            raise UserError(place, f"{shown} has more than {MAX_CHUNKS} chunks", "save the image anew")
    file.seek(0)


def _require_end(file: BinaryIO) -> None:
    """Refuse a JPEG whose last picture does not end; the decoder makes up what is missing and says nothing.

    Raises:
        EOFError: there is no end of image (EOI) behind the last start of a scan (SOS).
    """
    file.seek(0)
    data = file.read()
    if data.rfind(b"\xff\xd9") <= data.rfind(b"\xff\xda"):
        raise EOFError("no end of image")


def _converted(image: Any, size: tuple[int, int] | None, mode: Mode) -> Images:
    from PIL import Image, ImageOps

    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_narrowed(np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    image = image.convert("L" if mode == "grey" else "RGB")
    if size is not None and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels: Images = np.asarray(image, dtype=np.uint8)
    return pixels[np.newaxis] if mode == "grey" else np.ascontiguousarray(pixels.transpose(2, 0, 1))
