"""A few steps are stopped and resumed before a run whose recipe has a user's own parts.

A part may remember something that no checkpoint holds: in a plain attribute, in a random generator of its own, in a
global. A resumed run would then go on to other numbers without a word. Its types do not show this, but its numbers do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from mtl.contracts import called
from mtl.errors import NotFinite, UserError, quoted
from mtl.experiment.rehearsal.journal import Journal
from mtl.recipe.base import Spec
from mtl.recipe.keys.recipe import Recipe
from mtl.runs.disk import write_new
from mtl.runs.state import capture, restore
from mtl.training.step import train_step
from mtl.training.trainer import Trainer

BEFORE, AFTER, EPOCH = 5, 2, 2
"""So many steps before the stop and after it; an epoch is so short that a weighting sees two of them end before it."""
ROWS = 32
OURS = ("mtl", "tasks")
"""The packages whose parts are resumed in mtl's own tests."""


def has_own_parts(recipe: Recipe) -> bool:
    """Whether a part of the training is none of mtl's own."""
    training = (
        recipe.model,
        recipe.weighting,
        recipe.optimizer,
        recipe.schedule,
        *recipe.tasks.values(),
    )
    return any(type(spec).__module__.split(".")[0] not in OURS for part in training for spec in _specs(part))


def _specs(value: Any) -> Iterator[Spec]:
    if isinstance(value, Spec):
        yield value
    inner: Any = ()
    if hasattr(type(value), "model_fields"):
        inner = [getattr(value, name) for name in type(value).model_fields]
    elif isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, list | tuple):
        inner = value
    for part in inner:
        yield from _specs(part)


def require_resumable(new_trainer: Callable[[], Trainer]) -> None:
    """Train a few steps, save, and go on twice: with the same trainer, and with a new one that reads what was saved.

    Both must compute the same: bit for bit on a CPU, to 1e-3 on another device. Only one trainer is in memory at a
    time. A loss that is not finite ends the comparison without a verdict, since the run itself will say so.

    Args:
        new_trainer: builds a trainer at the start of the run.

    Raises:
        UserError: the numbers differ; the error names the class and method that gave the first of them.
    """
    with TemporaryDirectory(prefix="mtl-") as folder, suppress(NotFinite):
        files, undisturbed = _stopped(new_trainer(), Path(folder))
        trainer = new_trainer()
        recipe = trainer.recipe
        try:
            restore(trainer, files, allow_nonfinite=True)
        except UserError as error:
            what = f"after {BEFORE} steps a checkpoint does not fit a new network: {error}"
            raise UserError("", what, "register every buffer in __init__, in its final shape") from None
        resumed = Journal(trainer)
        _train(trainer, AFTER, resumed)
        if fault := undisturbed.first_difference(resumed):
            with recipe.at(*fault.path):
                differs = f"{fault.maker} {fault.verb} other numbers after a stop and a resume"
                todo = "keep it in parameters and in buffers (register_buffer), and draw with torch's global generator"
                raise UserError("", f"{differs}: no checkpoint holds all that it remembers", todo)


def _stopped(trainer: Trainer, folder: Path) -> tuple[dict[str, Path], Journal]:
    """The files of a checkpoint after `BEFORE` steps, and what the trainer computes in the steps after it."""
    _train(trainer, BEFORE)
    _require_tensors(trainer)
    files = {}
    for name, content in capture(trainer, {}).items():
        files[name] = folder / name
        write_new(files[name], content)
    journal = Journal(trainer)
    _train(trainer, AFTER, journal)
    return files, journal


def _require_tensors(trainer: Trainer) -> None:
    """Refuse state that is offered to a checkpoint but is no tensor.

    Raises:
        UserError: a module or the optimizer has such state.
    """
    offered = [
        ("model", trainer.built.model, trainer.built.model.state_dict()),
        ("weighting", trainer.weighting, trainer.weighting.state_dict()),
        *(("optimizer", trainer.optimizer, state) for state in trainer.optimizer.state.values()),
    ]
    for key, owner, state in offered:
        for name, value in state.items():
            if value is not None and not isinstance(value, Tensor):
                with trainer.recipe.at(key):
                    what = f"the state {quoted(name)} of {type(owner).__name__} is {called(value)}"
                    raise UserError("", what, "keep it in a tensor, which a checkpoint can hold")


def _train(trainer: Trainer, n_steps: int, journal: Journal | None = None) -> None:
    """Steps of few rows, in epochs of `EPOCH` steps."""
    progress, weighting = trainer.progress, trainer.weighting
    trainer.network = trainer.built.model  # not the compiled one, which is made for batches of one size
    trainer.built.model.train()
    n_parts = min(trainer.recipe.train.accumulate, max(2, weighting.batches))
    for _ in range(n_steps):
        trainer.meter = trainer.meter or trainer.new_meter()
        parts = [rows[:ROWS] for rows in islice(trainer.sampler.batches(progress.step), n_parts)]
        train_step(trainer, parts, trainer.meter)
        progress.step += 1
        progress.step_in_epoch += 1
        values = trainer.meter.values("train")
        if journal is not None:
            journal.take_step(trainer, values)
        if progress.step_in_epoch == EPOCH:
            weighting.after_epoch(*trainer.meter.losses())
            progress.epoch, progress.step_in_epoch, trainer.meter = progress.epoch + 1, 0, None
