"""F17: a validation metric that is really undefined, for a while or for ever, is never the best."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

import mtl
from tests.experiment.test_resume import assert_same, no_plots
from tests.support.recipes import linear, small, table
from tests.test_equalities import StopAt, stopped_after

__all__ = ["no_plots"]
EPOCHS, PER_EPOCH = 8, 4
SEED = 3
"""With which the network begins by saying `no` to all that is low."""


def write_table(path: Path) -> None:
    """One input: where it is low, most training rows are `yes`; all validation rows are low, and `no`.

    Cohen's kappa of one class is 0 / 0 while nothing else is predicted, and 0 as soon as something else is.
    """
    draw = random.Random(1)
    rows = [(draw.gauss(-1, 0.3), "train", ["no", "yes"][i % 5 > 0]) for i in range(40)]
    rows += [(draw.gauss(3, 0.3), "train", "no") for _ in range(40)]
    rows += [(draw.gauss(-1, 0.3), "validation", "no") for _ in range(10)]
    rows += [(draw.gauss(i % 2 * 4 - 1, 0.3), "test", ["yes", "no"][i % 2]) for i in range(10)]
    path.write_text("u,part,sold\n" + "".join(f"{u},{part},{sold}\n" for u, part, sold in rows))


def made(folder: Path, kind: str, metric: str, **train: Any) -> dict[str, Any]:
    write_table(folder / "t.csv")
    task = {"kind": kind, "target": "sold", "metrics": [metric]}
    return small(
        seed=SEED,
        data={"source": table(folder / "t.csv", "u"), "split": {"column": "part"}},
        tasks={"sold": task},
        model__backbone__stages=linear(8),
        optimizer={"kind": "adam", "lr": 0.003},
        train={"epochs": EPOCHS, "batch_size": 20, "threads": 1, "device": "cpu", **train},
    )


def measured(run: Path, metric: str) -> list[float | None]:
    """Of each epoch."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row[f"validation/sold/{metric}"] for row in rows if row["split"] == "validation"]


@pytest.mark.usefixtures("no_plots")
def test_undefined_at_first(tmp_path: Path) -> None:
    """The first epoch in which it is defined is the best, although the value is the lowest there is; also resumed."""
    recipe = made(tmp_path, "multiclass", "cohen_kappa")
    record = mtl.run(recipe, out=tmp_path / "straight").record.plain()
    values = measured(tmp_path / "straight", "cohen_kappa")
    assert (len(values), set(values)) == (EPOCHS, {None, 0.0})
    first = values.index(0.0)
    assert values[:first] == [None] * first
    assert first >= 2
    assert record["selected"] == {"epoch": first + 1, "step": (first + 1) * PER_EPOCH}
    stops = [StopAt(PER_EPOCH - 1), StopAt(2), StopAt(PER_EPOCH)]  # before, within and after undefined epochs
    stopped_after(recipe, tmp_path / "stopped", *stops)
    assert_same(tmp_path / "straight", tmp_path / "stopped")


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("metric", ["auroc", "average_precision"])
def test_undefined_throughout(metric: str, tmp_path: Path) -> None:
    """Validation has one class: no epoch is chosen, and the last one is what the run ends with."""
    recipe = made(tmp_path, "binary", metric)
    recipe["tasks"]["sold"]["positive"] = ["yes"]
    record = mtl.run(recipe, out=tmp_path / "straight").record.plain()
    assert measured(tmp_path / "straight", metric) == [None] * EPOCHS
    assert record["selected"] == {"epoch": EPOCHS, "step": EPOCHS * PER_EPOCH}
    stopped_after(recipe, tmp_path / "stopped", StopAt(PER_EPOCH + 1))
    assert_same(tmp_path / "straight", tmp_path / "stopped")


@pytest.mark.usefixtures("no_plots")
def test_undefined_is_no_progress(tmp_path: Path) -> None:
    """Early stopping counts epochs without a value as epochs without a better one."""
    recipe = made(tmp_path, "binary", "auroc", early_stopping={"patience": 3})
    recipe["tasks"]["sold"]["positive"] = ["yes"]
    record = mtl.run(recipe, out=tmp_path / "run").record.plain()
    assert (record["stopped_early"], record["epoch"], record["selected"]["epoch"]) == (True, 3, 3)
