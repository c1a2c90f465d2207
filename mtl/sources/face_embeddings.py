"""Face embeddings with gender and age labels: the user's own, or generated vectors of the same form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from mtl.data.batches import generator_bits
from mtl.data.columns import Array, Columns, Header, Wanted
from mtl.data.fingerprint import fingerprint
from mtl.errors import UserError, quoted
from mtl.recipe.spec import SOURCES, FilePath, SourceSpec
from mtl.sources.npz import coded

WIDTH = 128
GENDER, YOUNG = ("female", "male"), ("no", "yes")
SPELLINGS = {
    "gender": {"f": 0, "female": 0, "0": 0, "m": 1, "male": 1, "1": 1},
    "young": {"no": 0, "n": 0, "false": 0, "0": 0, "yes": 1, "y": 1, "true": 1, "1": 1},
}


@SOURCES.register("face_embeddings")
class FaceEmbeddings(SourceSpec):
    """Embeddings (n, 128) with `gender` and `young`, from an .npz or Parquet file, or generated.

    The file has `embedding` (n x 128), `gender` (f, m), `young` (yes, no), and may have `mirrored` (n x 128: the
    embedding of each image's mirror image, which becomes a row of its own on the same side of every
    split) and `person`. Without a file, vectors are generated, as many as the published experiment had: 100 people,
    20 images each, half of them young. They say nothing about faces.

    Generated: x = unit(p + 0.16 g u + 0.12 y v + 0.9 n), with a vector p of the person, signs g and y of the labels,
    two directions u and v with cosine 0.5, and noise n of the image; the mirror image has another noise of half the
    size.
    """

    reference: ClassVar[str] = "Cao et al. 2018, VGGFace2, arXiv:1710.08092"

    path: FilePath | None = Field(None, description="an .npz or Parquet file; default: generated vectors")
    people: int = Field(100, ge=4, le=100_000, description="generated: people, half of each gender")
    images: int = Field(20, ge=2, le=1000, description="generated: images per person, half of them young")

    def generated_now(self) -> bool:
        return self.path is None

    def input_array(self) -> str:
        return "embedding"

    def elsewhere(self, path: str) -> SourceSpec | None:
        return self.model_copy(update={"path": path})

    def header(self) -> Header:
        note = "the data are generated (vectors in the form of face embeddings)" if self.path is None else ""
        return Header(
            (WIDTH,),
            {"gender": GENDER, "young": YOUNG},
            note=note,
            columns=("gender", "young", "person"),
        )

    def columns(self, seed: int) -> Columns:
        return self.read(seed, Wanted())

    def read(self, seed: int, wanted: Wanted) -> Columns:
        arrays = self._generated(seed) if self.path is None else _file_arrays(Path(self.path))
        name = "generated" if self.path is None else Path(self.path).name
        inputs = _embeddings(name, "embedding", arrays["embedding"])
        n = len(inputs)
        units = np.arange(n)
        labels = {task: _labels(name, task, arrays[task], n) for task in SPELLINGS}
        extra: dict[str, Array] = {}
        extra_names: dict[str, tuple[str, ...]] = {}
        if "person" in arrays:
            extra["person"], extra_names["person"] = coded(np.asarray(arrays["person"]))
        elif "person" in wanted.extra:
            raise UserError(name, "has no 'person'", "leave out split.group, or add it to the file")
        if "mirrored" in arrays:
            mirrored = _embeddings(name, "mirrored", arrays["mirrored"])
            if len(mirrored) != n:
                raise UserError(name, f"{n} embeddings but {len(mirrored)} mirrored ones")
            inputs = np.concatenate([inputs, mirrored])
            units = np.concatenate([units, units])
            labels = {task: np.concatenate([codes, codes]) for task, codes in labels.items()}
            extra = {column: np.concatenate([codes, codes]) for column, codes in extra.items()}
        return Columns(
            inputs,
            labels,
            {},
            fingerprint(inputs, {**labels, **extra}, {}, {}),
            extra=extra,
            extra_names=extra_names,
            units=units,
            place=lambda row: f"{name}:row {row % n}" + (" (mirrored)" if row >= n else ""),
        )

    def _generated(self, seed: int) -> dict[str, Array]:
        """The arrays of a file, made up."""
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
        return {
            "embedding": _unit(center),
            "mirrored": _unit(mirrored),
            "gender": np.array(["f", "m"])[gender],
            "young": np.array(["no", "yes"])[young],
            "person": np.char.add("person ", person.astype(str)),
        }


def _unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    unit: npt.NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _embeddings(file: str, name: str, values: Array) -> npt.NDArray[np.float32]:
    if values.ndim != 2 or values.shape[1] != WIDTH or values.dtype.kind not in "fiu":
        raise UserError(
            file, f"{quoted(name)} has shape {values.shape} of {values.dtype}, expected (n, {WIDTH}) numbers"
        )
    if len(values) == 0:
        raise UserError(file, "no rows")
    wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if wrong.size:
        raise UserError(f"{file}:row {wrong[0]}", f"{quoted(name)} holds a value that is not finite")
    return np.ascontiguousarray(values, dtype=np.float32)


def _labels(file: str, task: str, values: Array, n: int) -> npt.NDArray[np.int64]:
    """0 and 1 from any of the spellings that are known."""
    if values.shape != (n,):
        raise UserError(file, f"{quoted(task)} has shape {values.shape}, expected ({n},)")
    texts, position = np.unique(np.asarray(values).astype(str), return_inverse=True)
    known = SPELLINGS[task]
    codes = np.array([known.get(text.strip().lower().removesuffix(".0"), -1) for text in texts.tolist()])[
        position
    ]
    wrong = np.flatnonzero(codes < 0)
    if wrong.size:
        allowed = ", ".join(known)
        raise UserError(
            f"{file}:row {wrong[0]}", f"{task} is {quoted(str(values[wrong[0]]))}, allowed {allowed}"
        )
    return codes.astype(np.int64)


def _file_arrays(path: Path) -> Mapping[str, Array]:
    """`embedding`, `gender`, `young`, and `mirrored` and `person` where they are there."""
    if path.suffix == ".npz":
        from mtl.data.npz import arrays, names

        there = names(path)
        return arrays(
            path, ["embedding", "gender", "young", *(n for n in ("mirrored", "person") if n in there)]
        )
    from mtl.data.table import TableFile, texts, vectors

    file = TableFile(path)
    file.check()
    columns = ["embedding", "gender", "young", *(n for n in ("mirrored", "person") if n in file.column_names)]
    parts: dict[str, list[Array]] = {column: [] for column in columns}
    for first, batch in file.batches(columns):
        for name in columns:
            array = batch.column(name)
            if name in ("embedding", "mirrored"):
                parts[name].append(vectors(file, name, first, array, WIDTH))
            else:
                parts[name].append(
                    np.array(["" if t is None else t for t in texts(file, name, first, array).to_pylist()])
                )
    return {name: np.concatenate(values) for name, values in parts.items()}
