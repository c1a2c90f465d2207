"""Folders of finished runs that nobody trained: any names, any number of tasks, all files that a report reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl.evaluation.bootstrap import Resampled
from mtl.evaluation.links.document import KEYS
from mtl.runs.folder import LINKS, RunFolder
from mtl.runs.results.bootstrap import write_bootstrap
from mtl.runs.results.details import write_test_details
from tests.support.records import MODEL, record

RECIPE = "schema_version: 1\nname: made\n"
STEP, EPOCHS = 40, 4


def make_run(path: Path, classes: Mapping[str, Sequence[str]], rows: int = 200, **changes: Any) -> RunFolder:
    """A finished run of classification tasks, with learning curves, details, sharing, and resamples of the results.

    Args:
        path: the folder.
        classes: task -> its classes.
        rows: test rows.
        changes: keys of run.json.
    """
    path.mkdir(parents=True, exist_ok=True)
    (path / "recipe.resolved.yaml").write_text(RECIPE, encoding="utf-8")
    draws, tasks = np.random.default_rng(0), list(classes)
    matrices = {
        task: draws.integers(0, 1 + rows // len(names), 2 * [len(names)]) for task, names in classes.items()
    }
    accuracy = {task: float(m.trace() / m.sum()) for task, m in matrices.items()}
    values: dict[str, Any] = {
        "status": "finished",
        "step": STEP,
        "epoch": EPOCHS,
        "selected": {"step": STEP - 10, "epoch": EPOCHS - 1},
        "resolved_sha256": [hashlib.sha256(RECIPE.encode()).hexdigest()],
        "classes": {task: list(names) for task, names in classes.items()},
        "model": {**MODEL, "outputs": {t: list(names) for t, names in classes.items()}, "constants": {}},
        "towers": {task: [task] for task in tasks},
        "results": {f"test/{task}/accuracy": accuracy[task] for task in tasks},
        "baselines": {f"test/{task}/constant": 1 / len(classes[task]) for task in tasks},
    }
    run = RunFolder(path, record(**{**values, **changes}))
    run.save_record()
    for epoch in range(1, EPOCHS + 1):
        at = {"split": "train", "epoch": epoch, "step": 10 * epoch}
        row = {
            f"train/{task}/{name}": 1 / (epoch + t)
            for t, task in enumerate(tasks)
            for name in ("loss", "accuracy")
        }
        alpha = (np.eye(len(tasks)) * (1 - 0.1 * epoch) - 0.01 * epoch).tolist()
        shared = {"fc1": {"targets": tasks, "sources": tasks, "values": alpha}}
        seconds = {"train": 1.5, "evaluate": 0.2, "save": 0.1}
        run.logs.append("metrics.jsonl", [{**at, **row}])
        run.logs.append("sharing.jsonl", [{"epoch": epoch, "step": 10 * epoch, "sharing": shared}])
        run.logs.append("timings.jsonl", [{"epoch": epoch, "seconds": seconds, "rows_per_second": 900.0}])
    headline = {"kind": "multiclass", "metric": "accuracy", "higher_is_better": True, "unit": ""}
    details = {task: _details(matrix) for task, matrix in matrices.items()}
    write_test_details(path, STEP - 10, dict.fromkeys(tasks, headline), details)
    return run


def add_resamples(run: RunFolder, spread: float = 0.01, replicates: int = 200) -> dict[str, list[float]]:
    """Write bootstrap.json with normal replicates around each result, and return these."""
    draws, tasks = np.random.default_rng(1), {}
    for name, value in run.record.results.items():
        assert value is not None
        own = draws.normal(value, spread, replicates).tolist()
        tasks[name.split("/")[1]] = Resampled("accuracy", value, tuple(own), n_units=200, by_group=False)
    write_bootstrap(run.path, tasks)
    return {task: list(own.replicates) for task, own in tasks.items()}


def add_links(run: RunFolder, **changes: Any) -> dict[str, Any]:
    """Write links.json as `mtl sharing` does for a run of at least two tasks, with some keys changed."""
    tasks = list(run.record.classes)
    first, second = tasks[:2]
    cut = {"loss": 0.5, "delta": 0.2, "se": 0.04, "value": 0.6, "value_delta": -0.1, "verdict": "used"}
    link = {"site": "fc1", "target": first, "source": second, "share": 0.25, "spread": None}
    assert run.record.selected is not None
    values: dict[str, Any] = {
        **dict.fromkeys(KEYS),
        "schema_version": 1,
        "step": run.record.selected.step,
        "split": "validation",
        "rows": 1234,
        "tasks": {
            task: {"loss": 0.3, "metric": "accuracy", "value": 0.7, "higher_is_better": True} for task in tasks
        },
        "sites": [
            {
                "site": "fc1", "kind": "mixture", "targets": [first, second], "sources": [first, second],
                "shares": [[0.75, 0.25], [0.1, 0.9]], "spread": None,
            }
        ],
        "links": [{**link, "changes": {first: cut}}, {**link, "share": 0.1, "changes": None}],
        "transfer": {
            "tasks": [first, second], "towers": [first, second], "delta": [[None, 0.2], [-0.1, None]],
            "se": [[None, 0.04], [0.01, None]], "verdict": [[None, "used"], ["hurts", None]],
            "n_tests": 2, "indirect": False,
        },
        "words": ["Measured on 1,234 rows of validation.", "At fc1, a link is used."],
    }  # fmt: skip
    (run.path / LINKS).write_text(json.dumps({**values, **changes}), encoding="utf-8")
    return {**values, **changes}


def _details(matrix: np.ndarray) -> dict[str, Any]:
    """What `mtl.evaluation.details` would find for these confusions."""
    true, predicted, hits = matrix.sum(1), matrix.sum(0), matrix.diagonal()
    precision = [float(h / p) if p else None for h, p in zip(hits, predicted, strict=True)]
    found: dict[str, Any] = {
        "form": "classes",
        "n": int(matrix.sum()),
        "support": true.tolist(),
        "predicted": predicted.tolist(),
        "precision": precision,
        "recall": [float(h / t) if t else None for h, t in zip(hits, true, strict=True)],
        "f1": precision,
        "calibration": [[50, 0.4, 0.35], [100, 0.6, 0.7], [20, 0.9, 0.95]],
        "curves": [{"recall": [0.2, 0.6, 1.0], "precision": [1.0, 0.8, 0.4]} for _ in true]
        if len(true) <= 12
        else [],
    }
    if len(true) <= 30:
        found["confusion"] = matrix.tolist()
    else:
        found["confusions"] = [[k, (k + 1) % len(true), 9] for k in range(50)]
    return found
