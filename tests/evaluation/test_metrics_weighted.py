"""`metrics_weighted`: in a run, in thresholds and temperatures, in what is undefined, and after a resume."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

import mtl
from mtl.dataset.assemble import load_dataset
from mtl.dataset.header import header_of
from mtl.dataset.labels import TaskLabels
from mtl.dataset.undefined import undefined_metrics
from mtl.evaluation.decisions import best_threshold, fitted_temperature
from mtl.recipe.specs import TASKS
from mtl.tasks import Binary
from tests.experiment.test_resume import assert_same, no_plots
from tests.support.recipes import linear, small, table
from tests.support.task_samples import example, module_of
from tests.test_equalities import StopAt, stopped_after

__all__ = ["no_plots"]


def made(folder: Path, weighted: bool = True, **changes: Any) -> dict[str, Any]:
    """300 rows whose weights lie between 0 and 2, and grow with what makes the answer yes."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(300, 3)).round(4)
    columns = {
        **{f"x{i}": x[:, i] for i in range(3)},
        "yes": (x[:, 0] + draw.normal(size=300) > 0.3).astype(int),
        "size": np.array(["s", "m", "l"])[np.digitize(x[:, 1] + draw.normal(size=300) / 2, [-0.5, 0.5])],
        "price": (x[:, 2] + draw.normal(size=300) / 2).round(3),
        "w": np.clip(1 + x[:, 0], 0, 2).round(3),
    }
    with (folder / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
    own = {"sample_weight": "w", "metrics_weighted": weighted}
    every = {kind: list(TASKS[kind].known_metrics) for kind in ("binary", "multiclass", "regression")}
    return small(
        data={
            "source": table(folder / "t.csv", "x0", "x1", "x2"),
            "split": {"validation": 0.2, "test": 0.3},
        },
        tasks={
            "yes": {"kind": "binary", "target": "yes", "metrics": every["binary"], **own},
            "plain": {"kind": "binary", "target": "yes", "metrics": every["binary"], "derived_from": "yes"},
            "size": {"kind": "multiclass", "target": "size", "metrics": every["multiclass"], **own},
            "price": {"kind": "regression", "target": "price", "metrics": every["regression"], **own},
        },
        model__backbone__stages=linear(8),
        optimizer={"kind": "adam", "lr": 0.02},
        train={"epochs": 3, "batch_size": 32, "threads": 1, "device": "cpu"},
        **changes,
    )


@pytest.mark.usefixtures("no_plots")
def test_results_of_a_run_are_those_of_scikit_learn(tmp_path: Path) -> None:
    run = mtl.run(made(tmp_path), out=tmp_path / "run")
    model = mtl.load(run.path)
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()))
    held = model.folder.record.data.rows["test"]
    test = load_dataset(model.recipe, header_of(model.recipe)).splits["test"]
    assert len(test) == held == 90
    predicted = {
        name: np.array(values)[test] for name, values in model.predict(str(tmp_path / "t.csv")).items()
    }
    truth = {name: np.array([rows[i][name] for i in test]) for name in ("yes", "size", "price")}
    w = np.array([float(rows[i]["w"]) for i in test])
    yes, p, price = truth["yes"] == "1", predicted["yes_p"], truth["price"].astype(float)
    expected = {
        "yes/accuracy": sk.accuracy_score(yes, p >= 0.5, sample_weight=w),
        "yes/f1": sk.f1_score(yes, p >= 0.5, sample_weight=w),
        "yes/brier": sk.brier_score_loss(yes, p, sample_weight=w),
        "plain/accuracy": sk.accuracy_score(yes, predicted["plain_p"] >= 0.5),
        "plain/f1": sk.f1_score(yes, predicted["plain_p"] >= 0.5),
        "size/accuracy": sk.accuracy_score(truth["size"], predicted["size"], sample_weight=w),
        "size/macro_f1": sk.f1_score(truth["size"], predicted["size"], sample_weight=w, average="macro"),
        "price/mae": sk.mean_absolute_error(price, predicted["price"], sample_weight=w),
        "price/rmse": sk.root_mean_squared_error(price, predicted["price"], sample_weight=w),
        "price/r2": sk.r2_score(price, predicted["price"], sample_weight=w),
    }
    for name, value in expected.items():
        assert run.metrics[f"test/{name}"] == pytest.approx(value, abs=1e-5), name
    assert run.metrics["test/yes/auroc"] == pytest.approx(sk.roc_auc_score(yes, p, sample_weight=w), abs=5e-3)
    assert run.metrics["test/yes/accuracy"] != pytest.approx(sk.accuracy_score(yes, p >= 0.5), abs=1e-3)
    again = model.evaluate("test")
    assert again == pytest.approx({n: v for n, v in run.metrics.items() if n.startswith("test/")}, abs=1e-9)


@pytest.mark.usefixtures("no_plots")
def test_by_default_metrics_count_all_rows_alike(tmp_path: Path) -> None:
    weighted = mtl.run(made(tmp_path), out=tmp_path / "weighted").metrics
    plain = mtl.run(made(tmp_path, weighted=False), out=tmp_path / "plain").metrics
    assert plain["test/yes/loss"] == weighted["test/yes/loss"]
    assert plain["test/yes/accuracy"] != weighted["test/yes/accuracy"]
    assert plain["test/plain/accuracy"] == weighted["test/plain/accuracy"]


@pytest.mark.usefixtures("no_plots")
def test_a_resumed_run_has_the_same_metrics(tmp_path: Path) -> None:
    """Also where it was stopped within an epoch, whose counts of weights are in the checkpoint."""
    recipe = made(tmp_path)
    mtl.run(recipe, out=tmp_path / "straight")
    stopped_after(recipe, tmp_path / "stopped", StopAt(2), StopAt(4))
    assert_same(tmp_path / "straight", tmp_path / "stopped")


@pytest.mark.parametrize("metric", ["f1", "balanced_accuracy", "accuracy"])
def test_a_threshold_counts_a_row_as_often_as_its_weight_says(metric: str) -> None:
    target = (torch.rand(60) < 0.4).long()
    p = (torch.randn(60) + target).sigmoid()
    times = torch.randint(1, 5, (60,))
    repeated = best_threshold(p.repeat_interleave(times), target.repeat_interleave(times), metric)
    assert best_threshold(p, target, metric, weight_B=times.double()) == pytest.approx(repeated)
    assert best_threshold(p, target, metric, weight_B=torch.ones(60)) == best_threshold(p, target, metric)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_a_temperature_counts_a_row_as_often_as_its_weight_says(kind: str) -> None:
    n_outputs = 1 if kind == "binary" else 3
    target = torch.randint(3 if kind == "multiclass" else 2, (80,) if kind != "multilabel" else (80, 3))
    sides = torch.nn.functional.one_hot(target, 3) if kind == "multiclass" else target.view(80, -1)
    logits = 2 * torch.randn(80, n_outputs) + 3 * (sides - 0.5)
    if kind == "multilabel":
        target[torch.rand(80, 3) < 0.2] = -1
    times = torch.randint(1, 5, (80,))
    module = module_of(example(kind, temperature=True), n_outputs, {})
    repeated = fitted_temperature(
        module, logits.repeat_interleave(times, 0), target.repeat_interleave(times, 0)
    )
    found = fitted_temperature(module, logits, target, times.double())
    assert found == pytest.approx(repeated, rel=1e-4)
    assert found != pytest.approx(fitted_temperature(module, logits, target), rel=1e-3)


def test_rows_without_weight_define_nothing() -> None:
    """The only yes has no weight, so that a weighted metric has a single class; without any weight it has no row."""
    targets, there = np.array([0, 1, 0]), np.ones(3, dtype=bool)
    for weight, weighted, expected in (
        ([1, 0, 1], True, "a single class"),
        ([1, 0, 1], False, None),
        ([0, 0, 0], True, "no row with a positive weight"),
    ):
        spec = example("binary", sample_weight="w", metrics_weighted=weighted)
        labels = TaskLabels(("no", "yes"), targets, there, np.array(weight, dtype=np.float32), {}, [])
        assert undefined_metrics(spec, labels, np.arange(3)).get("auroc") == expected


class Unweighable(Binary):
    """As the kind of a plug-in that knows a metric of its own."""

    kind: str = "unweighable"
    known_metrics: ClassVar[dict[str, bool]] = {**Binary.known_metrics, "own": True}


def test_a_metric_that_cannot_be_weighted_is_refused_by_name() -> None:
    given = {"target": "x", "sample_weight": "w", "metrics_weighted": True}
    Unweighable(**given, metrics=("auroc", "f1"))
    with pytest.raises(ValueError, match="metric 'own' cannot be weighted"):
        Unweighable(**given, metrics=("auroc", "own"))
