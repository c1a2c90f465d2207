"""The networks that are timed: recipes of the house, a stitched network for N tasks, and a table of customers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import mtl
from mtl.recipe.load import load_recipe
from mtl.training.step import train_step
from mtl.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
SITES = ["fc1", "fc2", "fc3"]
CUSTOMERS, MISSING = 20_000, 0.4
"""Rows of the table of customers, and the share of labels that is left out, as examples/make_customers.py has them."""


def mlp(
    n_tasks: int, rows: int = 20_000, features: int = 128, batch_size: int = 128, compiled: bool = False
) -> mtl.Recipe:
    """Three stitched stages of 32 features each for N tasks of yes or no."""
    stages = [{"name": name, "kind": "linear", "features": 32} for name in SITES]
    return load_recipe(
        {
            "schema_version": 1,
            "name": f"mlp_{n_tasks}",
            "data": {"source": {"kind": "synthetic", "tasks": n_tasks, "rows": rows, "test_rows": 100,
                                "features": features, "latent": 1}},
            "tasks": {f"t{t}": {"kind": "binary", "target": f"task{t}"} for t in range(n_tasks)},
            "model": {
                "towers": "per_task",
                "backbone": {"kind": "layers", "stages": stages},
                "sharing": {"kind": "cross_stitch", "after": SITES},
            },
            "optimizer": {"kind": "adam", "lr": 1e-3},
            "train": {"epochs": 1, "batch_size": batch_size, "compile": compiled},
        }
    )  # fmt: skip


@cache
def _customers_in(rows: int) -> tuple[TemporaryDirectory[str], Path]:
    """The folder of a table of customers, which lasts as long as this process, and the recipe of `mtl init` for it."""
    from mtl.starter.write import write_starter

    spec = importlib.util.spec_from_file_location("make_customers", ROOT / "examples" / "make_customers.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    folder = TemporaryDirectory(prefix="mtl_bench_")
    table, recipe = Path(folder.name, "customers.csv"), Path(folder.name, "customers.yaml")
    header, lines = made.customers(rows, MISSING, 0)
    table.write_text("".join(",".join(line) + "\n" for line in (header, *lines)), encoding="utf-8")
    write_starter(str(table), made.TARGETS, recipe)
    return folder, recipe


def customers(rows: int = CUSTOMERS) -> mtl.Recipe:
    """Eight tasks of five kinds with missing labels, from numbers and categories: what `mtl init` writes for them."""
    return load_recipe(_customers_in(rows)[1])


CASES: dict[str, Callable[[], mtl.Recipe]] = {
    "fashion_stitch": lambda: load_recipe("fashion_stitch"),
    "fashion_stitch_channel": lambda: load_recipe("fashion_stitch", ["model.sharing.granularity=channel"]),
    "fashion_none": lambda: load_recipe("fashion_stitch", ["model.sharing={kind: none}"]),
    "age_gender_stitch": lambda: load_recipe("age_gender_stitch"),
    "customers": customers,
    **{f"mlp_{n}": (lambda n=n: mlp(n)) for n in (2, 8, 32, 128)},  # type: ignore[misc]
    **{f"mlp_{n}_compiled": (lambda n=n: mlp(n, compiled=True)) for n in (2, 8)},  # type: ignore[misc]
}


def with_rows(recipe: mtl.Recipe, rows: int) -> mtl.Recipe:
    """The recipe with so many images for training, where it is one of Fashion-MNIST; others stay as they are."""
    if recipe.data.source is None or recipe.data.source.kind != "fashion_mnist":
        return recipe
    given = recipe.model_dump(mode="json", exclude_unset=True)
    return load_recipe(given, [f"data.source.rows={rows}"])


def steps_of(trainer: Trainer) -> Iterator[None]:
    """Train as a run does, without end, and without evaluation and checkpoints; each `next` takes one step."""
    epoch = 0
    trainer.built.model.train()
    while True:
        meter = trainer.new_meter()
        for rows in trainer.sampler.batches(epoch):
            if len(rows) == trainer.recipe.train.batch_size:
                train_step(trainer, [rows], meter)
                yield
        meter.values("train")
        epoch += 1
