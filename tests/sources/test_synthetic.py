"""The generated data are what their equations say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mtl.data.types import Columns
from mtl.recipe.specs import SOURCES
from mtl.sources.synthetic import Synthetic, subspaces


def accuracy(one: Columns, other: Columns, column: str) -> float:
    """Share of the test rows on which both agree."""
    labels = [columns.labels[column][columns.splits["test"]] for columns in (one, other)]
    return float(np.equal(*labels).mean())


def test_shapes_and_header() -> None:
    source = Synthetic(tasks=3, rows=50, test_rows=20, features=12, classes=4, relatedness=0.25)
    header, columns = source.header(), source.columns(0)
    assert SOURCES["synthetic"] is Synthetic
    assert Synthetic.generated
    assert header.note == "the data are generated (synthetic, relatedness 0.25)"
    assert header.input_shape == (12,)
    assert header.row_counts == {"train": 50, "test": 20}
    assert header.labels == dict.fromkeys(("task0", "task1", "task2"), ("0", "1", "2", "3"))
    assert columns.inputs.shape == (70, 12)
    assert columns.inputs.dtype == np.float32
    assert {name: (label.shape, label.dtype) for name, label in columns.labels.items()} == dict.fromkeys(
        header.labels, ((70,), np.dtype(np.int64))
    )
    assert columns.splits["train"].tolist() == list(range(50))
    assert columns.splits["test"].tolist() == list(range(50, 70))
    assert columns.present == {}
    assert set(columns.ceiling) == set(header.labels)


@settings(deadline=None)
@given(n_tasks=st.integers(1, 20), latent=st.integers(1, 4), extra=st.integers(0, 20), r=st.floats(0, 1))
def test_subspaces_are_orthonormal_and_as_related_as_asked(
    n_tasks: int, latent: int, extra: int, r: float
) -> None:
    features = 2 * latent + extra
    P_FTK = subspaces(n_tasks, features, latent, r, seed=1)
    one = np.eye(latent)
    group = features // latent - 1
    for t in range(n_tasks):
        np.testing.assert_allclose(P_FTK[:, t].T @ P_FTK[:, t], one, atol=1e-12)
        for u in range(t // group * group, t):
            np.testing.assert_allclose(P_FTK[:, t].T @ P_FTK[:, u], r * one, atol=1e-12)
    if r == 1:
        np.testing.assert_allclose(P_FTK, np.broadcast_to(P_FTK[:, :1], P_FTK.shape), atol=1e-12)
    fewer = subspaces(max(1, n_tasks - 1), features, latent, r, seed=1)
    np.testing.assert_allclose(fewer, P_FTK[:, : fewer.shape[1]], atol=1e-12)


def test_classes_are_equally_likely_and_no_linear_model_finds_them() -> None:
    columns = Synthetic(rows=20_000, test_rows=10_000, classes=3, features=8).columns(0)
    train, test = columns.splits["train"], columns.splits["test"]
    for label in columns.labels.values():
        np.testing.assert_allclose(np.bincount(label) / len(label), 1 / 3, atol=0.015)
        x = np.c_[columns.inputs, np.ones(len(label))]
        weights = np.linalg.lstsq(x[train], np.eye(3)[label[train]], rcond=None)[0]
        assert abs(((x[test] @ weights).argmax(axis=1) == label[test]).mean() - 1 / 3) < 0.03


def test_the_teacher_reaches_the_ceiling_exactly() -> None:
    knobs: dict[str, Any] = {"tasks": 3, "rows": 1000, "test_rows": 333, "classes": 4}
    clean, noisy = Synthetic(**knobs).columns(5), Synthetic(**knobs, noise=0.2).columns(5)
    assert set(clean.ceiling.values()) == {1.0}
    for column, ceiling in noisy.ceiling.items():
        assert accuracy(clean, noisy, column) == ceiling == 1 - 67 / 333
        train = noisy.splits["train"]
        wrong = noisy.labels[column][train] != clean.labels[column][train]
        assert wrong.sum() == 200
        shifts = np.subtract(noisy.labels[column][train], clean.labels[column][train], dtype=np.int64)
        assert set((shifts[wrong] % 4).tolist()) == {1, 2, 3}
    flips = [noisy.labels[c] != clean.labels[c] for c in clean.labels]
    assert not np.array_equal(flips[0], flips[1]), "each task has its own noise"


@pytest.mark.parametrize(
    ("labelled", "counts"),
    [(1.0, [200] * 3), (0.1, [20] * 3), ((1.0, 0.5, 0.01), [200, 100, 2]), ({"task1": 0.25}, [200, 50, 200])],
)
def test_labels_are_missing_in_training_only(labelled: Any, counts: list[int]) -> None:
    source = Synthetic(tasks=3, rows=200, test_rows=40, labelled=labelled)
    columns, full = source.columns(0), Synthetic(tasks=3, rows=200, test_rows=40).columns(0)
    assert list(source.labelled_counts()) == counts
    assert set(columns.present) == {f"task{t}" for t, count in enumerate(counts) if count < 200}
    for name, present in columns.present.items():
        assert present.dtype == np.bool_
        assert present[columns.splits["test"]].all()
        assert present[columns.splits["train"]].sum() == counts[int(name[4:])]
        assert (columns.labels[name][~present] == -1).all()
        np.testing.assert_array_equal(columns.labels[name][present], full.labels[name][present])


def test_more_of_anything_leaves_what_was_there_as_it_is() -> None:
    small: dict[str, Any] = {"tasks": 2, "rows": 100, "test_rows": 50, "labelled": 0.2}
    base = Synthetic(**small).columns(0)
    larger = Synthetic(**small | {"tasks": 5, "rows": 300, "labelled": 0.4}).columns(0)
    np.testing.assert_array_equal(base.inputs[:100], larger.inputs[:100])
    np.testing.assert_array_equal(base.inputs[base.splits["test"]], larger.inputs[larger.splits["test"]])
    for name, label in base.labels.items():
        both = base.present[name][:100] & larger.present[name][:100]
        np.testing.assert_array_equal(label[:100][both], larger.labels[name][:100][both])
        assert accuracy(base, larger, name) == 1
    more_labels = Synthetic(**small | {"labelled": 0.4}).columns(0)
    assert (more_labels.present["task0"] >= base.present["task0"]).all()


def test_seeds() -> None:
    one, two = Synthetic().columns(1), Synthetic().columns(2)
    assert one.fingerprint != two.fingerprint
    assert one.fingerprint == Synthetic().columns(1).fingerprint == Synthetic(seed=1).columns(2).fingerprint


@pytest.mark.parametrize(
    ("keys", "path", "text"),
    [
        (
            {"features": 7, "latent": 4},
            "features",
            "7 features are too few: a shared and an own subspace of 4 dimensions need 8",
        ),
        ({"noise": 0.5}, "noise", "0.5 leaves nothing to learn: with 2 classes it must be below 0.5"),
        (
            {"rows": 10_000_000, "features": 4096},
            "rows",
            "the data would take 164.0 GB, at most 4.0 GB are generated",
        ),
        (
            {"labelled": {"tsk1": 0.5}},
            "labelled.tsk1",
            "no task 'tsk1'; tasks are task0 to task1 (did you mean 'task1'?)",
        ),
        ({"labelled": (1.0, 0.5, 0.5)}, "labelled", "3 fractions for 2 tasks"),
        ({"labelled": 0.0001, "rows": 10}, "labelled", "task0 has no labelled row (10 rows x 0.0001)"),
        (
            {"labelled": {"task1": 0.0}},
            "labelled",
            "a labelled fraction is a number above 0 and at most 1, got 0.0",
        ),
        ({"labelled": "all"}, "labelled", "a labelled fraction is a number above 0 and at most 1, got 'all'"),
        ({"labelled": True}, "labelled", "a labelled fraction is a number above 0 and at most 1, got True"),
        ({"tasks": 1025}, "tasks", "Input should be less than or equal to 1024"),
        ({"relatedness": 1.1}, "relatedness", "Input should be less than or equal to 1"),
        ({"related": 1.0}, "related", "unknown key 'related' for synthetic (did you mean 'relatedness'?)"),
    ],
)
def test_says_what_is_wrong(keys: dict[str, Any], path: str, text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Synthetic.model_validate(keys)
    [error] = caught.value.errors()
    assert ".".join(map(str, error["loc"])) == path
    assert error["msg"] == text


def test_several_faults_are_told_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        Synthetic(features=2, noise=0.9, labelled=(1.0,))
    assert [error["loc"] for error in caught.value.errors()] == [("features",), ("noise",), ("labelled",)]
