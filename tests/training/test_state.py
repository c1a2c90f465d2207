"""A trainer's state as files, and back to the same bits (Q7, K9)."""

from typing import Any

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from mtl.build import build
from mtl.errors import NotFinite, UserError
from mtl.recipe.load import load_recipe
from mtl.training.checkpoint import canonical_json, strict_json
from mtl.training.dataset import load_dataset
from mtl.training.fit import Trainer, fit
from mtl.training.state import METER, MODEL, OPTIMIZER, STATE, WEIGHTING, capture, load_weights, restore
from mtl.trial import build_and_try

OPTIMIZERS = {
    "adam": {"kind": "adam", "lr": 0.01},
    "adamw": {"kind": "adamw", "lr": 0.01},
    "momentum": {"kind": "sgd", "lr": 0.01, "momentum": 0.9},
    "plain": {"kind": "sgd", "lr": 0.01},
}


def trainer_of(optimizer: str = "adam", **train: Any) -> Trainer:
    stages: list[dict[str, Any]] = [{"name": "fc1", "kind": "linear", "features": 6}]
    recipe = load_recipe(
        {
            "schema_version": 1,
            "name": "small",
            "data": {"source": {"kind": "synthetic", "rows": 40, "test_rows": 10, "features": 16}},
            "task_defaults": {"kind": "multiclass"},
            "tasks": {"a": {"target": "task0"}, "b": {"target": "task1"}},
            "model": {
                "backbone": {"kind": "layers", "stages": stages},
                "sharing": {"kind": "cross_stitch", "after": ["fc1"]},
            },
            "optimizer": OPTIMIZERS[optimizer],
            "train": {"epochs": 2, "batch_size": 10, "device": "cpu", **train},
        }
    )
    _built, header = build_and_try(recipe)
    dataset = load_dataset(recipe, header)
    return Trainer.create(recipe, build(recipe, dataset.header, dataset.learned), dataset)


def test_what_is_captured() -> None:
    trainer = trainer_of()
    next(fit(trainer))
    files = capture(trainer, {"metrics.jsonl": 17})
    assert set(files) == {MODEL, OPTIMIZER, WEIGHTING, STATE}
    state = strict_json(files[STATE])
    assert state["position"] == {"epoch": 1, "step_in_epoch": 0, "global_step": 4}
    assert state["progress"]["horizon"] == 8
    assert state["offsets"] == {"metrics.jsonl": 17}
    assert canonical_json(state) == files[STATE]
    model = trainer.built.model
    assert load_tensors(files[MODEL]).keys() == model.state_dict().keys()
    names = {
        f"{name}::{key}" for name, _ in model.named_parameters() for key in ("exp_avg", "exp_avg_sq", "step")
    }
    assert load_tensors(files[OPTIMIZER]).keys() == names


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_load_and_save_give_the_same_bytes(optimizer: str, epochs: int) -> None:
    one, two = trainer_of(optimizer), trainer_of(optimizer)
    if epochs:
        for _, _ in zip(range(epochs), fit(one), strict=False):
            pass
    files = capture(one, {"metrics.jsonl": 5})
    assert restore(two, files) == {"metrics.jsonl": 5}
    assert two.progress == one.progress
    assert capture(two, {"metrics.jsonl": 5}) == files


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_restored_trainer_goes_on_with_the_same_bits(optimizer: str) -> None:
    one, two = trainer_of(optimizer), trainer_of(optimizer)
    training = fit(one)
    next(training)
    restore(two, capture(one, {}))
    next(training)
    rows = [epoch.rows for epoch in fit(two)]
    assert len(rows) == 1
    assert capture(two, {}) == capture(one, {})


def test_capture_and_restore_draw_nothing_and_share_nothing() -> None:
    trainer, other = trainer_of(), trainer_of()
    next(fit(trainer))
    before = torch.get_rng_state()
    files = capture(trainer, {})
    restore(other, files)
    assert torch.equal(before, torch.get_rng_state())
    weights = dict(other.built.model.state_dict())
    for name, value in trainer.built.model.state_dict().items():
        assert value.data_ptr() != weights[name].data_ptr()


def test_moments_take_the_layout_of_their_parameters() -> None:
    """A moment in another layout would run another kernel than in the run that never stopped."""
    one, two = trainer_of(), trainer_of()
    next(fit(one))
    parameter = two.optimizer.param_groups[0]["params"][0]
    parameter.data = parameter.data.t().contiguous().t()
    restore(two, capture(one, {}))
    state = two.optimizer.state[parameter]
    assert state["exp_avg"].stride() == parameter.stride()
    assert torch.equal(
        state["exp_avg"], one.optimizer.state[one.optimizer.param_groups[0]["params"][0]]["exp_avg"]
    )


def spoiled(files: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    """The files with tensors of the model replaced, added or (None) removed."""
    tensors = {**load_tensors(files[MODEL]), **changes}
    return {**files, MODEL: save_tensors({name: t for name, t in tensors.items() if t is not None})}


NAME = "towers.stages.fc1.map.weight"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({NAME: None}, f"lacks '{NAME}'"),
        ({"other.weight": torch.zeros(1)}, "has unknown 'other.weight'"),
        ({NAME: torch.zeros(3, 16)}, rf"'{NAME}' is \(3, 16\), the recipe's is \(12, 16\)"),
    ],
)
def test_weights_of_another_model_are_refused_as_a_whole(changes: dict[str, Any], text: str) -> None:
    one, two = trainer_of(), trainer_of()
    next(fit(one))
    before = {name: value.clone() for name, value in two.built.model.state_dict().items()}
    with pytest.raises(UserError, match=text):
        load_weights(two.built.model, spoiled(capture(one, {}), **changes))
    assert all(torch.equal(v, before[n]) for n, v in two.built.model.state_dict().items())


def test_another_dtype_is_refused() -> None:
    trainer = trainer_of()
    with pytest.raises(UserError, match="is float64, the recipe's is float32"):
        load_weights(
            trainer.built.model, spoiled(capture(trainer, {}), **{NAME: torch.zeros(12, 16).double()})
        )


@pytest.mark.parametrize("name", [MODEL, OPTIMIZER, WEIGHTING])
def test_what_is_no_safetensors_file(name: str) -> None:
    trainer = trainer_of()
    files = capture(trainer, {})
    for data in (b"", b"garbage", b"\xff" * 100, files[name][:-1] if len(files[name]) > 20 else b"\x01"):
        with pytest.raises(UserError, match=f"{name}: cannot be read"):
            restore(trainer_of(), {**files, name: data})


def test_optimizer_state_of_another_model_is_refused() -> None:
    """A parameter without its moments would silently start afresh."""
    trainer = trainer_of()
    next(fit(trainer))
    files = capture(trainer, {})
    tensors = load_tensors(files[OPTIMIZER])
    lacking = {name: tensor for name, tensor in tensors.items() if not name.startswith(NAME)}
    extra = {**tensors, "other.weight::exp_avg": torch.zeros(1)}
    for wrong in (lacking, extra):
        with pytest.raises(UserError, match=OPTIMIZER):
            restore(trainer_of(), {**files, OPTIMIZER: save_tensors(wrong)})


def test_steps_skipped_in_a_row_are_counted_over_a_resume() -> None:
    """Else a run that was stopped goes on for longer than one that was not before it gives up."""

    def hopeless() -> Trainer:
        trainer = trainer_of(epochs=10, on_nonfinite="skip")
        trainer.dataset.inputs.fill_(torch.inf)
        return trainer

    one, two = hopeless(), hopeless()
    training = fit(one)
    next(training)
    restore(two, capture(one, {}))
    for trainer, rest in ((one, training), (two, fit(two))):
        with pytest.raises(NotFinite):
            list(rest)
        assert trainer.progress.skipped == 11


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("steps", [1, 3])
def test_load_and_save_within_an_epoch_give_the_same_bytes(optimizer: str, steps: int) -> None:
    """Q7, with what has been measured of the epoch under way."""

    class Stop(Exception):
        pass

    trainer = trainer_of(optimizer)

    def stop(epoch: int, step: int, n_steps: int) -> None:
        if step == steps:
            raise Stop

    trainer.on_step = stop
    with pytest.raises(Stop):
        next(fit(trainer))
    files = capture(trainer, {"metrics.jsonl": 5})
    assert METER in files
    assert len(files[METER]) > 500
    other = trainer_of(optimizer)
    assert restore(other, files) == {"metrics.jsonl": 5}
    assert (other.progress.step, other.progress.step_in_epoch) == (steps, steps)
    assert capture(other, {"metrics.jsonl": 5}) == files


def test_a_weighting_of_other_tensors_is_refused_and_nothing_is_loaded() -> None:
    trainer, other = trainer_of(), trainer_of()
    next(fit(trainer))
    files = capture(trainer, {})
    tensors = load_tensors(files[WEIGHTING])
    files[WEIGHTING] = save_tensors({**tensors, "stranger": torch.zeros(2)})
    before = {name: value.clone() for name, value in other.built.model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        restore(other, files)
    assert str(caught.value) == "weighting.safetensors: has unknown 'stranger'"
    assert all(torch.equal(value, before[name]) for name, value in other.built.model.state_dict().items())
    assert other.progress.step == 0


def test_a_skipped_step_leaves_no_trace_in_the_weighting() -> None:
    class Remembering(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("last", torch.ones(2))

        def forward(self, losses_N: torch.Tensor) -> torch.Tensor:
            self.last.copy_(losses_N.detach())
            return losses_N.sum() * float("nan")

    trainer = trainer_of(on_nonfinite="skip", max_steps=2, epochs=None)
    trainer.weighting = Remembering()
    list(fit(trainer))
    assert trainer.progress.skipped == 2
    assert trainer.weighting.last.tolist() == [1.0, 1.0]
