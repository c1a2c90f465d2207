"""Two garments in one image: two tasks of which neither label tells the other.

Shape letters: N rows, S the side of a garment's image, D the pixels between the corners of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from mtl.data.fingerprint import fingerprint
from mtl.data.rows.order import order
from mtl.data.types import Array, Columns, Header, Rows
from mtl.recipe.specs import SOURCES, FilePath, SourceSpec, recipe_errors
from mtl.sources.fashion_mnist import CLASSES, COUNTS, SAMPLE_COUNTS, SIDE, FashionMnist

SHIFT = 8
"""Pixels by which the second image lies lower and further right, as in both references."""
SIDES = ("left", "right")
N_CLASSES = len(CLASSES)


@SOURCES.register("overlaid_garments")
class OverlaidGarments(SourceSpec):
    """The pixel-wise maximum of two Fashion-MNIST images, as (1, 36, 36) uint8; columns `left` and `right`.

        x[h, w] = max(l[h, w], r[h - 8, w - 8])        (0 outside of an image of 28 x 28)

    `left` is the class of l, the image in the upper left corner, and `right` that of r, in the lower right one.
    Row i shows classes (i mod 10, (i + floor(i / 10)) mod 10), so that each hundred rows has each pair of classes
    once: both labels are balanced, and neither tells anything of the other. The images of a class are drawn
    without replacement, by the recipe's `seed.labels`: no image is used twice, training rows show training
    images, and test rows show test images. Fewer rows are the first ones of more rows.
    """

    reference: ClassVar[str] = (
        "Sabour, Frosst, Hinton 2017, arXiv:1710.09829; Sener and Koltun 2018, arXiv:1810.04650"
    )
    example: ClassVar[Mapping[str, Any]] = {"sample": True, "rows": 100, "test_rows": 50}

    path: FilePath | None = Field(
        None, description="a folder with Fashion-MNIST's files; as in fashion_mnist"
    )
    sample: bool = Field(
        False, description="made of the 400 images that come with mtl, for trying things out"
    )
    rows: int | None = Field(
        None, ge=1, le=COUNTS["train"] // 2, description="training rows; default: 30000, or 150 of the sample"
    )
    test_rows: int | None = Field(
        None, ge=1, le=COUNTS["test"] // 2, description="test rows; default: 5000, or 50 of the sample"
    )

    @model_validator(mode="after")
    def _enough_images(self) -> Self:
        if self.sample and self.path is not None:
            raise recipe_errors(
                "overlaid_garments", [(("sample",), "give either path or sample: true, not both")]
            )
        errors: list[tuple[tuple[str | int, ...], str]] = []
        for key, split, count in (("rows", "train", self.rows), ("test_rows", "test", self.test_rows)):
            most = self._images()[split] // 2
            if count is not None and count > most:
                what = f"{count} rows of two images each are too many: the sample has images for {most}"
                errors.append(((key,), what))
        if errors:
            raise recipe_errors("overlaid_garments", errors)
        return self

    def _images(self) -> Mapping[str, int]:
        return SAMPLE_COUNTS if self.sample else COUNTS

    def row_counts(self) -> dict[str, int]:
        """The rows of each split."""
        asked, images = {"train": self.rows, "test": self.test_rows}, self._images()
        return {split: images[split] // 2 if rows is None else rows for split, rows in asked.items()}

    def header(self) -> Header:
        """Shapes and classes; if `path` is given, it must hold the four files.

        Raises:
            UserError: one of them is missing.
        """
        note = FashionMnist(path=self.path, sample=self.sample).header().note
        side = SIDE + SHIFT
        return Header((1, side, side), dict.fromkeys(SIDES, CLASSES), self.row_counts(), note)

    def columns(self, seed: int) -> Columns:
        """Training rows, then test rows.

        Raises:
            UserError: a file of Fashion-MNIST is missing or damaged.
        """
        garments = FashionMnist(path=self.path, sample=self.sample).columns(0)
        counts, n_train = self.row_counts(), self.row_counts()["train"]
        pairs = [
            drawn_pairs(garments.labels["label"], garments.splits[split], n, seed, split)
            for split, n in counts.items()
        ]
        left_N, right_N = (np.concatenate(rows) for rows in zip(*pairs, strict=True))
        inputs = overlaid(garments.inputs, left_N, right_N)
        labels = {"left": garments.labels["label"][left_N], "right": garments.labels["label"][right_N]}
        rows = np.arange(len(inputs), dtype=np.int64)
        splits = {"train": rows[:n_train], "test": rows[n_train:]}
        return Columns(inputs, labels, splits, fingerprint(inputs, labels, splits))


def drawn_pairs(label: Array, images: Rows, n: int, seed: int, split: str) -> tuple[Rows, Rows]:
    """The left and the right image of each row of a split, as in `OverlaidGarments`.

    Args:
        label: the class of each image.
        images: the split's images; at least 2 ceil(n / 10) of each class.
        n: rows of the split.
        seed: seed of the draws.
        split: its name; each split has draws of its own.

    Returns:
        two (n,) arrays of numbers of images; no image is in them twice.
    """
    row_N = np.arange(n)
    left_N, right_N = np.empty((2, n), dtype=np.int64)
    for c in range(N_CLASSES):
        of_class = images[label[images] == c]
        of_class = of_class[order(len(of_class), seed, 0, f"overlaid garments {split} {c}")]
        at = np.flatnonzero(row_N % N_CLASSES == c)
        left_N[at] = of_class[0::2][: len(at)]
        at = np.flatnonzero((row_N + row_N // N_CLASSES) % N_CLASSES == c)
        right_N[at] = of_class[1::2][: len(at)]
    return left_N, right_N


def overlaid(images: Array, left_N: Rows, right_N: Rows) -> npt.NDArray[np.uint8]:
    """The maximum of two images each, one of them shifted by `SHIFT` pixels down and to the right.

    Args:
        images: (n, 1, S, S) uint8.
        left_N, right_N: numbers of images.

    Returns:
        (N, 1, S + D, S + D) uint8.
    """
    side = images.shape[-1]
    canvas = np.zeros((len(left_N), 1, side + SHIFT, side + SHIFT), dtype=np.uint8)
    canvas[..., :side, :side] = images[left_N]
    shifted = canvas[..., SHIFT:, SHIFT:]
    np.maximum(shifted, images[right_N], out=shifted)
    return canvas
