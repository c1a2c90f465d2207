"""A trainer's state as files of a checkpoint, and back to the same bits (Q7, K9)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from mtl.build import build
from mtl.dataset.assemble import load_dataset
from mtl.errors import NotFinite, UserError
from mtl.experiment.trial import build_and_try
from mtl.model.weighting import Weighting
from mtl.runs import state as states
from mtl.runs.checkpoint import commit, verified
from mtl.runs.disk import pieces
from mtl.runs.json_text import canonical_json, strict_json
from mtl.runs.state import METER, MODEL, OPTIMIZER, STATE, WEIGHTING, load_weights
from mtl.training.events import Stepped
from mtl.training.loop import fit
from mtl.training.trainer import Trainer
from tests.support.listening import epochs_of
from tests.support.recipes import linear, recipe, stitched

OPTIMIZERS = {
    "adam": {"kind": "adam", "lr": 0.01},
    "adamw": {"kind": "adamw", "lr": 0.01},
    "momentum": {"kind": "sgd", "lr": 0.01, "momentum": 0.9},
    "plain": {"kind": "sgd", "lr": 0.01},
}


def trainer_of(optimizer: str = "adam", **train: Any) -> Trainer:
    checked = recipe(
        model__sharing=stitched("fc1"),
        model__backbone__stages=linear(6),
        optimizer=OPTIMIZERS[optimizer],
        train={"epochs": 2, "batch_size": 10, "device": "cpu", **train},
    )
    _built, header = build_and_try(checked)
    dataset = load_dataset(checked, header)
    return Trainer.create(checked, build(checked, dataset.header, dataset.learned), dataset)


def capture(trainer: Trainer, offsets: Mapping[str, int]) -> dict[str, bytes]:
    """What `state.capture` gives, as bytes: the trainer may go on."""
    return {name: b"".join(pieces(content)) for name, content in states.capture(trainer, offsets).items()}


@pytest.fixture
def on_disk(tmp_path: Path) -> OnDisk:
    return OnDisk(tmp_path)


class OnDisk:
    """Puts files of a checkpoint on the disk, under new names each time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0

    def __call__(self, files: Mapping[str, bytes]) -> dict[str, Path]:
        self.number += 1
        paths = {name: self.folder / f"{self.number}-{name}" for name in files}
        for name, data in files.items():
            paths[name].write_bytes(data)
        return paths


@pytest.fixture
def restore(on_disk: OnDisk) -> Restore:
    return lambda trainer, files: states.restore(trainer, on_disk(files))


Restore = Callable[[Trainer, Mapping[str, bytes]], dict[str, int]]


def test_what_is_captured() -> None:
    trainer = trainer_of()
    next(epochs_of(trainer))
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
def test_load_and_save_give_the_same_bytes(optimizer: str, epochs: int, restore: Restore) -> None:
    one, two = trainer_of(optimizer), trainer_of(optimizer)
    if epochs:
        for _, _ in zip(range(epochs), epochs_of(one), strict=False):
            pass
    files = capture(one, {"metrics.jsonl": 5})
    assert restore(two, files) == {"metrics.jsonl": 5}
    assert two.progress == one.progress
    assert capture(two, {"metrics.jsonl": 5}) == files


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_restored_trainer_goes_on_with_the_same_bits(optimizer: str, restore: Restore) -> None:
    one, two = trainer_of(optimizer), trainer_of(optimizer)
    training = epochs_of(one)
    next(training)
    restore(two, capture(one, {}))
    next(training)
    rows = [epoch.rows for epoch in epochs_of(two)]
    assert len(rows) == 1
    assert capture(two, {}) == capture(one, {})


def test_capture_and_restore_draw_nothing_and_share_nothing(restore: Restore) -> None:
    trainer, other = trainer_of(), trainer_of()
    next(epochs_of(trainer))
    before = torch.get_rng_state()
    files = capture(trainer, {})
    restore(other, files)
    assert torch.equal(before, torch.get_rng_state())
    weights = dict(other.built.model.state_dict())
    for name, value in trainer.built.model.state_dict().items():
        assert value.data_ptr() != weights[name].data_ptr()


def test_moments_take_the_layout_of_their_parameters(restore: Restore) -> None:
    """A moment in another layout would run another kernel than in the run that never stopped."""
    one, two = trainer_of(), trainer_of()
    next(epochs_of(one))
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


NAME = "trunk.towers.stages.fc1.map.weight"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({NAME: None}, f"lacks '{NAME}'"),
        ({"other.weight": torch.zeros(1)}, "has unknown 'other.weight'"),
        ({NAME: torch.zeros(3, 16)}, rf"'{NAME}' is \(3, 16\), the recipe's is \(12, 16\)"),
    ],
)
def test_weights_of_another_model_are_refused_as_a_whole(
    changes: dict[str, Any], text: str, on_disk: OnDisk
) -> None:
    one, two = trainer_of(), trainer_of()
    next(epochs_of(one))
    before = {name: value.clone() for name, value in two.built.model.state_dict().items()}
    with pytest.raises(UserError, match=text):
        load_weights(two.built.model, on_disk(spoiled(capture(one, {}), **changes)))
    assert all(torch.equal(v, before[n]) for n, v in two.built.model.state_dict().items())


def test_another_dtype_is_refused(on_disk: OnDisk) -> None:
    trainer = trainer_of()
    with pytest.raises(UserError, match="is float64, the recipe's is float32"):
        load_weights(
            trainer.built.model,
            on_disk(spoiled(capture(trainer, {}), **{NAME: torch.zeros(12, 16).double()})),
        )


@pytest.mark.parametrize("name", [MODEL, OPTIMIZER, WEIGHTING])
def test_what_is_no_safetensors_file(name: str, restore: Restore) -> None:
    trainer = trainer_of()
    files = capture(trainer, {})
    for data in (b"", b"garbage", b"\xff" * 100, files[name][:-1] if len(files[name]) > 20 else b"\x01"):
        with pytest.raises(UserError, match=f"{name}: cannot be read"):
            restore(trainer_of(), {**files, name: data})


def test_optimizer_state_of_another_model_is_refused(restore: Restore) -> None:
    """A parameter without its moments would silently start afresh."""
    trainer = trainer_of()
    next(epochs_of(trainer))
    files = capture(trainer, {})
    tensors = load_tensors(files[OPTIMIZER])
    lacking = {name: tensor for name, tensor in tensors.items() if not name.startswith(NAME)}
    extra = {**tensors, "other.weight::exp_avg": torch.zeros(1)}
    for wrong in (lacking, extra):
        with pytest.raises(UserError, match=OPTIMIZER):
            restore(trainer_of(), {**files, OPTIMIZER: save_tensors(wrong)})


MOMENTS = {"adam": 3, "adamw": 3, "momentum": 1, "plain": 0}
"""How many things torch remembers of each parameter: step, exp_avg, exp_avg_sq; momentum_buffer; nothing."""


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_moments_are_checked_before_the_first_step(optimizer: str, restore: Restore) -> None:
    trainer = trainer_of(optimizer)
    next(epochs_of(trainer))
    files = capture(trainer, {})
    tensors = load_tensors(files[OPTIMIZER])
    parameters = [name for group in trainer.optimizer.param_groups for name in group["names"]]
    assert len(tensors) == MOMENTS[optimizer] * len(parameters)

    def told(changed: dict[str, torch.Tensor]) -> str:
        fresh = trainer_of(optimizer)
        with pytest.raises(UserError) as caught:
            restore(fresh, {**files, OPTIMIZER: save_tensors(changed)})
        assert fresh.progress.step == 0, "nothing of the trainer changed"
        assert not fresh.optimizer.state
        return str(caught.value)

    unknown = {f"{NAME}::exp_{i}": torch.zeros(()) for i in range(7)}
    names = ", ".join(f"'{NAME}::exp_{i}'" for i in range(5))
    assert told({**tensors, **unknown}) == f"{OPTIMIZER}: has unknown {names}"
    for key in {name.partition("::")[2] for name in tensors}:
        full = f"{NAME}::{key}"
        assert told({k: v for k, v in tensors.items() if k != full}) == f"{OPTIMIZER}: lacks '{full}'"
        value = tensors[full]
        text = told({**tensors, full: value.double()})
        assert text == f"{OPTIMIZER}: '{full}' is float64, the recipe's is float32"
        text = told({**tensors, full: torch.zeros(7)})
        assert text == f"{OPTIMIZER}: '{full}' is (7,), the recipe's is {tuple(value.shape)}"
        without = {k: v for k, v in tensors.items() if not k.endswith(f"::{key}")}
        named = ", ".join(f"'{name}'" for name in sorted(set(tensors) - set(without))[:5])
        assert told(without) == f"{OPTIMIZER}: lacks {named}"
    if tensors:
        assert told({}).startswith(f"{OPTIMIZER}: lacks '")


def test_nothing_is_remembered_before_the_first_step_that_was_taken(restore: Restore) -> None:
    fresh = trainer_of()
    files = capture(fresh, {})
    assert load_tensors(files[OPTIMIZER]) == {}
    restore(trainer_of(), files)
    fresh.progress.step = fresh.progress.skipped = 3
    restore(trainer_of(), capture(fresh, {}))
    fresh.progress.skipped = 2
    with pytest.raises(UserError, match=r"optim\.safetensors: lacks "):
        restore(trainer_of(), capture(fresh, {}))


def test_steps_skipped_in_a_row_are_counted_over_a_resume(restore: Restore) -> None:
    """Else a run that was stopped goes on for longer than one that was not before it gives up."""

    def hopeless() -> Trainer:
        trainer = trainer_of(epochs=10, on_nonfinite="skip")
        trainer.dataset.rows.inputs.fill_(torch.inf)
        return trainer

    one, two = hopeless(), hopeless()
    training = epochs_of(one)
    next(training)
    restore(two, capture(one, {}))
    for trainer, rest in ((one, training), (two, epochs_of(two))):
        with pytest.raises(NotFinite):
            list(rest)
        assert trainer.progress.skipped == 11


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("steps", [1, 3])
def test_load_and_save_within_an_epoch_give_the_same_bytes(
    optimizer: str, steps: int, restore: Restore
) -> None:
    """Q7, with what has been measured of the epoch under way."""

    trainer = trainer_of(optimizer)
    next(event for event in fit(trainer) if isinstance(event, Stepped) and event.step == steps)
    files = capture(trainer, {"metrics.jsonl": 5})
    assert METER in files
    assert len(files[METER]) > 500
    other = trainer_of(optimizer)
    assert restore(other, files) == {"metrics.jsonl": 5}
    assert (other.progress.step, other.progress.step_in_epoch) == (steps, steps)
    assert capture(other, {"metrics.jsonl": 5}) == files


def test_a_weighting_of_other_tensors_is_refused_and_nothing_is_loaded(restore: Restore) -> None:
    trainer, other = trainer_of(), trainer_of()
    next(epochs_of(trainer))
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
    class Remembering(Weighting):
        def __init__(self) -> None:
            super().__init__((1.0, 1.0))
            self.register_buffer("last", torch.ones(2))

        def forward(self, losses_N: torch.Tensor, seen_N: torch.Tensor) -> torch.Tensor:
            self.last.copy_(losses_N.detach())
            return losses_N.sum() * float("nan")

    trainer = trainer_of(on_nonfinite="skip", max_steps=2, epochs=None)
    trainer.weighting = Remembering()
    list(epochs_of(trainer))
    assert trainer.progress.skipped == 2
    assert trainer.weighting.last.tolist() == [1.0, 1.0]


def test_bytes_are_those_of_the_state_when_they_are_written() -> None:
    """Nothing is copied before: a checkpoint takes no more memory than its largest piece."""
    trainer = trainer_of()
    next(epochs_of(trainer))
    files = states.capture(trainer, {})
    assert not any(isinstance(files[name], bytes) for name in (MODEL, OPTIMIZER, WEIGHTING))
    with torch.no_grad():
        trainer.optimizer.param_groups[0]["params"][0].fill_(2.5)
    (values,) = (
        t for n, t in load_tensors(b"".join(pieces(files[MODEL]))).items() if n == first_name(trainer)
    )
    assert (values == 2.5).all()


def first_name(trainer: Trainer) -> str:
    return str(trainer.optimizer.param_groups[0]["names"][0])


def test_files_are_those_of_safetensors() -> None:
    """The bytes on disk of every release: names in order, of each width."""
    trainer = trainer_of()
    next(epochs_of(trainer))
    files = capture(trainer, {})
    assert files[MODEL] == save_tensors(dict(sorted(trainer.built.model.state_dict().items())))
    moments = {
        f"{name}::{key}": value
        for group in trainer.optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
        for key, value in trainer.optimizer.state[parameter].items()
    }
    assert len(moments) >= 12
    assert files[OPTIMIZER] == save_tensors(moments)


def test_a_restored_trainer_leaves_its_files_alone(tmp_path: Path) -> None:
    """What was read is in memory of its own: retention deletes the files while the run goes on."""
    one, two, three = trainer_of(), trainer_of(), trainer_of()
    next(epochs_of(one))
    path = commit(tmp_path, 4, states.capture(one, {}), "run")
    for trainer in (two, three):
        states.restore(trainer, verified(path))
    for file in path.iterdir():
        file.write_bytes(b"\xff" * file.stat().st_size)
        file.unlink()
    for trainer in (two, three):
        assert [epoch.is_last for epoch in epochs_of(trainer)] == [True]
    assert capture(two, {}) == capture(three, {})
    moments = two.optimizer.state[two.optimizer.param_groups[0]["params"][0]]
    assert moments["exp_avg"].data_ptr() != moments["exp_avg_sq"].data_ptr()


@pytest.mark.parametrize("name", [MODEL, OPTIMIZER, WEIGHTING, STATE])
def test_a_file_that_is_gone_is_one_line(name: str, on_disk: OnDisk) -> None:
    """Retention of a run that goes on may delete what `mtl predict` has just found good."""
    trainer = trainer_of()
    paths = on_disk(capture(trainer, {}))
    paths[name].unlink()
    with pytest.raises(UserError) as caught:
        states.restore(trainer_of(), paths)
    assert caught.value.place == name
    assert "No such file" in caught.value.what
