"""What pictures need of the test rows: the same numbers as scikit-learn finds with every row in hand."""

from time import perf_counter
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics

from mtl.build import Built, build
from mtl.dataset.assemble import Dataset, load_dataset
from mtl.evaluation import details as module
from mtl.evaluation.evaluate import evaluate
from mtl.evaluation.points import confusions, curve
from mtl.experiment.trial import build_and_try
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from mtl.runs.results.details import TaskDetails
from tests.support.recipes import linear

N = 700
Made = tuple[Recipe, Built, Dataset]


def table(folder: Any) -> Any:
    """A table with a label column for each kind of task; some labels are missing, and rows have weights."""
    draws = np.random.default_rng(1)
    x = draws.normal(size=(N, 3))
    z = x @ draws.normal(size=(3, 4)) + 0.5 * draws.normal(size=(N, 4))
    lines = ["x0,x1,x2,size,sold,grade,colour,tags,w"]
    for row, own in zip(x, z, strict=True):
        tags = "|".join(tag for tag, value in zip("pqr", own, strict=False) if value > 0.3)
        number = f"{1000 + 40 * own[0]:.2f}" if draws.random() > 0.2 else ""
        sold = str(int(own[1] > 0)) if draws.random() > 0.5 else ""
        grade, colour = int(np.digitize(own[2], [-1, 0, 1])), "rgb"[int(np.digitize(own[3], [-0.5, 0.5]))]
        lines.append(
            f"{row[0]},{row[1]},{row[2]},{number},{sold},{grade},{colour},{tags},{draws.random():.2f}"
        )
    path = folder / "t.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def made_of(path: Any, **changes: Any) -> Made:
    recipe = load_recipe(
        {
            "schema_version": 1,
            "name": "small",
            "data": {
                "source": {"kind": "table", "path": str(path), "inputs": {"numeric": ["x0", "x1", "x2"]}},
                "split": {"test": 0.5},
            },
            "tasks": {
                "size": {"kind": "regression", "target": "size", "missing": "mask"},
                "sold": {"kind": "binary", "target": "sold", "missing": "mask"},
                "grade": {"kind": "ordinal", "target": "grade"},
                "colour": {"kind": "multiclass", "target": "colour"},
                "tags": {"kind": "multilabel", "target": "tags", "empty": "none"},
            },
            "model": {"backbone": {"kind": "layers", "stages": linear(6)}},
            "optimizer": {"kind": "adam", "lr": 0.01},
            "train": {"epochs": 1},
            **changes,
        }
    )
    _, header = build_and_try(recipe)
    dataset = load_dataset(recipe, header)
    return recipe, build(recipe, dataset.header, dataset.learned), dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made_of(table(tmp_path_factory.mktemp("details")))


@pytest.fixture(scope="module")
def found(made: Made) -> dict[str, dict[str, Any]]:
    recipe, built, dataset = made
    return module.test_details(built.model, recipe.tasks, dataset, dataset.splits["test"])


def rows_of(made: Made, task: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The predictions and the labels of the test rows that have one."""
    _, built, dataset = made
    model = built.model.eval()
    group, t = model.places[task]
    with torch.no_grad():
        batch = dataset.rows.batch(dataset.splits["test"])
        predicted = model.modules_of_tasks()[group].predict(model(batch.inputs).groups[group])
    there = batch.present[group][:, t].numpy()
    own = {name: values[:, t].numpy()[there] for name, values in predicted.items()}
    return own, batch.target[group][:, t].numpy()[there]


def test_each_task_has_its_form(found: dict[str, dict[str, Any]]) -> None:
    forms = {task: details["form"] for task, details in found.items()}
    assert forms == {
        "size": "number", "sold": "yes_or_no", "grade": "classes", "colour": "classes", "tags": "labels",
    }  # fmt: skip
    for details in found.values():
        TaskDetails.model_validate(details)


@pytest.mark.parametrize("task", ["grade", "colour"])
def test_classes(task: str, made: Made, found: dict[str, dict[str, Any]]) -> None:
    predicted, label = rows_of(made, task)
    own, n_classes = found[task], len(found[task]["support"])
    each = metrics.precision_recall_fscore_support(
        label, predicted["class"], labels=range(n_classes), zero_division=np.nan
    )
    assert (
        own["confusion"]
        == metrics.confusion_matrix(label, predicted["class"], labels=range(n_classes)).tolist()
    )
    for name, values in zip(("precision", "recall", "f1", "support"), each, strict=True):
        assert np.array(own[name], float) == pytest.approx(values, abs=1e-6, nan_ok=True), name
    top, hit = predicted["p"].max(1), predicted["class"] == label
    expected = [
        [int(inside.sum()), top[inside].mean(), hit[inside].mean()]
        for k in range(15)
        if (inside := ((top - 1e-6) * 15).astype(int).clip(0, 14) == k).any()  # a third is on a bound
    ]
    assert np.array(own["calibration"]) == pytest.approx(np.array(expected), abs=1e-5)
    if task == "colour":
        for k in range(n_classes):
            assert_on_the_curve(own["curves"][k], label == k, predicted["p"][:, k])


def assert_on_the_curve(own: dict[str, Any], truth: np.ndarray, p: np.ndarray) -> None:
    """Every point is one of scikit-learn's, but for scores that share a bin."""
    precision, recall, _ = metrics.precision_recall_curve(truth, p)
    n = truth.sum()
    for r, q in zip(own["recall"], own["precision"], strict=True):
        near = np.abs(recall - r) <= 1.5 / n
        assert np.abs(precision[near] - q).min() < 0.03, (r, q)
    assert own["recall"][-1] == 1
    assert len(own["recall"]) <= 200


def test_yes_or_no(made: Made, found: dict[str, dict[str, Any]]) -> None:
    predicted, label = rows_of(made, "sold")
    own = found["sold"]
    assert own["n"] == len(label) < N / 2
    assert own["confusion"] == metrics.confusion_matrix(label, predicted["yes"]).tolist()
    assert own["recall"][1] == pytest.approx(metrics.recall_score(label, predicted["yes"]), abs=1e-6)
    assert own["threshold"] == 0.5
    assert_on_the_curve(own["curves"][0], label == 1, predicted["p"])


def test_labels(made: Made, found: dict[str, dict[str, Any]]) -> None:
    predicted, label = rows_of(made, "tags")
    own = found["tags"]
    each = metrics.precision_recall_fscore_support(label, predicted["there"], zero_division=np.nan)
    for name, values in zip(("precision", "recall", "f1", "support"), each, strict=True):
        assert np.array(own[name], float) == pytest.approx(values, abs=1e-6, nan_ok=True), name
    assert own["n"] == label.size
    for k in range(3):
        assert_on_the_curve(own["curves"][k], label[:, k] == 1, predicted["p"][:, k])


def test_numbers(made: Made, found: dict[str, dict[str, Any]]) -> None:
    predicted, label = rows_of(made, "size")
    own = found["size"]
    residual = predicted["value"] - label
    inside = own["residuals"]
    assert own["n"] == len(label) == sum(inside["counts"]) + inside["below"] + inside["above"]
    assert inside["below"] + inside["above"] <= 0.02 * len(label)
    expected, _ = np.histogram(residual, inside["edges"])
    assert np.abs(np.cumsum(inside["counts"]) - np.cumsum(expected)).max() <= 0.03 * len(label)
    bounds = np.quantile(label, np.arange(1, 10) / 10)
    groups = np.searchsorted(bounds, label)
    assert len(own["groups"]) == 10
    for q, (n, mean, low, middle, high) in enumerate(own["groups"]):
        values = predicted["value"][groups == q]
        assert n == len(values)
        assert mean == pytest.approx(label[groups == q].mean(), rel=1e-5)
        ends = np.quantile(values, [0.1, 0.5, 0.9], method="inverted_cdf")
        assert [low, middle, high] == pytest.approx(ends.tolist(), abs=0.01 * residual.std())


def test_batches_do_not_matter(
    made: Made, found: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, built, dataset = made
    monkeypatch.setattr("mtl.evaluation.evaluate.BATCH", 7)
    monkeypatch.setattr(module, "PENDING", 20)
    again = module.test_details(built.model, recipe.tasks, dataset, dataset.splits["test"])
    for task, own in found.items():
        for name in ("n", "support", "confusion", "residuals"):
            assert again[task].get(name) == own.get(name), (task, name)


def test_details_agree_with_weighted_metrics(tmp_path: Any) -> None:
    weighted = {"kind": "multiclass", "target": "colour", "sample_weight": "w", "metrics_weighted": True}
    recipe, built, dataset = made_of(table(tmp_path), tasks={"colour": weighted})
    rows = dataset.splits["test"]
    own = module.test_details(built.model, recipe.tasks, dataset, rows)["colour"]
    values = evaluate(built.model, recipe.tasks, dataset, rows, "test")
    right = sum(own["confusion"][k][k] for k in range(3))
    assert own["n"] != int(own["n"])
    assert right / own["n"] == pytest.approx(values["test/colour/accuracy"], abs=1e-6)


def test_a_task_without_test_labels_is_absent(made: Made) -> None:
    recipe, built, dataset = made
    present = ~dataset.rows.present[built.model.places["sold"][0]][:, 0].numpy()
    rows = np.flatnonzero(present)
    own = module.test_details(built.model, recipe.tasks, dataset, rows)
    assert list(own) == ["size", "grade", "colour", "tags"]
    assert module.test_details(built.model, recipe.tasks, dataset, rows[:0]) == {}


def test_many_classes_keep_their_frequent_confusions() -> None:
    matrix = torch.zeros(40, 40, dtype=torch.float64)
    matrix[3, 5], matrix[7, 2], matrix[1, 1] = 9, 4, 100
    assert confusions(matrix) == {"confusions": [[3, 5, 9], [7, 2, 4]]}
    assert list(confusions(matrix[:30, :30])) == ["confusion"]


def test_a_curve_needs_rows_on_both_sides() -> None:
    rows = torch.tensor([0.0, 2.0, 1.0])
    assert curve(torch.zeros(3), rows) is None
    assert curve(rows, torch.zeros(3)) is None
    assert curve(torch.tensor([2.0, 0, 1]), torch.tensor([0.0, 1, 3])) == {
        "recall": [0.75, 1.0], "precision": [0.75, 0.8],
    }  # fmt: skip


@pytest.mark.slow
def test_a_million_rows_of_forty_tasks() -> None:
    """Every 100,000 rows took 1.4 s of one core, an evaluation alone 0.5 s."""
    recipe = load_recipe(
        {
            "schema_version": 1,
            "name": "many",
            "data": {
                "source": {"kind": "synthetic", "tasks": 40, "rows": 100, "test_rows": 10**6, "features": 8}
            },
            "tasks": {f"task{t}": {"kind": "multiclass", "target": f"task{t}"} for t in range(40)},
            "model": {"backbone": {"kind": "layers", "stages": linear(4)}},
            "optimizer": {"kind": "sgd", "lr": 0.1},
            "train": {"epochs": 1},
        }
    )
    _, header = build_and_try(recipe)
    dataset = load_dataset(recipe, header)
    built = build(recipe, dataset.header, dataset.learned)
    began = perf_counter()
    found = module.test_details(built.model, recipe.tasks, dataset, dataset.splits["test"])
    assert len(found) == 40
    assert all(one["n"] == 10**6 for one in found.values())
    assert perf_counter() - began < 300
