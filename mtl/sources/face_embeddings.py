"""Face embeddings with labels of gender and age: the user's own vectors, or generated ones of the same form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from mtl.data.columns.arrays import coded, require_one_each
from mtl.data.columns.spelling import Known
from mtl.data.fingerprint import fingerprint
from mtl.data.rows.order import generator_bits
from mtl.data.types import Array, Columns, Header, Layout, Wanted
from mtl.errors import UserError, quoted
from mtl.recipe.specs import SOURCES, FilePath, SourceSpec, recipe_errors

if TYPE_CHECKING:
    from mtl.data.files.table import TableFile

WIDTH = 128
GENDER, YOUNG = ("female", "male"), ("no", "yes")
NORM_TOLERANCE = 0.01
EMBEDDINGS = ("embedding", "mirrored")
REQUIRED, OPTIONAL = ("embedding", "gender", "young"), ("mirrored", "person")
MAX_IMAGES = 1_000_000
"""Most generated images; their vectors and those of their mirror images take 1 GB."""
SPELLINGS = {
    "gender": {"f": 0, "female": 0, "0": 0, "m": 1, "male": 1, "1": 1},
    "young": {"no": 0, "n": 0, "false": 0, "0": 0, "yes": 1, "y": 1, "true": 1, "1": 1},
}


@SOURCES.register("face_embeddings")
class FaceEmbeddings(SourceSpec):
    """Embeddings (n, 128) with `gender` and `young`, from an .npz or Parquet file, or generated.

    The file has `embedding` (n x 128), `gender` (f, m), `young` (yes, no), and may have `mirrored` (n x 128: the
    embedding of each image's mirror image, which becomes a row of its own on the same side of every split) and
    `person`. An empty gender or young is a missing label. Without a file, vectors are generated, as many as the
    published experiment had: 100 people, 20 images each, half of them young. They say nothing about faces.

    Generated: x = unit(p + 0.16 g u + 0.12 y v + 0.9 n), with a vector p of the person, signs g and y of the labels,
    two directions u and v with cosine 0.5, and noise n of the image; the mirror image has another noise of half the
    size.
    """

    reference: ClassVar[str] = "Cao et al. 2018, VGGFace2, arXiv:1710.08092"
    example: ClassVar[Mapping[str, Any]] = {"people": 4, "images": 4}

    path: FilePath | None = Field(None, description="an .npz or Parquet file; default: generated vectors")
    people: int = Field(100, ge=4, le=100_000, description="generated: people, half of each gender")
    images: int = Field(20, ge=2, le=1000, description="generated: images per person, half of them young")

    @model_validator(mode="after")
    def _fits_in_memory(self) -> Self:
        if self.people * self.images > MAX_IMAGES:
            what = f"{self.people} people x {self.images} images are too many: at most {MAX_IMAGES} are generated"
            raise recipe_errors("face_embeddings", [(("people",), what)])
        return self

    def generated_now(self) -> bool:
        return self.path is None

    def input_array(self) -> str:
        return "embedding"

    def elsewhere(self, path: str, layout: Layout | None) -> SourceSpec | None:
        return self.model_copy(update={"path": path})

    def header(self) -> Header:
        columns = (*SPELLINGS, "person") if self.path is None else _checked_columns(Path(self.path))
        note = "the data are generated (vectors in the form of face embeddings)" if self.path is None else ""
        return Header((WIDTH,), {"gender": GENDER, "young": YOUNG}, note=note, columns=columns)

    def columns(self, seed: int) -> Columns:
        return self.read(seed, Wanted())

    def read(self, seed: int, wanted: Wanted) -> Columns:
        faces = self._generated(seed) if self.path is None else _from_file(Path(self.path))
        arrays, n = faces.arrays, len(faces.arrays["embedding"])
        inputs = {name: _embeddings(faces, name, n) for name in EMBEDDINGS if name in arrays}
        notices = [_norm_notice(faces, name, rows) for name, rows in inputs.items()]
        times = len(inputs)
        labels = {task: np.tile(_labels(faces, task, n), times) for task in SPELLINGS}
        extra: dict[str, Array] = {}
        extra_names: dict[str, tuple[str, ...]] = {}
        if "person" in arrays:
            require_one_each(faces.name, "person", arrays["person"], n)
            codes, extra_names["person"] = coded(faces.name, "person", arrays["person"])
            extra["person"] = np.tile(codes, times)
        rows = np.concatenate(list(inputs.values()))
        return Columns(
            rows,
            labels,
            {},
            fingerprint(rows, {**labels, **extra}, {}),
            present={task: codes >= 0 for task, codes in labels.items() if (codes < 0).any()},
            extra=extra,
            extra_names=extra_names,
            units=np.tile(np.arange(n), times),
            place=lambda row: faces.row(row % n) + (" (mirrored)" if row >= n else ""),
            notices=tuple(filter(None, notices)),
        )

    def _generated(self, seed: int) -> _Faces:
        """Generated arrays, in the form in which a file holds them."""
        draw = np.random.Generator(generator_bits(seed, 0, "face embeddings")).standard_normal
        n = self.people * self.images
        person = np.repeat(np.arange(self.people), self.images)
        gender = (person % 2).astype(np.int64)
        young = (np.arange(n) % self.images) * 2 // self.images
        u, w = draw(WIDTH), draw(WIDTH)
        u /= np.linalg.norm(u)
        w -= (w @ u) * u
        v = 0.5 * u + np.sqrt(0.75) * w / np.linalg.norm(w)
        of_person = draw((self.people, WIDTH))[person] / np.sqrt(WIDTH)
        signs = 0.16 * np.outer(2 * gender - 1, u) + 0.12 * np.outer(2 * young - 1, v)
        center = of_person + signs + 0.9 * draw((n, WIDTH)) / np.sqrt(WIDTH)
        mirrored = center + 0.45 * draw((n, WIDTH)) / np.sqrt(WIDTH)
        arrays: dict[str, Array] = {
            "embedding": _unit(center),
            "mirrored": _unit(mirrored),
            "gender": np.array(["f", "m"])[gender],
            "young": np.array(["no", "yes"])[young],
            "person": np.char.add("person ", person.astype(str)),
        }
        return _Faces("generated", arrays, lambda i: f"generated:row {i}")


@dataclass(frozen=True)
class _Faces:
    """The arrays of a file, unchanged.

    Args:
        name: the file's name in messages.
        row: row number -> its name in messages.
    """

    name: str
    arrays: Mapping[str, Array]
    row: Callable[[int], str]


def _unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    unit: npt.NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _embeddings(faces: _Faces, name: str, n: int) -> npt.NDArray[np.float32]:
    values = faces.arrays[name]
    _check_form(faces.name, name, values.shape, values.dtype)
    if len(values) != n:
        raise UserError(faces.name, f"{n} embeddings but {len(values)} mirrored ones")
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(values, dtype=np.float32)
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if wrong.size:
        raise UserError(faces.row(int(wrong[0])), f"{quoted(name)} holds a value that is not finite")
    return rows


def _check_form(file: str, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if len(shape) != 2 or shape[1] != WIDTH or dtype.kind not in "fiu":
        raise UserError(file, f"{quoted(name)} has shape {shape} of {dtype}, expected (n, {WIDTH}) numbers")
    if shape[0] == 0:
        raise UserError(file, "no rows")


def _norm_notice(faces: _Faces, name: str, rows: npt.NDArray[np.float32]) -> str:
    """A warning if the lengths of the vectors differ from those that a face network gives; else ""."""
    with np.errstate(over="ignore"):
        norms = np.sqrt(np.einsum("nf,nf->n", rows, rows))
    far = np.flatnonzero(np.abs(norms - 1) > NORM_TOLERANCE)
    if not far.size:
        return ""
    first = f"{faces.row(int(far[0]))}: {quoted(name)} has length {norms[far[0]]:.3g}"
    more = f", and {far.size - 1} more rows are not of length 1 either" if far.size > 1 else ""
    return f"{first}{more}; face embeddings have length 1: they are taken as they are"


def _labels(faces: _Faces, task: str, n: int) -> npt.NDArray[np.int64]:
    """Codes 0 and 1 of any known spelling; -1 for a missing label."""
    values, known = faces.arrays[task], SPELLINGS[task]
    require_one_each(faces.name, task, values, n)
    codes, names = coded(faces.name, task, values)
    among, meant = Known(known), list(known.values())
    places = [among.find(text.strip().lower()) for text in names]
    found = np.array([*(-2 if place is None else meant[place] for place in places), -1])[codes]
    wrong = np.flatnonzero(found == -2)
    if wrong.size:
        row, allowed = int(wrong[0]), ", ".join(known)
        raise UserError(faces.row(row), f"{task} is {quoted(names[codes[row]])}, allowed {allowed}")
    return found.astype(np.int64)


def _checked_columns(path: Path) -> tuple[str, ...]:
    """The label columns, and `person` if the file has it; names are checked, and for an .npz the shapes too."""
    if path.suffix.lower() == ".npz":
        from mtl.data.files.npz import archive, require_array

        headers = archive(path).headers
        for name in REQUIRED:
            require_array(path.name, name, headers)
        for name in EMBEDDINGS:
            if name in headers:
                _check_form(path.name, name, *headers[name])
        there = tuple(headers)
    else:
        file = _table(path)
        file.require(REQUIRED)
        there = file.column_names
    return tuple(name for name in (*SPELLINGS, "person") if name in there)


def _from_file(path: Path) -> _Faces:
    """`embedding`, `gender` and `young` of a file, and `mirrored` and `person` if it has them."""
    if path.suffix.lower() == ".npz":
        from mtl.data.files.npz import archive

        opened = archive(path)
        wanted = [*REQUIRED, *(name for name in OPTIONAL if name in opened.headers)]
        return _Faces(path.name, opened.arrays(wanted), lambda i: f"{path.name}:row {i}")
    from mtl.data.columns.values import texts, vectors

    file = _table(path)
    file.check()
    columns = [*REQUIRED, *(n for n in OPTIONAL if n in file.column_names)]
    parts: dict[str, list[Array]] = {column: [] for column in columns}
    for first, batch in file.batches(columns):
        for name in columns:
            array = batch.column(name)
            if name in EMBEDDINGS:
                width = parts[name][0].shape[1] if parts[name] else None
                parts[name].append(vectors(file, name, first, array, width))
            else:
                listed = texts(file, name, first, array).to_pylist()
                parts[name].append(np.array(["" if text is None else text for text in listed]))
    return _Faces(file.name, {name: np.concatenate(values) for name, values in parts.items()}, file.row)


def _table(path: Path) -> TableFile:
    from mtl.data.files.table import PARQUET_SUFFIXES, TEXT_SUFFIXES, TableFile

    if path.suffix not in (*TEXT_SUFFIXES, *PARQUET_SUFFIXES):
        raise UserError(
            str(path), f"embeddings are read from .npz, .parquet or .csv, not {quoted(path.suffix)}", path=("path",)
        )  # fmt: skip
    return TableFile(path)
