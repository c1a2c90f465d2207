"""A recipe of a few lines around a source, for tests that look at how data are read."""

from __future__ import annotations

import json
from pathlib import Path

PLACE = "r.yaml:3:18: data.source: "
"""Where a fault of the source lies that is no fault of one of its keys."""


def write_recipe(
    folder: Path,
    source: dict[str, object],
    *,
    task: dict[str, object] | None = None,
    split: dict[str, object] | None = None,
    stages: list[dict[str, object]] | None = None,
    norm: str = "batch",
    batch_size: int = 8,
) -> Path:
    """`r.yaml`: one task `a`, by default the classes of column `label`, and one linear layer."""
    one = {"kind": "multiclass", "target": "label"} if task is None else task
    layers = stages or [{"name": "fc", "kind": "linear", "features": 4}]
    lines = [
        "schema_version: 1",
        "name: small",
        f'data: {{"source": {json.dumps(source)}, "split": {json.dumps({"test": 0.25} if split is None else split)}}}',
        f'tasks: {{"a": {json.dumps(one)}}}',
        f'model: {{"backbone": {{"kind": "layers", "norm": {{"kind": "{norm}"}}, "stages": {json.dumps(layers)}}}}}',
        "optimizer: {kind: adam, lr: 1e-2}",
        f"train: {{epochs: 1, batch_size: {batch_size}, device: cpu}}",
    ]
    path = folder / "r.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
