"""The recipe that `mtl init` writes, against a linear model and boosted trees, on five tables of made-up rows.

    python bench/init_quality.py [small wide dense long customers] [--splits 5] [--trees] [KEY=VALUE ...]

`small` has 60 rows of 8 columns, `wide` 2000 rows of 500 columns of which 10 tell, `dense` as many of which all tell a
little, `long` 200,000 rows of 20 columns, `customers` 20,000 rows by examples/make_customers.py. Each split has its own
test rows (`seed.split`). Printed: the mean and its standard error over the splits of the headline metric on the test
rows, for the network, for the linear model of mtl on all inputs, and for scikit-learn's HistGradientBoosting; and the
mean difference of network and linear model, with its standard error. All headlines are better if higher. Overrides
`KEY=VALUE` change the recipe, as for `mtl run`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import torch

import mtl
from mtl.build import build, inputs_of
from mtl.dataset.assemble import load_dataset
from mtl.dataset.header import header_of
from mtl.evaluation.baseline import baselines
from mtl.recipe.load import load_recipe
from mtl.starter.write import write_starter
from mtl.task_groups import task_groups

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))


def small(path: Path) -> list[str]:
    """60 rows, 8 columns: three of them tell a class and a quantity."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((60, 8))
    score = x[:, 0] + 0.7 * x[:, 1] - 0.5 * x[:, 2] + 0.7 * rng.standard_normal(60)
    return _write(path, x, bought=np.where(score > 0, "yes", "no"), spend=50 + 10 * score)


def wide(path: Path) -> list[str]:
    """2000 rows, 500 columns, of which 10 tell a class by clusters (Guyon 2003)."""
    from sklearn.datasets import make_classification

    x, y = make_classification(2000, 500, n_informative=10, n_redundant=0, random_state=0)
    return _write(path, x, faulty=y)


def dense(path: Path) -> list[str]:
    """2000 rows, 500 columns, each of which tells a little of a class."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2000, 500))
    score = x @ (rng.standard_normal(500) / np.sqrt(500)) + rng.standard_normal(2000)
    return _write(path, x, faulty=(score > 0).astype(int))


def long(path: Path) -> list[str]:
    """200,000 rows, 20 columns, of which 10 tell: a class by clusters, a quantity by sums and one product."""
    from sklearn.datasets import make_classification

    x, y = make_classification(200_000, 20, n_informative=10, n_redundant=4, random_state=0)
    noise = np.random.default_rng(0).standard_normal(len(x))
    return _write(path, x, faulty=y, cost=x[:, 0] * x[:, 1] + x[:, 2] + noise)


def customers(path: Path) -> list[str]:
    """20,000 rows, 12 numbers and 3 categories, 8 label columns of all kinds with 40% of labels missing."""
    import make_customers

    header, rows = make_customers.customers(20_000, 0.4, 0)
    lines = [header, *rows]
    path.write_text("".join(",".join(line) + "\n" for line in lines), encoding="utf-8")
    return list(make_customers.TARGETS)


TABLES: dict[str, Callable[[Path], list[str]]] = {
    t.__name__: t for t in (small, wide, dense, long, customers)
}


def _write(path: Path, x: np.ndarray, **labels: np.ndarray) -> list[str]:
    inputs = {f"x{i:03d}": x[:, i].astype(np.float32) for i in range(x.shape[1])}
    pa_csv.write_csv(pa.table({**inputs, **labels}), path)
    return list(labels)


def linear_model(recipe: mtl.Recipe) -> dict[str, float | None]:
    """`test/<task>/linear` -> the headline metric of the linear model on the inputs of a recipe."""
    dataset = load_dataset(recipe, header_of(recipe))
    return baselines(recipe, build(recipe, dataset.header, dataset.learned).groups, dataset, "test")[0]


def trees(recipe: mtl.Recipe) -> dict[str, float]:
    """Task -> the headline metric on the test rows of boosted trees, one model for each output."""
    dataset = load_dataset(recipe, header_of(recipe))
    inputs = inputs_of(dataset.learned, 1, one_hot=True)
    assert inputs is not None
    with torch.no_grad():
        x = inputs(dataset.rows.inputs).numpy()
    found = {}
    for group in task_groups(recipe, dataset.learned):
        for t, task in enumerate(group.tasks):
            there = dataset.rows.present[group.name][:, t].numpy()
            y = dataset.rows.target[group.name][:, t].numpy()
            train, test = (
                np.concatenate([dataset.splits[s] for s in splits])
                for splits in (("train", "validation"), ("test",))
            )
            train, test = train[there[train]], test[there[test]]
            found[task] = _score(recipe.tasks[task], x[train], y[train], x[test], y[test])
    return found


def _score(spec: Any, x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> float:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.metrics import accuracy_score, cohen_kappa_score, r2_score

    if spec.headline == "r2":
        return float(r2_score(y_test, HistGradientBoostingRegressor().fit(x, y).predict(x_test)))
    if spec.headline == "macro_auroc":
        each = [_score_of_yes(x, y[:, o], x_test, y_test[:, o]) for o in range(y.shape[1])]
        return mean(each)
    if spec.headline == "auroc":
        return _score_of_yes(x, y, x_test, y_test)
    found = HistGradientBoostingClassifier().fit(x, y).predict(x_test)
    if spec.headline == "quadratic_kappa":
        return float(cohen_kappa_score(y_test, found, weights="quadratic"))
    assert spec.headline == "accuracy", spec.headline
    return float(accuracy_score(y_test, found))


def _score_of_yes(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> float:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    p = HistGradientBoostingClassifier().fit(x, y).predict_proba(x_test)[:, 1]
    return float(roc_auc_score(y_test, p))


def measure(table: str, splits: int, with_trees: bool, overrides: Sequence[str]) -> None:
    """Print the results of one table."""
    found: dict[str, dict[str, list[float]]] = {}
    seconds, steps = [], []
    with TemporaryDirectory() as folder:
        path = Path(folder, f"{table}.csv")
        targets = TABLES[table](path)
        write_starter(str(path), targets, Path(folder, "recipe.yaml"))
        for split in range(splits):
            seed = f"seed={{init: {split}, order: {split}, split: {split}, labels: 0}}"
            recipe = load_recipe(f"{folder}/recipe.yaml", [seed, "train.threads=1", *overrides])
            began = perf_counter()
            result = mtl.run(recipe, out=f"{folder}/{split}")
            seconds.append(perf_counter() - began)
            assert result.record.selected is not None
            steps.append(result.record.selected.step)
            whole = load_recipe(f"{folder}/recipe.yaml", [seed, "data.screen=null"])
            beside = trees(whole) if with_trees else {}
            linear = linear_model(whole)
            for task, spec in recipe.tasks.items():
                both = found.setdefault(f"{task} {spec.headline}", {"network": [], "linear": [], "trees": []})
                both["network"].append(result.metrics[f"test/{task}/{spec.headline}"] or 0.0)
                both["linear"].append(linear[f"test/{task}/linear"] or 0.0)
                both["trees"].append(beside.get(task, math.nan))
    print(f"\n{table}: {mean(seconds):.0f} s a run, chosen steps {steps}")
    print(f"{'task':28} {'network':>17} {'linear':>17} {'trees':>17}   network - linear")
    for name, each in found.items():
        shown = [f"{_with_error(values):>17}" for values in each.values()]
        gaps = [a - b for a, b in zip(each["network"], each["linear"], strict=True)]
        error = stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else 0.0
        mark = "" if mean(gaps) >= -error else "  below"
        print(f"{name:28} {' '.join(shown)}   {mean(gaps):+.4f} ± {error:.4f}{mark}", flush=True)


def _with_error(values: Sequence[float]) -> str:
    if math.isnan(values[0]):
        return "-"
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return f"{mean(values):.4f} ± {error:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("given", nargs="*", help="tables, and overrides of the recipe")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--trees", action="store_true", help="boosted trees too, which take longest")
    args = parser.parse_intermixed_args()
    tables = [given for given in args.given if "=" not in given] or list(TABLES)
    for table in tables:
        measure(table, args.splits, args.trees, [given for given in args.given if "=" in given])


if __name__ == "__main__":
    main()
