"""The yardstick and the floor compute with the same weights as the network of mtl. Nothing is timed here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from bench.speed import cases, floor, reference, reference_tasks
from mtl.experiment.run import prepare
from mtl.model.tasks.losses import cumulative_log_p
from mtl.recipe.load import load_recipe
from mtl.training import devices
from mtl.training.step import totals_of
from mtl.training.trainer import Trainer

ROWS = 600
SMALL = {
    "customers": lambda: cases.customers(ROWS),
    "fashion_stitch": lambda: load_recipe("fashion_stitch", ["data.source.sample=true"]),
    "age_gender_stitch": lambda: load_recipe("age_gender_stitch"),
    "mlp": lambda: cases.mlp(3, rows=ROWS),
}


@pytest.fixture(params=sorted(SMALL))
def trainer(request: pytest.FixtureRequest) -> Iterator[Trainer]:
    recipe = SMALL[request.param]()
    with devices.settings(recipe.train.deterministic):
        yield prepare(recipe)[0]


@torch.no_grad()
def copied(trainer: Trainer) -> reference.CrossStitched:
    """The plain network with the weights of mtl's."""
    plain = reference.network_of(trainer, reference.rows_of(trainer))
    own = dict(trainer.built.model.named_parameters())
    tower_of = {task: k for k, tasks in enumerate(trainer.recipe.towers.values()) for task in tasks}
    order = [tower_of[task] for task in plain.tasks]
    for k, tower in zip(order, plain.towers.values(), strict=True):
        for name, parameter in tower.named_parameters():
            _, stage, _, what = name.split(".")
            kind = "map" if parameter.ndim > 1 else "norm"
            whole = own[f"trunk.towers.stages.{stage}.{kind}.{what}"]
            parameter.copy_(whole.chunk(len(order))[k].view_as(parameter))
    for site, alpha in plain.alpha.items():
        alpha.copy_(own[f"trunk.stitches.{site}.alpha"][order][:, order])
    for group, module in trainer.modules.items():
        for t, task in enumerate(module.tasks):
            for name, parameter in plain.heads[task].named_parameters():
                layer, what = name.split(".")
                whole = own[f"task_modules.{group}.head.{'linear' if layer == '1' else 'norm'}.{what}"]
                parameter.copy_(whole.chunk(len(module.tasks))[t])
    return plain


def test_the_plain_network_has_as_many_parameters(trainer: Trainer) -> None:
    plain = reference.network_of(trainer, reference.rows_of(trainer))
    sizes = [sum(p.numel() for p in model.parameters()) for model in (plain, trainer.built.model)]
    assert sizes[0] == sizes[1] > 0


def test_with_the_same_weights_each_task_has_the_same_loss(trainer: Trainer) -> None:
    plain, model = copied(trainer), trainer.built.model
    rows, of_rows = reference.rows_of(trainer), trainer.dataset.splits["train"][:64].copy()
    plain.eval()  # dropout and batch norm would draw and average in other orders
    model.eval()
    batch = trainer.dataset.rows.batch(of_rows)
    divisors = dict(zip(trainer.recipe.tasks, totals_of(trainer, [batch]).counted_N.tolist(), strict=True))
    target = {task: values[:64] for task, values in rows.labels.items()}
    present = {task: there[:64] for task, there in rows.present.items()}
    with torch.no_grad():
        logits = model(batch.inputs)
        losses, _ = reference.losses_of(reference.tasks_of(trainer), plain(rows.inputs[:64]), target, present)
        compared = 0
        for name, module in trainer.modules.items():
            sum_T, _ = module.loss(logits.groups[name], batch.target[name], batch.weight[name])
            for task, total in zip(module.tasks, sum_T.tolist(), strict=True):
                assert losses[task].item() == pytest.approx(total / divisors[task], rel=1e-4), task
                compared += 1
    assert compared == len(trainer.recipe.tasks) >= 2


def test_the_customers_have_five_kinds_of_tasks_and_missing_labels() -> None:
    trainer, _ = prepare(cases.customers(ROWS))
    kinds = {type(module).__name__ for module in trainer.modules.values()}
    assert kinds == set(reference_tasks.TASKS)
    rows = reference.rows_of(trainer)
    assert len(rows.labels) == 8
    assert len(rows.present) == 7  # a customer without interests says so
    assert all(0.4 < there.float().mean() < 0.8 for there in rows.present.values())


def test_a_step_of_the_plain_loop_changes_every_parameter() -> None:
    trainer, _ = prepare(cases.customers(ROWS))
    made: list[reference.CrossStitched] = []
    original = reference.network_of

    def kept(trainer: Trainer, rows: reference.Rows) -> reference.CrossStitched:
        made.append(original(trainer, rows))
        return made[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "network_of", kept)
        loop = reference.steps_of(trainer)
        next(loop)
        before = {name: p.detach().clone() for name, p in made[0].named_parameters()}
        next(loop)
    assert before
    assert [name for name, p in made[0].named_parameters() if torch.equal(p, before[name])] == []


def test_ordered_classes_have_the_probabilities_of_mtl() -> None:
    z = torch.randn(50, 3)
    torch.testing.assert_close(reference_tasks.log_p_of_ordered(z), cumulative_log_p(z), rtol=1e-4, atol=1e-5)


def test_a_batch_without_a_label_of_a_task_has_no_loss_of_it() -> None:
    z, nobody = torch.randn(4, 3, requires_grad=True), torch.zeros(4, dtype=torch.bool)
    tasks = {"a": reference_tasks.TASKS["Classes"]}
    losses, metrics = reference.losses_of(tasks, {"a": z}, {"a": torch.zeros(4).long()}, {"a": nobody})
    losses["a"].backward()
    assert (losses["a"].item(), metrics["a"].item()) == (0, 0)
    assert z.grad is not None
    assert z.grad.abs().sum() == 0


def test_the_floor_multiplies_by_every_weight_of_the_towers(trainer: Trainer) -> None:
    weights = [
        p
        for name, p in trainer.built.model.named_parameters()
        if p.ndim > 1 and name.startswith("trunk.towers.")
    ]
    maps = floor.maps_of(trainer)
    assert [each.weight.numel() for each in maps] == [p.numel() for p in weights]
    for each in maps:
        (gradient,) = torch.autograd.grad(each().square().sum(), [each.weight])
        assert (gradient != 0).float().mean() > 0.999
    assert [each.x.requires_grad for each in maps] == [False] + [True] * (len(maps) - 1)


def test_the_floor_takes_a_step() -> None:
    trainer, _ = prepare(cases.customers(ROWS))
    loop = floor.steps_of(trainer)
    assert [next(loop) for _ in range(2)] == [None, None]
