"""Fashion-MNIST: 70,000 grey images of clothes in ten classes."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from mtl.data.files import download, idx
from mtl.data.fingerprint import fingerprint
from mtl.data.types import Columns, Header, Rows
from mtl.errors import EnvironmentFault, UserError
from mtl.recipe.specs import SOURCES, FilePath, SourceSpec, recipe_errors

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""The folder into which the Debian package dataset-fashion-mnist puts the files."""
MIRRORS = (
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
)
SIDE = 28
COUNTS = {"train": 60_000, "test": 10_000}
SAMPLE_COUNTS = {"train": 300, "test": 100}

Images = npt.NDArray[np.uint8]
Folder = Path | Traversable


@dataclass(frozen=True)
class _File:
    """One of the four files: its split, its contents, and the hash of its unpacked bytes.

    Packages compress the same file differently, so that only the unpacked bytes have one hash; `remote`
    is the gz as it was published.
    """

    split: str
    what: str
    name: str
    sha256: str
    remote: download.Remote

    def shape(self, counts: Mapping[str, int]) -> tuple[int, ...]:
        rows = counts[self.split]
        return (rows, SIDE, SIDE) if self.what == "images" else (rows,)


def _file(split: str, what: str, name: str, sha256: str, gz_size: int, gz_sha256: str) -> _File:
    return _File(split, what, name, sha256, download.Remote(f"{name}.gz", gz_size, gz_sha256))


FILES = (
    _file(
        "train",
        "images",
        "train-images-idx3-ubyte",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        26_421_880,
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    ),
    _file(
        "train",
        "labels",
        "train-labels-idx1-ubyte",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        29_515,
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    ),
    _file(
        "test",
        "images",
        "t10k-images-idx3-ubyte",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        4_422_102,
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    ),
    _file(
        "test",
        "labels",
        "t10k-labels-idx1-ubyte",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        5_148,
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
)


@SOURCES.register("fashion_mnist")
class FashionMnist(SourceSpec):
    """The images as (1, 28, 28) uint8, 60,000 for training and 10,000 for testing; one column `label`.

    The files are taken from `path`, else from the cache (`MTL_CACHE`), else from the Debian
    package dataset-fashion-mnist, else downloaded into the cache. Wherever they come from, the sha256 of
    their unpacked bytes is checked. With `rows` there are fewer training images: the first ones of each class, so
    that each class keeps its share, and fewer are among more; the test images stay as they are.
    """

    reference: ClassVar[str] = "Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747"
    example: ClassVar[Mapping[str, Any]] = {"sample": True}

    path: FilePath | None = Field(None, description="a folder with the four files, gzipped or not")
    sample: bool = Field(False, description="the 400 images that come with mtl, for trying things out")
    rows: int | None = Field(
        None, ge=1, le=COUNTS["train"], description="training images, evenly over the classes; default: all"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        errors: list[tuple[tuple[str | int, ...], str]] = []
        if self.sample and self.path is not None:
            errors.append((("sample",), "give either path or sample: true, not both"))
        if self.sample and self.rows is not None and self.rows > SAMPLE_COUNTS["train"]:
            what = f"{self.rows} are too many: the sample has {SAMPLE_COUNTS['train']} training images"
            errors.append((("rows",), what))
        if errors:
            raise recipe_errors("fashion_mnist", errors)
        return self

    def header(self) -> Header:
        """Shapes and classes; if `path` is given, it must hold the four files.

        Raises:
            UserError: one of them is missing.
        """
        if self.path is not None:
            for file in FILES:
                _find(Path(self.path), file)
        counts = SAMPLE_COUNTS if self.sample else COUNTS
        return Header(
            input_shape=(1, SIDE, SIDE),
            labels={"label": CLASSES},
            row_counts={**counts, "train": counts["train"] if self.rows is None else self.rows},
            note="400 of Fashion-MNIST's 70,000 images: for trying things out only" if self.sample else "",
        )

    def found_in(self) -> str | None:
        for folder in (download.cache_folder() / "fashion_mnist", DEBIAN):
            with contextlib.suppress(MissingFileError, DamagedFileError):
                for file in FILES:
                    _find(folder, file)
                return str(folder)
        return None

    def columns(self, seed: int) -> Columns:
        if self.sample:
            return _columns(_read_sample(), self.rows)
        if self.path is not None:
            return _columns(_read_folder(Path(self.path)), self.rows)
        return _columns(_locate()[1], self.rows)


def fetch() -> Path:
    """Make sure that the four files are on this machine and undamaged, and print their folder.

    Raises:
        EnvironmentFault: the files had to be downloaded, but could not be.
    """
    folder = _locate()[0]
    print(f"Fashion-MNIST is in {folder} (4 files, sha256 checked)")
    return folder


def _locate() -> tuple[Path, dict[str, Images]]:
    """The folder of the files, and the contents of each file by its name."""
    cache = download.cache_folder() / "fashion_mnist"
    for folder in (cache, DEBIAN):
        try:
            return folder, _read_folder(folder)
        except MissingFileError:
            continue
        except DamagedFileError as error:
            download.say(f"{error.place}: {error.what}; not used")
    with download.locked(cache):
        return cache, {file.name: _read_or_download(cache, file) for file in FILES}


def _read_or_download(cache: Path, file: _File) -> Images:
    with contextlib.suppress(MissingFileError, DamagedFileError):
        return _read_file(cache, file, COUNTS)  # another process may have downloaded it meanwhile
    download.download(file.remote, MIRRORS, cache, f"put the 4 files in {cache}")
    try:
        return _read_file(cache, file, COUNTS)
    except UserError as error:
        raise EnvironmentFault(
            error.place, f"{error.what} right after its download", "check the disk"
        ) from error


class MissingFileError(UserError):
    """The folder lacks a file."""


class DamagedFileError(UserError):
    """A file exists, but differs from the published one."""


def _find(folder: Folder, file: _File) -> Folder:
    for name in (file.remote.name, file.name):
        try:
            if (folder / name).is_file():
                return folder / name
        except OSError as error:
            raise _unreadable(folder, error) from error
    raise MissingFileError(
        str(folder),
        f"no file {file.remote.name} or {file.name}",
        "put the four Fashion-MNIST files there, or leave out path",
        path=("path",),
    )


def _unreadable(place: Folder, error: OSError) -> DamagedFileError:
    return DamagedFileError(str(place), f"cannot be read: {error.strerror or error}", path=("path",))


def _read_folder(folder: Path) -> dict[str, Images]:
    for file in FILES:
        _find(folder, file)
    return {file.name: _read_file(folder, file, COUNTS) for file in FILES}


def _read_sample() -> dict[str, Images]:
    folder = files("mtl.sources") / "fashion_mnist_sample"
    return {file.name: _read_file(folder, file, SAMPLE_COUNTS) for file in FILES}


def _read_file(folder: Folder, file: _File, counts: Mapping[str, int]) -> Images:
    found = _find(folder, file)
    try:
        with found.open("rb") as stream:
            data = idx.read(stream, str(found))
    except OSError as error:
        raise _unreadable(found, error) from error
    except UserError as error:
        raise DamagedFileError(error.place, error.what, error.todo, path=("path",)) from error
    values, shape = idx.parse(data), file.shape(counts)
    if values.shape != shape:
        what = f"expected {shape[0]} {file.what}, file has {len(values)}"
        if len(values) == shape[0]:
            what = f"expected {file.what} of shape {shape[1:]}, file has {values.shape[1:]}"
        raise DamagedFileError(str(found), what, "get the file again", path=("path",))
    digest = hashlib.sha256(data).hexdigest()
    if counts is COUNTS and digest != file.sha256:
        what = f"is not Fashion-MNIST's: its unpacked bytes have sha256 {digest}, expected {file.sha256}"
        raise DamagedFileError(str(found), what, "get the file again", path=("path",))
    return values


def _columns(read: Mapping[str, Images], rows: int | None) -> Columns:
    """All images, or the first `rows` training images and all test images."""
    of = {(file.split, file.what): read[file.name] for file in FILES}
    if rows is not None:
        kept = _first_of_each_class(of["train", "labels"], rows)
        of |= {("train", what): of["train", what][kept] for what in ("images", "labels")}
    inputs, values = (np.concatenate([of["train", what], of["test", what]]) for what in ("images", "labels"))
    inputs, label = inputs[:, np.newaxis], {"label": values.astype(np.int64)}
    n_train = len(of["train", "labels"])
    number = np.arange(len(inputs), dtype=np.int64)
    splits = {"train": number[:n_train], "test": number[n_train:]}
    return Columns(inputs, label, splits, fingerprint(inputs, label, splits))


def _first_of_each_class(label: Images, rows: int) -> Rows:
    """The images that come first if the classes take turns, in the order of the file."""
    turn = np.empty(len(label), dtype=np.int64)
    for c in range(len(CLASSES)):
        of_class = np.flatnonzero(label == c)
        turn[of_class] = np.arange(len(of_class))
    return np.sort(np.lexsort((label, turn))[:rows])
