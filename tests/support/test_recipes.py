"""The small recipe of the tests is the same in its three forms, and changes stay where they were made."""

from pathlib import Path

import pytest

from mtl.recipe.load import load_recipe
from tests.support.recipes import SMALL, as_yaml, linear, recipe, small, stitched, text, write

CHANGES = {
    "nothing": {},
    "a value": {"train__epochs": 3},
    "a section": {"optimizer": {"kind": "adam", "lr": 1e-5, "betas": (0.9, 0.5)}},
    "a new section": {"schedule__kind": "one_cycle"},
    "words that YAML reads otherwise": {"description": "y", "tasks": {"no": SMALL["tasks"]["a"]}},
    "a value given twice": {
        "model__backbone__norm": {"kind": "none"},
        "model__backbone__stages": linear(4, 4),
    },
    "stitched towers": {"model__sharing": stitched("fc1", init="identity"), "model__towers": "per_task"},
}


@pytest.mark.parametrize("case", CHANGES)
def test_the_three_forms_are_one_recipe(case: str, tmp_path: Path) -> None:
    changes = CHANGES[case]
    checked = recipe(**changes)
    assert load_recipe(write(tmp_path, **changes)).sha256() == checked.sha256()
    assert load_recipe(small(**changes)).sha256() == checked.sha256()
    assert (case == "nothing") == (checked.sha256() == recipe().sha256())


def test_a_change_stays_in_its_copy() -> None:
    stages = linear(4)
    small(model__backbone__stages=stages, model__backbone__norm__kind="none")["model"]["backbone"][
        "stages"
    ].clear()
    small()["tasks"].clear()
    assert stages == linear(4)
    assert small() == SMALL
    assert "norm" not in SMALL["model"]["backbone"]


def test_lines_of_the_text() -> None:
    """Tests of errors name these places."""
    assert text().splitlines() == [
        "schema_version: 1",
        "name: small",
        "data: {source: {kind: synthetic, tasks: 2, rows: 40, test_rows: 10, features: 16}}",
        "tasks:",
        "  a: {kind: multiclass, target: task0}",
        "  b: {kind: multiclass, target: task1}",
        "model:",
        "  backbone: {kind: layers, stages: [{name: fc1, kind: linear, features: 4}]}",
        "optimizer: {kind: sgd, lr: 0.1}",
        "train: {epochs: 1, batch_size: 8, threads: 1, device: cpu}",
    ]
    one = {"kind": "none"}
    assert as_yaml({"a": [one, one]}) == "a: [{kind: none}, {kind: none}]\n"
