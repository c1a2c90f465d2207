"""What a weighting is told besides the losses of a step: the mean losses of each epoch, once."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import mtl
from mtl.experiment.run import prepare
from mtl.model.weighting import Weighting
from mtl.recipe.specs import WEIGHTINGS, WeightingSpec
from mtl.runs import state
from mtl.training.events import EpochEnded
from tests.support.assertions import plugins_undone
from tests.support.listening import Watching, epochs_of
from tests.support.recipes import recipe, small


class ByLastEpoch(Weighting):
    """Weighs each task by its mean loss in the epoch before, as dynamic weight averaging begins to."""

    last: Tensor
    told: Tensor

    def __init__(self, task_weights: tuple[float, ...]) -> None:
        super().__init__(task_weights)
        self.register_buffer("last", torch.ones(len(task_weights)))
        self.register_buffer("told", torch.zeros(1))

    def forward(self, losses_N: Tensor, seen_N: Tensor) -> Tensor:
        return torch.where(seen_N, self.last * losses_N, 0.0).sum()

    def after_epoch(self, losses_N: Tensor, seen_N: Tensor) -> None:
        self.last.copy_(torch.where(seen_N, losses_N, self.last))
        self.told += 1


@pytest.fixture
def by_last_epoch() -> object:
    with plugins_undone():

        @mtl.register_weighting("by_last_epoch")
        class Spec(WeightingSpec):
            """Weights from the epoch before."""

            reference = "ours"

            def build(self, task_weights: tuple[float, ...], is_quantity: tuple[bool, ...]) -> Weighting:
                return ByLastEpoch(task_weights)

        assert "by_last_epoch" in WEIGHTINGS
        yield Spec


LONG = {"weighting": {"kind": "by_last_epoch"}, "train__epochs": 3, "train__batch_size": 8}


@pytest.mark.usefixtures("by_last_epoch")
def test_it_is_told_the_mean_losses_of_an_epoch_once() -> None:
    trainer, _ = prepare(recipe(**LONG))
    weighting = trainer.weighting
    assert isinstance(weighting, ByLastEpoch)
    for n, epoch in enumerate(epochs_of(trainer), start=1):
        logged = torch.tensor([epoch.rows[0][f"train/{task}/loss"] for task in trainer.recipe.tasks])
        torch.testing.assert_close(weighting.last, logged)
        assert weighting.told.item() == n


@pytest.mark.usefixtures("by_last_epoch")
def test_the_weights_of_the_losses_are_those_of_the_epoch_before() -> None:
    trainer, _ = prepare(recipe(**LONG))
    before = [1.0, 1.0]
    for epoch in epochs_of(trainer):
        row = epoch.rows[0]
        assert [row[f"train/{task}/loss_weight"] for task in "ab"] == pytest.approx(before)
        before = [row[f"train/{task}/loss"] for task in "ab"]


class Stop(Watching):
    def epoch_ended(self, event: EpochEnded) -> None:
        raise KeyboardInterrupt


@pytest.mark.usefixtures("by_last_epoch")
def test_its_memory_is_in_the_checkpoint(tmp_path: Path) -> None:
    mtl.run(small(**LONG), out=tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        mtl.run(small(**LONG), out=tmp_path / "stopped", listeners=(Stop(),))
    mtl.resume(tmp_path / "stopped")
    last = [tmp_path / name / "checkpoints" / "step-00000015" for name in ("straight", "stopped")]
    for name in (state.MODEL, state.WEIGHTING):
        assert (last[0] / name).read_bytes() == (last[1] / name).read_bytes()
