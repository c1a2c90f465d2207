"""What of a recipe may change when a run goes on, and how the rest is refused (K13, K14)."""

from pathlib import Path
from typing import Any

import pytest

from mtl.errors import UserError
from mtl.experiment.changes import SHOWN, require_same
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.load import load_recipe
from tests.support.recipes import write


def changing(folder: Path, *overrides: str) -> Recipe:
    path = write(folder, train={"epochs": 3, "batch_size": 8})
    return load_recipe(path, overrides)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], []),
        (["train.epochs=9"], ["train.epochs 3 -> 9"]),
        (["description=new"], ["description '' -> 'new'"]),
        (
            ["train.device=cpu", "train.threads=2"],
            ["train.device 'auto' -> 'cpu'", "train.threads 'auto' -> 2"],
        ),
        (["train.checkpoint.keep=5"], ["train.checkpoint.keep 3 -> 5"]),
        (["train.init_from=elsewhere"], ["train.init_from None -> "]),
        (["trackers=[tensorboard]"], ["trackers None -> [{'kind': 'tensorboard'}]"]),
        (["tasks.a.margin=0.01"], ["tasks.a.margin None -> 0.01"]),
        (["tasks.a.weight_in_verdict=2"], ["tasks.a.weight_in_verdict 1.0 -> 2.0"]),
        (["tasks.a.derived_from=b"], ["tasks.a.derived_from None -> 'b'"]),
    ],
)
def test_what_may_change(overrides: list[str], said: list[str], tmp_path: Any) -> None:
    found = require_same("run", changing(tmp_path), changing(tmp_path, *overrides))
    assert len(found) == len(said)
    assert all(text.startswith(start) for text, start in zip(found, said, strict=True))


def test_steps_may_grow(tmp_path: Any) -> None:
    one, two = (changing(tmp_path, "~train.epochs", f"train.max_steps={n}") for n in (7, 9))
    assert require_same("run", one, two) == ["train.max_steps 7 -> 9"]
    with pytest.raises(UserError, match=r"train\.max_steps 9 -> 7; start"):
        require_same("run", two, one)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["train.epochs=2"], "train.epochs 3 -> 2"),
        (["~train.epochs", "train.max_steps=100"], "train.epochs 3 -> None; train.max_steps None -> 100"),
        (["seed=1"], "seed 0 -> 1"),
        (["name=other"], "name 'small' -> 'other'"),
        (["tasks.a.weight=2"], "tasks.a.weight 1.0 -> 2.0"),
        (["data.label_fraction.a=0.5"], "data.label_fraction.a None -> 0.5"),
        (["data.permute_labels.tasks=[a]"], "data.permute_labels.tasks "),
        (["train.deterministic=false"], "train.deterministic True -> False"),
        (["train.evaluate_every.epochs=2"], "train.evaluate_every.epochs 1 -> 2"),
        (["train.clip_norm=1"], "train.clip_norm None -> 1.0"),
        (["train.epochs=9", "train.batch_size=4"], "train.batch_size 8 -> 4"),
        (["model.backbone.stages=[{name: fc1, kind: linear, features: 5}]"], "model.backbone.stages "),
        (["data.source.rows=50"], "data.source.rows 40 -> 50"),
    ],
)
def test_what_may_not(overrides: list[str], named: str, tmp_path: Any) -> None:
    with pytest.raises(UserError) as caught:
        require_same("runs/a", changing(tmp_path), changing(tmp_path, *overrides))
    text = str(caught.value)
    assert text.startswith(f"runs/a: cannot resume: these keys changed: {named}")
    assert text.endswith("; start a new run or use train.init_from")
    assert "train.epochs 3 -> 9" not in text


def test_many_changes_are_counted(tmp_path: Any) -> None:
    with pytest.raises(UserError) as caught:
        require_same(
            "run", changing(tmp_path), changing(tmp_path, "optimizer={kind: adam, lr: 0.2}", "~tasks.b")
        )
    assert str(caught.value).count(" -> ") == SHOWN
    n_more = int(str(caught.value).split(" and ")[1].split()[0])
    assert n_more >= 2
