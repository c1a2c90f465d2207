"""What a finished run shared: on tables with embeddings, missing labels, weights and groups; and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mtl
from mtl.errors import UserError
from mtl.inference.links import links_of
from mtl.inference.load import load_trained
from tests.inference.shop import recipe, shop_rows, write_csv
from tests.support.recipes import linear, stitched


def finished(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> Path:
    data = write_csv(folder / "t.csv", rows)
    return mtl.run(recipe(data, train__epochs=1, **changes), out=folder / "run").path


def test_a_run_on_a_table(shop: Path) -> None:
    """Five kinds of task, embedded categories, missing inputs: the losses are those that the run recorded."""
    model = load_trained(shop / "run", "cpu")
    found = links_of(model)
    results = model.folder.record.results
    for task in ("sort", "yes", "amount", "grade", "tags"):
        assert found["tasks"][task]["loss"] == pytest.approx(results[f"validation/{task}/loss"], rel=1e-5)
        headline = found["tasks"][task]["metric"]
        assert found["tasks"][task]["value"] == pytest.approx(results[f"validation/{task}/{headline}"])
    assert model.folder.record.selected is not None
    assert found["step"] == model.folder.record.selected.step
    assert (found["rows"], found["units"], len(found["links"])) == (48, "rows", 20)
    assert all(sum(row) == pytest.approx(1) for row in found["sites"][0]["shares"])
    assert links_of(load_trained(shop / "run", "cpu")) == found


def test_grouped_towers_missing_labels_and_weights(tmp_path: Path) -> None:
    """A weight of 2 counts like the same row twice, in the change and in its standard error's sums."""
    rows = [
        {**row, "w": 1 + i % 2, "yes": "" if i % 3 == 0 else row["yes"]}
        for i, row in enumerate(shop_rows(200))
    ]
    run = finished(
        tmp_path,
        rows,
        tasks__yes__missing="mask",
        tasks__amount__sample_weight="w",
        model__towers={"risk": ["sort", "yes"], "value": ["amount"], "rest": ["grade", "tags"]},
        model__backbone__stages=linear(6, 4),
        model__sharing=stitched("fc1", "fc2"),
        data__source__inputs={
            "numeric": ["x", "y"],
            "categorical": ["city"],
            "missing": "mean",
            "embedding": 2,
        },
    )
    model = load_trained(run, "cpu")
    found, results = links_of(model), model.folder.record.results
    assert found["tasks"]["amount"]["loss"] == pytest.approx(results["validation/amount/loss"], rel=1e-5)
    assert found["tasks"]["yes"]["loss"] == pytest.approx(results["validation/yes/loss"], rel=1e-5)
    assert found["sites"][0]["targets"] == ["risk", "value", "rest"]
    assert {link["site"] for link in found["links"]} == {"fc1", "fc2"}
    table = np.array(found["transfer"]["delta"], dtype=float)
    assert table.shape == (5, 3)
    assert (
        np.isnan(table).tolist()
        == [[True, False, False]] * 2 + [[False, True, False]] + [[False, False, True]] * 2
    )


def test_groups_of_a_split_are_the_units(tmp_path: Path) -> None:
    rows = [{**row, "who": f"p{i // 5}"} for i, row in enumerate(shop_rows(200))]
    run = finished(tmp_path, rows, data__split={"validation": 0.25, "test": 0.25, "group": "who"})
    found = links_of(load_trained(run, "cpu"))
    assert (found["units"], found["rows"], found["n_units"]) == ("groups", 50, 10)
    assert found["words"][0].startswith(
        "Measured on 50 rows of validation in 10 groups, in evaluation mode; ± is "
    )


def test_images(tmp_path: Path) -> None:
    run = mtl.run(
        "fashion_stitch",
        [
            *("data.source={kind: fashion_mnist, sample: true}", "data.split={validation: 0.1}"),
            *("~train.epochs", "train.max_steps=2", "train.threads=1", "train.device=cpu"),
            "model.backbone.stages=[{name: conv1, kind: conv, channels: 4, kernel: 3, stride: 4}, "
            "{name: pool1, kind: max_pool, size: 2}, {name: fc3, kind: linear, features: 8}]",
            "model.sharing.after=[pool1, fc3]",
        ],
        out=tmp_path / "run",
    )
    found = links_of(load_trained(run.path, "cpu"), most_rows=20)
    assert found["rows"] == 20
    assert [site["site"] for site in found["sites"]] == ["pool1", "fc3"]


def test_a_run_that_is_not_finished_is_refused(small_run: Path) -> None:
    with pytest.raises(UserError) as caught:
        links_of(load_trained(small_run, "cpu"))
    assert str(caught.value) == f"{small_run}: is not finished; mtl run --resume {small_run} goes on"


def test_changed_data_are_refused(tmp_path: Path) -> None:
    run = finished(tmp_path, shop_rows(80))
    write_csv(tmp_path / "t.csv", shop_rows(80, seed=1))
    with pytest.raises(UserError, match="data changed since this run began"):
        links_of(load_trained(run, "cpu"))
