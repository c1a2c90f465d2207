"""Iterative stratification is that of the paper, row by row, and gives every split its share of each class.

Shapes: n rows, C columns of classes.
"""

from __future__ import annotations

from time import process_time

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl.data.rows.order import generator_bits, order
from mtl.data.rows.splits import make_splits
from mtl.data.rows.stratification import iteratively_stratified
from mtl.errors import UserError

Classes = npt.NDArray[np.int64]


def assays(n: int, n_tasks: int, labelled: float, positive: float = 0.3, seed: int = 0) -> Classes:
    """Yes-or-no tasks of which most labels are missing: (n, n_tasks), task t has the classes 2 t and 2 t + 1."""
    draw = np.random.default_rng(seed)
    classes = 2 * np.arange(n_tasks) + (draw.random((n, n_tasks)) < positive)
    return np.where(draw.random((n, n_tasks)) < labelled, classes, -1)


def counted(classes_NC: Classes, rows: npt.NDArray[np.int64], n_classes: int) -> npt.NDArray[np.int64]:
    own = classes_NC[rows]
    return np.bincount(own[own >= 0], minlength=n_classes)


def by_the_paper(classes_NC: Classes, sizes: tuple[int, int], seed: int) -> list[int]:
    """Algorithm 1, one row after the other; what is lacking is counted in n-ths of a row, so that ties are exact."""
    n = len(classes_NC)
    ties = iter(generator_bits(seed, 0, "split/ties").random_raw(1024).tolist())
    labels = [set(row[row >= 0].tolist()) for row in classes_NC]
    every = sorted(set.union(*labels))
    lacks = [size * n for size in sizes]
    lacks_of = [{c: size * sum(c in own for own in labels) for c in every} for size in sizes]
    left, part = order(n, seed, 0, stream="split").tolist(), [-1] * n

    def put(row: int, wishes: list[int]) -> None:
        best = [s for s in range(2) if wishes[s] == max(wishes)]
        best = [s for s in best if lacks[s] == max(lacks[s] for s in best)]
        chosen = best[0] if len(best) == 1 else best[next(ties) % len(best)]
        part[row] = chosen
        lacks[chosen] -= n
        for c in labels[row]:
            lacks_of[chosen][c] -= n

    while any(labels[row] for row in left):
        size = {c: sum(c in labels[row] for row in left) for c in every}
        rarest = min((c for c in every if size[c]), key=lambda c: size[c])
        for row in [row for row in left if rarest in labels[row]]:
            put(row, [lacks_of[s][rarest] for s in range(2)])
            left.remove(row)
    for row in left:
        put(row, [0, 0])
    return part


@given(
    table=st.lists(st.tuples(*[st.integers(-1, 3)] * 3), min_size=4, max_size=40),
    share=st.floats(0.15, 0.6),
    seed=st.integers(0, 99),
)
def test_it_is_the_algorithm_of_the_paper(table: list[tuple[int, ...]], share: float, seed: int) -> None:
    classes = np.array(table)
    classes = np.where(classes >= 0, classes + np.array([0, 4, 8]), -1)
    n_test = int(share * len(table) + 0.5)
    expected = by_the_paper(classes, (len(table) - n_test, n_test), seed)
    try:
        found = iteratively_stratified(np.arange(len(table)), classes, None, {"test": share}, seed)
    except UserError:
        assert len(set(expected)) == 1
        return
    assert found["test"].tolist() == [row for row, s in enumerate(expected) if s == 1]
    assert found["train"].tolist() == [row for row, s in enumerate(expected) if s == 0]


@pytest.mark.parametrize("labelled", [0.02, 0.2])
@pytest.mark.parametrize("seed", [0, 1])
def test_each_class_has_its_share(labelled: float, seed: int) -> None:
    """60 assays: counts are near their shares; those of a random split are further from them."""
    classes = assays(3000, 60, labelled)
    held = {"validation": 0.1, "test": 0.1}
    splits = make_splits({}, 3000, held, seed, stratify=classes)
    plain = make_splits({}, 3000, held, seed)
    total = counted(classes, np.arange(3000), 120)
    off, by_chance = [], []
    for name in held:
        counts = counted(classes, splits[name], 120)
        assert counts.reshape(60, 2).sum(axis=1).min() > 0
        off.append(np.abs(counts - total * len(splits[name]) / 3000))
        by_chance.append(np.abs(counted(classes, plain[name], 120) - total * 0.1))
        assert abs(len(splits[name]) - 300) <= 45  # shares of classes come before sizes
    rare = slice(1, None, 2)  # of the yes, which are fewer and therefore come first
    times = 3 if labelled < 0.1 else 1.4
    assert np.mean([each[rare] for each in off]) < np.mean([each[rare] for each in by_chance]) / times


def test_rows_of_a_unit_count_together() -> None:
    """Pairs of rows of which only the first has a label."""
    classes = np.where(np.arange(400)[:, None] % 2 == 0, assays(400, 3, 0.3), -1)
    splits = make_splits({}, 400, {"test": 0.2}, 0, stratify=classes, units=np.arange(400) // 2)
    assert set(splits["test"] ^ 1) == set(splits["test"])
    share = counted(classes, splits["test"], 6) / counted(classes, np.arange(400), 6)
    assert share == pytest.approx(0.2, abs=0.06)
    assert len(splits["test"]) == pytest.approx(80, abs=2)


def test_classes_of_one_row_each_cannot_be_divided() -> None:
    classes = np.stack([np.arange(10), 10 + np.arange(10)], axis=1)
    with pytest.raises(UserError) as caught:
        make_splits({}, 10, {"test": 0.2}, 0, stratify=classes)
    assert str(caught.value) == (
        "stratify: split 'test' is empty: the rows of each class are too few to be divided; "
        "stratify by other tasks, or bring more rows"
    )


@pytest.mark.parametrize("labelled", [0.02, 1.0])
def test_200_000_rows_of_60_tasks_take_seconds(labelled: float) -> None:
    """0.8 s of one core of a desktop."""
    classes = assays(200_000, 60, labelled)
    began = process_time()
    splits = make_splits({}, 200_000, {"validation": 0.1, "test": 0.1}, 0, stratify=classes)
    assert process_time() - began < 10
    assert sum(map(len, splits.values())) == 200_000
