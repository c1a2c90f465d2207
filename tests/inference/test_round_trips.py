"""One table, written as CSV, Parquet and .npz and held as a frame or a mapping, is the same table.

Each form is trained on and predicted from; the predictions agree whatever the form. Columns with gaps are written as
pandas writes them: a column of whole numbers becomes `1.0` in a CSV, and floats in Parquet and arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import mtl

N = 120
STAGE = {"name": "f", "kind": "linear", "features": 8}
FORMS = ("t.csv", "t.parquet", "t.npz")


def frame(gaps: bool) -> pd.DataFrame:
    """A column of every type, each of which tells something of the labels; with gaps, each lacks some values."""
    rng = np.random.default_rng(3)
    whole, truth, half = rng.integers(1, 4, N), rng.random(N) < 0.5, rng.integers(1, 5, N) / 2
    word, code = rng.choice(["a", "b c", "NA"], N), rng.choice(["01067", "1067", "2150"], N)
    day = pd.Timestamp("2023-11-05") + pd.to_timedelta(rng.integers(0, 400, N), unit="D")
    score = whole + 2.0 * truth + half + (word == "a") + (code == "1067") + 0.1 * rng.normal(size=N)
    columns: dict[str, Any] = {
        "x": rng.normal(size=N).round(3), "count": rng.integers(0, 90, N), "whole": whole, "truth": truth,
        "half": half, "word": word, "code": code, "day": day,
        "grade": np.digitize(score, np.quantile(score, [0.33, 0.67])), "good": (score > np.median(score)).astype(int),
        "fine": score > 6, "level": rng.integers(0, 3, N) / 2, "gain": score.round(4),
        "p": (score > 5).astype(int), "q": score > 7, "wide": 7_000_000_000 + whole,
    }  # fmt: skip
    found = pd.DataFrame(columns)
    if gaps:
        for k, name in enumerate(found.columns):
            values = found[name].astype(object) if found[name].dtype == bool else found[name]
            found[name] = values.where(np.arange(N) % 17 != k)
    return found


def write(table: pd.DataFrame, path: Path) -> None:
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        np.savez(path, **arrays(table))


def arrays(table: pd.DataFrame) -> dict[str, Any]:
    """The columns as numpy holds them: truth values with gaps are 0, 1 and NaN, texts with gaps have empty text."""
    found = {}
    for name, column in table.items():
        kind = pd.api.types.infer_dtype(column, skipna=True)
        if kind == "boolean" and column.isna().any():
            found[str(name)] = column.astype(float).to_numpy()
        elif kind == "string":
            found[str(name)] = column.fillna("").to_numpy(dtype=str)
        else:
            found[str(name)] = column.to_numpy()
    return found


def held(table: pd.DataFrame) -> dict[str, Any]:
    """The same rows in memory, in each form that `predict` takes."""
    return {
        "frame": table,
        "mapping of arrays": arrays(table),
        "mapping of lists": {name: column.tolist() for name, column in table.items()},
        "arrow": pa.Table.from_pandas(table, preserve_index=False),
        "frame of texts": table.astype(object).where(table.notna(), "").map(_as_csv),
    }


def _as_csv(value: object) -> str:
    return value.strftime("%Y-%m-%d") if isinstance(value, pd.Timestamp) else str(value)


def recipe(path: Path) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "name": "round",
        "data": {
            "source": {
                "kind": "table",
                "path": str(path),
                "inputs": {
                    "numeric": ["x", "count"],
                    "categorical": ["whole", "truth", "half", "word", "code", "wide"],
                    "dates": ["day"],
                    "missing": "mean",
                    "indicator": True,
                },
            },
            "split": {"test": 0.25},
        },
        "task_defaults": {"missing": "mask"},
        "tasks": {
            "grade": {"kind": "multiclass", "target": "grade"},
            "order": {"kind": "ordinal", "target": "grade"},
            "good": {"kind": "binary", "target": "good"},
            "fine": {"kind": "binary", "target": "fine"},
            "level": {"kind": "multiclass", "target": "level"},
            "both": {"kind": "multilabel", "targets": ["p", "q"]},
            "gain": {"kind": "regression", "target": "gain"},
        },
        "model": {"towers": "one", "backbone": {"kind": "layers", "stages": [STAGE]}},
        "optimizer": {"kind": "adam", "lr": 1e-2},
        "train": {"epochs": 2, "batch_size": 32, "threads": 1},
    }  # fmt: skip


def assert_same(one: Mapping[str, Any], other: Mapping[str, Any], what: str) -> None:
    assert one.keys() == other.keys(), what
    for name, values in one.items():
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            np.testing.assert_allclose(values, other[name], rtol=0, atol=1e-6, err_msg=f"{what}: {name}")
        else:
            assert [_plain(v) for v in values] == [_plain(v) for v in other[name]], f"{what}: {name}"


def _plain(value: object) -> object:
    return {"false": "0", "true": "1"}.get(str(value).lower(), str(value))


@pytest.mark.parametrize("gaps", [False, True], ids=["whole", "with gaps"])
@pytest.mark.filterwarnings("error", "ignore:.*that the run was trained on")
def test_every_form_of_a_table_is_the_same_table(gaps: bool, tmp_path: Path) -> None:
    table = frame(gaps)
    for name in FORMS:
        write(table, tmp_path / name)
    models = {}
    for name in FORMS:
        run = mtl.run(recipe(tmp_path / name), out=tmp_path / f"run-{name}")
        models[name] = mtl.load(run.path)
    first = models["t.csv"].predict(tmp_path / "t.csv")
    kinds = {
        name: np.asarray(first[name]).dtype.kind
        for name in ("grade", "order", "good", "fine", "level", "gain")
    }
    assert kinds == {"grade": "i", "order": "i", "good": "i", "fine": "b", "level": "O", "gain": "f"}
    there = table["grade"].notna().to_numpy()
    assert (
        first["grade"][there] == table["grade"][there]
    ).mean() > 0.4  # compared with the labels as they are
    for trained, model in models.items():
        for name in FORMS:
            assert_same(first, model.predict(tmp_path / name), f"trained on {trained}, predicted from {name}")
            scores = model.evaluate(data=tmp_path / name)
            assert scores == pytest.approx(models["t.csv"].evaluate(data=tmp_path / "t.csv"), abs=1e-6)
        for how, rows in held(table).items():
            assert_same(first, model.predict(rows), f"trained on {trained}, predicted from a {how}")
