"""Two garments in one image: which images meet, and that no label tells the other."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.data.types import Columns
from mtl.errors import UserError
from mtl.recipe.specs import SOURCES
from mtl.sources.fashion_mnist import CLASSES, DEBIAN, FashionMnist
from mtl.sources.overlaid_garments import OverlaidGarments, drawn_pairs, overlaid
from tests.sources.test_fashion_mnist import needs_the_real_set


def counts_of_pairs(columns: Columns, split: str) -> list[int]:
    """How often each pair of classes is among the rows of a split."""
    rows = columns.splits[split]
    pairs = zip(columns.labels["left"][rows].tolist(), columns.labels["right"][rows].tolist(), strict=True)
    found = Counter(10 * left + right for left, right in pairs)
    return [found[pair] for pair in range(100)]


def test_header_needs_no_file() -> None:
    header = OverlaidGarments().header()
    assert header.input_shape == (1, 36, 36)
    assert header.labels == {"left": CLASSES, "right": CLASSES}
    assert header.row_counts == {"train": 30_000, "test": 5_000}
    assert header.note == ""
    assert OverlaidGarments(rows=7, test_rows=3).header().row_counts == {"train": 7, "test": 3}
    assert SOURCES["overlaid_garments"] is OverlaidGarments
    assert not OverlaidGarments.generated


def test_the_sample() -> None:
    source = OverlaidGarments(sample=True)
    header, columns = source.header(), source.columns(0)
    assert header.row_counts == {"train": 150, "test": 50}
    assert "400 of Fashion-MNIST's 70,000 images" in header.note
    assert columns.inputs.shape == (200, 1, 36, 36)
    assert columns.inputs.dtype == np.uint8
    assert columns.splits["train"].tolist() == list(range(150))
    assert columns.splits["test"].tolist() == list(range(150, 200))
    assert set(counts_of_pairs(columns, "train")) == {1, 2}
    assert max(counts_of_pairs(columns, "test")) == 1
    for side in ("left", "right"):
        assert np.bincount(columns.labels[side][:150]).tolist() == [15] * 10
    assert columns.fingerprint.startswith("9a0aa6f20fe23abe")


def test_a_row_is_the_maximum_of_two_images_of_its_split() -> None:
    garments, columns = FashionMnist(sample=True).columns(0), OverlaidGarments(sample=True).columns(3)
    used = set[int]()
    for split, n in (("train", 150), ("test", 50)):
        images = garments.splits[split]
        pairs = drawn_pairs(garments.labels["label"], images, n, 3, split)
        used |= set(np.concatenate(pairs).tolist())
        for row, left, right in zip(columns.splits[split], *pairs, strict=True):
            assert {left, right} <= set(images.tolist())
            canvas = np.zeros((2, 36, 36), np.uint8)
            canvas[0, :28, :28], canvas[1, 8:, 8:] = garments.inputs[left, 0], garments.inputs[right, 0]
            np.testing.assert_array_equal(columns.inputs[row, 0], canvas.max(axis=0))
            for side, image in (("left", left), ("right", right)):
                assert columns.labels[side][row] == garments.labels["label"][image]
    assert used == set(range(400)), "each image is used, and none of them twice"


def test_pixels() -> None:
    images = np.zeros((2, 1, 28, 28), np.uint8)
    images[0, 0, 10, 10], images[0, 0, 27, 27], images[1, 0, 2, 2], images[1, 0, 27, 27] = 5, 7, 9, 3
    canvas = overlaid(images, np.array([0]), np.array([1]))
    assert canvas.shape == (1, 1, 36, 36)
    assert {(h, w): int(canvas[0, 0, h, w]) for h, w in np.argwhere(canvas[0, 0])} == {
        (10, 10): 9,  # 5 lies below 9
        (27, 27): 7,
        (35, 35): 3,
    }


@settings(deadline=None, max_examples=20)
@given(n=st.integers(1, 149), more=st.integers(0, 149), seed=st.integers(0, 1 << 40))
def test_fewer_rows_are_the_first_of_more(n: int, more: int, seed: int) -> None:
    label = FashionMnist(sample=True).columns(0).labels["label"]
    images = np.arange(300)
    few = drawn_pairs(label, images, n, seed, "train")
    many = drawn_pairs(label, images, min(150, n + more), seed, "train")
    for side, longer in zip(few, many, strict=True):
        np.testing.assert_array_equal(side, longer[:n])
    assert len(set(np.concatenate(many).tolist())) == 2 * len(many[0])


def test_seeds() -> None:
    source = OverlaidGarments(sample=True)
    one, two = source.columns(1), source.columns(2)
    assert one.fingerprint == source.columns(1).fingerprint
    assert one.fingerprint != two.fingerprint
    for side in ("left", "right"):
        np.testing.assert_array_equal(one.labels[side], two.labels[side])


def test_a_given_folder_must_hold_the_files(tmp_path: Path) -> None:
    source = OverlaidGarments(path=str(tmp_path))
    for attempt in (source.header, lambda: source.columns(0)):
        with pytest.raises(UserError, match="no file train-images-idx3-ubyte") as caught:
            attempt()
        assert caught.value.path == ("path",)


@needs_the_real_set
def test_no_label_of_the_real_set_tells_the_other() -> None:
    source = OverlaidGarments(path=str(DEBIAN), rows=20_000)
    columns = source.columns(0)
    assert columns.inputs.shape == (25_000, 1, 36, 36)
    assert counts_of_pairs(columns, "train") == [200] * 100
    assert counts_of_pairs(columns, "test") == [50] * 100
