"""The first rows go through everything before anything is written; what is refused is in tests/examples/."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mtl.errors import UserError
from mtl.evaluation.evaluate import evaluation_mode
from mtl.experiment.rehearsal import first_rows
from mtl.experiment.run import prepare
from mtl.model.tasks.module import TaskModule
from mtl.model.weighting import WeightedSum
from mtl.recipe.load import load_recipe
from mtl.training.trainer import Trainer

MIXED = """\
schema_version: 1
name: mixed
data:
  source: {kind: table, path: rows.csv, inputs: {numeric: [u, v], missing: median}}
  split: {test: 0.25}
task_defaults: {missing: mask}
tasks:
  first: {kind: binary, target: "yes"}
  also: {kind: binary, target: also}
  kind: {kind: multiclass, target: kind}
  size: {kind: regression, target: size}
  stars: {kind: ordinal, target: stars}
model:
  backbone: {kind: layers, stages: [{name: fc1, kind: linear, features: 4}]}
  sharing: {kind: cross_stitch, after: [fc1]}
  head: {dropout: 0.5}
optimizer: {kind: adam, lr: 1e-2}
train: {epochs: 1, batch_size: 8}
"""


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    """Five kinds of labels, some missing, on the 40 rows of a table."""
    draw = np.random.default_rng(0)
    lines = ["u,v,yes,also,kind,size,stars"]
    for row in range(40):
        x, y = draw.standard_normal(2)
        also = "" if row < 30 else row % 2
        lines.append(f"{x:.3f},{y:.3f},{row % 2},{also},{'abc'[row % 3]},{x + y:.3f},{1 + row % 4}")
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "mixed.yaml").write_text(MIXED, encoding="utf-8")
    return prepare(load_recipe(tmp_path / "mixed.yaml"))[0]


def test_it_changes_nothing(trainer: Trainer) -> None:
    model = trainer.built.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    generator, numpy_state = torch.get_rng_state(), np.random.get_state()[1]
    first_rows.rehearse(trainer)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), generator)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert trainer.progress.step == 0
    assert not trainer.optimizer.state


def test_a_weighting_that_remembers_does_not_see_it(trainer: Trainer) -> None:
    class Remembering(WeightedSum):
        def __init__(self) -> None:
            super().__init__((1.0,) * 5)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, losses_N: torch.Tensor, seen_N: torch.Tensor) -> torch.Tensor:
            self.get_buffer("calls").add_(1)
            return super().forward(losses_N, seen_N)

    trainer.weighting = Remembering()
    first_rows.rehearse(trainer)
    assert trainer.weighting.get_buffer("calls") == 0


def test_every_kind_is_called_with_the_first_training_rows(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []
    original = TaskModule.loss

    def loss(self: TaskModule, logits: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        seen.append((type(self).__name__, tuple(logits.shape[:2])))
        return original(self, logits, target, weight)

    monkeypatch.setattr(TaskModule, "loss", loss)
    first_rows.rehearse(trainer)
    kinds = {"YesNo": (8, 2), "Classes": (8, 1), "Quantity": (8, 1), "OrderedClasses": (8, 1)}
    assert seen == list(kinds.items())


def test_it_says_which_task_and_where(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = type(trainer.recipe.tasks["stars"])
    monkeypatch.setattr(spec, "decode", lambda self, *_: {"": [1]})
    with evaluation_mode(trainer.built.model), pytest.raises(UserError) as caught:
        first_rows.rehearse(trainer)
    assert str(caught.value).endswith(
        f"mixed.yaml:12:10: tasks.stars: {spec.__name__}.decode gives column '' not one value for each of 8 rows"
    )
