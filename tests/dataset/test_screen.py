"""Columns that tell nothing are left out by the training rows alone, and prediction does not need them any more."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import f_oneway, rankdata

import mtl
from mtl.dataset import screen as module
from mtl.dataset.assemble import Dataset, load_dataset
from mtl.dataset.header import header_of
from mtl.dataset.screen import discoveries, mean_ranks, p_value, p_values, quantile_bins
from mtl.recipe.keys.recipe import Recipe
from tests.support.recipes import recipe, small, table

N = 300
NOISE = [f"n{i:02d}" for i in range(40)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bend` tells a label by its square, `gap` by what is missing, `city` by its values; 40 columns tell nothing."""
    rng = np.random.default_rng(0)
    bend, gap, city = rng.standard_normal(N), rng.random(N) < 0.5, rng.integers(0, 3, N)
    noise = rng.standard_normal((N, len(NOISE)))
    columns = {
        "bend": [f"{v:.4f}" for v in bend],
        "gap": ["" if there else "1.5" for there in gap],
        "city": [("Bergen", "Cork", "Evora")[c] for c in city],
        "town": [("Ghent", "Hull")[c] for c in rng.integers(0, 2, N)],
        **{name: [f"{v:.4f}" for v in noise[:, i]] for i, name in enumerate(NOISE)},
        "vector": [f'"[{a:.3f}, {b:.3f}]"' for a, b in rng.standard_normal((N, 2))],
        "amount": [f"{v:.4f}" for v in 3 * bend**2 + rng.standard_normal(N)],
        "yes": [str(int(v)) for v in gap + 0.3 * rng.standard_normal(N) > 0.5],
        "sort": [("a", "b", "c")[int(c)] for c in np.where(rng.random(N) < 0.3, rng.integers(0, 3, N), city)],
        "rare": [str(int(v)) if i % 2 else "" for i, v in enumerate(noise[:, 7] > 0)],
        "flat": [f"{v:.4f}" for v in noise.sum(1) / 6 + 0.3 * rng.standard_normal(N)],
        "pure": [f"{v:.4f}" for v in rng.standard_normal(N)],
    }
    path = tmp_path_factory.mktemp("screen") / "t.csv"
    lines = [",".join(columns), *(",".join(row) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


def of(
    path: Path, *tasks: dict[str, Any], screen: float | None = 0.1, **changes: Any
) -> tuple[Recipe, Dataset]:
    source = {
        "kind": "table", "path": str(path),
        "inputs": {"numeric": ["bend", "gap", *NOISE], "categorical": ["city", "town"], "missing": "mean"},
    }  # fmt: skip
    source["inputs"].update(changes)  # type: ignore[attr-defined]
    made = recipe(
        data={"source": source, "split": {"test": 0.2}, "screen": screen},
        tasks={f"t{i}": task for i, task in enumerate(tasks)},
    )
    return made, load_dataset(made, header_of(made))


def kept(dataset: Dataset) -> set[str]:
    layout = dataset.header.layout
    assert layout is not None
    assert dataset.learned.layout is not None
    assert layout.numeric == dataset.learned.layout.numeric
    assert dataset.header.input_shape == dataset.rows.inputs.shape[1:] == (layout.width,)
    return {*layout.numeric, *layout.categorical}


AMOUNT = {"kind": "regression", "target": "amount"}
YES = {"kind": "binary", "target": "yes"}
SORT = {"kind": "multiclass", "target": "sort"}
RARE = {"kind": "binary", "target": "rare", "missing": "mask"}


@pytest.mark.parametrize(
    ("task", "tells"),
    [(AMOUNT, "bend"), (YES, "gap"), (SORT, "city"), (RARE, "n07"),
     ({"kind": "ordinal", "target": "sort", "order": ["a", "b", "c"]}, "city"),
     ({"kind": "multilabel", "targets": ["yes", "rare"], "missing": "mask"}, "gap")],
)  # fmt: skip
def test_a_column_stays_if_it_tells_something(data: Path, task: dict[str, Any], tells: str) -> None:
    _, dataset = of(data, task)
    assert tells in kept(dataset)
    assert len(kept(dataset)) <= 4
    assert dataset.notices[-1].startswith(f"screen: {len(kept(dataset))} of 44 inputs stay: ")


def test_a_column_stays_for_any_of_the_tasks(data: Path) -> None:
    _, dataset = of(data, AMOUNT, YES, SORT, RARE)
    assert {"bend", "gap", "city", "n07"} <= kept(dataset)
    assert len(kept(dataset)) <= 7


def test_the_values_of_the_rows_stay_as_they_are(data: Path) -> None:
    _, whole = of(data, YES, SORT, screen=None)
    _, screened = of(data, YES, SORT)
    all_of, some = whole.header.layout, screened.header.layout
    assert all_of is not None
    assert some is not None
    names = [*all_of.numeric, *all_of.categorical]
    places = [names.index(name) for name in (*some.numeric, *some.categorical)]
    np.testing.assert_array_equal(screened.rows.inputs.numpy(), whole.rows.inputs[:, places].numpy())
    assert screened.fingerprint == whole.fingerprint
    assert {name: rows.tolist() for name, rows in screened.splits.items()} == {
        name: rows.tolist() for name, rows in whole.splits.items()
    }


def test_vectors_always_stay(data: Path) -> None:
    _, dataset = of(data, YES, vector=["vector"])
    layout = dataset.header.layout
    assert layout is not None
    assert list(layout.vectors) == ["vector"]
    assert layout.width == len(layout.numeric) + 2 + len(layout.categorical) == dataset.rows.inputs.shape[1]
    assert "gap" in layout.numeric


def test_no_other_row_than_those_of_training_is_looked_at(data: Path, tmp_path: Path) -> None:
    """In the test rows, another column tells the label exactly, which changes nothing."""
    _, dataset = of(data, AMOUNT)
    lines = data.read_text().splitlines()
    names = lines[0].split(",")
    for row in dataset.splits["test"].tolist():
        cells = lines[row + 1].split(",")
        cells[names.index("n00")] = cells[names.index("amount") + 1]  # the vector holds a comma
        lines[row + 1] = ",".join(cells)
    changed = tmp_path / "t.csv"
    changed.write_text("\n".join(lines) + "\n")
    assert kept(of(changed, AMOUNT)[1]) == kept(dataset)


def test_all_stay_if_none_tells_anything(data: Path) -> None:
    _, dataset = of(data, {"kind": "regression", "target": "pure"}, screen=0.01)
    assert len(kept(dataset)) == 44
    assert dataset.notices[-1] == "screen: none of 44 inputs tells anything by itself; all stay"


def test_all_stay_if_many_tell_a_little_each(data: Path) -> None:
    _, dataset = of(data, {"kind": "regression", "target": "flat"})
    assert len(kept(dataset)) == 44
    assert dataset.notices[-1] == "screen: many of 44 inputs tell a little each; all stay"


def test_more_rows_than_are_tested_are_thinned_out(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(module, "MOST_ROWS", 120)
    monkeypatch.setattr(
        module, "p_values", lambda codes, outputs: seen.append(outputs.shape) or p_values(codes, outputs)
    )
    _, dataset = of(data, YES)
    assert seen[0] == (1, 120)
    assert "gap" in kept(dataset)


def test_prediction_needs_the_kept_columns_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtl.report.plots.plot_run", lambda *_: [])
    source = table(data, "bend", "gap", *NOISE)
    source["inputs"].update(categorical=["city", "town"], missing="mean")
    made = small(data={"source": source, "split": {"validation": 0.2, "test": 0.2}, "screen": 0.05},
                 tasks={"yes": YES, "sort": SORT})  # fmt: skip
    result = mtl.run(made, out=tmp_path / "run")
    model = mtl.load(tmp_path / "run")
    layout = model.learned.layout
    assert layout is not None
    stay = [*layout.numeric, *layout.categorical]
    assert {"gap", "city"} <= set(stay)
    assert len(stay) < 10
    few = {name: (["Cork", "Evora"] if name in ("city", "town") else [0.5, None]) for name in stay}
    assert len(model.predict(few)["sort"]) == 2
    assert model.evaluate("test") == {k: v for k, v in result.metrics.items() if k.startswith("test/")}
    with pytest.warns(UserWarning, match="was trained on"):
        again = model.evaluate(data=data)
    assert again["test/yes/auroc"] is not None


def test_the_p_value_is_that_of_scipy() -> None:
    rng = np.random.default_rng(1)
    codes, y = rng.integers(0, 4, 60), rng.standard_normal(60)
    y = y + codes * 0.3
    expected = f_oneway(*(y[codes == c] for c in range(4))).pvalue
    assert p_value(codes, y) == pytest.approx(expected)
    assert p_value(codes * 3, y) == pytest.approx(expected)  # bins without a row do not count
    assert p_value(codes, codes.astype(float)) == 0
    assert p_value(np.zeros(60, np.int64), y) == p_value(codes[:2], y[:2]) == p_value(codes, np.ones(60)) == 1


def test_ranks_are_those_of_scipy() -> None:
    for values in ([3.0, 1.0, 3.0, 2.0, 3.0], [0.5], [2.0, 2.0], [float(x) for x in (5, -1, 7, 0)]):
        assert mean_ranks(np.array(values)).tolist() == rankdata(values).tolist()


def test_p_values_of_noise_are_even() -> None:
    rng = np.random.default_rng(2)
    codes = [quantile_bins(rng.standard_normal(200)) for _ in range(400)]
    found = p_values(codes, rng.standard_normal((1, 200)))
    assert [float((found < level).mean()) for level in (0.1, 0.5, 0.9)] == pytest.approx(
        [0.1, 0.5, 0.9], abs=0.06
    )


def test_discoveries_are_those_of_benjamini_and_hochberg() -> None:
    """The example of their paper: 15 p-values at a rate of 0.05 give four discoveries."""
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719,
         0.6528, 0.7590, 1.0]  # fmt: skip
    mixed = np.random.default_rng(0).permutation(15)
    assert sorted(np.array(p)[mixed][discoveries(np.array(p)[mixed], 0.05)]) == p[:4]
    assert not discoveries(np.ones(3), 0.05).any()
    assert discoveries(np.zeros(0), 0.05).shape == (0,)


def test_bins_are_quantiles_and_one_more_for_what_is_missing() -> None:
    column = np.arange(100.0)
    column[10:20] = np.nan
    bins = quantile_bins(column)
    assert np.bincount(bins).tolist()[-1] == 10
    assert set(bins[10:20].tolist()) == {bins.max()}
    assert np.bincount(bins)[:-1].tolist() == [23, 22, 22, 23]
    assert len(set(quantile_bins(np.full(50, np.nan)).tolist())) == 1
    assert len(set(quantile_bins(np.ones(50)).tolist())) == 1
