"""The trivial baselines: for every kind of task, every headline metric, and every form of inputs."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mtl
from mtl.build import Built, build
from mtl.dataset.assemble import Dataset, load_dataset
from mtl.dataset.header import header_of
from mtl.evaluation import baseline
from mtl.evaluation.baseline import baselines
from mtl.evaluation.beside import flat_tasks, not_better
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.specs import TASKS
from tests.support.recipes import recipe, small, table

N = 240
KINDS: dict[str, dict[str, Any]] = {
    "multiclass": {"target": "sort"},
    "binary": {"target": "yes"},
    "multilabel": {"targets": ["yes", "rare"]},
    "ordinal": {"target": "grade"},
    "regression": {"target": "amount"},
}
PERFECT = ("cohen_kappa", "quadratic_kappa", "r2", "auroc", "macro_auroc")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of all kinds, which four numbers and a category tell but for a little noise."""
    rng = np.random.default_rng(0)
    x, city = rng.standard_normal((N, 3)), rng.integers(0, 3, N)
    s = x[:, 0] + 0.5 * x[:, 1] + (city - 1) + 0.1 * rng.standard_normal(N)
    columns = {
        **{f"x{i}": [f"{v:.4f}" for v in x[:, i]] for i in range(3)},
        "city": [("Bergen", "Cork", "Evora")[c] for c in city],
        "sort": [("low", "medium", "high")[c] for c in np.digitize(s, [-1.2, 1.2])],
        "grade": [str(c) for c in np.digitize(s, [-1, 1])],
        "yes": [str(int(v > 0.8)) for v in s],
        "rare": [str(int(v > 1.5)) for v in s],
        "amount": [f"{100 + 20 * v:.3f}" for v in s],
        "gap": ["" if i % 3 else f"{v:.3f}" for i, v in enumerate(s)],
        "share": [str(1 + i % 2) for i in range(N)],
    }
    path = tmp_path_factory.mktemp("shop") / "shop.csv"
    lines = [",".join(columns), *(",".join(row) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


def made(path: Path, tasks: dict[str, Any], **inputs: Any) -> tuple[Recipe, Built, Dataset]:
    source = {
        "kind": "table",
        "path": str(path),
        "inputs": {"numeric": ["x0", "x1", "x2"], "categorical": ["city"], **inputs},
    }
    built_from = recipe(data={"source": source, "split": {"validation": 0.2, "test": 0.25}}, tasks=tasks)
    dataset = load_dataset(built_from, header_of(built_from))
    return built_from, build(built_from, dataset.header, dataset.learned), dataset


def beside(path: Path, tasks: dict[str, Any], **inputs: Any) -> dict[str, float | None]:
    built_from, built, dataset = made(path, tasks, **inputs)
    return baselines(built_from, built.groups, dataset, "test")[0]


def labels(path: Path, task: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The targets of the training and of the test rows."""
    _, built, dataset = made(path, {"a": task})
    target = dataset.rows.target[built.groups[0].name][:, 0].numpy()
    return target[dataset.splits["train"]], target[dataset.splits["test"]]


def test_every_kind_with_every_metric_first(shop: Path) -> None:
    assert set(KINDS) == {name for name in TASKS.names() if "." not in name}
    n_metrics = 0
    for kind, options in KINDS.items():
        for metric, higher in TASKS[kind].known_metrics.items():
            if higher is None:
                continue
            n_metrics += 1
            task = {"kind": kind, **options, "metrics": [metric]}
            values = beside(shop, {"a": task})
            assert set(values) == {"test/a/constant", "test/a/linear"}
            constant, linear = values["test/a/constant"], values["test/a/linear"]
            if metric == "precision":  # of a model that never says yes it is undefined
                assert constant is None
                continue
            assert constant is not None
            assert linear is not None
            if metric in PERFECT:
                assert constant <= 0.5 < 0.8 < linear, (kind, metric)
            elif metric not in ("calibration_error", "recall", "specificity"):
                assert linear > constant if higher else linear < constant, (kind, metric)
    assert n_metrics >= 30


def test_a_constant_is_the_most_frequent_class_or_the_mean(shop: Path) -> None:
    train, test = labels(shop, {"kind": "multiclass", "target": "sort"})
    majority = float((test == np.bincount(train).argmax()).mean())
    assert 0.4 < majority < 0.8
    for weights in ({}, {"class_weights": "balanced"}):
        task = {"kind": "multiclass", "target": "sort", **weights}
        assert beside(shop, {"a": task})["test/a/constant"] == pytest.approx(majority)
    train, test = labels(shop, {"kind": "binary", "target": "yes"})
    assert train.mean() < 0.5
    task = {"kind": "binary", "target": "yes", "metrics": ["accuracy"], "positive_weight": "balanced"}
    assert beside(shop, {"a": task})["test/a/constant"] == pytest.approx(1 - test.mean())
    train, test = labels(shop, {"kind": "regression", "target": "amount"})
    for loss, middle in (("mse", train.mean()), ("mae", np.median(train))):
        task = {"kind": "regression", "target": "amount", "loss": loss, "metrics": ["mae", "rmse"]}
        expected = float(np.abs(test - middle).mean())
        assert beside(shop, {"a": task})["test/a/constant"] == pytest.approx(expected, rel=1e-3)


def test_sample_weights_and_missing_labels_count(shop: Path) -> None:
    train, test = labels(shop, {"kind": "regression", "target": "amount"})
    task = {"kind": "regression", "target": "amount", "metrics": ["rmse"]}
    _, _, dataset = made(shop, {"a": task})
    share = 1 + dataset.splits["train"] % 2
    expected = math.sqrt(((test - np.average(train, weights=share)) ** 2).mean())
    values = beside(shop, {"a": {**task, "sample_weight": "share"}})
    assert values["test/a/constant"] == pytest.approx(expected, rel=1e-4)
    gap = {"kind": "regression", "target": "gap", "missing": "mask"}
    values = beside(shop, {"a": {**task, "metrics": ["r2"]}, "b": {**gap, "metrics": ["r2"]}})
    assert values["test/b/linear"] == pytest.approx(0.99, abs=0.02)


def test_thresholds_are_fitted_for_each_model(shop: Path) -> None:
    """The best threshold of a constant answers yes everywhere: f1 is 2 p / (1 + p)."""
    _, test = labels(shop, {"kind": "binary", "target": "rare"})
    p = float(test.mean())
    fitted = {"kind": "binary", "target": "rare", "metrics": ["f1"], "fit_threshold": "f1"}
    values = beside(shop, {"a": fitted})
    assert values["test/a/constant"] == pytest.approx(2 * p / (1 + p))
    plain = beside(shop, {"a": {"kind": "binary", "target": "rare", "metrics": ["f1"]}})
    assert plain["test/a/constant"] == 0


def test_embedded_categories_are_one_hot_for_the_linear_model(shop: Path) -> None:
    tasks = {"a": {"kind": "regression", "target": "amount"}}
    one_hot = beside(shop, tasks)
    assert beside(shop, tasks, embedding=2) == one_hot
    without = beside(shop, tasks, categorical=[])
    assert (without["test/a/linear"] or 0) < 0.8 < 0.95 < (one_hot["test/a/linear"] or 0)


def test_images_have_a_constant_alone() -> None:
    images = recipe(
        data={"source": {"kind": "fashion_mnist", "sample": True}, "split": {"validation": 0.2}},
        tasks={"a": {"kind": "multiclass", "target": "label"}},
        model={
            "backbone": {
                "kind": "layers",
                "stages": [{"name": "c", "kind": "conv", "channels": 2, "kernel": 3}],
            }
        },
    )
    dataset = load_dataset(images, header_of(images))
    built = build(images, dataset.header, dataset.learned)
    values, told = baselines(images, built.groups, dataset, "test")
    assert set(values) == {"test/a/constant"}
    assert told == []
    assert values["test/a/constant"] == pytest.approx(0.1, abs=0.05)


def test_more_rows_than_a_fit_takes_are_thinned_out(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = {"a": {"kind": "regression", "target": "amount"}}
    built_from, built, dataset = made(shop, tasks)
    whole, told = baselines(built_from, built.groups, dataset, "test")
    assert told == []
    monkeypatch.setattr(baseline, "FEWEST_ROWS", 10)
    monkeypatch.setattr(baseline, "MOST_NUMBERS", 70 * (6 + 8))  # 3 numbers and 3 cities, 1 output
    values, told = baselines(built_from, built.groups, dataset, "test")
    assert told == ["linear model of a: fitted on 70 of 132 training rows"]
    assert values["test/a/linear"] != whole["test/a/linear"]
    assert values["test/a/linear"] == pytest.approx(whole["test/a/linear"], abs=0.02)
    monkeypatch.setattr(baseline, "FEWEST_ROWS", 71)
    values, told = baselines(built_from, built.groups, dataset, "test")
    assert set(values) == {"test/a/constant"}
    assert told == ["no linear model beside the results: 6 inputs and 1 outputs are too many"]


def test_many_classes_leave_enough_rows_for_the_most_frequent_one(tmp_path: Path) -> None:
    """Of 600 classes one has half of the rows; a linear model of 600 outputs would have too few rows."""
    rng = np.random.default_rng(0)
    n = 3000
    sort = np.where(rng.random(n) < 0.5, 599, rng.integers(0, 600, n))
    sort[:600] = np.arange(600)
    lines = ["x0,sort", *(f"{x:.3f},c{c}" for x, c in zip(rng.standard_normal(n), sort, strict=True))]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    tasks = {"a": {"kind": "multiclass", "target": "sort"}}
    built_from, built, dataset = made(tmp_path / "t.csv", tasks, numeric=["x0"], categorical=[])
    values, told = baselines(built_from, built.groups, dataset, "test")
    assert values.keys() == {"test/a/constant"}
    assert (values["test/a/constant"] or 0) == pytest.approx(0.4, abs=0.05)
    assert told == ["no linear model beside the results: 1 inputs and 600 outputs are too many"]


def test_an_interruption_ends_it(shop: Path) -> None:
    built_from, built, dataset = made(shop, {"a": {"kind": "regression", "target": "amount"}})

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        baselines(built_from, built.groups, dataset, "test", stop)


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtl.report.plots.plot_run", lambda *_: [])


def test_a_run_records_them_and_eval_shows_them(
    shop: Path, tmp_path: Path, no_plots: None, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = {
        "sort": {"kind": "multiclass", "target": "sort"},
        "amount": {"kind": "regression", "target": "amount"},
    }
    result = mtl.run(
        small(
            data={"source": table(shop, "x0", "x1", "x2"), "split": {"validation": 0.2, "test": 0.25}}, tasks=tasks,
        ),
        out=tmp_path / "run",
    )  # fmt: skip
    record = json.loads((tmp_path / "run/run.json").read_bytes())
    assert set(record["baselines"]) == {f"test/{t}/{b}" for t in tasks for b in ("constant", "linear")}
    assert result.record.baselines == record["baselines"]
    assert not any("constant" in name or "linear" in name for name in record["results"])
    from mtl.commands.runs import evaluate

    assert evaluate.callback is not None
    evaluate.callback(str(tmp_path / "run"), "test", None, "cpu", (), False)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split()[-2:] == ["constant", "linear"]
    assert [line.split()[-1] for line in shown[2:4]] == [
        f"{record['baselines'][f'test/{task}/linear']:.4f}" for task in tasks
    ]
    assert shown[5] == (
        "constant: one answer for all rows; linear: a linear model (the headline metric of each task, on the same rows)"
    )


TASK = {"target": "sort"}


def said(
    kind: str, own: float | None, constant: float | None, linear: float | None, **more: Any
) -> list[str]:
    trained, flat, interval = more.pop("trained", None), more.pop("flat", ()), more.pop("interval", None)
    spec = TASKS[kind].model_validate({"kind": kind, **TASK, **more})
    metric = spec.headline
    values = {"test/a/constant": constant, "test/a/linear": linear}
    metrics = {f"test/a/{metric}": own, f"train/a/{metric}": trained}
    return list(not_better({"a": spec}, metrics, values, "test", flat, {"a": interval} if interval else None))


LINEAR_IS_FINE = "; the linear model may be the better choice"


def test_what_is_not_better_is_told() -> None:
    assert said("multiclass", 0.81, 0.5, 0.8) == []
    assert said("multiclass", 0.79, 0.5, 0.8, trained=0.79) == [
        "a: accuracy 0.7900 is not better than a linear model's 0.8000; "
        f"train longer, or try another optimizer.lr or a smaller network{LINEAR_IS_FINE}"
    ]
    assert said("multiclass", 0.7, 0.5, 0.8, trained=0.95) == [
        "a: accuracy 0.7000 is not better than a linear model's 0.8000, though it is 0.9500 on the training rows; "
        f"take a smaller network, raise optimizer.weight_decay, add dropout, or leave out inputs{LINEAR_IS_FINE}"
    ]
    assert said("binary", 0.4, 0.5, 0.45) == [
        "a: auroc 0.4000 is not better than 0.5000, which one answer for all rows reaches; "
        "see whether the inputs say anything about it"
    ]


def test_a_run_that_came_to_a_halt_is_not_told_to_train_longer() -> None:
    assert said("multiclass", 0.79, 0.5, 0.8, flat=("a",)) == [
        "a: accuracy 0.7900 is not better than a linear model's 0.8000; "
        f"try another optimizer.lr or a smaller network{LINEAR_IS_FINE}"
    ]


def test_a_baseline_within_the_interval_is_level_and_no_better_choice() -> None:
    assert said("multiclass", 0.79, 0.5, 0.8, flat=("a",), interval=(0.77, 0.81)) == [
        "a: accuracy 0.7900 is level with a linear model's 0.8000 within the noise of these rows "
        "(95% interval 0.7700 to 0.8100); try another optimizer.lr or a smaller network"
    ]
    assert said("binary", 0.49, 0.5, 0.45, interval=(0.47, 0.51)) == [
        "a: auroc 0.4900 is level with 0.5000, which one answer for all rows reaches, within the noise of these rows "
        "(95% interval 0.4700 to 0.5100); see whether the inputs say anything about it"
    ]
    assert said("multiclass", 0.79, 0.5, 0.8, interval=(0.78, 0.795))[0].endswith(LINEAR_IS_FINE)


@pytest.mark.parametrize(
    ("values", "interval", "is_flat"),
    [
        ([0.85, 0.93, 0.936, 0.935, 0.936, 0.935, 0.9365], (0.93, 0.94), True),
        ([0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93], (0.93, 0.94), False),
        ([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], None, True),
        ([0.5, 0.5, 0.5], (0.4, 0.6), False),  # too few to tell
    ],
)
def test_a_metric_that_rises_no_more_is_flat(
    values: list[float], interval: tuple[float, float] | None, is_flat: bool
) -> None:
    spec = TASKS["binary"].model_validate({"kind": "binary", **TASK})
    lower = TASKS["regression"].model_validate({"kind": "regression", **TASK, "metrics": ("rmse",)})
    rising = [{"split": split, f"{split}/a/auroc": v} for v in values for split in ("train", "validation")]
    falling = [{"split": "validation", "validation/a/rmse": 1 - v} for v in values]
    for one, rows in ((spec, rising), (lower, falling)):
        found = flat_tasks({"a": one}, rows, {"a": interval} if interval else {})
        assert found == ({"a"} if is_flat else set())


@pytest.mark.parametrize("own", [0.8, 0.80004, 0.79996])
def test_four_equal_digits_are_a_tie(own: float) -> None:
    (line,) = said("multiclass", own, 0.5, 0.8, trained=0.80003)
    assert line.startswith("a: accuracy 0.8000 is only as good as a linear model's 0.8000; train longer, ")
    (line,) = said("multiclass", own, 0.8, 0.5)
    assert line.startswith(
        "a: accuracy 0.8000 is only as good as 0.8000, which one answer for all rows reaches; "
    )
    assert said("multiclass", 0.8001, 0.5, 0.8) == []


def test_the_direction_of_the_metric_counts() -> None:
    lower = {"metrics": ("rmse",)}
    assert said("regression", 2.9, 5.0, 3.0, **lower) == []
    (line,) = said("regression", 3.1, 5.0, 2.9, **lower)
    assert line.startswith("a: rmse 3.100 is not better than a linear model's 2.900; ")


def test_what_is_unknown_is_not_told() -> None:
    assert said("binary", None, 0.5, 0.9) == []
    assert said("binary", 0.4, None, None) == []
    assert said("binary", 0.4, 0.5, 0.9, weight=0.0) == []
    assert len(said("binary", 0.4, None, 0.9)) == len(said("binary", 0.4, 0.5, None)) == 1


def test_of_many_tasks_some_are_told_and_the_others_counted() -> None:
    spec = TASKS["multiclass"].model_validate({"kind": "multiclass", **TASK})
    names = [f"t{i}" for i in range(20)]
    metrics: dict[str, float | None] = {f"test/{name}/accuracy": 0.5 for name in names}
    values: dict[str, float | None] = {f"test/{name}/linear": 0.6 for name in names}
    lines = list(not_better(dict.fromkeys(names, spec), metrics, values, "test"))
    assert [line.split(":")[0] for line in lines[:6]] == names[:6]
    assert lines[6:] == ["14 more tasks are not better than a linear model or one answer for all rows"]


def test_a_fault_of_them_costs_no_result(
    shop: Path, tmp_path: Path, no_plots: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a plug-in's loss")

    monkeypatch.setattr("mtl.experiment.finish.baselines", broken)
    made_from = small(
        data={"source": table(shop, "x0", "x1", "x2"), "split": {"test": 0.25}},
        tasks={"a": KINDS["regression"] | {"kind": "regression"}},
    )
    with pytest.raises(RuntimeError, match="plug-in"):
        mtl.run(made_from, out=tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_bytes())
    assert record["status"] == "finished"
    assert "test/a/r2" in record["results"]
    assert "baselines" not in record
    assert mtl.resume(tmp_path / "run").metrics == record["results"]
