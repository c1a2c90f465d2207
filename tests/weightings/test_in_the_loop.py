"""Weightings inside training steps: what they see after a step, and what an optimizer may not move.

Shapes: N tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtl.experiment.run import prepare
from mtl.training.step import train_step
from mtl.training.trainer import Trainer
from tests.support.recipes import classes, linear, recipe, stitched

ROWS = 40


@pytest.fixture
def trainer_of(tmp_path: Any) -> Callable[..., Trainer]:
    """A trainer of two tasks with batch norm and dropout; rows 20 to 39 have no label of `b`."""

    def make(weighting: dict[str, Any], **changes: Any) -> Trainer:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(ROWS * 2, 5)).astype(np.float32)
        b = (x[:, 1] > 0).astype(np.float64)
        b[20:ROWS] = np.nan
        np.savez(
            tmp_path / "rows.npz", inputs=x, a=(x[:, 0] > 0).astype(np.int64), b=b,
            split=np.array(["train"] * ROWS + ["test"] * ROWS),
        )  # fmt: skip
        tasks = {
            "a": {"kind": "multiclass", "target": "a"},
            "b": {"kind": "binary", "target": "b", "missing": "mask"},
        }
        source = {"kind": "npz", "path": str(tmp_path / "rows.npz")}
        given: dict[str, Any] = {
            "data": {"source": source, "split": {"column": "split"}}, "tasks": tasks, "weighting": weighting,
            "model__backbone": {"kind": "layers", "norm": {"kind": "batch"}, "stages": linear(6)},
            "model__sharing": stitched("fc1"), "model__head": {"dropout": 0.5},
            "optimizer": {"kind": "adamw", "lr": 0.1, "weight_decay": 0.1}, "train__batch_size": 20,
        }  # fmt: skip
        return prepare(recipe(**(given | changes)))[0]

    return make


def step(trainer: Trainer, first: int) -> None:
    trainer.built.model.train()
    train_step(trainer, [np.arange(first, first + 20)], trainer.new_meter())
    trainer.progress.step += 1


def test_the_losses_after_a_step_are_those_of_the_same_rows_and_the_same_dropout(
    trainer_of: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without learning they are the losses before it, bit for bit, and the norms' statistics have moved once."""
    trainer = trainer_of({"kind": "famo"}, optimizer={"kind": "sgd", "lr": 1e-30})
    found: list[tuple[Tensor, Tensor]] = []
    after_step = type(trainer.weighting).after_step

    def spy(self: Any, losses_N: Tensor, seen_N: Tensor, losses_of: Callable[[], Tensor]) -> None:
        buffers = [buffer.clone() for buffer in trainer.built.model.buffers()]
        found.append((losses_N, losses_of()))
        assert all(torch.equal(a, b) for a, b in zip(buffers, trainer.built.model.buffers(), strict=True))
        after_step(self, losses_N, seen_N, losses_of)

    monkeypatch.setattr(type(trainer.weighting), "after_step", spy)
    step(trainer, 0)
    step(trainer, 0)
    assert len(found) == 2
    for before, after in found:
        assert torch.equal(before, after)
    assert not torch.equal(found[0][0], found[1][0])  # another step has another dropout
    counts = [b for name, b in trainer.built.model.named_buffers() if name.endswith("num_batches_tracked")]
    assert [int(count.max()) for count in counts] == [2] * len(counts)
    assert counts


def test_famo_moves_its_logits_by_what_a_step_did(trainer_of: Callable[..., Trainer]) -> None:
    trainer = trainer_of({"kind": "famo"})
    step(trainer, 0)
    logits_N = trainer.weighting.get_buffer("logits")
    assert logits_N.abs().max().item() == pytest.approx(0.025, rel=1e-3)  # the first step of Adam is its rate
    assert logits_N.sum().item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", ["uncertainty", "imtl_l"])
def test_an_optimizer_does_not_move_the_number_of_an_absent_task(
    kind: str, trainer_of: Callable[..., Trainer]
) -> None:
    """Momentum and decay would; when the task comes back, its memory is what it was."""
    trainer = trainer_of({"kind": kind})
    step(trainer, 0)
    (own,) = trainer.weighting.parameters()
    state = trainer.optimizer.state[own]
    before = {name: value.clone() for name, value in (("value", own.detach()), *state.items())}
    assert before["value"].abs().min() > 0
    step(trainer, 20)
    now = {"value": own.detach(), **state}
    for name in ("value", "exp_avg", "exp_avg_sq"):
        assert now[name][0] != before[name][0], name
        assert now[name][1] == before[name][1], name
    step(trainer, 0)
    assert own[1] != before["value"][1]


@pytest.mark.parametrize("kind", ["gls", "famo", "gradnorm", "db_mtl", "uncertainty", "imtl_l"])
def test_a_logarithm_of_a_loss_that_is_not_positive_is_refused(
    kind: str, trainer_of: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl.errors import UserError
    from mtl.experiment.rehearsal.first_rows import _require_positive

    trainer = trainer_of({"kind": kind})
    _require_positive(trainer, torch.tensor([0.5, 0.1]))
    with pytest.raises(UserError, match=rf"{kind} needs positive losses, and that of task 'b' is -0.1"):
        _require_positive(trainer, torch.tensor([0.5, -0.1]))


def test_a_weighting_that_looks_at_whole_steps_is_refused_for_steps_of_parts() -> None:
    from mtl.errors import UserError

    with pytest.raises(UserError, match="weighting famo needs the losses of the whole step at once"):
        recipe(tasks=classes("ab"), weighting={"kind": "famo"}, train__accumulate=2)


def test_a_weighting_that_is_slow_for_so_many_tasks_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    many = [f"t{i}" for i in range(33)]
    slow = "warning: upgrad takes 50 ms a step to combine the gradients of 32 tasks, and longer for 33; "
    for tasks, wanted in ((many, 1), (many[:32], 0)):
        made = recipe(
            tasks={t: {"kind": "multiclass", "target": "task0"} for t in tasks},
            weighting={"kind": "upgrad"}, model__towers="one", model__sharing={"kind": "none"},
        )  # fmt: skip
        trainer = prepare(made)[0]
        assert sum(f"warning: {line}".startswith(slow) for line in trainer.notices) == wanted


def test_a_step_with_too_few_rows_for_independent_batches_is_refused() -> None:
    from mtl.errors import UserError
    from mtl.experiment.run import prepare
    from mtl.recipe.load import load_recipe

    given = ["weighting.kind=modo", "data.source.labelled={}", "train.batch_size=3"]
    with pytest.raises(UserError) as caught:
        prepare(load_recipe("synthetic_stitch", given))
    what = "train.batch_size: modo parts a step into 2 batches of at least 2 rows, and a step has 3"
    assert str(caught.value).endswith(f"{what}; take 4 rows or more, or set train.accumulate to 2")
    prepare(load_recipe("synthetic_stitch", [*given, "train.accumulate=2"]))


def test_validate_refuses_what_a_run_refuses_for_its_rows(capsys: pytest.CaptureFixture[str]) -> None:
    from mtl.cli import main
    from mtl.errors import OK, USER

    given = [
        "synthetic_stitch",
        "weighting.kind=gradvac",
        "data.source.rows=400",
        "data.source.test_rows=100",
    ]
    assert main(["validate", *given]) == OK  # no row was read
    assert main(["validate", "--data", *given]) == USER
    said = capsys.readouterr().err
    assert "weighting.kind: gradvac remembers all tasks together, and task 'scarce' has labels in " in said
    assert " of 400 training rows; take a kind without such a memory, as upgrad or pcgrad" in said
