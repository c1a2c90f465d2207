"""Predictions from a file: found by ids, in every form that `mtl predict` writes; refused where they say too little."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import torch

import mtl
from mtl.comparison.references.outside import outside_predictions
from mtl.comparison.references.scored import scored
from mtl.data.files.opening import opened_once
from mtl.dataset.assemble import load_dataset
from mtl.dataset.header import header_of
from mtl.errors import UserError
from mtl.inference.writing import write_predictions
from mtl.recipe.load import load_recipe
from mtl.task_groups import task_groups
from tests.comparison.references.shop import EVERY, made
from tests.inference import shop as inference_shop

ID = {"id": "id"}
YES = {"yes": EVERY["binary"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A table, and a run on it with a task of every kind, a fitted threshold and a fitted temperature."""
    folder = tmp_path_factory.mktemp("outside")
    table = inference_shop.write_parquet(folder / "shop.parquet", inference_shop.shop_rows(300))
    mtl.run(load_recipe(inference_shop.recipe(table)), out=str(folder / "run"))
    return table, folder / "run"


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_what_mtl_predict_writes_has_the_metrics_of_the_run(
    suffix: str, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    table, run = trained
    model = mtl.load(run)
    file = tmp_path / f"p{suffix}"
    write_predictions(model, str(table), str(file), keep=["id"])
    with opened_once():
        recipe = load_recipe(inference_shop.recipe(table))
        dataset = load_dataset(recipe, header_of(recipe))
        groups = task_groups(recipe, dataset.learned)
        predicted = outside_predictions(file, recipe, dataset, groups)
    n_train = len(dataset.splits["train"])
    assert predicted.told == (f"p{suffix}: {n_train} rows of no validation and no test row are ignored",)
    assert predicted.facts["tasks"] == list(recipe.tasks)
    found, told = scored(recipe, groups, dataset, predicted)
    assert told == list(predicted.told)
    results = model.folder.record.results
    for split in ("validation", "test"):
        own = {name: value for name, value in results.items() if name.startswith(f"{split}/")}
        assert own
        for name, value in own.items():
            if name in (f"{split}/yes/loss", f"{split}/mean/loss"):
                continue  # the file holds probabilities after the temperature, which the network's loss leaves out
            assert found.values[name] == pytest.approx(value, abs=2e-5, rel=2e-5), name


# --- files written by hand ---


def file_of(path: Path, columns: dict[str, Any]) -> Path:
    table = pa.table(columns)
    (pa_csv.write_csv if path.suffix == ".csv" else pq.write_table)(table, path)
    return path


def test_rows_in_any_order_and_ids_in_any_spelling(shop: Path, tmp_path: Path) -> None:
    recipe, dataset, groups = made(shop, YES, **ID)
    rows = np.random.default_rng(1).permutation(1200)
    p = np.random.default_rng(2).random(1200)
    asked = np.concatenate([dataset.splits["validation"], dataset.splits["test"]])
    chosen = rows[np.isin(rows, asked)]
    file = file_of(tmp_path / "p.csv", {"id": [f"{i}.0" for i in chosen], "yes_p": p[chosen], "more": chosen})
    predicted = outside_predictions(file, recipe, dataset, groups)
    assert predicted.told == ()
    for split in ("validation", "test"):
        back = predicted.logits[split]["yes"][:, 0].sigmoid()
        torch.testing.assert_close(back, torch.from_numpy(p[dataset.splits[split]]).float())


def test_without_validation_rows_no_threshold_is_fitted(shop: Path, tmp_path: Path) -> None:
    tasks = {"yes": {**EVERY["binary"], "fit_threshold": "f1"}}
    recipe, dataset, groups = made(shop, tasks, **ID)
    test, validation = dataset.splits["test"], dataset.splits["validation"]
    file = file_of(tmp_path / "p.csv", {"id": test, "yes_p": np.linspace(0, 1, len(test))})
    predicted = outside_predictions(file, recipe, dataset, groups)
    shown = ", ".join(f"'{i}'" for i in validation[:3])
    n = len(validation)
    lacking = f"no row for {n} labelled validation rows of {n}, by column 'id': {shown} and {n - 3} more"
    assert predicted.told == (f"p.csv: validation rows are not used: {lacking}",)
    found, told = scored(recipe, groups, dataset, predicted)
    said = "yes: no predictions of validation rows, so that no threshold and no temperature is fitted"
    assert told == [*predicted.told, said]
    assert set(found.dataset.splits) == {"test"}
    assert "test/yes/auroc" in found.values
    assert "validation/yes/auroc" not in found.values


def answers(dataset: Any, groups: Any, name: Callable[[int], Any]) -> list[Any]:
    (group,) = groups
    return [name(int(y)) for y in dataset.rows.target[group.name][dataset.splits["test"], 0]]


ANSWERED: dict[str, tuple[dict[str, Any], Callable[[Any, int], Any], str]] = {
    "binary": ({"metrics": ["f1", "auroc", "accuracy"]}, lambda names, y: names[y], "loss, auroc"),
    "multiclass": ({"metrics": ["cohen_kappa", "calibration_error"]}, lambda names, y: names[y],
                   "loss, calibration_error"),
    "ordinal": ({"metrics": ["quadratic_kappa", "mae"]}, lambda names, y: names[y], "loss"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ANSWERED)
def test_classes_alone_give_the_metrics_that_need_no_probabilities(
    kind: str, shop: Path, tmp_path: Path
) -> None:
    options, called, lost = ANSWERED[kind]
    recipe, dataset, groups = made(shop, {"a": {**EVERY[kind], **options}}, **ID)
    names = groups[0].outputs[0]
    right = answers(dataset, groups, lambda y: called(names, y))
    file = file_of(tmp_path / "p.parquet", {"id": [str(i) for i in dataset.splits["test"]], "a": right})
    found, told = scored(recipe, groups, dataset, outside_predictions(file, recipe, dataset, groups))
    assert told[-1] == f"task 'a': predictions without probabilities have no {lost}"
    best = dict.fromkeys(recipe.tasks["a"].metric_names, 1.0) | {"mae": 0.0}
    for name in recipe.tasks["a"].metric_names:
        if name in lost.split(", "):
            assert f"test/a/{name}" not in found.values
        else:
            assert found.values[f"test/a/{name}"] == best[name]
    assert "test/a/loss" not in found.values


def test_values_and_lists_of_labels(shop: Path, tmp_path: Path) -> None:
    tasks = {
        "amount": EVERY["regression"],
        "tags": {**EVERY["multilabel"], "metrics": ["micro_f1", "accuracy"]},
    }
    recipe, dataset, groups = made(shop, tasks, **ID)
    test = dataset.splits["test"]
    by = {group.tasks[0]: dataset.rows.target[group.name][test, 0].numpy() for group in groups}
    lists = [[n for n, there in zip(("often", "rare"), row, strict=True) if there] for row in by["tags"]]
    lists[0] = ["often", "rare"] if len(lists[0]) < 2 else []
    value = by["amount"] + 2.5
    for file in (
        file_of(tmp_path / "p.parquet", {"id": test, "amount": value, "tags": lists}),
        file_of(tmp_path / "p.csv", {"id": test, "amount": value, "tags": ["|".join(row) for row in lists]}),
    ):
        found, _ = scored(recipe, groups, dataset, outside_predictions(file, recipe, dataset, groups))
        assert found.values["test/amount/mae"] == pytest.approx(2.5, abs=1e-4)
        wrong = abs(len(lists[0]) - by["tags"][0].sum())
        assert found.values["test/tags/accuracy"] == pytest.approx(1 - wrong / (2 * len(test)))


def test_a_task_without_columns_is_left_out(shop: Path, tmp_path: Path) -> None:
    recipe, dataset, groups = made(shop, {"a": EVERY["binary"], "b": EVERY["binary"]}, **ID)
    test = dataset.splits["test"]
    file = file_of(tmp_path / "p.csv", {"id": test, "b_p": np.linspace(0, 1, len(test))})
    predicted = outside_predictions(file, recipe, dataset, groups)
    assert predicted.told[0] == "p.csv: no predictions of task 'a'"
    found, _ = scored(recipe, groups, dataset, predicted)
    assert {name.split("/")[1] for name in found.values} == {"b"}


def test_a_row_without_a_label_needs_no_prediction(shop: Path, tmp_path: Path) -> None:
    tasks = {"a": {"kind": "binary", "target": "seldom", "missing": "mask"}}
    recipe, dataset, groups = made(shop, tasks, **ID)
    test, (group,) = dataset.splits["test"], groups
    labelled = test[dataset.rows.present[group.name][test, 0].numpy()]
    file = file_of(tmp_path / "p.csv", {"id": labelled, "a_p": np.linspace(0.1, 0.9, len(labelled))})
    found, _ = scored(recipe, groups, dataset, outside_predictions(file, recipe, dataset, groups))
    assert found.values["test/a/labels"] == len(labelled) < len(test)
    assert found.values["test/a/loss"] is not None


# --- refused ---

CLASSES = ["sort_p_high", "sort_p_low", "sort_p_medium"]


def changed_rows(name: str, test: list[int]) -> dict[str, Any]:
    n = len(test)
    columns: dict[str, Any] = {"id": [str(i) for i in test], "yes_p": [0.5] * n}
    columns |= {c: [p] * n for c, p in zip(CLASSES, (0.5, 0.3, 0.2), strict=True)}
    match name:
        case "missing":
            columns = {c: values[4:] for c, values in columns.items()}
        case "hole":
            columns["yes_p"][2] = None
        case "repeated":
            columns = {c: [*values, *values[:2]] for c, values in columns.items()}
        case "no id":
            columns["id"][1] = None
        case "above 1":
            columns["yes_p"][3] = 1.5
        case "no sum":
            columns["sort_p_low"][0] = 0.9
        case "some classes":
            del columns["sort_p_low"]
        case "no ids":
            del columns["id"]
        case "no tasks":
            columns = {"id": columns["id"], "p": columns["yes_p"]}
        case "class only":
            columns["yes"] = [1] * n
            del columns["yes_p"]
        case "text":
            columns["yes_p"] = ["much"] * n
        case "all others":
            columns["id"] = [f"x{i}" for i in test]
    return columns


REFUSED = {
    "missing": "p.parquet: no row for 4 labelled test rows of {n}, by column 'id': {first3} and 1 more; predict "
    "every row of the split",
    "hole": "p.parquet: no prediction of task 'yes' in column 'yes_p' for 1 test row: {third}; fill them",
    "repeated": "p.parquet: 2 ids of column 'id' stand in several rows: {first2}; keep one prediction for each row",
    "no id": "p.parquet:row 1, column 'id': the id is missing",
    "above 1": "p.parquet:row 3, column 'yes_p': 1.5 is no probability: it is none of 0 to 1",
    "no sum": "p.parquet:row 0: the probabilities of the classes of 'sort' add up to 1.6, not 1",
    "some classes": "p.parquet: has 'sort_p_high', 'sort_p_medium' but not 'sort_p_low', which task 'sort' needs too",
    "no ids": "p.parquet: no column 'id'; columns: yes_p, sort_p_high, sort_p_low, sort_p_medium; the ids of rows "
    "stand in 'id'; mtl predict writes them by --keep",
    "no tasks": "p.parquet: has no column of predictions of any task: 'yes', 'sort'; a column has the name of its "
    "task, or <task>_p, or <task>_p_<class>",
    "class only": "p.parquet: task 'yes' is measured by auroc, which needs probabilities; give 1 column: 'yes_p'; or "
    "put one of accuracy, balanced_accuracy, f1, precision, recall, specificity first in `metrics`",
    "text": "p.parquet:row 0, column 'yes_p': 'much' is not a number; if it stands for a missing value, add it to "
    "na_values",
    "all others": "p.parquet: no row for {n} labelled test rows of {n}, by column 'id': {first3} and {rest} more; "
    "predict every row of the split",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_says_too_little_is_refused(name: str, shop: Path, tmp_path: Path) -> None:
    recipe, dataset, groups = made(shop, {"yes": EVERY["binary"], "sort": EVERY["multiclass"]}, **ID)
    test = dataset.splits["test"].tolist()
    file = file_of(tmp_path / "p.parquet", changed_rows(name, test))
    with pytest.raises(UserError) as caught:
        outside_predictions(file, recipe, dataset, groups)
    first = [f"'{i}'" for i in test]
    facts = {"n": len(test), "rest": len(test) - 3, "third": first[2], "first2": ", ".join(first[:2])}
    facts["first3"] = ", ".join(first[:3])
    shown = REFUSED[name].format(**facts)
    assert str(caught.value) == shown


def test_unknown_classes_and_labels(shop: Path, tmp_path: Path) -> None:
    recipe, dataset, groups = made(shop, {"sort": EVERY["multiclass"]}, **ID)
    test = dataset.splits["test"]
    file = file_of(tmp_path / "p.csv", {"id": test, "sort": ["middling"] * len(test)})
    with pytest.raises(UserError) as caught:
        outside_predictions(file, recipe, dataset, groups)
    what = "'middling' is no class of the task; known: 'high', 'low', 'medium'"
    assert str(caught.value) == f"p.csv:row 2, column 'sort': {what}"
    tasks = {"tags": {**EVERY["multilabel"], "metrics": ["accuracy"]}}
    recipe, dataset, groups = made(shop, tasks, **ID)
    file = file_of(tmp_path / "q.csv", {"id": test, "tags": ["often|odd"] * len(test)})
    with pytest.raises(UserError) as caught:
        outside_predictions(file, recipe, dataset, groups)
    assert (
        str(caught.value)
        == "q.csv:row 2, column 'tags': 'odd' is no label of the task; known: 'often', 'rare'"
    )


def test_data_without_ids_are_refused(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        outside_predictions(tmp_path / "nowhere.csv", *made(shop, YES))
    what = "predictions from elsewhere are joined by the ids of rows, and the rows have none"
    todo = "name the column of ids in the recipe, as `id` of the source"
    assert str(caught.value) == f"data.source: {what}; {todo}"


def test_ids_that_several_test_rows_have_are_refused(shop: Path, tmp_path: Path) -> None:
    table = pq.read_table(shop)
    everyone = table.set_column(0, "id", pa.array([str(i // 2) for i in range(table.num_rows)]))
    everyone = everyone.append_column(
        "split", pa.array(["train"] * 600 + ["validation"] * 300 + ["test"] * 300)
    )
    pq.write_table(everyone, tmp_path / "t.parquet")
    recipe, dataset, groups = made(tmp_path / "t.parquet", YES, split={"column": "split"}, **ID)
    file = file_of(tmp_path / "p.csv", {"id": [1], "yes_p": [0.5]})
    with pytest.raises(UserError) as caught:
        outside_predictions(file, recipe, dataset, groups)
    what = "column 'id' gives one id to several rows: '300', '301', '302' and 297 more"
    assert str(caught.value) == f"{what}; take a column in which every row has an id of its own"


def test_answers_of_every_kind_are_read_as_they_are_written(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    """The columns of answers alone, as `mtl predict` writes them into a CSV, are the answers of the network."""
    table, run = trained
    model = mtl.load(run)
    write_predictions(model, str(table), str(tmp_path / "all.csv"), keep=["id"])
    with (tmp_path / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    tasks = inference_shop.LABELS
    columns = {name: [row[name] for row in rows] for name in ("id", *tasks)}
    columns["yes"] = ["1" if v == "yes" else "0" for v in columns["yes"]]  # 0 and 1 stand for no and yes
    file_of(tmp_path / "answers.csv", columns)
    metrics = {"yes": "f1", "sort": "accuracy", "grade": "mae", "tags": "micro_f1", "amount": "r2"}
    changes = {f"tasks__{task}__metrics": [name] for task, name in metrics.items()}
    recipe = load_recipe(inference_shop.recipe(table, **changes))
    dataset = load_dataset(recipe, header_of(recipe))
    groups = task_groups(recipe, dataset.learned)
    found, _ = scored(
        recipe, groups, dataset, outside_predictions(tmp_path / "answers.csv", recipe, dataset, groups)
    )
    before = model.evaluate("test")
    for task, metric in metrics.items():
        own = before.get(f"test/{task}/{metric}")
        if own is not None:
            assert found.values[f"test/{task}/{metric}"] == pytest.approx(own, abs=1e-5), task
    assert sum(f"test/{task}/{metric}" in before for task, metric in metrics.items()) >= 4
