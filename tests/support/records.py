"""Records of runs that were never trained."""

from __future__ import annotations

from typing import Any

from mtl.runs.record import RunRecord

MODEL: dict[str, Any] = {
    "input_shape": [8],
    "outputs": {"a": ["0", "1"], "b": ["0", "1"]},
    "constants": {"a": {}, "b": {}},
    "scaled": True,
    "scale_shape": [8],
    "layout": None,
    "indicators": [],
}


def record_values(**changes: Any) -> dict[str, Any]:
    """The content of run.json of two tasks, with some keys changed or added."""
    values: dict[str, Any] = {
        "schema_version": 1,
        "id": "2511cdcf-27cc-4893-a325-467bb271c910",
        "name": "small",
        "status": "interrupted",
        "started": "2026-11-24T20:00:50+00:00",
        "recipe_sha256": "85" * 32,
        "resolved_sha256": [],
        "description": "",
        "seeds": {"init": 5, "order": 5, "split": 5, "labels": 5},
        "plugins": [],
        "plugin_sha256": {},
        "environment": {"mtl": "0.1.0", "torch": "2.13.0+cpu"},
        "device": "cpu",
        "threads": 1,
        "data": {
            "sha256": "2e" * 32,
            "generated": True,
            "rows": {"train": 40, "test": 10},
            "labels": {},
            "best_possible_accuracy": {"a": 1.0, "b": 1.0},
        },
        "model": MODEL,
        "parameters": 120,
        "classes": {"a": ["0", "1"], "b": ["0", "1"]},
        "towers": {"a": ["a"], "b": ["b"]},
        "step": 0,
        "results": {},
        "model_sha256": "1d" * 32,
    }
    return {**values, **changes}


def record(**changes: Any) -> RunRecord:
    """The same as a model."""
    return RunRecord.model_validate(record_values(**changes))
