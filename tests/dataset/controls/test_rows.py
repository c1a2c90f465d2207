"""`data.drop_unlabelled` leaves out rows of train and validation that teach no task of the recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtl.dataset.assemble import Dataset, load_dataset
from mtl.dataset.header import header_of
from mtl.errors import UserError
from mtl.recipe.load import load_recipe
from tests.support.tables import recipe_in, write_rows

N = 120


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(5)
    write_rows(
        tmp_path / "t.csv",
        [
            {
                "u": f"{rng.normal():.4f}",
                "v": f"{rng.normal():.4f}",
                "part": ("train", "train", "validation", "test")[i % 4],
                "a": "pq"[int(rng.integers(2))] if i % 3 == 0 else "",
                "b": "pq"[int(rng.integers(2))] if i % 5 == 0 else "",
            }
            for i in range(N)
        ],
    )
    task = {"kind": "multiclass", "missing": "mask"}
    recipe_in(tmp_path, {"a": {**task, "target": "a"}, "b": {**task, "target": "b"}})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(*overrides: str) -> Dataset:
    recipe = load_recipe("r.yaml", overrides)
    return load_dataset(recipe, header_of(recipe))


def test_rows_without_any_label_are_left_out(folder: Path) -> None:
    plain, dropped = read(), read("data.drop_unlabelled=true")
    for split in ("train", "validation"):
        expected = [i for i in plain.splits[split].tolist() if i % 3 == 0 or i % 5 == 0]
        assert dropped.splits[split].tolist() == expected
        assert 0 < len(expected) < len(plain.splits[split])
    assert dropped.splits["test"].tolist() == plain.splits["test"].tolist()
    assert dropped.learned.constants == plain.learned.constants
    assert any(
        line.startswith(
            "data.drop_unlabelled leaves out 32 of 60 rows of train and 16 of 30 rows of validation"
        )
        for line in dropped.notices
    )


def test_one_task_alone_keeps_the_rows_of_its_label(folder: Path) -> None:
    alone = read("~tasks.b", "data.drop_unlabelled=true")
    assert alone.splits["train"].tolist() == [i for i in range(N) if i % 4 in (0, 1) and i % 3 == 0]
    train = alone.rows.inputs.numpy()[alone.splits["train"]]
    assert alone.learned.mean is not None
    np.testing.assert_allclose(np.ravel(alone.learned.mean), train.mean(axis=0), rtol=1e-4, atol=1e-6)


def test_labels_that_a_fraction_leaves_out_count_as_missing(folder: Path) -> None:
    few = read("~tasks.b", "data.drop_unlabelled=true", "data.label_fraction.a=0.25")
    assert len(few.splits["train"]) == int(next(iter(few.rows.present.values()))[few.splits["train"]].sum())
    assert 4 <= len(few.splits["train"]) <= 6


def test_nothing_to_leave_out_is_not_told(folder: Path) -> None:
    once = read(
        "data.drop_unlabelled=true", "tasks.c={kind: regression, target: u}", "data.source.inputs.numeric=[v]"
    )
    assert not any("drop_unlabelled" in line for line in once.notices)


def test_a_validation_without_labels_is_refused(folder: Path) -> None:
    lines = (folder / "t.csv").read_text().splitlines()
    emptied = [",".join([*line.split(",")[:3], "", ""]) if ",validation," in line else line for line in lines]
    (folder / "t.csv").write_text("\n".join(emptied) + "\n")
    with pytest.raises(UserError, match=r"no row of validation has a label of any task") as caught:
        read("data.drop_unlabelled=true", "data.split.on_unlabelled=warn")
    assert caught.value.path == ("data", "drop_unlabelled")
