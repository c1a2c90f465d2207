"""One step of the learned and the gradient-combining weightings is TorchJD's, called by hand on separate modules.

The network is stitched after its first stage only, so that its second stage and the rows of its alpha belong to one
task each. Tasks are of two kinds, and one has labels on a part of the rows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchjd.linalg import QuadprogProjector
from torchjd.scalarization import UW

from mtl.evaluation.meter import Meter
from mtl.experiment.run import prepare
from mtl.model.trunk import StitchedTowers
from mtl.recipe.load import load_recipe
from mtl.training.step import train_step
from mtl.training.trainer import Trainer
from tests.sharing.small import Slices
from tests.support.reference_networks import (
    kendall_classification,
    kendall_regression,
    split_parameters,
    stitched,
    upgrad_gradients,
    uw_step_gradients,
)

TASKS = ("first", "second", "amount")
ROWS = 64
LR = 0.5


@pytest.fixture
def trainer_of(tmp_path: Any) -> Callable[..., Trainer]:
    """A trainer in float64, at random weights, whose optimizer is plain SGD; gradients are steps over -LR."""

    def make(weighting: dict[str, Any], weights: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Trainer:
        x = torch.randn(2 * ROWS, 5).numpy()
        labels = {
            "first": (x[:, 0] > 0).astype(np.int64),
            "second": (x[:, 1] - x[:, 0] > 0).astype(np.int64),
            "amount": np.where(np.arange(2 * ROWS) % 3 == 0, x[:, 2] * 3 + x[:, 0], np.nan),
        }
        split = np.array(["train", "test"] * ROWS)
        np.savez(tmp_path / "rows.npz", inputs=x, split=split, **labels)
        tasks = {
            "first": {"kind": "multiclass", "target": "first", "weight": weights[0]},
            "second": {"kind": "multiclass", "target": "second", "weight": weights[1]},
            "amount": {"kind": "regression", "target": "amount", "missing": "mask", "weight": weights[2]},
        }
        stages = [{"name": f"fc{i}", "kind": "linear", "features": 4} for i in (1, 2)]
        recipe = load_recipe(
            {
                "schema_version": 1,
                "name": "by_hand",
                "data": {
                    "source": {"kind": "npz", "path": str(tmp_path / "rows.npz")},
                    "split": {"column": "split"},
                },
                "tasks": tasks,
                "model": {
                    "backbone": {
                        "kind": "layers",
                        "norm": {"kind": "none"},
                        "activation": "tanh",
                        "stages": stages,
                    },
                    "sharing": {"kind": "cross_stitch", "after": ("fc1",)},
                },
                "weighting": weighting,
                "optimizer": {"kind": "sgd", "lr": LR},
                "train": {"epochs": 1, "batch_size": ROWS, "device": "cpu"},
            }
        )
        trainer, _ = prepare(recipe)
        trainer.built.model.double()
        trainer.weighting.double()
        for parameter in trainer.built.model.parameters():
            nn.init.normal_(parameter)
        return trainer

    return make


class ByHand:
    """The network of a trainer as separate modules, with the losses of a batch."""

    def __init__(self, trainer: Trainer, rows: np.ndarray) -> None:
        model, self.slices = trainer.built.model, Slices()
        trunk = model.trunk
        assert isinstance(trunk, StitchedTowers)
        widths = (5, 4)
        towers = [
            [
                self.slices.take(
                    nn.Sequential(nn.Linear(width, 4, bias=False), nn.Tanh()).double(),
                    list(trunk.towers.stages[f"fc{s + 1}"].parameters()),
                    k,
                    3,
                )
                for s, width in enumerate(widths)
            ]
            for k in range(3)
        ]
        alpha = trunk.stitches["fc1"].get_parameter("alpha")
        self.alphas = [[nn.Parameter(alpha[i, j].detach().clone()) for j in range(3)] for i in range(3)]
        heads = []
        for task in TASKS:
            group, t = model.places[task]
            head = model.modules_of_tasks()[group].head
            plain = nn.Linear(4, head.n_outputs).double()
            heads.append(self.slices.take(plain, list(head.linear.parameters()), t, len(head.tasks)))
        batch = trainer.dataset.rows.batch(rows)
        outputs = stitched(model.inputs(batch.inputs), towers, {0: self.alphas}, heads, (0, 1, 2))
        self.losses = []
        for task, output in zip(TASKS, outputs, strict=True):
            group, t = model.places[task]
            there, target = batch.present[group][:, t], batch.target[group][:, t]
            if task == "amount":
                module = model.modules_of_tasks()[group]
                mean = module.get_buffer("mean") + module.get_buffer("mean_rest")
                y = (target - mean[0]) / module.get_buffer("std")[0]
                self.losses.append((output[there, 0] - y[there]).square().mean())
            else:
                self.losses.append(F.cross_entropy(output[there], target[there]))
        self.alpha = alpha
        self.parameters = [
            *(own for own, *_ in self.slices.pairs),
            *(alpha for row in self.alphas for alpha in row),
        ]

    def largest_difference(self, gradients: dict[Tensor, Tensor], before: dict[int, Tensor]) -> float:
        """Between these gradients and the steps that the grouped parameters took."""
        worst = 0.0
        for own, whole, k, n in self.slices.pairs:
            step = (before[id(whole)] - whole.detach()) / LR
            found = step.unflatten(0, (n, -1))[k].view_as(own)
            worst = max(worst, (found - gradients[own]).abs().max().item())
        step = (before[id(self.alpha)] - self.alpha.detach()) / LR
        for i, row in enumerate(self.alphas):
            for j, alpha in enumerate(row):
                worst = max(worst, (step[i, j] - gradients[alpha]).abs().item())
        return worst


def stepped(trainer: Trainer, rows: np.ndarray) -> dict[int, Tensor]:
    """Take one step; the parameters before it, by their id."""
    before = {id(p): p.detach().clone() for p in trainer.built.model.parameters()}
    train_step(trainer, [rows], Meter(trainer.modules, trainer.recipe.tasks, trainer.device))
    return before


@pytest.mark.parametrize("start", [0.0, -0.7])
def test_uncertainty_is_uw_of_torchjd(trainer_of: Callable[..., Trainer], start: float) -> None:
    trainer = trainer_of({"kind": "uncertainty"})
    rows = trainer.dataset.splits["train"]
    log_variance = trainer.weighting.get_parameter("log_variance")
    nn.init.constant_(log_variance, start)
    by_hand, uw = ByHand(trainer, rows), UW(3).double()
    nn.init.constant_(uw.log_var, start)
    found, of_variances = uw_step_gradients(by_hand.losses, uw, by_hand.parameters)
    before = stepped(trainer, rows)
    gradients = dict(zip(by_hand.parameters, found, strict=True))
    assert by_hand.largest_difference(gradients, before) < 1e-5
    torch.testing.assert_close((start - log_variance.detach()) / LR, of_variances, rtol=1e-5, atol=1e-5)


def test_uncertainty_by_kind_has_the_terms_of_the_paper(trainer_of: Callable[..., Trainer]) -> None:
    trainer = trainer_of({"kind": "uncertainty", "form": "by_kind"}, weights=(1.0, 2.0, 0.5))
    rows = trainer.dataset.splits["train"]
    by_hand = ByHand(trainer, rows)
    s = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    terms = [
        kendall_classification(by_hand.losses[0], s[0]),
        2.0 * kendall_classification(by_hand.losses[1], s[1]),
        0.5 * kendall_regression(by_hand.losses[2], s[2]),
    ]
    *found, of_variances = torch.autograd.grad(torch.stack(terms).sum(), [*by_hand.parameters, s])
    before = stepped(trainer, rows)
    gradients = dict(zip(by_hand.parameters, found, strict=True))
    assert by_hand.largest_difference(gradients, before) < 1e-5
    log_variance = trainer.weighting.get_parameter("log_variance").detach()
    torch.testing.assert_close(-log_variance / LR, of_variances, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("preference", [(1.0, 1.0, 1.0), (1.0, 3.0, 0.25)])
def test_upgrad_is_that_of_torchjd(trainer_of: Callable[..., Trainer], preference: tuple[float, ...]) -> None:
    trainer = trainer_of({"kind": "upgrad"}, weights=preference)
    rows = trainer.dataset.splits["train"]
    by_hand = ByHand(trainer, rows)
    shared, own, unreached = split_parameters(by_hand.losses, by_hand.parameters)
    assert unreached == []
    # the second stage, the head and the row of alpha of each task are its own, the first stage is shared
    assert len(shared) == 3
    assert [len(parameters) for parameters in own] == [1 + 2 + 3] * 3
    gradients = upgrad_gradients(
        by_hand.losses,
        shared,
        own,
        torch.tensor(preference, dtype=torch.float64),
        QuadprogProjector(norm_eps=1e-12),
    )
    for weight, parameters in zip(preference, own, strict=True):
        for parameter in parameters:
            gradients[parameter] = weight * gradients[parameter]
    before = stepped(trainer, rows)
    assert by_hand.largest_difference(gradients, before) < 1e-5
    # the gradients conflict, or the sum would do: the weighted sum is another direction
    total = sum(w * loss for w, loss in zip(preference, ByHand(trainer, rows).losses, strict=True))
    assert isinstance(total, Tensor)
    plain = torch.autograd.grad(
        sum(w * loss for w, loss in zip(preference, by_hand.losses, strict=True)), shared, retain_graph=True
    )
    assert max((gradients[p] - g).abs().max().item() for p, g in zip(shared, plain, strict=True)) > 1e-3


def test_upgrad_is_the_weighted_sum_where_nothing_conflicts(trainer_of: Callable[..., Trainer]) -> None:
    """Two tasks with the same labels and the same start go one way."""
    weights = (1.0, 1.0, 0.0)
    found = []
    for weighting in ({"kind": "upgrad"}, {"kind": "sum"}):
        torch.manual_seed(3)
        trainer = trainer_of(weighting, weights=weights)
        with torch.no_grad():
            for parameter in trainer.built.model.parameters():
                parameter.fill_(parameter.flatten()[0].item())  # all towers and heads alike
        rows = trainer.dataset.splits["train"]
        for group in trainer.dataset.rows.target:
            if group.startswith("multiclass"):
                trainer.dataset.rows.target[group][:, 1] = trainer.dataset.rows.target[group][:, 0]
        stepped(trainer, rows)
        found.append({name: p.detach().clone() for name, p in trainer.built.model.named_parameters()})
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["sum", "uncertainty", "upgrad"])
def test_parts_of_a_step_are_one_batch(trainer_of: Callable[..., Trainer], kind: str) -> None:
    found = []
    for n_parts in (1, 4):
        torch.manual_seed(3)
        trainer = trainer_of({"kind": kind}, weights=(1.0, 2.0, 0.5))
        parts = np.array_split(trainer.dataset.splits["train"], n_parts)
        meter = Meter(trainer.modules, trainer.recipe.tasks, trainer.device)
        train_step(trainer, parts, meter)
        found.append(
            [p.detach().clone() for p in (*trainer.built.model.parameters(), *trainer.weighting.parameters())]
            + [meter.loss_weight]
        )
    for whole, in_parts in zip(*found, strict=True):
        torch.testing.assert_close(in_parts, whole, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["sum", "uncertainty", "upgrad"])
def test_a_task_without_a_label_in_a_step_takes_no_part(
    trainer_of: Callable[..., Trainer], kind: str
) -> None:
    """Its head, its own tower and its row of alpha stay as they are; the others step as if its weight were 0."""
    found = []
    for weights in ((1.0, 2.0, 0.5), (1.0, 2.0, 0.0)):
        torch.manual_seed(3)
        trainer = trainer_of({"kind": kind}, weights=weights)
        rows = trainer.dataset.splits["train"]
        there = trainer.dataset.rows.present["regression_1"][rows, 0].numpy()
        before = {name: p.detach().clone() for name, p in trainer.built.model.named_parameters()}
        meter = Meter(trainer.modules, trainer.recipe.tasks, trainer.device)
        train_step(trainer, [rows[~there]], meter)
        after = {name: p.detach().clone() for name, p in trainer.built.model.named_parameters()}
        head = "task_modules.regression_1.head.linear.weight"
        assert torch.equal(before[head], after[head])
        own = "trunk.towers.stages.fc2.map.weight"
        assert torch.equal(before[own][8:], after[own][8:])
        assert not torch.equal(before[own][:8], after[own][:8])
        assert torch.equal(before["trunk.stitches.fc1.alpha"][2], after["trunk.stitches.fc1.alpha"][2])
        assert meter.loss_weight[1].tolist() == [1, 1, 0]
        found.append([*after.values(), *(p.detach().clone() for p in trainer.weighting.parameters())])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
