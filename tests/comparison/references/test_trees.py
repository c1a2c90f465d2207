"""Boosted trees: on every kind of task, with the weights of its loss, whatever is missing, and always the same."""

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from mtl.comparison.references import boosting
from mtl.comparison.references.boosting import CHOSEN_BY, Sample, boosted
from mtl.comparison.references.scored import scored
from mtl.comparison.references.tree_inputs import MOST_CATEGORIES, TreeInputs, categories_of
from mtl.comparison.references.trees import fit_trees
from mtl.dataset.assemble import load_dataset
from mtl.dataset.header import header_of
from mtl.errors import EnvironmentFault, UserError
from mtl.evaluation.baseline import baselines
from mtl.recipe.specs import TASKS
from mtl.task_groups import task_groups
from tests.comparison.references.shop import EVERY, made
from tests.support.recipes import recipe


def values_of(path: Path, tasks: dict[str, Any] = EVERY, **options: Any) -> dict[str, float | None]:
    checked, dataset, groups = made(path, tasks, **options)
    found, _ = scored(checked, groups, dataset, fit_trees(checked, dataset, groups, threads=1))
    return found.values


def test_every_kind_is_better_than_a_linear_model_where_an_interaction_tells(shop: Path) -> None:
    assert set(EVERY) == {kind for kind in TASKS.names() if "." not in kind}
    checked, dataset, groups = made(shop)
    predicted = fit_trees(checked, dataset, groups, threads=1)
    assert set(predicted.logits) == {"validation", "test"}
    for task, logits in predicted.logits["test"].items():
        assert logits.dtype == torch.float32
        assert len(logits) == len(dataset.splits["test"]), task
    found, told = scored(checked, groups, dataset, predicted)
    assert told == []
    beside, _ = baselines(checked, groups, dataset, "test")
    for task, spec in checked.tasks.items():
        own, linear = found.values[f"test/{task}/{spec.headline}"], beside[f"test/{task}/linear"]
        assert own is not None
        assert linear is not None
        assert spec.higher_is_better
        assert own > linear + 0.05, task
        for metric in spec.metric_names:
            assert found.values[f"validation/{task}/{metric}"] is not None


def test_metrics_are_those_of_scikit_learns_own_probabilities(shop: Path) -> None:
    from sklearn.metrics import log_loss, roc_auc_score

    checked, dataset, groups = made(shop, {"a": EVERY["binary"]})
    predicted = fit_trees(checked, dataset, groups, threads=1)
    found, _ = scored(checked, groups, dataset, predicted)
    inputs, (group,) = TreeInputs(dataset), groups
    y = dataset.rows.target[group.name][:, 0].numpy()
    train, validation, test = (dataset.splits[s] for s in ("train", "validation", "test"))
    model = HistGradientBoostingClassifier(
        max_iter=predicted.facts["tasks"]["a"]["iterations"][0], early_stopping=False,
        categorical_features=[3], random_state=0,
    ).fit(inputs.rows(train), y[train])  # fmt: skip
    p = model.predict_proba(inputs.rows(test))[:, 1]
    assert found.values["test/a/auroc"] == pytest.approx(roc_auc_score(y[test], p), abs=2e-3)
    assert found.values["test/a/loss"] == pytest.approx(log_loss(y[test], p), abs=1e-5)
    stages = [log_loss(y[validation], q) for q in model.staged_predict_proba(inputs.rows(validation))]
    assert int(np.argmin(stages)) + 1 == model.n_iter_, "the last iteration is the best by validation"


def test_threads_and_repetitions_change_nothing(shop: Path) -> None:
    checked, dataset, groups = made(shop, {kind: EVERY[kind] for kind in ("binary", "regression")})
    one, two, again = (fit_trees(checked, dataset, groups, threads=n).logits for n in (1, 2, 1))
    before = dataset.rows.inputs.clone()
    for split, tasks in one.items():
        for task, logits in tasks.items():
            assert torch.equal(logits, two[split][task])
            assert torch.equal(logits, again[split][task])
    assert torch.equal(before.nan_to_num(), dataset.rows.inputs.nan_to_num()), (
        "the data set's rows are its own"
    )


def test_without_validation_every_tenth_training_row_chooses(shop: Path) -> None:
    checked, dataset, groups = made(shop, split={"test": 0.25})
    predicted = fit_trees(checked, dataset, groups, threads=1)
    assert set(predicted.logits) == {"test"}
    for task, facts in predicted.facts["tasks"].items():
        assert set(facts["chosen_by"]) == {CHOSEN_BY["training"]}
        assert set(facts["rows"]) == {len(dataset.splits["train"])}
        assert max(facts["iterations"]) < 400, task
    assert predicted.facts["library"] == f"scikit-learn {sklearn.__version__}"
    assert set(predicted.seconds) == set(checked.tasks)


def test_a_task_learns_from_the_rows_that_have_its_label(shop: Path) -> None:
    tasks = {"seldom": {"kind": "binary", "target": "seldom", "missing": "mask"}, "yes": EVERY["binary"]}
    checked, dataset, groups = made(shop, tasks)
    (group,) = groups
    there = dataset.rows.present[group.name][dataset.splits["train"]].sum(0).tolist()
    predicted = fit_trees(checked, dataset, groups, threads=1)
    assert [predicted.facts["tasks"][task]["rows"][0] for task in group.tasks] == there
    assert there[0] < 0.6 * there[1]
    found, _ = scored(checked, groups, dataset, predicted)
    n_test = int(dataset.rows.present[group.name][dataset.splits["test"], 0].sum())
    assert found.values["test/seldom/labels"] == n_test


WEIGHED: dict[str, tuple[dict[str, Any], dict[int, float]]] = {
    "binary": ({"positive_weight": 30.0}, {1: 30.0}),
    "multiclass": ({"class_weights": {"high": 20.0}}, {2: 20.0}),
    "ordinal": ({"class_weights": {"3": 20.0}}, {3: 20.0}),
}


@pytest.mark.parametrize("kind", WEIGHED)
def test_weights_of_classes_move_the_answers_towards_them(kind: str, shop: Path) -> None:
    options, weights = WEIGHED[kind]
    tasks = {"plain": EVERY[kind], "weighed": {**EVERY[kind], **options}}
    checked, dataset, groups = made(shop, tasks)
    found, _ = scored(checked, groups, dataset, fit_trees(checked, dataset, groups, threads=1))
    logits = found.built.model(found.dataset.rows.inputs)
    modules = found.built.model.modules_of_tasks()
    p = {}
    for group, module in modules.items():
        p[module.tasks[0]] = module.predict(logits.groups[group])["p"]
    ((chosen, _),) = weights.items()
    column = slice(None) if kind == "binary" else chosen
    names = ("high", "low", "medium")
    if kind == "multiclass":
        column = dataset.learned.outputs["plain"].index(names[0])
    plain, weighed = (p[task][:, 0][..., column].mean() for task in ("plain", "weighed"))
    assert weighed > plain + 0.05


def test_sample_weights_weigh_rows_and_a_weight_of_nought_leaves_a_row_out(shop: Path) -> None:
    column = {"kind": "regression", "target": "amount", "sample_weight": "share"}
    plain = fit_trees(*made(shop, {"a": EVERY["regression"]}), threads=1).logits["test"]["a"]
    weighed = fit_trees(*made(shop, {"a": column}), threads=1).logits["test"]["a"]
    assert not torch.equal(plain, weighed)
    checked, dataset, groups = made(shop, {"a": column})
    for weight in dataset.rows.weight.values():
        weight[dataset.splits["train"][::2]] = 0
    predicted = fit_trees(checked, dataset, groups, threads=1)
    assert predicted.facts["tasks"]["a"]["rows"] == [len(dataset.splits["train"]) // 2]


def test_the_absolute_error_gives_medians(shop: Path) -> None:
    tasks = {loss: {**EVERY["regression"], "loss": loss} for loss in ("mse", "mae", "huber")}
    checked, dataset, groups = made(shop, tasks)
    logits = fit_trees(checked, dataset, groups, threads=1).logits["test"]
    assert torch.equal(logits["mse"], logits["huber"])
    assert not torch.allclose(logits["mse"], logits["mae"], atol=1e-3)


def test_unknown_labels_of_a_row_do_not_count(shop: Path) -> None:
    tasks = {"a": {"kind": "multilabel", "targets": ["seldom", "often"], "missing": "mask"}}
    checked, dataset, groups = made(shop, tasks)
    facts = fit_trees(checked, dataset, groups, threads=1).facts["tasks"]["a"]
    n = len(dataset.splits["train"])
    assert facts["rows"][0] < 0.6 * n
    assert facts["rows"][1] == n


def test_vectors_of_an_array_and_of_a_column(shop: Path) -> None:
    values = values_of(shop, {"a": EVERY["binary"]}, inputs={"vector": ["vector"]})
    auroc = values["test/a/auroc"]
    assert auroc is not None
    assert auroc > 0.75


def test_images_are_refused(tmp_path: Path) -> None:
    images, label = np.zeros((40, 1, 4, 4), np.float32), np.arange(40) % 2
    np.savez(tmp_path / "i.npz", inputs=images, yes=label)
    checked = recipe(
        data={"source": {"kind": "npz", "path": str(tmp_path / "i.npz")}, "split": {"test": 0.25}},
        tasks={"a": EVERY["binary"]},
    )
    dataset = load_dataset(checked, header_of(checked))
    with pytest.raises(UserError) as caught:
        fit_trees(checked, dataset, task_groups(checked, dataset.learned), threads=1)
    what = "trees read one vector of numbers a row, and the rows are images of shape (1, 4, 4)"
    assert str(caught.value) == f"{what}; leave the trees out of this comparison"


def test_an_old_scikit_learn_is_named_with_the_command(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sklearn, "__version__", "1.6.1")
    with pytest.raises(EnvironmentFault) as caught:
        fit_trees(*made(shop, {"a": EVERY["binary"]}), threads=1)
    expected = (
        "trees: scikit-learn 1.6.1 is too old, at least 1.7 is needed; pip install 'mtl-recipes[trees]'"
    )
    assert str(caught.value) == expected


def test_without_scikit_learn_the_command_is_named(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(EnvironmentFault) as caught:
        fit_trees(*made(shop, {"a": EVERY["binary"]}), threads=1)
    assert str(caught.value) == "trees: scikit-learn is not installed; pip install 'mtl-recipes[trees]'"


def test_rows_are_held_for_one_model_at_a_time(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more copies live than one fit needs: its rows, and those that choose."""
    tasks = {f"t{i}": EVERY["regression"] for i in range(6)}
    checked, dataset, groups = made(shop, tasks)
    copies: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []
    rows = TreeInputs.rows

    def counted(inputs: TreeInputs, asked: np.ndarray) -> np.ndarray:
        found = rows(inputs, asked)
        copies.append(weakref.ref(found))
        alive.append(sum(copy() is not None for copy in copies))
        return found

    monkeypatch.setattr(TreeInputs, "rows", counted)
    monkeypatch.setattr(boosting, "MOST_ITERATIONS", 3)
    fit_trees(checked, dataset, groups, threads=1)
    assert len(alive) == 3 * len(tasks)
    assert max(alive) <= 2


# --- one model ---


def inputs_and_rows(shop: Path, n: int = 400) -> tuple[TreeInputs, np.ndarray]:
    _, dataset, _ = made(shop, {"a": EVERY["binary"]})
    return TreeInputs(dataset), np.arange(n)


def sample(rows: np.ndarray, y: np.ndarray) -> Sample:
    return Sample(rows, y, np.ones(len(rows)))


def test_a_class_that_only_validation_has_does_not_choose(shop: Path) -> None:
    inputs, rows = inputs_and_rows(shop)
    y = rows % 2
    strange = sample(np.arange(400, 440), np.full(40, 2))
    found = boosted(inputs, sample(rows, y), strange, rows[:5], "log_loss", 4)
    assert found.chosen_by == CHOSEN_BY["training"]
    assert found.p.shape == (5, 4)
    assert (found.p[:, 2:] == 0).all()
    np.testing.assert_allclose(found.p.sum(1), 1)


def test_a_single_class_needs_no_trees(shop: Path) -> None:
    inputs, rows = inputs_and_rows(shop)
    found = boosted(inputs, sample(rows, np.ones(400, int)), None, rows[:3], "log_loss", 2)
    assert found.iterations == 0
    np.testing.assert_allclose(found.p, [[1 / 402, 401 / 402]] * 3)
    none = boosted(inputs, sample(rows[:0], np.ones(0, int)), None, rows[:3], "log_loss", 2)
    np.testing.assert_allclose(none.p, 0.5)


def test_few_rows_without_validation_take_a_fixed_number_of_iterations(shop: Path) -> None:
    inputs, rows = inputs_and_rows(shop, 60)
    found = boosted(inputs, sample(rows, rows % 2), None, rows, "log_loss", 2)
    assert (found.iterations, found.chosen_by) == (boosting.ITERATIONS, CHOSEN_BY["nothing"])


def test_columns_without_a_value_in_the_rows_of_a_task(shop: Path) -> None:
    inputs, rows = inputs_and_rows(shop)
    inputs.inputs = inputs.inputs.clone()
    inputs.inputs[:400, 0] = torch.nan
    inputs.inputs[:400, 3] = 0
    found = boosted(inputs, sample(rows, rows % 2), None, np.arange(390, 410), "log_loss", 2)
    assert np.isfinite(found.p).all()


def test_predictions_in_parts_are_those_at_once(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, rows = inputs_and_rows(shop)
    y = rows / 100
    whole = boosted(inputs, sample(rows, y), None, rows, "squared_error").p
    monkeypatch.setattr(boosting, "AT_ONCE", 64)
    np.testing.assert_array_equal(boosted(inputs, sample(rows, y), None, rows, "squared_error").p, whole)


# --- categories ---


def test_codes_become_categories_and_what_is_missing_nan(shop: Path) -> None:
    _, dataset, _ = made(shop, {"a": EVERY["binary"]})
    inputs = TreeInputs(dataset)
    assert inputs.categorical == [3]
    x, raw = inputs.rows(np.arange(50)), dataset.rows.inputs[:50].numpy()
    np.testing.assert_array_equal(np.isnan(x[:, 3]), raw[:, 3] == 0)
    np.testing.assert_array_equal(x[raw[:, 3] > 0, 3], raw[raw[:, 3] > 0, 3] - 1)
    np.testing.assert_array_equal(x[:, :3], raw[:, :3])
    assert np.isnan(x[:, 0]).any(), "a missing number stays missing"


def test_the_most_frequent_of_many_categories_stay() -> None:
    codes = np.concatenate([np.repeat(np.arange(1, 301), 2), np.full(5, 300)])
    lookup = categories_of(codes, 300)
    assert np.isnan(lookup[0])
    assert lookup[1:254].tolist() == list(range(253)), "of equal ones the first stay"
    assert lookup[300] == 253
    assert set(lookup[254:300].tolist()) == {254.0}
    assert len(set(categories_of(codes[codes <= 255], MOST_CATEGORIES)[1:].tolist())) == 255


def test_a_column_of_many_categories_is_fitted_and_told(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    code = np.arange(8000) % 400
    columns = {
        "x": rng.standard_normal(8000),
        "shop": [f"s{c}" for c in code],
        "yes": (code % 2 == 0).astype(int),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    inputs = {"numeric": ["x"], "categorical": ["shop"]}
    split = {"validation": 0.1, "test": 0.1, "stratify": "a"}
    checked, dataset, groups = made(tmp_path / "t.parquet", {"a": EVERY["binary"]}, inputs, split)
    predicted = fit_trees(checked, dataset, groups, threads=1)
    assert predicted.told == (
        "trees: column 'shop' has 400 values; the 254 most frequent stay, the others count as one",
    )
    auroc = scored(checked, groups, dataset, predicted)[0].values["test/a/auroc"]
    assert auroc is not None
    assert auroc > 0.8
