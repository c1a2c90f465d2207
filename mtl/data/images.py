"""PNG and JPEG files that a table names -> one array in memory."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mtl.errors import EnvironmentFault, UserError, quoted

MAX_PIXELS = 50_000_000
Mode = Literal["grey", "rgb"]
Images = npt.NDArray[np.uint8]


def read_images(
    paths: Sequence[str | None],
    *,
    root: Path,
    size: tuple[int, int] | None,
    mode: Mode,
    place: Callable[[int], str],
    limit_bytes: int | None = None,
) -> Images:
    """(n, C, H, W) the images of all rows, 0..255.

    An orientation stored in the file is applied; transparent pixels lie on black; 16-bit grey is scaled to 8 bits;
    palettes, 1-bit and CMYK are converted as Pillow does. With `size` they are resized (bilinear, antialiased).

    Args:
        paths: relative to `root`, below which they stay.
        size: height and width, or None: all images have one size.
        place: row number -> what it is called in messages.
        limit_bytes: most memory; default: what the machine has free.

    Raises:
        UserError: a file is missing, outside `root`, no PNG or JPEG, damaged or too large; names the row.
        EnvironmentFault: the images do not fit into memory.
    """
    if not paths:
        raise UserError("", "no rows")
    first = _image(paths[0], root, size, mode, place(0))
    needed = len(paths) * first.size
    free = available_memory() if limit_bytes is None else limit_bytes
    if needed > free:
        raise EnvironmentFault(
            "",
            f"{len(paths)} images of {first.shape[1]} x {first.shape[2]} take {needed / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free",
            "lower inputs.image.size",
        )  # fmt: skip
    images = np.empty((len(paths), *first.shape), np.uint8)
    images[0] = first
    for row, path in enumerate(paths[1:], start=1):
        image = _image(path, root, size, mode, place(row))
        if image.shape != first.shape:
            sizes = [f"{shape[1]} x {shape[2]}" for shape in (first.shape, image.shape)]
            raise UserError(
                place(row),
                f"{quoted(path)} is {sizes[1]}, {place(0)} is {sizes[0]}",
                "give inputs.image.size to resize them",
            )
        images[row] = image
    return images


def image_shape(
    path: str | None, root: Path, size: tuple[int, int] | None, mode: Mode, place: Callable[[int], str]
) -> tuple[int, int, int]:
    """(C, H, W) of all images, from the first row's."""
    if size is not None:
        return (1 if mode == "grey" else 3, *size)
    channels, height, width = _image(path, root, size, mode, place(0)).shape
    return channels, height, width


def located(path: str | None, root: Path, place: str) -> Path:
    """The file of a path in a table, which must lie below `root`.

    Raises:
        UserError: it does not, or there is no such file.
    """
    if not path:
        raise UserError(place, "no image is named")
    relative = Path(path)
    if relative.is_absolute() or ".." in relative.parts or "\0" in path or "\\" in path:
        raise UserError(
            place, f"{quoted(path)} is outside the data's folder", "name images relative to the table"
        )
    found = (root / relative).resolve()
    if not found.is_relative_to(root.resolve()):
        raise UserError(place, f"{quoted(path)} leads outside the data's folder", "links must stay inside")
    if not found.exists():
        raise UserError(
            place, f"no such file {path if path.isprintable() and len(path) <= 40 else quoted(path)}"
        )
    if not found.is_file():
        raise UserError(place, f"{quoted(path)} is not a file")
    return found


def _image(path: str | None, root: Path, size: tuple[int, int] | None, mode: Mode, place: str) -> Images:
    from PIL import Image, UnidentifiedImageError

    found = located(path, root, place)
    shown = path if path and path.isprintable() and len(path) <= 40 else quoted(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(found, formats=("PNG", "JPEG")) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UserError(
                        place, f"{shown} has {image.width * image.height} pixels, at most {MAX_PIXELS}"
                    )
                if getattr(image, "n_frames", 1) > 1:
                    raise UserError(place, f"{shown} is animated", "give one frame")
                return _converted(image, size, mode)
    except UnidentifiedImageError:
        raise UserError(place, f"{shown} is not PNG or JPEG") from None
    except PermissionError:
        raise UserError(place, f"{shown}: permission denied") from None
    except (OSError, SyntaxError, ValueError, Warning, EOFError) as error:
        reason = (
            "image is truncated"
            if "truncated" in str(error) or isinstance(error, EOFError)
            else f"image is damaged ({error})"
        )
        raise UserError(place, f"{shown}: {reason}") from None


def _converted(image: Any, size: tuple[int, int] | None, mode: Mode) -> Images:
    from PIL import Image, ImageOps

    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        wide = np.asarray(image).astype(np.float64)
        image = Image.fromarray(np.round(np.clip(wide / 257, 0, 255)).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    image = image.convert("L" if mode == "grey" else "RGB")
    if size is not None and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels: Images = np.asarray(image, dtype=np.uint8)
    return pixels[np.newaxis] if mode == "grey" else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def available_memory() -> int:
    """Bytes of memory that are free, as far as the system tells."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 1 << 62
